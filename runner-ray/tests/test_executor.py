"""The executor as the engine uses it: what `cancel` says is certain, and of each call one end is told, if any."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from riverrun import task
from riverrun._calls import TaskCall, TaskScope
from riverrun._inputs import Slot
from runner_ray import RayTaskRunner
from runner_ray._loss import Loss
from runner_ray._stall import Stall

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 100


class Report:
    """What is told about one call."""

    attempt = 1

    def __init__(self):
        self.ends: list[tuple] = []
        self._changed = threading.Condition()

    def retries(self, count, /):
        pass

    def begun(self, start_time, /):
        pass

    def logged(self, records, worker, /):
        pass

    def ended(self, outcome, handle, /):
        self._tell("ended", outcome.error)

    def lost(self, error, /, *, begun=True, final=False):
        self._tell("lost", begun, final)

    def _tell(self, *end):
        with self._changed:
            self.ends.append(end)
            self._changed.notify_all()

    def end(self):
        """Wait for the end."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ends, LIMIT), "nothing was told"
        return self.ends[0]


class Engine:
    """Sends calls of functions; each has a report and a handle, by its key."""

    def __init__(self, executor):
        self.executor = executor
        self.reports: dict[str, Report] = {}
        self.handles: dict[str, object] = {}
        self._unique = f"{time.monotonic_ns():x}"

    def send(self, key, function, *, takes=()):
        slots = tuple(Slot(number) for number in range(len(takes)))
        call = TaskCall(
            body=task(function), args=slots, kwargs={}, key=f"{key}-{self._unique}",
            scope=TaskScope(key, None, {}, awaits=False),
        )  # fmt: skip
        call.pack(logging.INFO)
        call.upstreams = tuple(self.handles[upstream] for upstream in takes)
        self.reports[key] = Report()
        self.handles[key] = self.executor.send(call, self.reports[key])

    def cancel(self, *keys):
        """Give the keys of those that were withdrawn."""
        withdrawn = self.executor.cancel_together([self.handles[key] for key in keys])
        return {key for key in keys if self.handles[key] in withdrawn}

    def ends(self):
        return {key: report.ends for key, report in self.reports.items() if report.ends}

    def settle(self):
        """Have all taken that Ray has told by now: a call that comes last has ended."""
        self.send("last", lambda: None)
        self.reports.pop("last").end()


@pytest.fixture
def engine(held_session):
    """An engine on a cluster with two CPUs."""
    with RayTaskRunner(address=held_session.address).start() as executor:
        yield Engine(executor)


class Calls:
    """Functions for calls: each adds a line to a file when it begins; some wait for a gate."""

    def __init__(self, folder: Path, wait_until) -> None:
        self.notes, self.gate = folder / "notes", folder / "gate"
        self._wait_until = wait_until

    def begun(self):
        return Counter(self.notes.read_text().split()) if self.notes.exists() else Counter()

    def wait_for(self, *keys):
        self._wait_until(lambda: self.begun().keys() >= {*keys}, f"{keys} have begun")

    def brief(self, key):
        path = str(self.notes)

        def call(*_):
            with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
                file.write(f"{key}\n")

        return call

    def waiting(self, key):
        brief, gate = self.brief(key), str(self.gate)

        def call(*_):
            brief()
            end = time.monotonic() + LIMIT
            while not os.path.exists(gate) and time.monotonic() < end:  # noqa: PTH110
                time.sleep(0.01)

        return call


@pytest.fixture
def calls(tmp_path, wait_until):
    return Calls(tmp_path, wait_until)


@pytest.fixture
def busy(engine, calls):
    """Two calls that have both CPUs until the gate is open."""
    for key in ("runs-0", "runs-1"):
        engine.send(key, calls.waiting(key))
    calls.wait_for("runs-0", "runs-1")
    yield
    calls.gate.touch()


def test_it_says_that_its_cancel_is_exact(engine):
    assert engine.executor.cancel_is_exact is True


