"""A folder is written to by one process at a time; readers are never asked."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ldm_privacy.errors import UserError

log = logging.getLogger("ldm_privacy")

_held: set[Path] = set()
"""Folders that this process writes to."""


@contextmanager
def writing(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Inside, no other process that asks writes to that folder; one that this process holds already is held on.

    The system holds the lock (`flock`, over NFS too) and lets go of it when the process ends, however it ends; programs and
    processes that it started don't keep it. So none is ever stale: `.lock` is left behind and means nothing by itself;
    `.lock.json` says who held it last. A file system without locks is said to be one, and nothing is locked there.

    Args:
        folder: Made where it isn't there.
        wait: For another process, which is said, instead of refusing.

    Raises:
        UserError: Another process writes to it (named, with its host and since when); it can't be written to.
    """
    place = folder.resolve()
    if place in _held:
        yield
        return
    lock, holder = FileLock(place / ".lock", fallback_to_soft=False), place / ".lock.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0.2)  # in which one that was a moment earlier says who it is
        except Timeout:
            if not wait:
                raise UserError(f"{folder}: {_said_of(holder)}.") from None
            log.info("%s: %s. Waiting for it.", folder, _said_of(holder))
            lock.acquire()
        me = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        holder.write_text(json.dumps(me))
    except (OSError, NotImplementedError) as error:
        lock.release()
        if getattr(error, "errno", None) not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, None):
            raise UserError(f"{folder}: can't be written to ({getattr(error, 'strerror', error)}).") from None
        log.warning("%s can't be locked (%s): see to it that no other process writes to it.", folder, error)
    _held.add(place)
    try:
        yield
    finally:
        _held.discard(place)
        lock.release()


def _said_of(holder: Path) -> str:
    """Who writes, from the file that says it."""
    try:
        found = json.loads(holder.read_text())
        number, host, since = found["process"], found["host"], found["since"]
    except (OSError, ValueError, TypeError, KeyError):
        return "another process is writing to it"
    return f"process {number} on {host} has been writing to it since {since}; wait, or stop it there (kill {number})"


def holder_of(folder: Path) -> Mapping[str, Any] | None:
    """Who writes to a folder now: its `process`, `host` and `since` as far as they are known; None where nobody does."""
    if not (place := folder / ".lock").exists():
        return None
    lock = FileLock(place, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            return dict(json.loads((folder / ".lock.json").read_text()))
        except (OSError, ValueError, TypeError):
            return {}
    except (OSError, NotImplementedError):  # not to be known
        return None
    lock.release()
    return None
