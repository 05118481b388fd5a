"""The two doors to a flow run: `run_sync`, in the thread of the caller, and `run_async`, on the running loop.

Each goes the same way: arguments, task runner, body, the wait for everything, the final state; after an interrupt
everything is stopped first.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Final

from riverrun import _async, _event_log, _inputs, _plugins, _timers
from riverrun._conclusions import conclude, failed, interrupted
from riverrun._deadlines import interrupted_after
from riverrun._execution import execute, execute_async
from riverrun._futures import check_may_block
from riverrun._outcomes import Outcome
from riverrun._signals import signals_noted
from riverrun._waiting import all_done
from riverrun._waits import acquire
from riverrun.abc import Concurrency

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun._flow_runs import FlowRun
    from riverrun._observation import Observation
    from riverrun.states import State

GRACE: Final = 1.0
"""How long runs that cannot be stopped may go on after an interrupt, in seconds, before the flow leaves them."""


def run_sync(flow_run: FlowRun) -> State:
    """Run a flow whose function is sync, in this thread.

    Raises:
        BaseException: an interrupt (KeyboardInterrupt, SystemExit), after everything was stopped. What the flow
            itself raised is in the state.
    """
    interrupt: BaseException | None = None
    with signals_noted(), _event_log.told_on_signal():
        try:
            state = _run_sync(flow_run)
        except Exception as error:  # noqa: BLE001 - it becomes the state
            state = failed(flow_run, error)
        except BaseException as error:  # noqa: BLE001 - raised again below
            state, interrupt = interrupted(error), error
        try:
            flow_run.end(state)
        finally:
            if flow_run.observation_to_close is not None:
                flow_run.observation_to_close.close()
    if interrupt is not None:
        raise interrupt
    return state


def _run_sync(flow_run: FlowRun) -> State:
    for future in flow_run.futures_among_arguments():
        if not future.done():
            check_may_block(future, f"{flow_run.flow.name}(future)", f"{flow_run.flow.name}(await future)")
            future.wait()
    try:
        flow_run.prepare()
    finally:
        flow_run.begin()
        if flow_run.observation is not None:
            flow_run.observation.wait_for_the_start()
        flow_run.log_the_beginning()
    with flow_run.task_runner_started(_plugins.resolve(flow_run.flow.task_runner)):
        try:
            while True:
                state = _attempt_sync(flow_run)
                delay = flow_run.delay_before_retry(state)
                if delay is None:
                    return state
                _timers.clock.sleep(delay)
        except BaseException as error:
            _stop_after(flow_run, error)
            raise


def _attempt_sync(flow_run: FlowRun) -> State:
    flow_run.attempt()
    flow = flow_run.flow
    args, kwargs = flow.signature.to_call(flow_run.parameters)
    timeout = flow.timeout_seconds
    if timeout is None:
        outcome = execute(flow_run, flow.fn, args, kwargs)
        outcome = _settled(flow_run, outcome)
        _wait_for_all(flow_run)
        return conclude(flow_run, outcome)
    passed = threading.Event()

    attempt = flow_run.run_count

    def overrun() -> None:
        if flow_run.run_count == attempt and not flow_run.state.is_final():
            passed.set()
            flow_run.overrun()

    flow_run.timers.call_later(timeout, overrun)
    with interrupted_after(timeout) as deadline:
        outcome = execute(flow_run, flow.fn, args, kwargs)
        outcome = _settled(flow_run, outcome)
        _wait_for_all(flow_run)
    if deadline.passed:
        overrun()
    return flow_run.timed_out() if passed.is_set() else conclude(flow_run, outcome)


def _wait_for_all(flow_run: FlowRun, timeout: float = -1) -> None:
    """Wait until everything that was submitted is final; `timeout` in seconds, -1 for as long as it takes."""
    woken = threading.Lock()
    woken.acquire()
    flow_run.when_idle(woken.release)
    acquire(woken, timeout)


def _stop_after(flow_run: FlowRun, error: BaseException) -> None:
    """Stop everything after an interrupt: at once what can be stopped; the rest has a short grace, then it is left."""
    flow_run.unread.clear()
    try:
        with suppress(BaseException):  # a second interrupt: no grace; the first one is raised
            flow_run.stop_taking(interrupted(error))
            _wait_for_all(flow_run, GRACE)
    finally:
        flow_run.leave_running()


async def run_async(flow_run: FlowRun) -> State:
    """Run a flow whose function is async, on the running loop. Raises as `run_sync` does."""
    interrupt: BaseException | None = None
    # Once for a loop: a subflow run is on that of its parent, unless the parent has none.
    has_loop = flow_run.parent is not None and flow_run.parent.loop is not None
    looking = nullcontext() if has_loop else _async.looking_for_signals()
    with signals_noted() as signals, _event_log.told_on_signal(), looking:
        try:
            state = await _run_async(flow_run)
        except Exception as error:  # noqa: BLE001 - it becomes the state
            state = failed(flow_run, error)
        except BaseException as error:  # noqa: BLE001 - raised again below
            # asyncio turns a signal into a cancellation of the main task: the state says what it was.
            state, interrupt = interrupted(signals.noted or flow_run.interrupt or error), error
        try:
            flow_run.end(state)
        finally:
            if flow_run.observation_to_close is not None:
                await _close(flow_run.observation_to_close, at_once=isinstance(interrupt, GeneratorExit))
    if interrupt is not None:
        raise interrupt
    return state


async def _close(observation: Observation, *, at_once: bool) -> None:
    """Wait for the observers, without holding up the loop; at once where nothing may be awaited any more."""
    if at_once:
        observation.close()
        return
    await _without_the_loop(observation.close)


async def _without_the_loop(wait: Callable[[], None]) -> None:
    """Wait in a thread, to the end."""
    import anyio

    with anyio.CancelScope(shield=True):
        await _async.in_thread(wait)


async def _run_async(flow_run: FlowRun) -> State:
    flow_run.loop = loop = _async.current_loop()
    await all_done(flow_run.futures_among_arguments())
    try:
        flow_run.prepare()
    finally:
        flow_run.begin()
        if flow_run.observation is not None:
            await _without_the_loop(flow_run.observation.wait_for_the_start)
        flow_run.log_the_beginning()
    runner = _plugins.resolve(flow_run.flow.task_runner)
    state: State | None = None
    error: BaseException | None = None
    with ExitStack() as stack:
        started = flow_run.task_runner_started(runner)
        if runner.concurrency is Concurrency.PARALLEL:  # starting processes takes long enough to hold up a loop
            import anyio

            await anyio.to_thread.run_sync(started.__enter__)
            stack.push(started)
        else:
            stack.enter_context(started)
        # Nothing is raised across the loop's nursery: trio would wrap it in a group.
        try:
            async with _async.opened(loop):
                try:
                    state = await _attempts_async(flow_run)
                except BaseException as exception:  # noqa: BLE001 - raised below
                    error = exception
                    await _stop_after_async(flow_run, exception)
        except BaseException as exception:  # noqa: BLE001 - a nursery that is cancelled raises that once more
            error = error or exception
        if error is not None:
            raise error
    assert state is not None  # noqa: S101 - said to type checkers
    return state


async def _attempts_async(flow_run: FlowRun) -> State:
    while True:
        state = await _attempt_async(flow_run)
        delay = flow_run.delay_before_retry(state)
        if delay is None:
            return state
        await _timers.clock.sleep_async(delay)


async def _attempt_async(flow_run: FlowRun) -> State:
    flow_run.attempt()
    flow = flow_run.flow
    args, kwargs = flow.signature.to_call(flow_run.parameters)
    if flow.timeout_seconds is None:
        outcome = await execute_async(flow_run, flow.fn, args, kwargs, None)
        outcome = _settled(flow_run, outcome)
        await _wait_for_all_async(flow_run)
        return await _conclude_async(flow_run, outcome)
    import anyio

    with anyio.move_on_after(flow.timeout_seconds) as deadline:
        outcome = await execute_async(flow_run, flow.fn, args, kwargs, None)
        outcome = _settled(flow_run, outcome)
        await _wait_for_all_async(flow_run)
    # A body that swallows the cancellation, or blocks the loop until after the deadline, has overrun it all the same.
    if deadline.cancel_called or anyio.current_time() >= deadline.deadline:
        flow_run.overrun()
        return flow_run.timed_out()
    return await _conclude_async(flow_run, outcome)


async def _conclude_async(flow_run: FlowRun, outcome: Outcome) -> State:
    """Conclude; values that have to be fetched from workers do not hold up the loop."""
    if flow_run.dispatch.remote is None or outcome.error is not None:
        return conclude(flow_run, outcome)
    return await _async.in_thread(lambda: conclude(flow_run, outcome))


def _settled(flow_run: FlowRun, outcome: Outcome) -> Outcome:
    """Submit what the body has left to be submitted: the elements of maps that nobody looked into.

    Raises:
        BaseException: an interrupt of the body: nothing is submitted or waited for.
    """
    if outcome.error is None:
        try:
            _inputs.upstreams_in([outcome.value])  # a list of futures that is returned is read to its end
            for source in list(flow_run.unread):
                source.read_all()
        except Exception as error:  # noqa: BLE001 - a generator of the user's
            outcome = Outcome(None, error)
    elif not isinstance(outcome.error, Exception):
        raise outcome.error
    flow_run.unread.clear()
    return outcome


async def _wait_for_all_async(flow_run: FlowRun) -> None:
    waiter = _async.current_loop().waiter()
    flow_run.when_idle(waiter.wake)
    await waiter.wait()


async def _stop_after_async(flow_run: FlowRun, error: BaseException) -> None:
    import anyio

    flow_run.unread.clear()
    try:
        flow_run.stop_taking(interrupted(error))
        with anyio.move_on_after(GRACE, shield=True):
            await _wait_for_all_async(flow_run)
    finally:  # a second interrupt ends the grace
        flow_run.leave_running()