@pytest.mark.usefixtures("busy")
def test_calls_that_wait_are_withdrawn_and_those_that_have_begun_are_not(engine, calls):
    for number in range(4):
        engine.send(f"waits-{number}", calls.brief(f"waits-{number}"))
        engine.send(f"after-{number}", calls.brief(f"after-{number}"), takes=["runs-0"])
    waiting = {key for key in engine.handles if not key.startswith("runs")}
    assert engine.cancel(*engine.handles) == waiting
    calls.gate.touch()
    assert [engine.reports[f"runs-{number}"].end() for number in range(2)] == [("ended", None)] * 2
    engine.settle()
    assert calls.begun() == {"runs-0": 1, "runs-1": 1}
    assert engine.ends() == {f"runs-{number}": [("ended", None)] for number in range(2)}


@pytest.mark.usefixtures("busy")
def test_what_takes_the_value_of_a_call_that_is_withdrawn_has_not_begun(engine, calls):
    engine.send("first", calls.brief("first"))
    engine.send("second", calls.brief("second"), takes=["first"])
    assert engine.cancel("first") == {"first"}
    calls.gate.touch()
    assert engine.reports["second"].end() == ("lost", False, False)
    engine.settle()
    assert calls.begun() == {"runs-0": 1, "runs-1": 1}
    assert "first" not in engine.ends()


def test_a_call_whose_upstream_has_no_value_is_withdrawn(engine, calls, wait_until):
    def fails():
        raise ValueError("always")

    engine.send("first", fails)
    engine.send("second", calls.brief("second"), takes=["first"])
    assert engine.reports["first"].end()[0] == "ended"
    wait_until(lambda: engine.handles["second"].is_void, "that was heard of")
    assert engine.cancel("second") == {"second"}
    engine.settle()
    assert not calls.begun()
    assert "second" not in engine.ends()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("is_certain", [True, False])
def test_what_ray_tells_before_cancel_has_its_answer_is_told_once_if_it_is_not_certain(
    engine, calls, monkeypatch, wait_until, is_certain
):
    engine.send("waits", calls.brief("waits"))
    executor = engine.executor
    sending = executor._open.get(engine.handles["waits"].key)

    def heard_of_first(keys):
        wait_until(lambda: sending.answer is not None, "the other thread has heard of it")
        return set(keys) if is_certain else set()

    monkeypatch.setattr(executor._guests, "never_began", heard_of_first)
    assert engine.cancel("waits") == ({"waits"} if is_certain else set())
    if not is_certain:
        assert engine.reports["waits"].end() == ("lost", True, False)
    calls.gate.touch()
    engine.settle()
    assert engine.reports["waits"].ends == ([] if is_certain else [("lost", True, False)])
    assert calls.begun()["waits"] == 0


def test_each_time_without_a_cpu_is_told_once_where_a_node_may_come(caplog):
    caplog.set_level("INFO")
    nodes: list[dict] = []
    guests = SimpleNamespace(may_grow=True, nodes=lambda: nodes)
    stall = Stall(1e-9, "the Ray cluster at 127.0.0.1:1", guests, ["one", "two"])
    for there in (False, False, False, True, True, False, False):
        nodes[:] = [{"Alive": there, "Resources": {"CPU": 1.0}}]
        stall.look()
    texts = [record.getMessage().partition(": the flow")[0] for record in caplog.records]
    assert texts == [
        "The Ray cluster at 127.0.0.1:1 has had no node with a CPU for 1e-09 s, and 2 task runs wait",
        "The Ray cluster at 127.0.0.1:1 has a node with a CPU again.",
        "The Ray cluster at 127.0.0.1:1 has had no node with a CPU for 1e-09 s, and 2 task runs wait",
    ]


def test_without_a_cpu_nothing_is_told_where_no_node_can_come(caplog):
    stall = Stall(1e-9, "the Ray cluster", SimpleNamespace(may_grow=False, nodes=list), ["one"])
    stall.look()
    stall.look()
    assert not caplog.records


class WorkerCrashedError(Exception):
    pass


class OutOfMemoryError(Exception):
    pass


class NodeDiedError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "witness", "is_certain", "begun"),
    [
        (WorkerCrashedError(), {"pid": 1}, True, True),
        (WorkerCrashedError(), None, True, False),
        (WorkerCrashedError(), None, False, True),
        (OutOfMemoryError(), None, True, False),
        (NodeDiedError(), None, True, True),
    ],
)
def test_a_lost_call_counts_as_begun_unless_it_is_certain_that_it_has_not(error, witness, is_certain, begun):
    assert Loss(error, witness, is_certain=is_certain).begun is begun
