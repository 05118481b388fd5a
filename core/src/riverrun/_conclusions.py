"""How a flow run ends: the final state that follows from what its function did and from what it submitted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from riverrun import _inputs
from riverrun._endings import describe
from riverrun._futures import TaskFuture
from riverrun.exceptions import CancelledError, CrashedRun, UnfinishedRun
from riverrun.states import Cancelled, Completed, Crashed, Failed, State, aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun._flow_runs import FlowRun
    from riverrun._outcomes import Outcome


def failed(flow_run: FlowRun, error: BaseException) -> State:
    """Give the state of a flow run that raised."""
    _add_notes(flow_run, error)
    if isinstance(error, CancelledError) and flow_run.closed is not None and flow_run.closed.is_cancelled():
        return Cancelled("Flow run was cancelled.", error)
    return Failed(f"Flow run encountered an exception: {describe(error)}", error)


def interrupted(error: BaseException) -> State:
    """Give the state for an interrupt: of the process, or of the coroutine around an async flow."""
    if type(error).__name__ in {"CancelledError", "Cancelled"}:
        return Cancelled("Flow run was cancelled.")
    text = f"Flow run was interrupted: {type(error).__name__}."
    return Crashed(text, CrashedRun(text))


def conclude(flow_run: FlowRun, outcome: Outcome) -> State:
    """Give the final state of an attempt whose function has ended, and whose runs are all final.

    Raises:
        BaseException: the function was interrupted.
    """
    if outcome.error is not None:
        if not isinstance(outcome.error, Exception):
            raise outcome.error
        return failed(flow_run, outcome.error)
    value = outcome.value
    if isinstance(value, State) and value.is_final():
        return value
    if value is None:
        return _aggregate(flow_run, [run.state for run in flow_run.runs[flow_run.first_run :]], None)
    found = _inputs.upstreams_in([value])
    if not found:
        return Completed(data=_resolved(value))
    for future in found:
        if isinstance(future, TaskFuture) and not future.done():
            return failed(flow_run, _unfinished(flow_run, future))
    states = [future.state if isinstance(future, TaskFuture) else future for future in found]
    return _aggregate(flow_run, states, value)


def _unfinished(flow_run: FlowRun, future: TaskFuture[Any]) -> UnfinishedRun:
    msg = (
        f"Flow {flow_run.flow.name!r} returned the future of task run {future.name!r}, which belongs to another flow "
        f"run and is not finished. Return future.result(), or wait for it in the flow that submitted it."
    )
    return UnfinishedRun(msg)


def _aggregate(flow_run: FlowRun, states: Sequence[State], value: Any) -> State:
    state = aggregate(states)
    if state.is_completed():
        return state.with_data(_resolved(value))
    return state.with_data(_root_failure(flow_run, states))


def _resolved(value: Any) -> Any:
    """Put values in the places of futures; also where there are none: the list of an empty map is a list."""
    return _inputs.replace(value, lambda upstream, _: upstream.result())


def _root_failure(flow_run: FlowRun, states: Sequence[State]) -> BaseException | None:
    """Give the exception that stands for many states: of the first failure, in the order of submission."""
    ours: list[State] = [run.state for run in flow_run.runs[flow_run.first_run :]]
    among = {id(state) for state in states}
    ordered = [state for state in ours if id(state) in among] + list(states)
    for kind in (_is_root, State.is_cancelled, State.is_not_ready):
        for state in ordered:
            if kind(state):
                error = state.exception()
                root = error.__cause__ if state.is_not_ready() and error.__cause__ is not None else error
                _add_notes(flow_run, root)
                return root
    return None


def _is_root(state: State) -> bool:
    return state.is_failed() or state.is_crashed()


def _add_notes(flow_run: FlowRun, error: BaseException) -> None:
    """Say on an exception which run it is from, and how many others there are."""
    runs = flow_run.runs[flow_run.first_run :]
    source = next((run for run in runs if run.state.data is error and _is_root(run.state)), None)
    if source is None:
        return
    kind = "Task run" if hasattr(source, "task") else "Subflow run"
    notes = [f"{kind} {source.name!r} of flow run {flow_run.name!r} failed with this exception."]
    others = sum(_is_root(run.state) for run in runs) - 1
    not_ready = sum(run.state.is_not_ready() for run in runs)
    if others:
        notes.append(f"{others} other run{'s' if others > 1 else ''} failed too.")
    if not_ready:
        notes.append(
            f"{not_ready} run{'s were' if not_ready > 1 else ' was'} not ready, because of runs that did not complete."
        )
    with suppress(Exception):  # an exception class may refuse notes
        for note in notes:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
