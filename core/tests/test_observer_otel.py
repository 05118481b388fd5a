"""The observer `otel`, against the in-memory exporter of OpenTelemetry's SDK."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import cloudpickle
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from riverrun import flow, observers, task
from riverrun.observers.otel import OpenTelemetryObserver, current

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("the application")

    def named(self, name: str):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str):
        [span] = self.named(name)
        return span


def is_child(child, parent) -> bool:
    return child.context.trace_id == parent.context.trace_id and child.parent.span_id == parent.context.span_id


@pytest.fixture
def spans():
    spans = Spans()
    with observers.register(OpenTelemetryObserver(tracer_provider=spans.provider)):
        yield spans


@task
def add(a: int, b: int) -> int:
    return a + b


def test_task_runs_and_subflows_are_children_of_the_flow_run_around_them(spans, task_runner):
    @flow(task_runner=task_runner, name="inner")
    def inner():
        return add(1, 2).result()

    @task
    def calls_a_flow():
        return inner()

    @flow(task_runner=task_runner, name="outer")
    def outer():
        inner()
        return calls_a_flow().result()

    outer()
    root, called = spans.one("outer"), spans.one("calls_a_flow")
    assert root.parent is None
    first, second = spans.named("inner")
    assert is_child(first, root)
    assert is_child(called, root)
    assert is_child(second, called)
    assert [is_child(sum_, inner_) for sum_, inner_ in zip(spans.named("add"), (first, second), strict=True)] == [
        True,
        True,
    ]
    assert root.attributes["riverrun.kind"] == "flow run"
    assert first.attributes["riverrun.kind"] == "subflow run"
    assert called.attributes["riverrun.kind"] == "task run"
    assert called.attributes["riverrun.task_run.name"].startswith("calls_a_flow-")
    assert called.attributes["riverrun.flow_run.id"] == root.attributes["riverrun.flow_run.id"]
    assert called.attributes["riverrun.state"] == "Completed"
    assert {span.status.status_code for span in spans.exporter.get_finished_spans()} == {StatusCode.OK}


def test_a_flow_run_is_a_child_of_the_span_around_its_call(spans, task_runner):
    @flow(task_runner=task_runner, name="sums")
    def sums():
        return add(1, 2).result()

    with spans.tracer.start_as_current_span("request"):
        sums()
    assert is_child(spans.one("sums"), spans.one("request"))


def test_spans_of_the_users_code_are_children_of_its_run(spans, task_runner):
    @task
    def works():
        with spans.tracer.start_as_current_span("query"):
            return 1

    @task
    async def works_later():
        with spans.tracer.start_as_current_span("query later"):
            await anyio.sleep(0.01)

    @flow(task_runner=task_runner, name="reads")
    def reads():
        with spans.tracer.start_as_current_span("prepare"):
            future = works()
        future.result()
        works_later().result()

    reads()
    assert is_child(spans.one("prepare"), spans.one("reads"))
    assert is_child(spans.one("works"), spans.one("reads"))
    assert is_child(spans.one("query"), spans.one("works"))
    assert is_child(spans.one("query later"), spans.one("works_later"))
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_current_span_is_the_runs_own(spans, task_runner):
    @task
    def works():
        trace.get_current_span().set_attribute("rows", 3)

    @flow(task_runner=task_runner, name="reads")
    def reads():
        trace.get_current_span().add_event("begun")
        works().result()

    reads()
    assert spans.one("works").attributes["rows"] == 3
    assert [event.name for event in spans.one("reads").events] == ["begun"]


def test_on_a_worker_something_stands_in_for_the_runs_span(spans):
    event = SimpleNamespace(flow_run_id="unknown")
    with spans.tracer.start_as_current_span("run") as span:
        here = OpenTelemetryObserver(tracer_provider=spans.provider)
        here._spans["unknown"] = span
        given = here.riverrun_around_flow_run(event)
    there = cloudpickle.loads(cloudpickle.dumps(given))
    with there(), spans.tracer.start_as_current_span("query"):
        pass
    assert is_child(spans.one("query"), spans.one("run"))


def test_the_baggage_of_the_application_is_there_in_flows_and_tasks(spans, task_runner):
    @task
    def tenant():
        return baggage.get_baggage("tenant")

    @task
    async def tenant_later():
        return baggage.get_baggage("tenant")

    @flow(task_runner=task_runner)
    def asks():
        return baggage.get_baggage("tenant"), tenant().result(), tenant_later().result()

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        assert asks() == ("acme", "acme", "acme")
        with current({}):  # what stands in for a span on a worker
            assert baggage.get_baggage("tenant") == "acme"
    finally:
        context.detach(token)


def test_spans_under_event_loops(spans, run_async, task_runner):
    @task
    async def works_later():
        with spans.tracer.start_as_current_span("query"):
            await anyio.sleep(0.01)

    @flow(task_runner=task_runner, name="reads")
    async def reads():
        with spans.tracer.start_as_current_span("prepare"):
            await works_later()

    run_async(reads)
    assert is_child(spans.one("prepare"), spans.one("reads"))
    assert is_child(spans.one("works_later"), spans.one("reads"))
    assert is_child(spans.one("query"), spans.one("works_later"))


def test_a_failure_has_the_status_and_the_exception_and_each_attempt(spans, task_runner):
    @task(retries=1)
    def stubborn():
        raise KeyError("no disk")

    @flow(task_runner=task_runner, name="tries")
    def tries():
        stubborn()
        add(stubborn.with_options(retries=0)(), 1)

    with pytest.raises(KeyError):
        tries()
    first, second = spans.named("stubborn")
    tried = max(first, second, key=lambda span: len(span.events))
    assert tried.status.status_code is StatusCode.ERROR
    assert tried.status.description == "Task run encountered an exception: KeyError: 'no disk'"
    assert tried.attributes["riverrun.attempts"] == 2
    failed, ended = tried.events
    assert (failed.name, failed.attributes["riverrun.attempt"]) == ("riverrun.attempt_failed", 1)
    assert ended.name == "exception"
    for event in (failed, ended):
        assert event.attributes["exception.type"] == "KeyError"
        assert event.attributes["exception.message"] == "'no disk'"
        assert "in stubborn" in event.attributes["exception.stacktrace"]
    not_run = spans.one("add")
    assert not_run.attributes["riverrun.state"] == "NotReady"
    assert not_run.attributes["riverrun.attempts"] == 0
    assert not_run.status.status_code is StatusCode.ERROR
    root = spans.one("tries")
    assert root.status.status_code is StatusCode.ERROR
    assert [event.name for event in root.events] == ["exception"]


def test_what_was_cancelled_is_no_error(spans):
    @flow(task_runner="concurrent", name="cancels")
    def cancels():
        blocked = add(1, 2, wait_for=[add.with_options(name="first")(1, 2)])
        blocked.cancel()
        return 1

    cancels()
    for span in spans.named("add"):
        assert span.status.status_code in (StatusCode.UNSET, StatusCode.OK)


def test_a_span_lasts_as_long_as_its_run(spans):
    runs = []

    @flow(task_runner="sequential", name="lasts", on_completion=[lambda *hook: runs.append(hook[1])])
    def lasts():
        return add(1, 2)

    lasts()
    [run] = runs
    span = spans.one("lasts")
    assert abs(span.start_time / 1e9 - run.start_time) < 1e-3
    assert abs(span.end_time / 1e9 - run.end_time) < 1e-3


def test_every_span_ends_also_after_an_interrupt(spans):
    @flow(task_runner="sequential", name="interrupted")
    def interrupted():
        add(1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert spans.one("interrupted").attributes["riverrun.state"] == "Crashed"
    assert spans.one("add").attributes["riverrun.state"] == "Completed"


def test_without_a_provider_nothing_is_recorded_and_the_flow_runs(task_runner):
    @flow(task_runner=task_runner)
    def sums():
        return add(1, 2).result()

    with observers.register("otel"):
        assert sums() == 3


def test_one_observer_serves_many_flow_runs(spans):
    @flow(task_runner="sequential", name="sums")
    def sums():
        return add(1, 2)

    sums()
    sums()
    first, second = spans.named("sums")
    assert first.context.trace_id != second.context.trace_id
