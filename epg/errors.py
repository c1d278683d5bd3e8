"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one line, exit code 2.

    The message names the thing, what was found, and what is allowed.
    """
