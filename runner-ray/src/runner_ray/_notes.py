"""The journal of this worker process: which calls began and ended, and their last lines; it outlives the process.

The files lie in the folder of the Ray session, which all nodes of one machine share.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from typing import TYPE_CHECKING, Any

from riverrun.workers import JOURNAL_PREFIX, JournalFile, read_journal, sweep_journals

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "riverrun"
"""Below the folder of the Ray session."""


class _NoJournal:
    """Stands for a journal where no file can be written: that costs explanations, and nothing else."""

    def begin(self, key: str) -> None:
        """Do nothing."""

    def end(self, key: str) -> None:
        """Do nothing."""

    def line(self, key: str, text: str) -> None:
        """Do nothing."""


_journal: Any = None


def journal() -> Any:
    """Give the journal of this process."""
    global _journal  # noqa: PLW0603 - one per process
    if _journal is None:
        _journal = _NoJournal()
        with contextlib.suppress(OSError):
            place = folder()
            os.makedirs(place, mode=0o700, exist_ok=True)
            sweep_journals(place)
            _journal = JournalFile(os.path.join(place, f"{JOURNAL_PREFIX}{os.getpid()}-{time.time_ns():x}"))
            _note_exit(_journal.path)
    return _journal


def _note_exit(path: str) -> None:
    """See that a process which ends itself leaves its status beside the journal: Ray does not tell it."""
    leave, own = os._exit, os.getpid()

    def noted(status: int) -> None:
        if os.getpid() != own:  # a child that was forked
            leave(status)
        with contextlib.suppress(OSError), open(path + EXIT, "w", encoding="ascii") as file:
            file.write(str(status))
        leave(status)

    os._exit = noted  # type: ignore[assignment]


EXIT = "-exit"


def folder() -> str:
    """Give the folder of the journals on this machine; to be called in a process that is connected to Ray."""
    import ray

    node: Any = getattr(ray._private.worker, "_global_node", None)  # noqa: SLF001 - there is no public way to it
    if node is not None:
        return os.path.join(node.get_session_dir_path(), FOLDER)
    import tempfile

    return os.path.join(tempfile.gettempdir(), f"riverrun-ray-{os.getuid()}")


def find(key: str, place: str) -> dict[str, Any] | None:
    """Look for the worker process that began a call last; its process may be dead.

    Args:
        key: the call's.
        place: the folder of the journals.

    Returns:
        What is known about it; None if no process of this machine has begun the call.
    """
    for path in sorted(glob.glob(os.path.join(glob.escape(place), f"{JOURNAL_PREFIX}*")), key=_age):
        if path.endswith(EXIT):
            continue
        seen = read_journal(path)
        if seen is not None and seen.started(key):
            import socket

            return {
                "host": socket.gethostname(),
                "pid": _pid(path),
                "lines": seen.lines(key),
                "peak": seen.peak_rss,
                "status": _status(path),
            }
    return None


def _age(path: str) -> float:
    try:
        return -os.stat(path).st_mtime
    except OSError:
        return 0.0


def _status(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open(path + EXIT, encoding="ascii") as file:
        return int(file.read())
    return None


def begun(place: str) -> set[str]:
    """Give the keys of the calls that workers of this machine have begun lately.

    Args:
        place: the folder of the journals.
    """
    keys: set[str] = set()
    for _, seen in _journals(place):
        keys.update(seen.running())
    return keys


def started(keys: list[str], place: str) -> set[str]:
    """Give those of some calls that a worker process of this machine has begun.

    Args:
        keys: the calls'.
        place: the folder of the journals.
    """
    found: set[str] = set()
    for _, seen in _journals(place):
        found.update(key for key in keys if seen.started(key))
    return found


def running(keys: list[str], place: str) -> set[int]:
    """Give the processes of this machine that run some calls.

    Args:
        keys: the calls'.
        place: the folder of the journals.
    """
    return {_pid(path) for path, seen in _journals(place) if not set(keys).isdisjoint(seen.running())}


def _journals(place: str) -> Iterator[tuple[str, Any]]:
    for path in glob.glob(os.path.join(glob.escape(place), f"{JOURNAL_PREFIX}*")):
        seen = None if path.endswith(EXIT) else read_journal(path)
        if seen is not None:
            yield path, seen


def _pid(path: str) -> int:
    return int(os.path.basename(path).removeprefix(JOURNAL_PREFIX).partition("-")[0])
