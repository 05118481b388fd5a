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

import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from riverrun import _async, _logging, _running, _steps, _timers
from riverrun._endings import lost, not_taken
from riverrun._execution import timed_out
from riverrun._outcomes import Outcome
from riverrun._pending_run import Do, Phase
from riverrun._signals import interrupts_raised
from riverrun._telling import HERE, CallbackThread, Here
from riverrun.abc import Concurrency, HelpableTaskExecutor, LocalTaskExecutor, RemoteTaskExecutor, ReplacingTaskExecutor
from riverrun.states import Cancelled

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future

    from riverrun._engine import Home
    from riverrun._pending_run import PendingRun
    from riverrun._remote import RemoteDispatcher
    from riverrun.abc import TaskExecutor

    Send = Callable[[PendingRun], object]


def _nothing(_: object) -> None:
    return None


class Dispatch(NamedTuple):
    """How the task runs of one flow run get to what runs them, and what else its task runner can do."""

    send: Callable[[PendingRun], object]
    """Hands a run that is queued to what runs it."""
    in_place: bool = False
    """Whether a run is tried again before the call returns: one at a time, in the order of the calls."""
    is_local: bool = True
    """Whether it is run, and ends, on threads of this process that may wait."""
    remote: RemoteDispatcher | None = None
    """What hands runs to an executor that keeps values; None for all others."""
    helper: Callable[[Callable[[], object]], object] | None = None
    """Runs a job in the calling thread if a slot is free; None where nobody may help."""
    abandon: Callable[[Callable[[], object]], object] = _nothing
    """Tells the executor to stop counting on a job that is running."""
    telling: CallbackThread | Here = HERE
    """Where hooks and callbacks are called."""
    aside: CallbackThread | Here = HERE
    """Where the user's functions are called that a run needs before it goes on."""

    def stop(self) -> None:
        """End its threads."""
        self.telling.stop()
        self.aside.stop()
        if self.remote is not None:
            self.remote.asking.stop()


def connected(home: Home, concurrency: Concurrency, executor: TaskExecutor | RemoteTaskExecutor) -> Dispatch:
    """Return how a flow run hands its task runs to an executor."""
    loop = home.loop
    in_process = concurrency is not Concurrency.PARALLEL
    telling = CallbackThread("riverrun-callbacks")
    aside = CallbackThread("riverrun-aside", nested=True)
    if not in_process and isinstance(executor, RemoteTaskExecutor):
        from riverrun._remote import RemoteDispatcher

        remote = RemoteDispatcher(home, executor)
        return Dispatch(remote, is_local=False, remote=remote, telling=telling, aside=aside)
    assert not isinstance(executor, RemoteTaskExecutor), "its calls run in other processes"  # noqa: S101
    sync: Send
    is_local = isinstance(executor, LocalTaskExecutor) and in_process
    if isinstance(executor, LocalTaskExecutor) and in_process:
        sync = executor.spawn
        spawn_async = executor.spawn_async

        def async_(run: PendingRun) -> None:
            run.context.run(_async.forget_library)
            spawn_async(run.run_async, run.context)
    else:
        sync = async_ = _Submit(executor, aside, packed=not in_process)
    if loop is not None and in_process:
        async_ = _OnLoop(loop)
    if loop is not None and concurrency is Concurrency.SEQUENTIAL:
        send: Send = _Line(loop, sync)
    else:

        def send(run: PendingRun) -> None:
            if run.task.is_async:
                async_(run)
            else:
                sync(run)

    # Where each call has ended before it returns, in a sync flow, all that is told is told in the thread of the call.
    waits_here = is_local and concurrency is Concurrency.SEQUENTIAL and loop is None
    return Dispatch(
        send,
        in_place=is_local and concurrency is Concurrency.SEQUENTIAL,
        is_local=is_local,
        helper=executor.help if isinstance(executor, HelpableTaskExecutor) and loop is None else None,
        abandon=executor.abandon if isinstance(executor, ReplacingTaskExecutor) else _nothing,
        telling=HERE if waits_here else telling,
        aside=HERE if is_local else aside,
    )


def _send_in_place(run: PendingRun) -> None:
    if run.task.is_async:
        run.context.run(_async.run_to_end, run.run_async)
    else:
        run()


IN_PLACE: Final = Dispatch(_send_in_place, in_place=True)
"""How task runs that are called in the body of a task are run: where that is itself."""


def _refuse(run: PendingRun) -> None:
    msg = f"the task runner of {run.home.label} is not started"
    raise RuntimeError(msg)


NOT_CONNECTED: Final = Dispatch(_refuse)
"""Before a task runner is started."""


