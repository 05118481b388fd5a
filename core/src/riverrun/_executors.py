"""Executors of the `concurrent.futures` kind that are replaced when they break.

::

    Replaced   calls -> [ executor, with all its workers ]       one that breaks loses every call that it had
    Lanes      calls -> queue -> thread -> [ executor, 1 worker ]    ... the one call that it had
                              -> thread -> [ executor, 1 worker ]
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager


class _Started:
    """An executor that is entered, and can be stopped."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._context = make()
        self.submit: Callable[[Any], Future[Any]] = self._context.__enter__().submit
        self._once = [self._context.__exit__]

    def stop(self, *error: Any) -> None:
        """Stop it, if nobody has, and wait until it has; `error` is what ends the flow run, if that is an exception."""
        try:
            leave = self._once.pop()
        except IndexError:
            return
        leave(*(error or (None, None, None)))


class Replaced:
    """One executor, and the next one in its place once it is broken."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._stopping: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._executor = _Started(self._make)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._executor.stop(*error)
        finally:
            for thread in self._stopping:
                thread.join()

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Give a call to the executor; where that one is broken, to the next one."""
        executor = self._executor
        try:
            return executor.submit(call)
        except BrokenExecutor:
            return self._in_the_place_of(executor).submit(call)

    def _in_the_place_of(self, broken: _Started) -> _Started:
        with self._lock:
            if self._executor is broken:  # and nobody else was faster
                self._executor = _Started(self._make)
                # Not in this thread: it may be one of the executor's own, which tells of the calls that are lost.
                self._stopping = [thread for thread in self._stopping if thread.is_alive()]
                self._stopping.append(threading.Thread(target=broken.stop, name="riverrun-broken", daemon=True))
                self._stopping[-1].start()
            return self._executor


class Lanes:
    """Several executors, each with one call at a time, and with a thread that waits for it."""

    def __init__(self, make: Callable[[], AbstractContextManager[Any]], count: int) -> None:
        self._make = make
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="riverrun-lane")
        self._free: deque[_Started] = deque()
        self._started: set[_Started] = set()
        self._closed = False

    def __enter__(self) -> Self:
        self._free.append(self._new())  # the others when they are needed; one, to see whether it starts
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        try:
            if error is None or issubclass(error, Exception):
                self._threads.shutdown()
        finally:  # an interrupt does not wait: what still runs is nobody's, and the executors are told
            self._closed = True
            self._threads.shutdown(wait=False, cancel_futures=True)
            stopping = [threading.Thread(target=one.stop, args=(error, *rest)) for one in list(self._started)]
            for thread in stopping:
                thread.start()
            for thread in stopping:
                thread.join()
            self._threads.shutdown()

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Run a call on the first executor that is free."""
        return self._threads.submit(self._run, call)

    def _run(self, call: Callable[[], Any]) -> Any:
        executor, future = self._begin(call)
        try:
            outcome = future.result()
        except BrokenExecutor:
            self._end(executor)
            raise
        except BaseException:
            self._free.append(executor)
            raise
        self._free.append(executor)
        return outcome

    def _begin(self, call: Callable[[], Any]) -> tuple[_Started, Future[Any]]:
        """Submit a call to an executor that takes it; one that broke while it was idle has lost nothing."""
        while True:
            executor, is_new = self._next()
            try:
                return executor, executor.submit(call)
            except BrokenExecutor:
                self._end(executor)
                if is_new:
                    raise
            except BaseException:
                self._free.append(executor)
                raise

    def _next(self) -> tuple[_Started, bool]:
        try:
            return self._free.pop(), False
        except IndexError:
            return self._new(), True

    def _new(self) -> _Started:
        executor = _Started(self._make)
        self._started.add(executor)
        if self._closed:  # meanwhile; nobody else might see this one
            self._end(executor)
            raise BrokenExecutor("The flow run has ended.")
        return executor

    def _end(self, executor: _Started) -> None:
        executor.stop()
        self._started.discard(executor)
