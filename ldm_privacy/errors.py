"""The one exception that a user is meant to read."""

import re
from collections.abc import Iterable

FIRST_KEYS = ("audit", "autoencoder", "data", "denoiser", "gate", "geometry", "target", "trainer", "wandb", "watch")
"""What a key with a dot begins with, and the name of a file doesn't."""


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
    has_key = re.fullmatch(rf"({'|'.join(FIRST_KEYS)})(\.\w+)+", first)
    return message if not key or has_key else f"{key}: {message}"


def reason_of(error: BaseException) -> str:
    """What a library says: its first line that isn't empty, without a full stop; the kind of error where it says nothing."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


class ProcessError(UserError):
    """What one of several processes alone ran into: told by that process, whereas the main one tells what is common to all."""
