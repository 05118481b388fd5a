"""How ready submissions get to the executor: the one place that looks at what a task runner can do.

========================  =================================  =====================================
the task is               in a sync flow                     in an async flow
========================  =================================  =====================================
sync, local executor      `spawn`                            `spawn`
sync, other executor      `submit` a call                    `submit` a call
async, local executor     `spawn_async`                      on the flow's own loop
async, other executor     `submit` a call: own loop there    in this process: on the flow's own loop
any, SEQUENTIAL           as above: `spawn` runs it at once  one after the other on the flow's loop
any, PARALLEL             `submit` a packed call             `submit` a packed call
any, RemoteTaskExecutor   `send`, see `_remote`              `send`, see `_remote`
========================  =================================  =====================================
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from riverrun import _async, _logging, _timers, _world
from riverrun._outcomes import Outcome
from riverrun._signals import interrupts_raised
from riverrun.abc import Concurrency, HelpableTaskExecutor, LocalTaskExecutor, RemoteTaskExecutor, ReplacingTaskExecutor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future

    from riverrun._submissions import Submission
    from riverrun.abc import TaskExecutor

    Dispatch = Callable[[Submission], None]


def connect(home: Any, concurrency: Concurrency, executor: TaskExecutor | RemoteTaskExecutor) -> None:
    """Let a flow run hand its submissions to an executor."""
    loop: _async.Loop | None = home.loop
    in_process = concurrency is not Concurrency.PARALLEL
    sync: Dispatch
    home.remote = None
    if not in_process and isinstance(executor, RemoteTaskExecutor):
        from riverrun._remote import Remote

        home.remote = home.dispatch = Remote(home, executor)
        home.helper, home.abandon = None, _nothing
        return
    assert not isinstance(executor, RemoteTaskExecutor), "its calls run in other processes"  # noqa: S101
    if isinstance(executor, LocalTaskExecutor) and in_process:
        sync = executor.spawn
        home.retries_in_place = concurrency is Concurrency.SEQUENTIAL
        spawn_async = executor.spawn_async

        def async_(job: Submission) -> None:
            job.context.run(_async.forget_library)
            spawn_async(job.run_async, job.context)
    else:
        sync = async_ = _Submit(executor, packed=not in_process)
    if loop is not None and in_process:
        async_ = _OnLoop(loop)
    if loop is not None and concurrency is Concurrency.SEQUENTIAL:
        home.dispatch = _Line(loop, sync)
    else:

        def dispatch(job: Submission) -> None:
            if job.task.is_async:
                async_(job)
            else:
                sync(job)

        home.dispatch = dispatch
    home.helper = executor.help if isinstance(executor, HelpableTaskExecutor) and loop is None else None
    home.abandon = executor.abandon if isinstance(executor, ReplacingTaskExecutor) else _nothing


def connect_in_place(home: Any) -> None:
    """Let a task run, in whose body tasks are called, run them where it is itself."""

    def dispatch(job: Submission) -> None:
        if job.task.is_async:
            job.context.run(_async.run_to_end, job.run_async)
        else:
            job()

    home.retries_in_place = True
    home.dispatch = dispatch
    home.helper = None
    home.abandon = _nothing


def _nothing(_: object) -> None:
    return None


class _Submit:
    """Sends calls to an executor of the `concurrent.futures` kind."""

    def __init__(self, executor: TaskExecutor, *, packed: bool) -> None:
        self._executor = executor
        self._packed = packed
        self._lost = _Apart()

    def __call__(self, job: Submission) -> None:
        attempt = job.claim(starts=False)
        if not attempt:
            return
        try:
            call = job.call(*job.arguments())
            if self._packed:
                call.pack(_logging.task_logger.getEffectiveLevel())
        except Exception as error:  # noqa: BLE001 - the failure of this run, and of no other
            job.end(attempt, Outcome(None, error))
            return
        if not self._packed:
            call.when_started(lambda: job.started(attempt))
        future = job.context.run(self._executor.submit, call)
        job.handle = future
        future.add_done_callback(lambda done: self._done(job, attempt, done))

    def _done(self, job: Submission, attempt: int, done: Future[Outcome]) -> None:
        if done.cancelled() or done.exception() is None:
            job.returned(attempt, done)
        else:
            # The call was lost. What follows, a retry say, may submit to this executor, and the standard pool of
            # processes tells of lost calls with its lock held: not in its thread, therefore.
            self._lost.run(lambda: job.returned(attempt, done))


class _Apart:
    """A thread for what must not run in the caller's; it ends when there is nothing more."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()
        self._runs = False
        self._lock = threading.Lock()

    def run(self, job: Callable[[], object]) -> None:
        """Run a job (it never raises) soon, after those before it."""
        with self._lock:
            self._jobs.append(job)
            if self._runs:
                return
            self._runs = True
        _world.start_thread(self._run_all, name="riverrun-lost")

    def _run_all(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._runs = False
                    return
                job = self._jobs.popleft()
            job()


class _OnLoop:
    """Starts coroutines on the loop of an async flow."""

    def __init__(self, loop: _async.Loop) -> None:
        self._loop = loop

    def __call__(self, job: Submission) -> None:
        if self._loop.is_here():
            job.handle = self._loop.start(job.run_async, job.context)
        else:
            self._loop.call(lambda: self._start(job))

    def _start(self, job: Submission) -> None:
        if job.run.final is None:  # it may have been cancelled on its way to the loop
            job.handle = self._loop.start(job.run_async, job.context)


class _Line:
    """Runs one submission after the other on the loop of an async flow, in the order of the calls."""

    def __init__(self, loop: _async.Loop, sync: Dispatch) -> None:
        self._loop = loop
        self._sync = sync
        self._jobs: deque[Submission] = deque()
        self._serving = False

    def __call__(self, job: Submission) -> None:
        self._jobs.append(job)
        self._loop.call(self._start)

    def _start(self) -> None:
        if not self._serving:
            self._serving = True
            serving = self._loop.start(self._serve, copy_context())
            if serving is not None:  # with trio, the nursery looks at how it has ended
                serving.add_done_callback(_look_at)

    async def _serve(self) -> None:
        import anyio

        try:
            while self._jobs:
                job = self._jobs.popleft()
                if job.run.final is not None:  # cancelled while it stood in line
                    continue
                if job.task.is_async:
                    await self._to_its_end(job)
                else:
                    await self._run_sync(job)
                await anyio.sleep(0)  # noqa: ASYNC115 - `anyio.lowlevel` is one import more
        finally:
            self._serving = False

    async def _run_sync(self, job: Submission) -> None:
        delay: float | None = 0.0
        while delay is not None:
            # The task has the loop's thread, so the loop could not act upon Ctrl-C before its end: it hits the task.
            with interrupts_raised(job.home):
                delay = job.run_once() if job.home.retries_in_place else self._sync(job)
            if delay is not None:
                await _timers.clock.sleep_async(delay)

    async def _to_its_end(self, job: Submission) -> None:
        """Run a coroutine as a task of its own, so that cancelling it can hit no other."""
        waiter = self._loop.waiter()

        async def body() -> None:
            try:
                await job.run_async()
            finally:
                waiter.wake()

        self._loop.start(body, job.context)
        await waiter.wait()


def _look_at(ended: asyncio.Task[object]) -> None:
    """Look at how a task has ended, or asyncio prints what a signal raised in it, although the caller has it."""
    error = None if ended.cancelled() else ended.exception()
    if isinstance(error, Exception):
        raise error  # to the loop, which tells of it
