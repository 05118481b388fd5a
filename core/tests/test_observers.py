"""Observers: what they are told, in which order, and what becomes of a flow whose observer is broken."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import sys
import threading
import time

import anyio
import anyio.lowlevel
import pytest
from riverrun import _listeners, _names, flow, hookimpl, observers, task
from riverrun._settings import override
from riverrun.exceptions import ConfigurationError, ObserverNotFound
from riverrun.states import Failed, State

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")

HOOKS = (
    "riverrun_flow_run_started",
    "riverrun_flow_run_finished",
    "riverrun_task_runner_started",
    "riverrun_task_runner_stopped",
    "riverrun_task_run_state_changed",
)


class Recorder:
    """Keeps what it is told, and on which thread."""

    def __init__(self) -> None:
        self.told: list[tuple[str, observers.Event]] = []
        self.threads: set[str] = set()

    def note(self, hook: str, event: observers.Event) -> None:
        self.told.append((hook.removeprefix("riverrun_"), event))
        self.threads.add(threading.current_thread().name)

    @hookimpl
    def riverrun_flow_run_started(self, event):
        self.note("flow_run_started", event)

    @hookimpl
    def riverrun_flow_run_finished(self, event):
        self.note("flow_run_finished", event)

    @hookimpl
    def riverrun_task_runner_started(self, event):
        self.note("task_runner_started", event)

    @hookimpl
    def riverrun_task_runner_stopped(self, event):
        self.note("task_runner_stopped", event)

    @hookimpl
    def riverrun_task_run_state_changed(self, event):
        self.note("task_run_state_changed", event)

    def states(self, task_name: str | None = None) -> list[str]:
        return [
            event.state.name
            for _, event in self.told
            if isinstance(event, observers.TaskRunStateChanged) and task_name in (None, event.task_name)
        ]

    def events(self, kind: type[observers.Event]) -> list:
        return [event for _, event in self.told if isinstance(event, kind)]


@pytest.fixture
def recorder():
    recorder = Recorder()
    with observers.register(recorder):
        yield recorder


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def fail(text: str) -> None:
    raise ValueError(text)


# -- what is told


def test_a_flow_run_is_told_from_its_start_to_its_end(recorder, task_runner):
    @flow(task_runner=task_runner, name="sums")
    def sums():
        return add(1, 2).result()

    assert sums() == 3
    assert [name for name, _ in recorder.told] == [
        "flow_run_started",
        "task_runner_started",
        "task_run_state_changed",
        "task_run_state_changed",
        "task_run_state_changed",
        "task_runner_stopped",
        "flow_run_finished",
    ]
    assert recorder.states() == ["Pending", "Running", "Completed"]
    started, *_, ended = [event for _, event in recorder.told]
    assert (started.flow_name, started.parent_flow_run_id, started.parent_task_run_id) == ("sums", None, None)
    assert ended.flow_run_id == started.flow_run_id
    assert ended.state.is_completed()
    assert ended.failure is None
    assert ended.attempt == 1
    assert started.time == ended.start_time <= ended.time
    [runner] = recorder.events(observers.TaskRunnerStarted)
    assert runner.task_runner == f"{task_runner.capitalize()}TaskRunner"


def test_what_is_told_of_a_task_run(recorder, task_runner):
    runs = []

    @task(tags=["sum"], task_run_name="{a} and {b}", on_completion=[lambda *hook: runs.append(hook[1])])
    def tagged(a, b):
        return a + b

    @flow(task_runner=task_runner)
    def sums():
        return tagged(1, 2).result()

    before = time.time()
    sums()
    pending, running, ended = recorder.events(observers.TaskRunStateChanged)
    [run] = runs
    assert {event.task_run_id for event in (pending, running, ended)} == {run.id}
    assert (ended.task_run_name, ended.task_name, ended.tags) == ("1 and 2", "tagged", frozenset({"sum"}))
    assert [event.attempt for event in (pending, running, ended)] == [0, 1, 1]
    assert pending.start_time is None
    assert before <= pending.time <= running.time <= ended.time
    assert ended.start_time == run.start_time
    assert ended.time == run.end_time
    assert ended.flow_run_id == recorder.events(observers.FlowRunStarted)[0].flow_run_id


def test_each_attempt_is_told_with_what_it_raised(recorder, task_runner):
    @task(retries=2, retry_delay_seconds=0.01)
    def stubborn():
        raise KeyError("no disk")

    @flow(task_runner=task_runner)
    def tries():
        stubborn()

    with pytest.raises(KeyError):
        tries()
    assert recorder.states() == [
        "Pending",
        "Running",
        "AwaitingRetry",
        "Retrying",
        "AwaitingRetry",
        "Retrying",
        "Failed",
    ]
    events = recorder.events(observers.TaskRunStateChanged)
    assert [event.attempt for event in events] == [0, 1, 1, 2, 2, 3, 3]
    failure = events[-1].failure
    assert (failure.type, failure.message) == ("KeyError", "'no disk'")
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert 'raise KeyError("no disk")' in failure.traceback
    [ended] = recorder.events(observers.FlowRunFinished)
    assert ended.state.name == "Failed"
    assert ended.failure.type == "KeyError"


def test_the_failure_of_an_exception_class_has_its_module(recorder):
    @flow(task_runner="sequential")
    def reads():
        raise ConfigurationError("wrong")

    reads(return_state=True)
    [ended] = recorder.events(observers.FlowRunFinished)
    assert ended.failure.type == "riverrun.exceptions.ConfigurationError"


def test_runs_that_are_not_ready_or_cached_or_cancelled_are_told_as_that(recorder, task_runner):
    @task(cache_key_fn=lambda _, __: f"one key on {task_runner}")
    def kept():
        return 1

    @flow(task_runner=task_runner)
    def mixed():
        add(fail("first"), 1)
        kept().wait()
        kept().wait()

    mixed(return_state=True)
    assert recorder.states("add") == ["Pending", "NotReady"]
    [not_ready] = [event for event in recorder.events(observers.TaskRunStateChanged) if event.state.is_not_ready()]
    assert not_ready.failure is None  # it has none of its own
    assert not_ready.attempt == 0
    assert recorder.states("kept") == ["Pending", "Running", "Completed", "Pending", "Cached"]


def test_a_run_that_is_cancelled_before_it_begins_is_never_running(recorder):
    begun = threading.Event()

    @task
    def blocks(go):
        begun.set()
        assert go.wait(30)

    @flow(task_runner="concurrent")
    def cancels():
        go = threading.Event()
        first = blocks(go)
        second = add(1, 2, wait_for=[first])
        assert begun.wait(30)
        assert second.cancel()
        go.set()

    cancels(return_state=True)
    assert recorder.states("add") == ["Pending", "Cancelled"]


def test_subflows_name_the_run_around_them(recorder, task_runner):
    @flow(task_runner=task_runner, name="inner")
    def inner():
        return add(1, 2).result()

    @task
    def calls_a_flow():
        return inner()

    @flow(task_runner=task_runner, name="outer")
    def outer():
        inner()
        calls_a_flow().result()

    outer()
    out, first, second = recorder.events(observers.FlowRunStarted)
    assert (out.flow_name, out.parent_flow_run_id) == ("outer", None)
    assert (first.flow_name, first.parent_flow_run_id, first.parent_task_run_id) == ("inner", out.flow_run_id, None)
    [called] = {
        event.task_run_id for event in recorder.events(observers.TaskRunEvent) if event.task_name == "calls_a_flow"
    }
    assert second.parent_task_run_id == called
    ends = [event.flow_run_id for event in recorder.events(observers.FlowRunFinished)]
    assert ends == [first.flow_run_id, second.flow_run_id, out.flow_run_id]


def test_tasks_that_are_called_in_tasks_are_a_part_of_their_run(recorder, task_runner):
    @task
    def outer_task():
        return add(1, 2).result()

    @flow(task_runner=task_runner)
    def calls():
        return outer_task().result()

    assert calls() == 3
    assert {event.task_name for event in recorder.events(observers.TaskRunEvent)} == {"outer_task"}


def test_async_flows_and_tasks_are_told_as_the_others(recorder, run_async, task_runner):
    @task
    async def add_later(a, b):
        await anyio.lowlevel.checkpoint()
        return a + b

    @flow(task_runner=task_runner)
    async def sums():
        return await add_later(1, 2)

    assert run_async(sums) == 3
    assert recorder.states() == ["Pending", "Running", "Completed"]
    assert [name for name, _ in recorder.told][-2:] == ["task_runner_stopped", "flow_run_finished"]


def test_a_flow_whose_parameters_do_not_fit_is_told_too(recorder):
    @flow(task_runner="sequential")
    def one(n: int):
        return n

    one("many", return_state=True)
    assert [name for name, _ in recorder.told] == ["flow_run_started", "flow_run_finished"]


def test_a_flow_that_is_tried_again_says_how_often(recorder):
    @flow(task_runner="sequential", retries=2)
    def tries():
        fail("no")

    tries(return_state=True)
    [ended] = recorder.events(observers.FlowRunFinished)
    assert ended.attempt == 3


def test_the_states_of_every_run_come_in_their_order(recorder):
    @flow(task_runner="concurrent")
    def many():
        return [add(add(i, 1), 1) for i in range(300)]

    many()
    by_run: dict[str, list[str]] = {}
    for event in recorder.events(observers.TaskRunStateChanged):
        by_run.setdefault(event.task_run_id, []).append(event.state.name)
    assert len(by_run) == 600
    assert all(states == ["Pending", "Running", "Completed"] for states in by_run.values())


# -- what is logged


class LogReader:
    def __init__(self) -> None:
        self.records: list[observers.LogRecord] = []

    @hookimpl
    def riverrun_log_record(self, event):
        self.records.append(event)


def test_log_records_are_told_with_the_run_that_they_are_of(task_runner):
    from riverrun import get_run_logger

    @task
    def speaks():
        get_run_logger().warning("half %s", "full")

    @flow(task_runner=task_runner, flow_run_name="talk")
    def talk():
        speaks().result()

    reader = LogReader()
    with observers.register(reader):
        talk()
    messages = [record.message for record in reader.records]
    assert messages[0] == "Beginning flow run 'talk' for flow 'talk'..."
    assert messages[-1].startswith("Flow run 'talk' finished in state")
    [said] = [record for record in reader.records if "half full" in record.message]
    assert (said.level, said.level_name, said.logger) == (logging.WARNING, "WARNING", "riverrun.task_runs")
    assert said.flow_run_name == "talk"
    assert said.task_run_name.startswith("speaks-")
    assert said.worker is None


def test_an_observer_of_the_log_changes_nothing_about_what_is_shown(capsys, monkeypatch):
    @flow(task_runner="sequential", flow_run_name="shown")
    def shown():
        return None

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.getLogger("riverrun"), "handlers", [])
    shown()
    alone = capsys.readouterr().err
    with observers.register(LogReader()):
        shown()
    watched = capsys.readouterr().err
    assert [line[13:] for line in watched.splitlines()] == [line[13:] for line in alone.splitlines()]
    assert len(alone.splitlines()) == 4


def test_the_log_of_another_flow_run_is_not_told():
    ready, go = threading.Event(), threading.Event()

    @flow(task_runner="sequential", flow_run_name="watched")
    def watched():
        ready.set()
        assert go.wait(30)

    @flow(task_runner="sequential", flow_run_name="other")
    def other():
        return None

    reader = LogReader()
    with observers.register(reader):
        thread = threading.Thread(target=watched)
        thread.start()
        assert ready.wait(30)
    other()
    go.set()
    thread.join(30)
    assert {record.flow_run_name for record in reader.records} == {"watched"}


def test_a_template_that_its_arguments_do_not_fit_is_told_as_always_and_the_run_goes_on(
    capsys, monkeypatch, task_runner
):
    from riverrun import get_run_logger

    @task
    def speaks():
        get_run_logger().warning("%d rows", "many")
        get_run_logger().warning("%d rows", 3)
        return 1

    @flow(task_runner=task_runner)
    def talk():
        return speaks().result()

    monkeypatch.setattr(logging.getLogger("riverrun"), "propagate", False)  # pytest's own handler raises
    reader = LogReader()
    with observers.register(reader):
        assert talk() == 1
    messages = [record.message for record in reader.records]
    [said] = [message for message in messages if message.endswith("rows")]
    assert said.endswith(" - 3 rows")
    err = capsys.readouterr().err
    assert "--- Logging error ---" in err
    assert "Message: '%s - %d rows'\nArguments: (" in err


def test_no_handler_stays_behind():
    before = list(logging.getLogger("riverrun").handlers)

    @flow(task_runner="sequential")
    def nothing():
        return None

    with observers.register(LogReader()):
        nothing()
    after = logging.getLogger("riverrun").handlers
    assert [
        handler for handler in after if handler not in before and "StderrHandler" not in type(handler).__name__
    ] == []


# -- when and where


def test_hooks_are_called_on_one_thread_of_the_observers_own(recorder, task_runner):
    @flow(task_runner=task_runner)
    def sums():
        return add(1, 2).result()

    sums()
    assert recorder.threads == {"riverrun-observer-Recorder"}


def test_the_function_of_a_flow_is_called_when_its_start_has_been_told():
    told = []

    class Slow:
        @hookimpl
        def riverrun_flow_run_started(self, event):
            time.sleep(0.05)
            told.append(event)

    @flow(task_runner="sequential")
    def looks():
        return len(told)

    with observers.register(Slow()):
        assert looks() == 1


def test_everything_has_been_told_when_the_flow_returns():
    told = []

    class Slow:
        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            time.sleep(0.005)
            told.append(event)

    @flow(task_runner="sequential")
    def sums():
        return [add(i, 1) for i in range(20)]

    with observers.register(Slow()):
        sums()
        assert len(told) == 60


def test_a_slow_observer_holds_up_no_other():
    order = []
    second_has_ended = threading.Event()

    class Slow:
        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            if event.state.is_final():
                assert second_has_ended.wait(30)
                order.append("slow")

    class Quick:
        @hookimpl
        def riverrun_flow_run_finished(self, event):
            order.append("quick")
            second_has_ended.set()

    @flow(task_runner="sequential")
    def sums():
        return add(1, 2)

    with observers.register(Slow()), observers.register(Quick()):
        sums()
    assert order == ["quick", "slow"]


def test_a_slow_observer_does_not_hold_up_the_loop_at_the_end_of_an_async_flow(run_async):
    free = threading.Event()
    ends = []

    class Waits:
        @hookimpl
        def riverrun_flow_run_finished(self, event):
            ends.append(free.wait(30))

    @flow(task_runner="sequential")
    async def sums():
        return await add(1, 2)

    async def frees():
        await anyio.sleep(0.1)
        free.set()

    async def both():
        async with anyio.create_task_group() as group:
            group.start_soon(frees)
            assert await sums() == 3

    with observers.register(Waits()):
        run_async(both)
    assert ends == [True]


def test_a_slow_observer_does_not_hold_up_the_loop_at_the_start_of_an_async_subflow(run_async, caplog):
    free = threading.Event()
    started = []

    class Waits:
        @hookimpl
        def riverrun_flow_run_started(self, event):
            started.append(event.flow_name)

        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            free.wait(30)

    @flow(task_runner="sequential", name="inner")
    async def inner():
        return list(started)

    async def frees():
        free.set()

    @flow(task_runner="sequential", name="outer")
    async def outer():
        await add(1, 2)
        async with anyio.create_task_group() as group:
            group.start_soon(frees)
            return await inner()

    with observers.register(Waits()):
        assert run_async(outer) == ["outer", "inner"]
    assert [record for record in caplog.records if record.name == "riverrun.observers"] == []


def test_all_observers_are_told_one_name_of_a_flow_run(monkeypatch):
    numbers = itertools.count()
    both_make_one = threading.Barrier(2)

    def random_name():
        number = next(numbers)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_make_one.wait(0.5)  # does not come about
        return f"name-{number}"

    class Reads:
        @hookimpl
        def riverrun_flow_run_started(self, event):
            names.append(event.flow_run_name)

    class ReadsToo(Reads):
        pass

    @flow(task_runner="sequential")
    def hello():
        return None

    names: list[str] = []
    monkeypatch.setattr(_names, "random_name", random_name)
    with observers.register(Reads()), observers.register(ReadsToo()):
        hello()
    assert names == ["name-0", "name-0"]


def test_an_interrupt_is_told_as_the_end_of_the_run(recorder):
    @flow(task_runner="sequential")
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [ended] = recorder.events(observers.FlowRunFinished)
    assert ended.state.is_crashed()


# -- what they are given


@pytest.mark.parametrize(
    "kind",
    [value for value in vars(observers).values() if dataclasses.is_dataclass(value)],
    ids=lambda kind: kind.__name__,
)
def test_records_are_frozen_and_plain(kind):
    assert kind.__dataclass_params__.frozen
    plain = {"str", "str | None", "float", "float | None", "int", "frozenset[str]", "State", "Failure | None"}
    assert {field.type for field in dataclasses.fields(kind)} <= plain


def test_a_state_that_is_told_has_no_value(recorder):
    @flow(task_runner="sequential")
    def secret():
        return "password"

    secret()
    [ended] = recorder.events(observers.FlowRunFinished)
    assert ended.state.data is None
    assert "password" not in repr(recorder.told)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ended.state = Failed()
    with pytest.raises(AttributeError, match="immutable"):
        ended.state.name = "Failed"
    assert type(ended.state) is State


# -- observers that are broken


def test_one_that_raises_is_reported_once_and_switched_off(caplog, task_runner):
    calls = []

    class Broken:
        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            calls.append(event)
            raise LookupError("no such span")

    @flow(task_runner=task_runner)
    def sums():
        return add(1, 2).result() + add(3, 4).result()

    recorder = Recorder()
    with observers.register(Broken()), observers.register(recorder):
        assert sums() == 10
    [report] = [record for record in caplog.records if record.name == "riverrun.observers"]
    assert report.getMessage() == (
        "Observer `Broken` raised in `riverrun_task_run_state_changed`: it is switched off for this flow run, "
        "which goes on."
    )
    assert "LookupError: no such span" in report.exc_text or report.exc_info[1].args == ("no such span",)
    assert len(calls) == 1
    assert recorder.states() == ["Pending", "Running", "Completed"] * 2


@pytest.mark.parametrize("leave", [lambda: sys.exit(3), lambda: pytest.fail("seen")], ids=["exit", "fail"])
@pytest.mark.parametrize("hook", ["riverrun_around_flow_run", "riverrun_around_task_run"])
def test_one_that_exits_where_the_engine_is_harms_no_run(caplog, task_runner, hook, leave):
    def exits(self, event):
        leave()

    leaver = type("Leaver", (), {hook: hookimpl(exits)})

    @flow(task_runner=task_runner)
    def sums():
        return sum(future.result() for future in [add(i, 1) for i in range(3)])

    with observers.register(leaver()):
        assert sums() == 6
    [report] = [record for record in caplog.records if record.name == "riverrun.observers"]
    assert report.getMessage() == (
        f"Observer `Leaver` raised in `{hook}`: it is switched off for this flow run, which goes on."
    )


def test_an_interrupt_in_a_hook_is_for_the_flow(caplog):
    class Interrupted:
        @hookimpl
        def riverrun_around_flow_run(self, event):
            raise KeyboardInterrupt

    @flow(task_runner="sequential")
    def hello():
        return None

    with observers.register(Interrupted()), pytest.raises(KeyboardInterrupt):
        hello()
    assert [record for record in caplog.records if record.name == "riverrun.observers"] == []


@pytest.mark.timeout(120, method="thread")  # the other method takes the signal that a flow's deadline comes with
def test_the_deadline_of_a_flow_is_not_blamed_on_the_hook_that_it_comes_in(caplog):
    class Hangs:
        @hookimpl
        def riverrun_around_task_run(self, event):
            threading.Event().wait(30)

    @flow(task_runner="sequential", timeout_seconds=0.3)
    def sums():
        return add(1, 2).result()

    with observers.register(Hangs()):
        assert sums(return_state=True).name == "TimedOut"
    assert [record for record in caplog.records if record.name == "riverrun.observers"] == []


def test_one_that_hangs_is_given_up_after_a_while(caplog, monkeypatch):
    monkeypatch.setattr(_listeners, "PATIENCE", 1)
    free = threading.Event()

    class Hangs:
        @hookimpl
        def riverrun_task_run_state_changed(self, event):
            free.wait(60)

    @flow(task_runner="sequential")
    def sums():
        return add(1, 2).result()

    recorder = Recorder()
    try:
        with observers.register(Hangs()), observers.register(recorder):
            assert sums() == 3
    finally:
        free.set()
    [report] = [record for record in caplog.records if record.name == "riverrun.observers"]
    assert report.getMessage() == (
        "Observer `Hangs` has been in `riverrun_task_run_state_changed` for more than 1 seconds: it is switched off "
        "for this flow run, which goes on. 2 later events are not told to it."
    )
    assert [name for name, _ in recorder.told][-1] == "flow_run_finished"


def test_one_that_hangs_at_the_start_does_not_keep_the_flow_from_running(monkeypatch):
    monkeypatch.setattr(_listeners, "PATIENCE", 0.2)
    free = threading.Event()

    class Hangs:
        @hookimpl
        def riverrun_flow_run_started(self, event):
            free.wait(60)

    @flow(task_runner="sequential")
    def sums():
        return add(1, 2).result()

    try:
        with observers.register(Hangs()):
            assert sums() == 3
    finally:
        free.set()


def test_what_an_observer_runs_or_logs_itself_is_not_observed(caplog):
    @flow(task_runner="sequential", name="inner")
    def inner():
        return 1

    class RunsAFlow:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @hookimpl
        def riverrun_flow_run_started(self, event):
            self.seen.append(event.flow_name)
            assert inner() == 1

        @hookimpl
        def riverrun_log_record(self, event):
            logging.getLogger("riverrun.flow_runs").warning("once more: %s", event.message)

    @flow(task_runner="sequential", name="outer")
    def outer():
        return None

    observer = RunsAFlow()
    with observers.register(observer):
        outer()
    assert observer.seen == ["outer"]
    assert "once more: once more" not in caplog.text


# -- registered in code, or named in settings


def test_an_observer_is_told_of_runs_that_begin_while_it_is_registered():
    @flow(task_runner="sequential", name="hello")
    def hello():
        return None

    recorder = Recorder()
    hello()
    registration = observers.register(recorder)
    hello()
    registration.unregister()
    registration.unregister()
    hello()
    assert [name for name, _ in recorder.told].count("flow_run_started") == 1


def test_of_a_class_each_flow_run_gets_an_object_and_subflows_share_it():
    made = []

    class PerRun(Recorder):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    @flow(task_runner="sequential")
    def inner():
        return None

    @flow(task_runner="sequential")
    def outer():
        inner()

    with observers.register(PerRun):
        outer()
        outer()
    assert [len(one.events(observers.FlowRunFinished)) for one in made] == [2, 2]


def test_what_is_no_observer_is_refused_at_once():
    class Nothing:
        pass

    with pytest.raises(ConfigurationError) as caught:
        observers.register(Nothing())
    assert str(caught.value) == (
        "The observer `Nothing` has no `@hookimpl` of a hook of observers: riverrun_flow_run_started, "
        "riverrun_flow_run_finished, riverrun_task_runner_started, riverrun_task_runner_stopped, "
        "riverrun_task_run_state_changed, riverrun_log_record, riverrun_around_flow_run, riverrun_around_task_run."
    )


def test_a_hook_with_a_typing_error_is_refused_at_once():
    class Typo:
        @hookimpl
        def riverrun_flow_run_stated(self, event):
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="The observer `Typo` has a hook that does not fit: unknown hook"):
        observers.register(Typo())


def test_a_name_that_nobody_has_is_refused_at_once():
    with pytest.raises(ObserverNotFound, match="No observer is named `progess`; did you mean `progress`?"):
        observers.register("progess")


def test_a_name_in_the_settings_that_nobody_has_is_told_with_its_source(monkeypatch):
    @flow(task_runner="sequential")
    def hello():
        raise AssertionError

    monkeypatch.setenv("RIVERRUN_OBSERVERS", "progess")
    with pytest.raises(ObserverNotFound) as caught:
        hello()
    assert str(caught.value).startswith("No observer is named `progess`; did you mean `progress`?")
    assert str(caught.value).endswith("(The name comes from RIVERRUN_OBSERVERS.)")


def test_settings_name_observers(install, bare_settings, monkeypatch, capsys):
    source = """
        from riverrun import hookimpl

        class Shouts:
            @hookimpl
            def riverrun_flow_run_finished(self, event):
                print("THE END OF", event.flow_name)
    """
    install(
        "observer-shouts", {"shouts": "shouts_plugin:Shouts"}, {"shouts_plugin": source}, group="riverrun.observers"
    )

    @flow(task_runner="sequential", name="hello")
    def hello():
        return None

    hello()
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RIVERRUN_OBSERVERS", "shouts, shouts")
    hello()
    assert capsys.readouterr().out == "THE END OF hello\n"
    monkeypatch.delenv("RIVERRUN_OBSERVERS")
    (bare_settings / "pyproject.toml").write_text('[tool.riverrun]\nobservers = ["observer-shouts:shouts"]\n')
    hello()
    assert capsys.readouterr().out == "THE END OF hello\n"
    with override(observers=[]):
        hello()
    assert capsys.readouterr().out == ""
