"""Running a function of the user inside a scope, to an `Outcome`: prints, surroundings, deadlines, and what it raises.

Flows and tasks run through here, in the flow's process and on workers alike.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from riverrun import _logging
from riverrun._context import current_scope
from riverrun._deadlines import interrupted_after
from riverrun._outcomes import Outcome
from riverrun._surroundings import Surrounded
from riverrun.exceptions import RunTimeout

if TYPE_CHECKING:
    from collections.abc import Callable


def call_in_scope(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function inside a scope, in a context that is not used for anything else."""
    current_scope.set(scope)
    value = function(*args, **kwargs)
    if scope.nested is not None:
        scope.nested.close()
    return value


def execute(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    """Call a function inside a scope; whatever it raises is in the outcome, its traceback beginning in its own code."""
    token = current_scope.set(scope)
    try:
        if scope.surroundings:
            with Surrounded(scope):
                return _with_prints(scope, function, args, kwargs)
        return _with_prints(scope, function, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - an outcome is a value; the engine knows what to do with each kind
        return Outcome(None, from_user_code(error))
    finally:
        current_scope.reset(token)


def _with_prints(scope: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
    if scope.log_prints is None:
        return Outcome(call_in_scope(scope, function, args, kwargs))
    with _logging.prints_logged(scope, wanted=scope.log_prints):
        return Outcome(call_in_scope(scope, function, args, kwargs))


async def execute_async(
    scope: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float | None,  # noqa: ASYNC109 - its end is an outcome
) -> Outcome:
    """Do what `execute` does with a coroutine function; at its deadline the coroutine is cancelled."""
    token = current_scope.set(scope)
    try:
        if scope.surroundings:
            with Surrounded(scope):
                return await _with_prints_async(scope, function, args, kwargs, timeout)
        return await _with_prints_async(scope, function, args, kwargs, timeout)
    except BaseException as error:  # noqa: BLE001
        return Outcome(None, from_user_code(error))
    finally:
        current_scope.reset(token)


async def _with_prints_async(
    scope: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float | None,  # noqa: ASYNC109
) -> Outcome:
    if timeout is None and scope.log_prints is None:
        return Outcome(await function(*args, **kwargs))
    with _logging.prints_logged(scope, wanted=bool(scope.log_prints)):
        if timeout is None:
            return Outcome(await function(*args, **kwargs))
        return await _within(timeout, function, args, kwargs)


async def _within(
    timeout: float,  # noqa: ASYNC109
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Outcome:
    import anyio

    value = None
    with anyio.move_on_after(timeout) as deadline:
        value = await function(*args, **kwargs)
    # Only our own deadline counts: a TimeoutError of the user's code is an exception like others. Code that swallows
    # the cancellation, or blocks the loop until after the deadline, has overrun it all the same.
    late = deadline.cancel_called or anyio.current_time() >= deadline.deadline
    return Outcome(None, timed_out(timeout)) if late else Outcome(value)


def timed_out(timeout: float) -> RunTimeout:
    """Make the exception of a task run that exceeded its time limit."""
    return RunTimeout(f"Task run exceeded timeout of {float(timeout)} seconds")


def from_user_code(error: BaseException) -> BaseException:
    """Let an exception's traceback begin in the code of the user: our frames at its top say nothing."""
    traceback = error.__traceback__
    while (
        traceback is not None
        and traceback.tb_next is not None
        and traceback.tb_frame.f_globals.get("__package__") == "riverrun"
    ):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def execute_within(timeout: float, body: Callable[[], Outcome]) -> Outcome:
    """Execute on a worker: at the deadline the code is interrupted in its main thread, and left behind in any other."""
    if threading.current_thread() is threading.main_thread():
        with interrupted_after(timeout) as deadline:
            outcome = body()
        return Outcome(None, timed_out(timeout)) if deadline.passed else outcome
    outcomes: list[Outcome] = []
    context = copy_context()
    thread = threading.Thread(target=lambda: outcomes.append(context.run(body)), name="riverrun-limited", daemon=True)
    thread.start()
    thread.join(timeout)
    return outcomes[0] if outcomes else Outcome(None, timed_out(timeout))
