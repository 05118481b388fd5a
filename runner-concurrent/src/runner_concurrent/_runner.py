"""Sync tasks on a bounded pool of threads, async tasks on one event loop."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import TaskRunnerOptionError

from runner_concurrent._loop import LoopThread
from runner_concurrent._pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Future
    from contextvars import Context


class ConcurrentTaskRunner(TaskRunner):
    """Runs tasks in this process, many at a time.

    Args:
        max_workers: how many sync tasks may run at once; by default cores + 4, at most 32. Async tasks share one
            event loop, and any number of them may wait on it.

    Example:
        >>> from riverrun import flow, task
        >>> from riverrun.task_runners import ConcurrentTaskRunner
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
        ... def doubles():
        ...     return double.map(range(5)).result()
        >>> doubles()
        [0, 2, 4, 6, 8]
    """

    max_workers: int | None = None

    concurrency: ClassVar[Concurrency] = Concurrency.CONCURRENT

    def validate(self) -> None:
        """Refuse a pool without workers."""
        if self.max_workers is not None and self.max_workers < 1:
            msg = f"ConcurrentTaskRunner: max_workers must be 1 or more, not {self.max_workers}."
            raise TaskRunnerOptionError(msg)

    @contextmanager
    def start(self) -> Iterator[ConcurrentTaskExecutor]:
        """Start an executor. Threads are started as tasks need them, and have ended when the context is left."""
        executor = ConcurrentTaskExecutor(self.max_workers or min(32, (os.cpu_count() or 1) + 4))
        try:
            yield executor
        finally:
            executor.close()


class ConcurrentTaskExecutor:
    """A pool of threads, and an event loop where one is needed."""

    def __init__(self, max_workers: int) -> None:
        self._pool = ThreadPool(max_workers)
        self._loop = LoopThread()
        # The pool's own methods: one frame less for each of many thousand tasks.
        self.spawn = self._pool.spawn
        self.help = self._pool.help
        self.abandon = self._pool.abandon

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Run a call on the pool."""
        from concurrent.futures import Future

        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(call())

        self._pool.spawn(run)
        return future

    def spawn_async(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context, /) -> None:
        """Start a coroutine on the event loop."""
        self._loop.start(job, context)

    def close(self) -> None:
        """End the threads and the loop; what was abandoned is not waited for."""
        self._loop.stop()
        self._pool.stop()
