"""The states that runs end in: for what their code raised or returned, and for what happened around them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from riverrun import _logging, _names
from riverrun._context import this_thread
from riverrun.exceptions import CrashedRun, RunTimeout, WorkerLost
from riverrun.states import Cancelled, Crashed, Failed, NotReady, State, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable


def describe(error: BaseException) -> str:
    """Give an exception's type and text in one line."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception class of the user's may fail at that
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_cancellation(error: BaseException) -> bool:
    """Say whether it is asyncio's or trio's way to end a coroutine; neither library is imported for that."""
    return type(error).__name__ in {"CancelledError", "Cancelled"} and not isinstance(error, Exception)


def is_interrupt(error: BaseException) -> bool:
    """Say whether it is an interrupt of the process: it ends the task run, and then it goes on to the flow."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or getattr(error, "is_termination", False)


def failed(error: BaseException) -> State:
    """Give the state for what an attempt at a task run raised."""
    if isinstance(error, RunTimeout):
        return TimedOut(str(error), error)
    if isinstance(error, WorkerLost):
        return Crashed(str(error), error)
    if is_interrupt(error):
        return Crashed(f"Task run was interrupted: {type(error).__name__}.", CrashedRun("Task run was interrupted."))
    if is_cancellation(error):
        return Cancelled("Task run was cancelled.")
    return Failed(f"Task run encountered an exception: {describe(error)}", error)


def not_taken(name: str, error: Exception) -> State:
    """Give the state of a task run that the executor refused, or gave something impossible for."""
    lost = CrashedRun(f"The task runner did not carry out task run {name!r}: {describe(error)}")
    lost.__cause__ = error
    return Crashed(str(lost), lost)


def lost(name: str, attempt: int, error: BaseException) -> WorkerLost:
    """Make the exception of a task run whose worker is gone."""
    exception = WorkerLost(f"Task run {name!r} was lost in attempt {attempt}: its worker is gone ({describe(error)}).")
    exception.__cause__ = error
    return exception


def not_ready(upstream: Any, state: State) -> State:
    """Make the state of a run whose upstream did not complete; the root failure goes from run to run.

    Args:
        upstream: the direct upstream: a task future, or a State that was given in place of one.
        state: what it ended in.
    """
    run_id = "unknown" if isinstance(upstream, State) else upstream.task_run_id
    first = f"Upstream task run '{run_id}' did not reach a 'COMPLETED' state."
    if state.is_not_ready():
        root = (state.message or "").partition("state. ")[2]
        return NotReady(f"{first} {root}", state.data)
    what = "A state" if isinstance(upstream, State) else f"Task run {upstream.name!r}"
    return NotReady(f"{first} {what} ended as {state!r}.", state.exception())


def returned(state: State) -> tuple[State, Any]:
    """Give the record's state, and the value, of a task that returned a State of its own."""
    if state.is_completed():
        return state.with_data(None), state.data
    if state.is_final():
        return state, None
    return Failed(f"Task run returned a state that is not final: {state!r}."), None


def run_hook(hook: Callable[..., object], subject: Any, run: Any, state: State) -> None:
    """Call a hook of the user's; an exception of its is logged, and changes nothing."""
    text = "Hook %r raised for run %r, which stays in state %r."
    call_user(lambda: hook(subject, run, state), text, _names.function_name(hook), run.name, state)


def call_user(function: Callable[[], object], text: str, *args: object) -> None:
    """Call a function of the user's between two steps of ours: what it raises is logged, but for an interrupt.

    It may call tasks and wait for them, so those who wait for these are told at once, and not after it.
    """
    before, this_thread.cascading = this_thread.cascading, False
    try:
        function()
    except BaseException as error:
        if is_interrupt(error):
            raise
        error.__context__ = None  # what happened before is no part of this
        _logging.root_logger.error(text, *args, exc_info=error)
    finally:
        this_thread.cascading = before
