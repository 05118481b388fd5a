"""Dask's own log records and warnings, silenced where a message of ours says the same to the user, and better."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = (
    "distributed.client",
    "distributed.comm",
    "distributed.core",
    "distributed.deploy.spec",
    "distributed.nanny",
    "distributed.preloading",
    "distributed.scheduler",
    "distributed.utils",
    "distributed.worker",
    "distributed.worker.state_machine",
)
_EMPTY = ("Cluster closed without starting up",)
"""What Dask says about a start that failed, without saying why, on an event loop that nobody knows by then."""
_lock = threading.Lock()


class _Silence(logging.Filter):
    """Drops the records of some threads: those of event loops on which a cluster of ours is starting or ending."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int | None] = []

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self.threads and record.msg not in _EMPTY


_silence = _Silence()


@contextmanager
def quiet_thread(thread: int | None) -> Iterator[None]:
    """Drop what Dask logs in a thread.

    Args:
        thread: the identifier of a thread; None for none.
    """
    with _lock:
        _silence.threads.append(thread)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_silence)  # once, however often it is called
    try:
        yield
    finally:
        with _lock:
            _silence.threads.remove(thread)
            if not _silence.threads:
                for name in _LOGGERS:
                    logging.getLogger(name).removeFilter(_silence)


def quiet_loop(loop: Any) -> Any:
    """Drop what Dask logs on an event loop.

    Args:
        loop: the event loop of a cluster or client, or None.

    Returns:
        A context manager.
    """
    asyncio_loop = getattr(loop, "asyncio_loop", None)
    return quiet_thread(getattr(asyncio_loop, "_thread_id", None))


class _ToldByUs:
    """The filter for Dask's warning about other versions: there while one of our clients connects."""

    def __init__(self) -> None:
        self._connecting = 0
        self._entry: Any = None

    def enter(self) -> None:
        from distributed.versions import VersionMismatchWarning

        with _lock:
            self._connecting += 1
            if self._connecting == 1:
                warnings.filterwarnings("ignore", category=VersionMismatchWarning)
                self._entry = warnings.filters[0]

    def leave(self) -> None:
        with _lock:
            self._connecting -= 1
            if not self._connecting and self._entry in warnings.filters:
                warnings.filters.remove(self._entry)  # type: ignore[attr-defined]  # a list, whatever its stub says


_told_by_us = _ToldByUs()


@contextmanager
def versions_told_by_us() -> Iterator[None]:
    """Drop Dask's table of other versions: ours comes a moment later.

    It warns from the event loop's thread, so that this is for all threads; `warnings.catch_warnings` would put back a
    list of filters which others may have changed meanwhile.
    """
    _told_by_us.enter()
    try:
        yield
    finally:
        _told_by_us.leave()
