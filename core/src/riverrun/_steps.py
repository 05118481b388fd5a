"""What is done when something has happened to a task run: the machine (`_pending_run`) says what, this does it.

Each function brings one event to the machine, and does what it answers, holding no lock. Those that end a run keep an
order: what it holds is released, those who wait for it are told, and then the user's hooks and callbacks are called, on
a thread where they may call tasks and wait for them (`_telling`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from riverrun import _inputs, _logging, _names, _world
from riverrun._context import current_scope, this_thread
from riverrun._endings import failed, is_interrupt, not_ready, not_taken, returned, run_hook
from riverrun._futures import TaskFuture
from riverrun._outcomes import Outcome
from riverrun._pending_run import NO_KEYWORDS, NOTHING, TOO_LATE, Do, PendingRun
from riverrun._telling import call_guarded
from riverrun.exceptions import CrashedRun, RunTimeout, WorkerLost
from riverrun.states import COMPLETED, Cancelled, Crashed, Elsewhere, State, StateType

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from riverrun._pending_run import Cancellable


def reached(point: str) -> None:
    """Note that this thread is at a named point: a simulation may let others go on here."""
    if _world.world is not None:
        _world.world.reached(point)


def do(run: PendingRun, what: Do) -> None:
    """Do what the machine has answered, as far as it needs no more than the run."""
    if what is Do.PREPARE:
        prepare(run)


# -- before it runs


def await_upstreams(run: PendingRun, upstreams: list[tuple[Any, bool]], *, early: bool) -> None:
    """Go on when every upstream is final; each comes with "may it fail?".

    Args:
        run: a run that waits.
        upstreams: futures and States.
        early: whether the executor may get it before that, if it knows how to wait for them.
    """
    run.upstreams = upstreams
    pending = [up for up, _ in upstreams if not isinstance(up, State) and up._run.final is None]  # noqa: SLF001
    several = len(pending) != 1
    run.missing = len(pending) + several  # one more, so that nobody is the last before all are registered
    remote = run.home.dispatch.remote
    if remote is not None and early and pending:
        remote.presubmit(run, upstreams)

    def upstream_ended(future: TaskFuture[Any]) -> None:
        if _world.world is not None:
            _world.world.reached("an upstream has ended")
        state = future._run.final  # noqa: SLF001
        with_value = state is COMPLETED or (state is not None and state.is_completed())
        if run.upstream_ended(with_value=with_value) is Do.PREPARE:
            prepare(run)

    for upstream in pending:
        if not upstream._add_callback(upstream_ended):  # noqa: SLF001
            upstream_ended(upstream)
    if several:
        do(run, run.upstream_ended())


def prepare(run: PendingRun) -> None:
    """Run it if its upstreams allow that."""
    for upstream, may_fail in run.upstreams:
        state = upstream if isinstance(upstream, State) else upstream._run.final  # noqa: SLF001
        if state is not COMPLETED and not may_fail and not state.is_completed():
            set_final(run, not_ready(upstream, state))
            return
    if run.task.needs_parameters and not run.is_prepared:
        run.home.dispatch.aside.run(lambda: _name_and_look_up(run))
    elif run.limiter is None or run.has_place:
        if run.queued():
            launch(run)
    else:
        run.limiter.acquire(run)


def _name_and_look_up(run: PendingRun) -> None:
    """Render a name of the user's, and look into the cache: that may end the run."""
    if run.run.final is not None:
        return
    try:
        args, kwargs = arguments(run)
        parameters = run.task.parameters(args, kwargs)
        name = _names.render(run.task.task_run_name, parameters, option="task_run_name")
        if name is not None:
            run.run._name = name  # noqa: SLF001
        cached = run.task.cache.look_up(run, parameters) if run.task.cache else None
    except CrashedRun as error:  # a value cannot be brought here
        set_final(run, Crashed(str(error), error))
        return
    except Exception as error:  # noqa: BLE001 - the user's template, callable or key function
        set_final(run, failed(error))
        return
    if cached is not None:
        set_final(run, cached.with_data(None), cached.data)
        return
    run.is_prepared = True
    prepare(run)


