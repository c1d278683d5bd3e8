"""Ends that are no defects."""


def printable(text: str) -> str:
    """A line with a ? for every character that would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


class ForeseenError(Exception):
    """An end that one line explains: no traceback."""

    code: int
    """of the process"""


class UserError(ForeseenError):
    """A mistake in a command, a configuration or a file.

    The message names the thing, what was found, and what is allowed.
    """

    code = 2


class RunError(ForeseenError):
    """A run that cannot go on though nothing is wrong with its configuration."""

    code = 1


class Interruption(BaseException):
    """A person or the cluster wants the run to end; `code` is that of the process."""

    code: int
    signal_name: str


class Terminated(Interruption):
    """SIGTERM came: end at once."""

    code = 143
    signal_name = "SIGTERM"


class SaveRequested(Interruption):
    """SIGUSR1 came: what is quick was finished, the rest dropped; to be continued."""

    code = 75
    signal_name = "SIGUSR1"


INTERRUPTIONS = (KeyboardInterrupt, Interruption)
