"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A mistake that the user can mend: bad key, bad file, bad row.

    The message is complete in itself: it names the file, key or row and says what to do. Entry points print it without a
    traceback and exit with code 2. Library code raises it (or a subclass) instead of `ValueError` wherever the cause is
    something that the user wrote.
    """


class ProcessError(UserError):
    """What one of several processes alone ran into: told by that process, whereas the main one tells what is common to all."""