def arguments(run: PendingRun) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with the values of the upstreams in their places."""
    if not run.annotated:
        return run.args, run.kwargs
    args = tuple(
        [
            # The common case stands here: a future that is an argument itself, and has completed.
            value._value  # noqa: SLF001
            if type(value) is TaskFuture
            and value._run.final is COMPLETED  # noqa: SLF001
            and not isinstance(value._value, Elsewhere)  # noqa: SLF001
            else _inputs.replace(value, _value_of)
            for value in run.args
        ]
    )
    if not run.kwargs:
        return args, run.kwargs
    return args, {name: _inputs.replace(value, _value_of) for name, value in run.kwargs.items()}


def _value_of(upstream: Any, may_fail: bool) -> Any:  # noqa: ARG001, FBT001
    if isinstance(upstream, TaskFuture):
        state = upstream._run.final  # noqa: SLF001
        assert state is not None, "arguments are looked at when every upstream is final"  # noqa: S101 - a promise
        if not state.is_completed():
            return state.exception()
        value = upstream._value  # noqa: SLF001
        return value.fetch() if isinstance(value, Elsewhere) else value
    state = upstream
    return state.data if state.type is StateType.COMPLETED else state.exception()


def dispatch(run: PendingRun) -> None:
    """Hand it to the executor, or to something else that runs it."""
    if run.queued():
        launch(run)


def launch(run: PendingRun) -> None:
    """Hand it over; it is queued."""
    home = run.home
    if home.logs_info and run.failures == 0 and run.run.run_count == 0:
        fields = run.log_fields()
        tell(run, lambda: _logging.task_logger.info("Submitting task run %r to task runner...", run.name, extra=fields))
    try:
        (run.launch or home.dispatch.send)(run)
    except Exception as error:  # noqa: BLE001 - the executor is broken or stopped; the run must end all the same
        set_final(run, not_taken(run.name, error))


def launch_again(run: PendingRun) -> None:
    """Hand over what had to wait after it was handed over; it is queued."""
    try:
        run.home.dispatch.send(run)
    except Exception as error:  # noqa: BLE001 - as in `launch`
        set_final(run, not_taken(run.name, error))


# -- after an attempt


def end(run: PendingRun, attempt: int, outcome: Outcome) -> float | None:
    """Take the outcome of an attempt; return the delay in seconds if the caller is to make another."""
    error = outcome.error
    if error is None:
        value = outcome.value
        if isinstance(value, State):
            final, value = returned(value)
        else:
            final = COMPLETED
            if run.task.cache is not None and attempt == run.attempt:
                run.task.cache.store(run, value)
        set_final(run, final, value, attempt)
        return None
    reached("an attempt has ended")
    again = None
    if run.attempt_failed(attempt, outcome) is Do.DECIDE:
        again = decide(run, outcome)
    if is_interrupt(error):
        raise error
    return again


def not_sent(run: PendingRun, attempt: int, error: Exception) -> None:
    """End an attempt that could not be handed to the executor."""
    outcome = Outcome(None, error)
    if run.attempt_failed(attempt, outcome, begun=False) is Do.DECIDE:
        decide(run, outcome)


def decide(run: PendingRun, outcome: Outcome) -> float | None:
    """Try it again, or end it; return the delay in seconds if the caller is to make the next attempt."""
    error = outcome.error
    assert error is not None  # noqa: S101 - said to type checkers
    state = failed(error)
    if state.is_failed() or isinstance(error, WorkerLost):
        condition = run.task.retry_condition_fn
        if condition is not None and run.failures < retries_of(run) and not run.home.dispatch.is_local:
            run.home.dispatch.aside.run(lambda: _retry_or_end(run, state))
            return None
        return _retry_or_end(run, state)
    finish(run, state, run.decided(state))
    return None


def _retry_or_end(run: PendingRun, state: State) -> float | None:
    delay = _delay_before_retry(run, state)
    if delay is not None:
        return try_again(run, state, delay)
    finish(run, state, run.decided(state))
    return None


def retries_of(run: PendingRun) -> int:
    """Return how often it may be tried again."""
    return max(run.task.retries, run.more_retries)


def _delay_before_retry(run: PendingRun, state: State) -> float | None:
    task = run.task
    if run.failures >= retries_of(run) or run.cancelled or run.home.closed is not None:
        return None
    condition = task.retry_condition_fn
    if condition is not None:
        try:
            if not condition(task, run.run, state):
                return None
        except BaseException as raised:
            if is_interrupt(raised):
                raise
            text = "retry_condition_fn of task run %r raised: it is not tried again."
            fields, info = run.log_fields(), raised
            tell(run, lambda: _logging.task_logger.error(text, run.run.name, exc_info=info, extra=fields))
            return None
    return task.retry_delay(run.failures + 1)


def try_again(run: PendingRun, state: State, delay: float, loss: str | None = None) -> float | None:
    """Try it again after a delay in seconds; return that if the caller is to make the next attempt.

    Args:
        run: the run.
        state: how the attempt has ended.
        delay: in seconds.
        loss: what to say of a loss that costs no retry.
    """
    in_place = run.home.dispatch.in_place
    failures = run.failures
    if not run.retry(state, in_place=in_place, failure=loss is None):
        return None
    _tell_retry(run, state, delay, failures, loss)
    reached("it is tried again")
    recall_dependents(run)
    if in_place:
        return delay
    if delay:
        run.home.timers.call_after_delay(delay, lambda: do(run, run.retry_due()))
    else:
        do(run, run.retry_due())
    return None


def _tell_retry(run: PendingRun, state: State, delay: float, failures: int, loss: str | None) -> None:
    fields = run.log_fields()
    if loss is not None:
        text = "Task run %r was lost in attempt %d and is run again (%s): %s"
        args: tuple[Any, ...] = run.name, run.run.run_count, loss, state.message
    else:
        text = "Task run %r failed in attempt %d of %d and is tried again in %.3g seconds: %s"
        args = run.name, failures + 1, retries_of(run) + 1, delay, state.message
    tell(run, lambda: _logging.task_logger.warning(text, *args, extra=fields))


def lost(run: PendingRun, attempt: int, error: CrashedRun, *, begun: bool, final: bool) -> None:
    """Take that an executor has lost the call: run it again, or end it."""
    reached("a call was lost")
    if final:
        set_final(run, Crashed(str(error), error), attempt=attempt, begun=begun)
        return
    remote = run.home.dispatch.remote
    outcome = Outcome(None, error)
    what = run.lost(attempt, outcome, begun=begun, most=remote.executor.max_worker_losses if remote is not None else 0)
    if what is Do.AGAIN or what is Do.DECIDE:
        after_attempt(run, what, outcome)
    elif what is not Do.LATE and what is not Do.PARK:  # it had not begun
        recall_dependents(run)
        do(run, what)


def after_attempt(run: PendingRun, what: Do, outcome: Outcome) -> float | None:
    """Run it again after a loss that costs no retry; else decide. Returns as `decide` does."""
    if what is Do.RESEND:
        if run.cancelled or run.home.closed is not None:
            state = Cancelled("Task run was cancelled.")
            finish(run, state, run.decided(state))
        else:
            recall_dependents(run)
            do(run, run.resend())
        return None
    if what is not Do.AGAIN or run.cancelled or run.home.closed is not None:
        return decide(run, outcome)
    assert run.remote is not None  # noqa: S101 - said to type checkers
    remote, error = run.home.dispatch.remote, outcome.error
    most = remote.executor.max_worker_losses if remote is not None else 0
    return try_again(run, Crashed(str(error), error), 0.0, f"loss {run.remote.losses} of {most}")


def recall_dependents(run: PendingRun) -> None:
    """Call back what was sent early to take the value of an attempt that came to nothing, all the way down."""
    todo = run.take_presubmitted()
    while todo:
        dependent = todo.pop()
        what, attempt, handle = dependent.recall()
        if what is not Do.LATE:
            todo.extend(dependent.take_presubmitted())
        if what is Do.WITHDRAW and handle is not None:
            withdraw(dependent, attempt, handle)


def withdraw(run: PendingRun, attempt: int, handle: Cancellable) -> None:
    """Ask the executor to withdraw a call whose upstream came to nothing."""
    remote = run.home.dispatch.remote
    assert remote is not None  # noqa: S101 - only there is anything sent early

    def ask() -> None:
        reached("before it is called back")
        certain = _stopped(run, handle)
        do(run, run.recall_answered(attempt, certain=certain, exact=remote.is_exact))

    remote.asking.run(ask)


# -- the end


def set_final(
    run: PendingRun, state: State, value: Any = None, attempt: int | None = None, *, begun: bool = True
) -> bool:
    """Make a state the final one, and tell those who wait for it; false if there is a final one already."""
    return finish(run, state, run.set_final(state, value, attempt, begun=begun))


def complete(run: PendingRun, value: Any, attempt: int) -> None:
    """Do what `set_final` does with a value that a function has returned in this process."""
    callbacks = run.completed(value, attempt)
    home, future = run.home, run.future
    if callbacks is TOO_LATE or not home.is_quiet or run.limiter is not None or run.task.has_hooks:
        finish(run, COMPLETED, callbacks)
        return
    if run.nested is not None:  # what `finish` does, for most
        run.nested.stop_timers()
    run.args = NOTHING
    run.kwargs = NO_KEYWORDS
    run.context = run.future = run.handle = None  # type: ignore[assignment]
    if run.annotated:
        run.upstreams = NOTHING
    if callbacks is not None:
        run_callbacks(future, callbacks)
    home.live.pop(run.run.number, None)
    if home.when_idle_then is not None:
        home.tell_if_idle()


def finish(run: PendingRun, state: State, callbacks: Any) -> bool:
    """Do what follows from a final state; false if that was not the one.

    Args:
        run: the run.
        state: its final state.
        callbacks: of its future: None, one, or a list; or `TOO_LATE`.
    """
    if callbacks is TOO_LATE:
        return False
    home, future = run.home, run.future
    try:
        if run.limiter is not None:
            run.limiter.release(run)
        if home.dispatch.remote is not None:
            home.dispatch.remote.released(run)
        if state is not COMPLETED or home.logs_info:
            _tell_end(run, state)
    finally:
        try:
            if callbacks is not None:
                run_callbacks(future, callbacks)
        finally:
            _settle(run, state)
    return True


def _settle(run: PendingRun, state: State) -> None:
    """Call the hooks, and let the end of the flow come, as far as this run is concerned."""
    if run.nested is not None:
        run.nested.stop_timers()
    hooks = run.task.hooks_for(state) if run.task.has_hooks else ()
    dispatch = run.home.dispatch
    if hooks:
        context, seen = _user_context(run), run.future.state
        task, record, home, number = run.task, run.run, run.home, run.run.number

        def call_hooks() -> None:
            try:
                for hook in hooks:
                    context.run(run_hook, hook, task, record, seen)
            finally:
                home.settled(number)

        run.forget()
        dispatch.telling.run(call_hooks)
        return
    number, home = run.run.number, run.home
    run.forget()
    if dispatch.is_local or (state is COMPLETED and not home.logs_info):
        home.settled(number)
    else:  # what is to be told of it comes first
        dispatch.telling.run(lambda: home.settled(number))


def _user_context(run: PendingRun) -> Context:
    """Return a copy of the context of the call, in which hooks are called: they belong to what the call was made in."""
    context = run.context.copy()
    context.run(current_scope.set, run.home.scope)
    return context


def tell(run: PendingRun, log: Callable[[], object]) -> None:
    """Log something: here where tasks run in this process, else where a handler may wait."""
    dispatch = run.home.dispatch
    if dispatch.is_local:
        call_guarded(log)
    else:
        dispatch.telling.run(log)


def _tell_end(run: PendingRun, state: State) -> None:
    logger = _logging.task_logger
    bad = state.is_failed() or state.is_crashed()
    level = logging.INFO if state.is_completed() else logging.ERROR if bad else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    name, fields = run.run.name, run.log_fields()
    error = state.data if state.is_failed() else None
    if isinstance(error, BaseException) and not isinstance(error, RunTimeout):
        text = "Task run %r encountered an exception:"
        tell(run, lambda: logger.error(text, name, exc_info=error, extra=fields))
    tell(run, lambda: logger.log(level, "Task run %r finished in state %r", name, state, extra=fields))


def run_callbacks(future: TaskFuture[Any], callbacks: Any) -> None:
    """Call the callbacks of a future that is final.

    A callback may end another run, whose callbacks end more: they form a queue here, not a recursion, so that a chain
    of 10,000 runs that are not ready needs no deep stack.
    """
    here = this_thread
    if here.cascading:
        here.others.append((future, callbacks))
        return
    here.cascading = True
    try:
        while True:
            for callback in callbacks if type(callbacks) is list else (callbacks,):
                try:
                    callback(future)
                except Exception:  # noqa: BLE001 - one that raises must not keep the others from being told
                    call_guarded(lambda: _logging.task_logger.exception(_FAILED, future.name))  # noqa: B023
            if not here.others:
                return
            future, callbacks = here.others.popleft()
    finally:
        here.cascading = False


_FAILED: Final = "What follows on task run %r failed."


# -- from outside


def cancel(run: PendingRun) -> bool:
    """Cancel it if it has not started, or if it can be stopped."""
    what, given = run.cancel()
    if what is Do.TELL:
        state = run.run.final
        assert state is not None  # noqa: S101 - said to type checkers
        return finish(run, state, given)
    if what is not Do.STOP:
        return False
    reached("before it is asked to stop")
    try:
        stopped = _stopped(run, given)
    except BaseException:
        _go_on(run, *run.stop_answered(stopped=False))
        raise
    reached("after it was asked to stop")
    answer = run.stop_answered(stopped=stopped)
    if stopped and given.withdraws:  # nothing more is heard of it
        set_final(run, Cancelled("Task run was cancelled."))
    _go_on(run, *answer)
    return stopped


def _go_on(run: PendingRun, what: Do, outcome: Outcome | None) -> None:
    """Do what had to wait for the answer of what was asked to stop."""
    if outcome is None:
        do(run, what)
    else:
        after_attempt(run, what, outcome)


def _stopped(run: PendingRun, handle: Cancellable) -> bool:
    try:
        return handle.cancel() is not False
    except Exception as error:  # noqa: BLE001 - executors are written by others
        text = "Task run %r could not be cancelled: what runs it raised %r."
        told, fields = (text, run.run.name, error), run.log_fields()
        call_guarded(lambda: _logging.task_logger.warning(*told, extra=fields))
        return False


def overrun(run: PendingRun, attempt: int, error: RunTimeout) -> None:
    """Give up an attempt at its deadline: its slot goes to others, and what it still brings is dropped."""
    outcome = Outcome(None, error)
    what, handle = run.deadline(attempt, outcome)
    if what is Do.LATE:
        return
    release(run, handle)
    if what is Do.RELEASE:
        decide(run, outcome)


def release(run: PendingRun, handle: Cancellable | None) -> None:
    """Stop an attempt if that can be done; else let the executor stop counting on it."""
    if handle is None or not _stopped(run, handle):
        run.home.dispatch.abandon(run)


def abort(run: PendingRun, state: State) -> None:
    """End it now: it takes this state, and what its code still does is nobody's concern."""
    if cancel(run) and run.run.final is not None:
        return
    callbacks, handle = run.abort(state)
    if callbacks is not TOO_LATE:
        release(run, handle)
    finish(run, state, callbacks)
