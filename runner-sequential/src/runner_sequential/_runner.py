"""One task after the other, in the thread that calls: a debugger and a traceback land in user code."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from riverrun.abc import Concurrency, TaskRunner

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterator
    from concurrent.futures import Future
    from contextvars import Context


class SequentialTaskRunner(TaskRunner):
    """Runs each task to its end before its call returns.

    Example:
        >>> from riverrun import flow, task
        >>> from riverrun.task_runners import SequentialTaskRunner
        >>> @task
        ... def say(word):
        ...     print(word)
        >>> @flow(task_runner=SequentialTaskRunner())
        ... def speech():
        ...     for word in ("one", "after", "the", "other"):
        ...         say(word)
        >>> speech()
        one
        after
        the
        other
    """

    concurrency: ClassVar[Concurrency] = Concurrency.SEQUENTIAL

    @contextmanager
    def start(self) -> Iterator[SequentialTaskExecutor]:
        """Start an executor; it has nothing to stop but the event loop, if a task was async."""
        executor = SequentialTaskExecutor()
        try:
            yield executor
        finally:
            executor.close()


class SequentialTaskExecutor:
    """Runs what it is given, at once."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._in_use = threading.Lock()

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Run a call, and give a future that is done."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_result(call())
        return future

    def spawn(self, job: Callable[[], object], /) -> None:
        """Run a job."""
        job()

    def spawn_async(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context, /) -> None:
        """Run a coroutine to its end, on one loop for all of them, so that they can share its clients."""
        _where_no_loop_runs(lambda: self._run(job, context))

    def _run(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context) -> None:
        import asyncio

        if not self._in_use.acquire(blocking=False):
            # Another thread of the flow runs a task on the loop just now, and a loop runs in one thread at a time.
            with asyncio.Runner() as own:
                _run_on(own.get_loop(), job, context)
            return
        try:
            if self._runner is None:
                self._runner = asyncio.Runner()
            _run_on(self._runner.get_loop(), job, context)
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Close the event loop, if there is one."""
        if self._runner is not None:
            _where_no_loop_runs(self._runner.close)


def _run_on(loop: asyncio.AbstractEventLoop, job: Callable[[], Coroutine[Any, Any, object]], context: Context) -> None:
    # Not Runner.run(): that turns Ctrl-C into a cancellation, which would be the task's and not the flow's.
    loop.run_until_complete(loop.create_task(job(), context=context))


def _where_no_loop_runs(function: Callable[[], object]) -> None:
    """Call a function here, or in a thread that is waited for if a loop (a notebook's, say) runs here already."""
    if not _loop_runs_here():
        function()
        return
    thread = threading.Thread(target=function, name="riverrun-sequential-loop", daemon=True)
    thread.start()
    thread.join()


def _loop_runs_here() -> bool:
    import asyncio

    in_trio = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    if in_trio is not None and in_trio():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
