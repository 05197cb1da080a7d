"""The one exception that a user is meant to read."""

import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: bad key, bad file, bad row.

    The message is complete in itself: it names the file, key or row and says what to do. Entry points print it without a
    traceback and exit with code 2. Library code raises it (or a subclass) instead of `ValueError` wherever the cause is
    something that the user wrote.
    """


def under(key: str, message: str, names: Iterable[str]) -> str:
    """A message with the key that it is about in front, unless it has one; it may begin with one of the names below the key.

    ("audit.masks.x", "keep_fraction: 0 ...", names with "keep_fraction") -> "audit.masks.x.keep_fraction: 0 ...".
    """
    first = message.partition(":")[0]
    if first in names:
        return f"{key}.{message}" if key else message
    return message if not key or re.fullmatch(r"\w+(\.\w+)+", first) else f"{key}: {message}"


class ProcessError(UserError):
    """What one of several processes alone ran into: told by that process, whereas the main one tells what is common to all."""