class _Submit:
    """Sends calls to an executor of the `concurrent.futures` kind."""

    def __init__(self, executor: TaskExecutor, aside: CallbackThread, *, packed: bool) -> None:
        self._executor = executor
        self._aside = aside
        self._packed = packed

    def __call__(self, run: PendingRun) -> None:
        attempt = run.try_pack()
        if not attempt:
            return
        try:
            call = _running.call_for(run, attempt, *_steps.arguments(run))
            if self._packed:
                call.pack(_logging.task_logger.getEffectiveLevel())
        except Exception as error:  # noqa: BLE001 - the failure of this run, and of no other
            _steps.not_sent(run, attempt, error)
            return
        if not self._packed:
            call.when_started(lambda: _begun_here(run, attempt))
        if run.packed(attempt) is not Do.SEND:
            return
        _steps.reached("before a call is submitted")
        future = run.context.copy().run(self._executor.submit, call)
        run.sent(attempt, FutureCancellation(future))
        future.add_done_callback(lambda done: self._done(run, attempt, done))

    def _done(self, run: PendingRun, attempt: int, done: Future[Outcome]) -> None:
        if done.cancelled() or done.exception() is None:
            _take(run, attempt, done)
        else:
            # The call was lost. What follows, a retry say, may submit to this executor, and the standard pool of
            # processes tells of lost calls with its lock held: not in its thread, therefore.
            self._aside.run(lambda: _take(run, attempt, done))


def _begun_here(run: PendingRun, attempt: int) -> None:
    """Note that an executor has begun a call in this process: from here on its time counts."""
    run.begun(attempt, time.time())
    timeout = run.task.timeout_seconds
    if timeout is not None:
        run.home.timers.call_later(timeout, lambda: _steps.overrun(run, attempt, timed_out(timeout)))


def _take(run: PendingRun, attempt: int, future: Future[Outcome]) -> None:
    """Take what an executor's future has."""
    try:
        _take_outcome(run, attempt, future)
    except Exception as error:  # noqa: BLE001 - nobody would see it here, and the run would never end
        _steps.set_final(run, not_taken(run.run.name, error), attempt=attempt)


def _take_outcome(run: PendingRun, attempt: int, future: Future[Outcome]) -> None:
    if future.cancelled():
        _steps.set_final(run, Cancelled("Task run was cancelled."), attempt=attempt, begun=False)
        return
    error = future.exception()
    if error is not None:
        count = run.run.run_count + (run.phase is not Phase.RUNNING)
        _steps.end(run, attempt, Outcome(None, lost(run.run.name, count, error)))
        return
    outcome: Any = future.result()  # executors are written by others
    if not isinstance(outcome, Outcome):
        msg = f"it gave {type(outcome).__name__!r} for the call, which returns an Outcome"
        raise TypeError(msg)
    _running.took(run, attempt, outcome)


class FutureCancellation:
    """What stops a call that an executor has: it can be withdrawn until it has begun."""

    __slots__ = ("_future",)
    withdraws = False

    def __init__(self, future: Future[Outcome]) -> None:
        self._future = future

    def cancel(self) -> bool:
        """Withdraw it; its future then tells that."""
        return self._future.cancel()

    def is_running(self) -> bool:
        """Say whether it has begun, as far as the executor knows."""
        running = getattr(self._future, "running", None)  # other kinds of futures need not have that
        return running is not None and bool(running())


class _OnLoop:
    """Starts coroutines on the loop of an async flow."""

    def __init__(self, loop: _async.Loop) -> None:
        self._loop = loop

    def __call__(self, run: PendingRun) -> None:
        if self._loop.is_here():
            self._loop.start(run.run_async, run.context)
        else:
            self._loop.call(lambda: self._start(run))

    def _start(self, run: PendingRun) -> None:
        if run.run.final is None:  # it may have been cancelled on its way to the loop
            self._loop.start(run.run_async, run.context)


class _Line:
    """Runs one submission after the other on the loop of an async flow, in the order of the calls."""

    def __init__(self, loop: _async.Loop, sync: Send) -> None:
        self._loop = loop
        self._sync = sync
        self._jobs: deque[PendingRun] = deque()
        self._serving = False

    def __call__(self, job: PendingRun) -> None:
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

    async def _run_sync(self, job: PendingRun) -> None:
        delay: float | None = 0.0
        while delay is not None:
            # The task has the loop's thread, so the loop could not act upon Ctrl-C before its end: it hits the task.
            with interrupts_raised(job.home):
                if job.home.dispatch.in_place:
                    delay = _running.run_once(job)
                else:
                    delay = None
                    self._sync(job)
            if delay is not None:
                await _timers.clock.sleep_async(delay)

    async def _to_its_end(self, job: PendingRun) -> None:
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
