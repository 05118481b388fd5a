"""What observers are told: frozen records of plain values, with nothing in them by which a run could be changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

    from riverrun.states import State


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An exception, as text."""

    type: str
    """Its class, with the module if that is not `builtins`: `ValueError`, `json.decoder.JSONDecodeError`."""
    message: str
    traceback: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened."""

    time: float
    """When, in seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRunEvent(Event):
    """Something that happened to a flow run, or in it."""

    flow_run_id: str
    flow_run_name: str
    flow_name: str
    parent_flow_run_id: str | None
    """Of a subflow: the flow run around it."""
    parent_task_run_id: str | None
    """Of a flow that was called in a task: that task's run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRunStarted(FlowRunEvent):
    """A flow run, or a subflow run, begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRunFinished(FlowRunEvent):
    """A flow run has reached its final state."""

    state: State
    """The final state, without its value."""
    start_time: float
    attempt: int
    """How many attempts have begun: more than 1 if it was tried again."""
    failure: Failure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowRunAttempt(FlowRunEvent):
    """A flow's function is about to be called."""

    attempt: int
    """1 for the first attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunnerEvent(FlowRunEvent):
    """Something that happened to the task runner of a flow run."""

    task_runner: str
    """The name of its class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunnerStarted(TaskRunnerEvent):
    """The task runner of a flow run has started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunnerStopped(TaskRunnerEvent):
    """The task runner of a flow run has shut down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunEvent(FlowRunEvent):
    """Something that happened to a task run."""

    task_run_id: str
    task_run_name: str
    """The name; one from a template is known only when the upstreams are done."""
    task_name: str
    tags: frozenset[str]
    attempt: int
    """How many attempts have begun: 0 before the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunStateChanged(TaskRunEvent):
    """A task run is in another state."""

    state: State
    """The new state, without its value."""
    start_time: float | None
    """When the first attempt began, in seconds since the epoch; None before."""
    failure: Failure | None
    """What the attempt that has ended raised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRunAttempt(TaskRunEvent):
    """A task run is about to be handed to what runs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecord(Event):
    """A line of the log, whether it is shown or not."""

    level: int
    level_name: str
    logger: str
    message: str
    failure: Failure | None
    flow_run_id: str | None
    flow_run_name: str | None
    task_run_id: str | None
    task_run_name: str | None
    worker: str | None
    """The host and the process it was made in; None in the flow's own."""


# -- made from what the engine has


def flow_run_started(run: Any) -> FlowRunStarted:
    """Make the event of a flow run that begins."""
    return FlowRunStarted(time=run.start_time, **_of_flow_run(run))


def flow_run_finished(run: Any, state: State, time: float) -> FlowRunFinished:
    """Make the event of a flow run that has ended."""
    return FlowRunFinished(
        time=time,
        state=state.with_data(None),
        start_time=run.start_time,
        attempt=run.run_count,
        failure=_failure_in(state),
        **_of_flow_run(run),
    )


def flow_run_attempt(run: Any, time: float) -> FlowRunAttempt:
    """Make what is known of an attempt at a flow run."""
    return FlowRunAttempt(time=time, attempt=run.run_count, **_of_flow_run(run))


def task_runner_started(run: Any, task_runner: str, time: float) -> TaskRunnerStarted:
    """Make the event of a task runner that has started."""
    return TaskRunnerStarted(time=time, task_runner=task_runner, **_of_flow_run(run))


def task_runner_stopped(run: Any, task_runner: str, time: float) -> TaskRunnerStopped:
    """Make the event of a task runner that has shut down."""
    return TaskRunnerStopped(time=time, task_runner=task_runner, **_of_flow_run(run))


def task_run_state_changed(run: Any, attempt: int, state: State, time: float) -> TaskRunStateChanged:
    """Make the event of a task run in a new state."""
    return TaskRunStateChanged(
        time=time,
        attempt=attempt,
        state=state.with_data(None),
        start_time=run.start_time if attempt else None,
        failure=_failure_in(state),
        **_of_task_run(run),
    )


def task_run_attempt(run: Any, time: float, *, attempt: int) -> TaskRunAttempt:
    """Make what is known of an attempt at a task run."""
    return TaskRunAttempt(time=time, attempt=attempt, **_of_task_run(run))


def log_record(record: logging.LogRecord, message: str) -> LogRecord:
    """Make the event of a log record."""
    error = record.exc_info[1] if record.exc_info else None
    return LogRecord(
        time=record.created,
        level=record.levelno,
        level_name=record.levelname,
        logger=record.name,
        message=message,
        failure=None if error is None else _failure(error),
        flow_run_id=getattr(record, "flow_run_id", None),
        flow_run_name=getattr(record, "flow_run_name", None),
        task_run_id=getattr(record, "task_run_id", None),
        task_run_name=getattr(record, "task_run_name", None),
        worker=getattr(record, "worker", None),
    )


def _of_flow_run(run: Any) -> dict[str, Any]:
    return {
        "flow_run_id": run.id,
        "flow_run_name": run.name,
        "flow_name": run.flow_name,
        "parent_flow_run_id": None if run.parent is None else run.parent.id,
        "parent_task_run_id": run.parent_task_run_id,
    }


def _of_task_run(run: Any) -> dict[str, Any]:
    return {
        "task_run_id": run.id,
        "task_run_name": run.name,
        "task_name": run.task_name,
        "tags": run.tags,
        **_of_flow_run(run.flow_run),
    }


def _failure_in(state: State) -> Failure | None:
    # A run that is not ready has the root failure of another run, which was told of there.
    if state.is_completed() or state.is_not_ready() or not isinstance(state.data, BaseException):
        return None
    return _failure(state.data)


def _failure(error: BaseException) -> Failure:
    import traceback

    found = traceback.TracebackException.from_exception(error)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception class of the user's may fail at that
        message = "(its text cannot be shown)"
    return Failure(type=name, message=message, traceback="".join(found.format()))
