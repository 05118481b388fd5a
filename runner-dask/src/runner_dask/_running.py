"""The calls that run in this worker process: known to the plugin that waits for them, and noted in the journal.

The state is the process's: a worker process has one journal, whichever flow runs use it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

from riverrun.workers import JOURNAL_PREFIX, JournalFile, sweep_journals

REMEMBERED = 10_000  # keys of calls that have begun
BARRED = 100_000  # keys of calls that must not begin: Dask takes them away soon after
_lock = threading.Lock()
_running: dict[str, str] = {}  # the worker's address, by key
_leaving: set[str] = set()  # addresses of workers that begin nothing any more
_begun: dict[str, None] = {}  # the keys of the calls that began last, in order
_withdrawn: dict[str, None] = {}
_file: JournalFile | None = None
_users = 0


def begin(key: str, worker: str = "") -> bool:
    """Note that a call begins; what comes next in its thread is the user's function.

    Args:
        key: the Dask key of the call.
        worker: the address of the worker; needed only where several workers share a process.

    Returns:
        Whether it may begin: not if it was withdrawn, or the worker is leaving and the client knows what runs there.
    """
    with _lock:
        if _leaving and (worker in _leaving or not worker):
            return False
        if key in _withdrawn:
            return False
        _running[key] = worker
        _begun[key] = None
        if len(_begun) > 2 * REMEMBERED:
            _keep_few(_begun, REMEMBERED)
        file = _file
    if file is not None:
        file.begin(key)
    return True


def withdraw(key: str) -> bool:
    """See that a call does not begin.

    Args:
        key: the Dask key of the call.

    Returns:
        Whether that is certain: not if it has begun, lately or long ago.
    """
    with _lock:
        if key in _running or key in _begun:
            return False
        _withdrawn[key] = None
        _keep_few(_withdrawn, BARRED)
        return True


def _keep_few(keys: dict[str, None], number: int) -> None:
    while len(keys) > number:
        del keys[next(iter(keys))]


def end(key: str) -> None:
    """Note that a call has ended, and that the client was told how: a worker that leaves waits for this."""
    if (file := _file) is not None:
        file.end(key)
    with _lock:  # others look at all of them
        _running.pop(key, None)


def line(key: str, text: str) -> None:
    """Note a log line or print of a call that runs."""
    if (file := _file) is not None:
        file.line(key, text)


def running(worker: str = "") -> list[str]:
    """The keys of the calls that run now, on one worker of this process or on all."""
    with _lock:
        return [key for key, where in _running.items() if not worker or where in {worker, ""}]


def leave(worker: str) -> list[str]:
    """Begin nothing more on a worker.

    Args:
        worker: its address.

    Returns:
        The keys of the calls that run there now.
    """
    with _lock:
        _leaving.add(worker)
    return running(worker)


def opened(folder: str) -> str:
    """Open the process's journal, or share it if it is open.

    Args:
        folder: the worker's own folder; the file lies beside it.

    Returns:
        The path of the file, or an empty text if none can be written there.
    """
    global _file, _users  # noqa: PLW0603 - one per process
    with _lock:
        _users += 1
        if _file is None:
            beside = os.path.dirname(os.path.abspath(folder))
            sweep_journals(beside)
            with contextlib.suppress(OSError):
                _file = JournalFile(os.path.join(beside, f"{JOURNAL_PREFIX}{os.getpid()}-{time.time_ns():x}"))
                for key in _running:
                    _file.begin(key)
        return _file.path if _file else ""


def closed() -> None:
    """Give the journal up; the last who does removes the file."""
    global _file, _users  # noqa: PLW0603
    with _lock:
        _users = max(0, _users - 1)
        file, _file = (_file, None) if not _users else (None, _file)
    if file is not None:
        file.close()
