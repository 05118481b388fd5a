"""The executor as the engine uses it: what `cancel` says is certain, and of each call one end is told, if any."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import distributed
import pytest
from riverrun import task
from riverrun._calls import TaskCall, TaskScope
from riverrun._inputs import Slot
from riverrun.task_runners import DaskTaskRunner
from runner_dask import _withdrawal
from runner_dask._open import OpenCalls
from runner_dask._sending import Value

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 100
pytestmark = [
    # Sockets that Dask itself leaves to the garbage collector when workers die.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


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

    def send(self, key, function, *args, takes=(), on=None):
        options = {"dask": {"workers": [on]}} if on else {}
        slots = tuple(Slot(number) for number in range(len(takes)))
        call = TaskCall(
            body=task(function), args=(*args, *slots), kwargs={}, key=key,
            scope=TaskScope(key, None, {}, awaits=False), runner_options=options,
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
        """Have all taken that the cluster has told by now: a call that comes to each worker last has ended."""
        for number, worker in enumerate(self.workers()):
            self.send(f"last-{number}", lambda: None, on=worker)
            self.reports.pop(f"last-{number}").end()

    def workers(self):
        return [offer.name for offer in self.executor._guests.offers()]

    def process_of(self, worker):
        return self.executor._guests.known(worker).pid


@pytest.fixture
def engine(forked_clusters):
    """An engine on two workers of one thread each, which start again when they are killed."""
    cluster = forked_clusters(1)
    with DaskTaskRunner(cluster=cluster.cluster).start() as executor:
        yield Engine(executor)
    cluster.wait_for_workers()


@pytest.fixture
def calls(tmp_path, wait_until):
    return Calls(tmp_path, wait_until)


class Calls:
    """Functions for calls: each adds a line to a file when it begins; some wait for a gate."""

    def __init__(self, folder: Path, wait_until) -> None:
        self.notes, self.gate = folder / "notes", folder / "gate"
        self._wait_until = wait_until

    def begun(self):
        return Counter(self.notes.read_text().split()) if self.notes.exists() else Counter()

    def wait_for(self, *keys):
        self._wait_until(lambda: self.begun().keys() >= {*keys}, f"{keys} have begun")

    def brief(self, key, size=0):
        path = str(self.notes)

        def call(*_):
            with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
                file.write(f"{key}\n")
            return b"x" * size

        return call

    def waiting(self, key):
        brief, gate = self.brief(key), str(self.gate)

        def call(*_):
            brief()
            end = time.monotonic() + LIMIT
            while not os.path.exists(gate) and time.monotonic() < end:  # noqa: PTH110
                time.sleep(0.01)

        return call


@contextlib.contextmanager
def held(monkeypatch, owner, name):
    """Let whoever calls a method wait until the block ends; give an event that says that somebody does."""
    waits, goes_on = threading.Event(), threading.Event()
    method = getattr(owner, name)

    def hold(*args):
        waits.set()
        assert goes_on.wait(LIMIT)
        return method(*args)

    hold.resume = goes_on.set
    monkeypatch.setattr(owner, name, hold)
    try:
        yield waits
    finally:
        goes_on.set()
        monkeypatch.setattr(owner, name, method)


def test_it_says_that_its_cancel_is_exact(engine):
    assert engine.executor.cancel_is_exact is True


def test_calls_are_withdrawn_in_the_outbox_and_on_their_way_to_the_scheduler(engine, calls, monkeypatch):
    with held(monkeypatch, engine.executor._sender, "_independent") as is_sending:
        engine.send("leaving", calls.brief("leaving"))
        assert is_sending.wait(LIMIT)
        engine.send("waiting", calls.brief("waiting"))
        engine.send("other", calls.brief("other"))
        assert engine.cancel("leaving", "waiting") == {"leaving", "waiting"}
    assert engine.reports["other"].end() == ("ended", None)
    engine.settle()
    assert calls.begun() == {"other": 1}
    assert engine.ends().keys() == {"other"}


def test_calls_that_wait_are_withdrawn_and_those_that_have_begun_are_not(engine, calls):
    for number, worker in enumerate(engine.workers()):
        engine.send(f"runs-{number}", calls.waiting(f"runs-{number}"), on=worker)
    calls.wait_for("runs-0", "runs-1")
    here = engine.workers()[0]
    for number in range(4):
        engine.send(f"there-{number}", calls.brief(f"there-{number}"), on=here)
        engine.send(f"anywhere-{number}", calls.brief(f"anywhere-{number}"))
        engine.send(f"after-{number}", calls.brief(f"after-{number}"), takes=["runs-0"])
    waiting = {key for key in engine.handles if not key.startswith("runs")}
    assert engine.cancel(*engine.handles) == waiting
    calls.gate.touch()
    assert [engine.reports[f"runs-{number}"].end() for number in range(2)] == [("ended", None)] * 2
    engine.settle()
    assert calls.begun() == {"runs-0": 1, "runs-1": 1}
    assert engine.ends() == {f"runs-{number}": [("ended", None)] for number in range(2)}


def test_a_call_that_is_withdrawn_does_not_run_for_those_that_take_its_value(engine, calls):
    here, there = engine.workers()
    engine.send("runs", calls.waiting("runs"), on=here)
    engine.send("first", calls.brief("first"), takes=["runs"])
    engine.send("second", calls.brief("second"), takes=["first"])
    calls.wait_for("runs")
    engine.send("arrives-after-them", calls.brief("arrives-after-them"), takes=["runs"], on=there)
    assert engine.cancel("first") == {"first"}
    assert engine.reports["second"].end() == ("lost", False, False)
    calls.gate.touch()
    assert engine.reports["arrives-after-them"].end() == ("ended", None)
    engine.settle()
    assert calls.begun() == {"runs": 1, "arrives-after-them": 1}
    assert "first" not in engine.ends()


def test_a_call_whose_upstream_has_no_value_is_withdrawn(engine, calls):
    def fails():
        raise ValueError("always")

    engine.send("first", fails)
    engine.send("second", calls.brief("second"), takes=["first"])
    assert engine.reports["first"].end()[0] == "ended"
    assert engine.cancel("second") == {"second"}
    engine.settle()
    assert not calls.begun()
    assert "second" not in engine.ends()


def test_of_calls_whose_worker_died_those_are_withdrawn_that_had_not_begun(engine, calls, monkeypatch, wait_until):
    here, there = engine.workers()
    engine.send("runs", calls.waiting("runs"), on=here)
    calls.wait_for("runs")
    engine.send("waits", calls.brief("waits"), on=here)
    engine.send("other", calls.brief("other"), on=there)
    assert engine.reports["other"].end() == ("ended", None)  # and so `waits` has arrived, too
    with held(monkeypatch, engine.executor, "_take") as is_told:
        os.kill(engine.process_of(here), signal.SIGKILL)
        assert is_told.wait(LIMIT)
        wait_until(partial(is_removed, engine.executor.client, here), "the scheduler knows")
        assert engine.cancel("runs", "waits") == {"waits"}
    assert engine.reports["runs"].end() == ("lost", True, False)
    engine.settle()
    assert engine.ends() == {"runs": [("lost", True, False)], "other": [("ended", None)]}
    assert calls.begun() == {"runs": 1, "other": 1}


def is_removed(client, worker):
    return worker not in client.scheduler_info(n_workers=-1)["workers"]


def test_a_call_on_a_worker_that_does_not_answer_counts_as_begun_and_is_heard_of_later(engine, calls, monkeypatch):
    monkeypatch.setattr(_withdrawal, "LIMIT", 0.5)
    here, there = engine.workers()
    engine.send("runs", calls.waiting("runs"), on=here)
    calls.wait_for("runs")
    engine.send("hangs", calls.brief("hangs"), on=here)
    engine.send("answers", calls.waiting("answers"), on=there)
    calls.wait_for("answers")
    engine.send("waits", calls.brief("waits"), on=there)
    os.kill(engine.process_of(here), signal.SIGSTOP)
    try:
        assert engine.cancel("hangs", "waits") == {"waits"}
        assert engine.cancel("hangs") == set()
    finally:
        os.kill(engine.process_of(here), signal.SIGCONT)
    calls.gate.touch()
    end = engine.reports["hangs"].end()
    engine.settle()
    assert end == (("ended", None) if calls.begun()["hangs"] else ("lost", True, False))
    assert engine.reports["hangs"].ends == [end]
    assert calls.begun().keys() - {"hangs"} == {"runs", "answers"}


def test_a_call_that_dask_drops_where_it_runs_is_told_as_what_it_becomes_there(engine, calls):
    here = engine.workers()[0]
    engine.send("runs", calls.waiting("runs"), on=here)
    calls.wait_for("runs")
    engine.send("waits", calls.brief("waits"), on=here)
    for key in ("runs", "waits"):  # as the scheduler tells it where something that they take is lost
        event = {"op": "lost", "kind": "upstream", "key": key, "worker": here, "text": "something it takes was lost"}
        engine.executor._events.put((0.0, event))
    assert engine.reports["waits"].end() == ("lost", False, False)
    calls.gate.touch()
    assert engine.reports["runs"].end() == ("ended", None)
    engine.settle()
    assert engine.ends() == {"runs": [("ended", None)], "waits": [("lost", False, False)]}
    assert calls.begun() == {"runs": 1}


def test_a_call_that_dask_drops_where_it_runs_is_lost_with_its_worker(engine, calls):
    here = engine.workers()[0]
    engine.send("runs", calls.waiting("runs"), on=here)
    engine.send("asked", calls.brief("asked"), on=here)
    calls.wait_for("runs")
    for key in ("runs", "asked"):
        event = {"op": "lost", "kind": "upstream", "key": key, "worker": here, "text": "something it takes was lost"}
        engine.executor._events.put((0.0, event))
    assert engine.reports["asked"].end() == ("lost", False, False)
    engine.executor.client.run_on_scheduler(forget_task, "runs")
    os.kill(engine.process_of(here), signal.SIGKILL)
    assert engine.reports["runs"].end() == ("lost", True, False)


def test_what_another_client_cancels_is_lost_where_it_waits_and_ends_where_it_runs(engine, calls):
    here = engine.workers()[0]
    engine.send("runs", calls.waiting("runs"), on=here)
    calls.wait_for("runs")
    engine.send("waits", calls.brief("waits"), on=here)
    engine.send("takes-it", calls.brief("takes-it"), takes=["runs"])
    address = engine.executor.client.scheduler.address
    with distributed.Client(address, set_as_default=False) as other:
        other.cancel([distributed.Future(key, other) for key in ("runs", "waits")], force=True)
        assert engine.reports["waits"].end() == ("lost", False, False)
        assert engine.reports["takes-it"].end() == ("lost", False, False)
    calls.gate.touch()
    assert engine.reports["runs"].end() == ("ended", None)
    engine.settle()
    assert calls.begun() == {"runs": 1}
    assert {len(ends) for ends in engine.ends().values()} == {1}


def forget_task(key, dask_scheduler):
    plugin = next(plugin for name, plugin in dask_scheduler.plugins.items() if name.startswith("riverrun-"))
    plugin.drop([key])


def test_a_graph_that_is_not_taken_loses_its_calls_before_they_began(engine, calls, monkeypatch, wait_until):
    here, there = engine.workers()
    engine.send("gone", calls.brief("gone", 200_000), on=here)
    engine.send("there", calls.brief("there", 200_000), on=there)
    assert [engine.reports[key].end() for key in ("gone", "there")] == [("ended", None)] * 2
    with held(monkeypatch, engine.executor, "_take") as is_told:
        os.kill(engine.process_of(here), signal.SIGKILL)
        assert is_told.wait(LIMIT)
        wait_until(partial(is_removed, engine.executor.client, here), "the scheduler knows")
        with monkeypatch.context() as patch, held(patch, engine.executor._sender, "_submit") as is_sending:
            patch.setattr(Value, "lost", property(lambda _: False))  # nobody here knows
            engine.send("before", calls.brief("before"))
            assert is_sending.wait(LIMIT)
            engine.send("takes-it", calls.brief("takes-it"), takes=["gone"])  # as one graph with the next
            engine.send("takes-another", calls.brief("takes-another"), takes=["there"])
            engine.executor._sender._submit.resume()
            future = wait_until(lambda: engine.handles["takes-it"].future, "it was sent")
        wait_until(lambda: future.status == "cancelled", "the graph was not taken")
    assert engine.reports["takes-it"].end() == ("lost", False, False)
    # Older releases of Dask take the rest of such a graph.
    assert engine.reports["takes-another"].end() in [("lost", False, False), ("ended", None)]
    engine.settle()
    assert {len(ends) for ends in engine.ends().values()} == {1}
    assert calls.begun()["takes-it"] == 0


def test_news_is_taken_whatever_a_look_around_raises(engine, calls, monkeypatch, caplog):
    looked = threading.Event()

    def look():
        looked.set()
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(engine.executor._losses, "look_for_forgotten", look)
    assert looked.wait(LIMIT)
    engine.send("after", calls.brief("after"))
    assert engine.reports["after"].end() == ("ended", None)
    assert "News of the Dask cluster could not be taken" in caplog.text


class ChangesOnce(dict):
    """A dict that another thread changes while its values are looked at, the first time."""

    changed = False

    def values(self):
        if not self.changed:
            self.changed = True
            raise RuntimeError("dictionary changed size during iteration")
        return super().values()


def test_open_calls_are_listed_while_other_threads_send(monkeypatch):
    calls = OpenCalls()
    monkeypatch.setattr(calls, "_by_key", ChangesOnce(one=1))
    assert calls.all() == [1]
