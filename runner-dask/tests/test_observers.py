"""Observers of flow runs whose tasks run on Dask: the states they are told, and what they put around tasks there."""

from __future__ import annotations

import os
import time

import pytest
from riverrun import flow, get_run_logger, hookimpl, observers, task
from riverrun.task_runners import DaskTaskRunner

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from riverrun.observers.otel import OpenTelemetryObserver

pytestmark = pytest.mark.timeout(120)


class Events:
    def __init__(self) -> None:
        self.of_tasks: list[observers.TaskRunStateChanged] = []
        self.of_logs: list[observers.LogRecord] = []

    @hookimpl
    def riverrun_task_run_state_changed(self, event):
        self.of_tasks.append(event)

    @hookimpl
    def riverrun_log_record(self, event):
        self.of_logs.append(event)

    def states(self) -> dict[str, list[str]]:
        states: dict[str, list[str]] = {}
        for event in self.of_tasks:
            states.setdefault(event.task_run_name, []).append(event.state.name)
        return states


@pytest.fixture
def cluster(local_cluster):
    return local_cluster


@pytest.fixture(params=["an existing cluster", "a temporary cluster"])
def runner(request):
    if request.param == "an existing cluster":
        return DaskTaskRunner(cluster=request.getfixturevalue("local_cluster"))
    return DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1})


def test_every_run_is_told_from_pending_to_its_end_in_order(runner):
    @task
    def add(one, other):
        get_run_logger().info("%d and %d", one, other)
        return one + other

    @task(retries=1)
    def fails(value):
        raise ValueError(value)

    @flow(task_runner=runner)
    def sums():
        futures = [add(add(i, 1), 1) for i in range(10)]
        add(fails(1), 1)
        return futures

    events = Events()
    with observers.register(events):
        assert sums() == [i + 2 for i in range(10)]
    states = events.states()
    assert len(states) == 22
    [failed] = [told for name, told in states.items() if name.startswith("fails")]
    assert failed == ["Pending", "Running", "AwaitingRetry", "Retrying", "Failed"]
    assert [told for told in states.values() if told[-1] == "NotReady"] == [["Pending", "NotReady"]]
    assert sum(told == ["Pending", "Running", "Completed"] for told in states.values()) == 20
    said = [record for record in events.of_logs if record.worker]
    assert len(said) == 20
    assert all(" and " in record.message for record in said)
    assert all(record.task_run_name.startswith("add-") for record in said)


def test_spans_of_a_tasks_code_on_a_worker_are_children_of_its_run(runner):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def ids(span):
        return format(span.trace_id, "032x"), format(span.span_id, "016x")

    @task
    def works():
        # A worker is another process, with a tracer provider (and an exporter) of its own.
        there = InMemorySpanExporter()
        local = TracerProvider()
        local.add_span_processor(SimpleSpanProcessor(there))
        with local.get_tracer("the application").start_as_current_span("query"):
            time.sleep(0.01)
        [span] = there.get_finished_spans()
        return os.getpid(), ids(span.parent)

    @task
    async def works_later():
        return os.getpid(), ids(trace.get_current_span().get_span_context())

    @task(timeout_seconds=30)
    def works_within_a_time_limit():
        return os.getpid(), ids(trace.get_current_span().get_span_context())

    @flow(task_runner=runner, name="reads")
    def reads():
        return works().result(), works_later().result(), works_within_a_time_limit().result()

    with observers.register(OpenTelemetryObserver(tracer_provider=provider)):
        told = reads()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    for name, (process, parent) in zip(("works", "works_later", "works_within_a_time_limit"), told, strict=True):
        assert process != os.getpid()
        assert parent == ids(spans[name].context)
        assert spans[name].parent.span_id == spans["reads"].context.span_id


def test_what_a_worker_cannot_enter_is_told_and_the_run_goes_without_it(cluster):
    class OnlyHere:
        @hookimpl
        def riverrun_around_task_run(self, event):
            return refuses

    @task
    def works():
        return 1

    @flow(task_runner=DaskTaskRunner(cluster=cluster))
    def reads():
        return works().result()

    def refuses():
        raise OSError("no collector here")

    events = Events()
    with observers.register(OnlyHere()), observers.register(events):
        assert reads() == 1
    [record] = [record for record in events.of_logs if record.logger == "riverrun.observers"]
    assert record.message.startswith("What observer `OnlyHere` wants around run 'works-")
    assert record.worker
