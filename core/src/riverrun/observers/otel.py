"""The observer `otel`: a span of OpenTelemetry for each flow run, subflow run and task run.

It uses the tracer provider that the application has set up, and sets up none itself: without one, nothing is recorded.
"""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from riverrun import __version__, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.util.types import AttributeValue

    from riverrun.observers import (
        Failure,
        FlowRunAttempt,
        FlowRunEvent,
        FlowRunFinished,
        FlowRunStarted,
        TaskRunAttempt,
        TaskRunEvent,
        TaskRunStateChanged,
    )
    from riverrun.states import State

_propagator = TraceContextTextMapPropagator()


class OpenTelemetryObserver:
    """Records spans of flow runs and task runs.

    A flow run's span is a child of the span that is current where the flow is called. A task run's span lasts from its
    first attempt to its final state; each attempt that failed and is followed by another is an event in it. Spans that
    the code of a flow or task makes, on a worker too, are children of its run's span.

    Args:
        tracer_provider: by default the application's.
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("riverrun", __version__, tracer_provider)
        self._spans: dict[str, trace.Span] = {}
        """The spans that have not ended, by the id of their run."""
        self._lock = threading.Lock()  # the engine asks for what is around a run, on any thread

    @hookimpl
    def riverrun_flow_run_started(self, event: FlowRunStarted) -> None:
        """Begin the span of a flow run."""
        parent = self._spans.get(event.parent_task_run_id or event.parent_flow_run_id or "")
        kind = "flow run" if event.parent_flow_run_id is None and event.parent_task_run_id is None else "subflow run"
        self._spans[event.flow_run_id] = self._tracer.start_span(
            event.flow_name,
            # Where there is no run around it: what was current where the flow was called.
            context=None if parent is None else trace.set_span_in_context(parent),
            start_time=_nanoseconds(event.time),
            attributes={"riverrun.kind": kind, **_of_flow_run(event)},
        )

    @hookimpl
    def riverrun_around_flow_run(self, event: FlowRunAttempt) -> Callable[[], AbstractContextManager[object]]:
        """Make the span of the flow run the current one of its code."""
        return _CurrentFor(self._spans.get(event.flow_run_id, trace.INVALID_SPAN))

    @hookimpl
    def riverrun_around_task_run(self, event: TaskRunAttempt) -> Callable[[], AbstractContextManager[object]]:
        """Make the span of the task run the current one of its code."""
        with self._lock:
            return _CurrentFor(self._task_span(event))

    @hookimpl
    def riverrun_task_run_state_changed(self, event: TaskRunStateChanged) -> None:
        """Note an attempt that has failed; end the span of a task run that is final."""
        if event.state.name == "AwaitingRetry":
            with self._lock:
                span = self._task_span(event)
            span.add_event(
                "riverrun.attempt_failed",
                {"riverrun.attempt": event.attempt, **_of_failure(event.failure)},
                timestamp=_nanoseconds(event.time),
            )
        elif event.state.is_final():
            with self._lock:
                span = self._task_span(event)
                del self._spans[event.task_run_id]
            _end(span, event.state, event.failure, event.attempt, event.time)

    @hookimpl
    def riverrun_flow_run_finished(self, event: FlowRunFinished) -> None:
        """End the span of a flow run."""
        span = self._spans.pop(event.flow_run_id)
        _end(span, event.state, event.failure, event.attempt, event.time)

    def _task_span(self, event: TaskRunEvent) -> trace.Span:
        span = self._spans.get(event.task_run_id)
        if span is None:
            parent = self._spans.get(event.flow_run_id, trace.INVALID_SPAN)
            span = self._spans[event.task_run_id] = self._tracer.start_span(
                event.task_name,
                context=trace.set_span_in_context(parent),
                start_time=_nanoseconds(event.time),
                attributes={
                    "riverrun.kind": "task run",
                    "riverrun.task_run.id": event.task_run_id,
                    "riverrun.task_run.name": event.task_run_name,
                    "riverrun.task.name": event.task_name,
                    "riverrun.task.tags": sorted(event.tags),
                    **_of_flow_run(event),
                },
            )
        return span


def _of_flow_run(event: FlowRunEvent) -> dict[str, str]:
    return {
        "riverrun.flow_run.id": event.flow_run_id,
        "riverrun.flow_run.name": event.flow_run_name,
        "riverrun.flow.name": event.flow_name,
    }


def _of_failure(failure: Failure | None) -> dict[str, AttributeValue]:
    if failure is None:
        return {}
    return {
        "exception.type": failure.type,
        "exception.message": failure.message,
        "exception.stacktrace": failure.traceback,
    }


def _end(span: trace.Span, state: State, failure: Failure | None, attempts: int, time: float) -> None:
    span.set_attributes({"riverrun.state": state.name, "riverrun.attempts": attempts})
    if failure is not None:
        span.add_event("exception", _of_failure(failure), timestamp=_nanoseconds(time))
    if state.is_completed():
        span.set_status(Status(StatusCode.OK))
    elif not state.is_cancelled():
        span.set_status(Status(StatusCode.ERROR, state.message or state.name))
    span.end(end_time=_nanoseconds(time))


def _nanoseconds(time: float) -> int:
    return int(time * 1_000_000_000)


class _CurrentFor:
    """Makes a span the current one of a run's code; in another process, what stands in for the span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __call__(self) -> AbstractContextManager[object]:
        # What the code raises is told by the events: it may be tried again.
        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def __reduce__(self) -> tuple[object, ...]:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(self._span))
        return functools.partial, (current, carrier)


@contextmanager
def current(carrier: dict[str, str]) -> Iterator[None]:
    """Make the span that a W3C trace context names the current one.

    Args:
        carrier: `traceparent`, and `tracestate` if there is one.
    """
    token = context.attach(_propagator.extract(carrier, context.get_current()))
    try:
        yield
    finally:
        context.detach(token)
