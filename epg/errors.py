"""Ends that are no defects."""


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one line, exit code 2.

    The message names the thing, what was found, and what is allowed.
    """


class Terminated(BaseException):
    """SIGTERM came: save and end, as with Ctrl-C, but with exit code 143."""


INTERRUPTIONS = (KeyboardInterrupt, Terminated)
