"""Real Dask clusters that lose workers: nothing runs twice, and each call that Dask drops is reported once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from distributed import CancelledError, Client, LocalCluster
from distributed.batched import BatchedSend
from runner_dask._forget import forget
from runner_dask._presence import Presence
from runner_dask._watch import Watch

LIMIT = 100
"""How long anything may take before it counts as a hang, in seconds."""
NOWHERE = "127.0.0.99"
"""A machine that no worker is on: what may run only there waits, and fetches nothing."""
pytestmark = [
    pytest.mark.timeout(120),
    # Sockets that Dask itself leaves to the garbage collector when workers die.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Flow:
    """A client that watches its tasks as a flow run does, and what it was told, in order."""

    def __init__(self, cluster, **options):
        self.client = Client(cluster, set_as_default=False, **options)
        self.topic = f"riverrun-{self.client.id}"
        self.events: list[dict] = []
        self.submitted: list[str] = []
        self.changed = threading.Condition()
        self.client.subscribe_topic(self.topic, self.hear)
        self.client.register_plugin(Watch(self.client.id, __name__))
        self.client.register_plugin(Presence(self.client.id))

    def hear(self, event):
        with self.changed:
            self.events.append(event[1])
            self.changed.notify_all()

    def wait_until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, LIMIT), self.events

    def of(self, op):
        return [event for event in self.events if event["op"] == op]

    def keys(self, op, kind=None):
        return [event["key"] for event in self.of(op) if kind in {None, event.get("kind")}]

    def workers(self):
        return {event["worker"]: event["pid"] for event in self.of("joined")}

    def submit(self, key, function=None, *args, **options):
        self.submitted.append(key)
        return self.client.submit(function or call(self.topic), key, *args, key=key, pure=False, **options)

    def arrive(self):
        """Wait until the scheduler has all that was submitted."""

        def missing(keys, dask_scheduler):
            return [key for key in keys if key not in dask_scheduler.tasks]

        end = time.monotonic() + LIMIT
        while left := self.client.run_on_scheduler(missing, self.submitted):
            assert time.monotonic() < end, left
            time.sleep(0.01)

    def settle(self):
        """Wait until the scheduler has dealt with all that happened before, and the events are here."""
        self.client.run_on_scheduler(lambda: None)
        mark = f"mark-{time.monotonic()}"
        self.client.log_event(self.topic, {"op": mark})
        self.wait_until(lambda: self.of(mark))


def call(topic):
    """Make a function that runs on a worker as the runner's own does: it notes, works, reports."""

    def run(key, notes=None, pause=0.0, *upstreams):
        """Pause for a time, or until a file is there."""
        import time

        from distributed import get_worker
        from runner_dask import _running

        worker = get_worker()
        if not _running.begin(key, worker.address):
            raise RuntimeError(f"begun on a worker that leaves: {key}")
        worker.log_event(topic, {"op": "begun", "key": key, "worker": worker.address})
        if notes:
            with Path(notes).open("a") as file:
                file.write(f"{key}\n")
        if isinstance(pause, str):
            end = time.monotonic() + 600
            while not Path(pause).exists() and time.monotonic() < end:
                time.sleep(0.01)
        else:
            time.sleep(pause)
        worker.log_event(topic, {"op": "done", "key": key, "worker": worker.address})
        _running.end(key)
        return key

    return run


@contextmanager
def local(n_workers=2, threads_per_worker=2, **options):
    with LocalCluster(
        n_workers=n_workers,
        threads_per_worker=threads_per_worker,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        **options,
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(forked_clusters):
    """Two workers with two threads each, which start again when they are killed: for all tests of this module."""
    made = forked_clusters(2)
    yield made.cluster
    made.wait_for_workers()


@pytest.fixture
def flow(cluster):
    made = Flow(cluster)
    made.wait_until(lambda: len(made.of("joined")) >= 2)
    yield made
    forget(made.client)
    made.client.close()


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


@pytest.fixture
def gate(tmp_path):
    """A file for which calls wait; it is there when the test has ended, so that none stays on the cluster."""
    file = tmp_path / "gate"
    yield str(file)
    file.touch()


def counts(notes):
    return Counter(notes.read_text().split()) if notes.exists() else Counter()


def test_a_killed_worker_has_nothing_run_twice_and_each_loss_told_once(flow, notes):
    keys = [f"work-{n}" for n in range(40)]
    futures = [flow.submit(key, None, str(notes), 0.05) for key in keys]
    flow.wait_until(lambda: len(flow.of("done")) >= 10)
    address, pid = next(iter(flow.workers().items()))
    os.kill(pid, signal.SIGKILL)

    flow.wait_until(lambda: set(flow.keys("done")) | set(flow.keys("lost")) == set(keys))
    flow.wait_until(lambda: len(flow.of("joined")) == 3)
    flow.settle()
    for future in futures:
        with suppress(CancelledError):
            future.result(timeout=LIMIT)
    lost = flow.of("lost")
    assert max(Counter(event["key"] for event in lost).values()) == 1
    assert {event["worker"] for event in lost} == {address}
    assert {event["kind"] for event in lost} <= {"processing", "value"}
    assert set(flow.keys("lost", "value")) <= set(flow.keys("done"))
    assert {future.key for future in futures if future.status == "finished"} == set(keys) - set(flow.keys("lost"))
    ran = counts(notes)
    assert max(ran.values()) == 1
    assert set(keys) - set(ran) <= set(flow.keys("lost", "processing"))


def test_a_task_that_ends_its_worker_is_told_and_not_run_again(flow, notes):
    def end(key, path):
        import os

        with Path(path).open("a") as file:
            file.write(f"{key}\n")
        os._exit(9)

    flow.submit("good", None, str(notes)).result(timeout=LIMIT)
    bad = flow.submit("bad", end, str(notes))
    flow.wait_until(lambda: "bad" in flow.keys("lost"))
    flow.wait_until(lambda: len(flow.of("joined")) == 3)
    flow.settle()
    (told,) = [event for event in flow.of("lost") if event["key"] == "bad"]
    assert (told["kind"], told["text"]) == ("processing", "the worker that had it died")
    assert told["worker"] in flow.workers()
    assert counts(notes)["bad"] == 1
    assert bad.status == "cancelled"


def test_with_no_failures_allowed_dask_says_killed_worker_and_the_watch_the_same_as_ever(flow, cluster, monkeypatch):
    def end(key):
        import os

        os._exit(9)

    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    future = flow.submit("bad", end)
    flow.wait_until(lambda: flow.of("lost"))
    assert [(event["key"], event["kind"]) for event in flow.of("lost")] == [("bad", "processing")]
    assert future.key == "bad"


def test_a_worker_that_is_retired_ends_what_runs_and_the_rest_is_told(notes, gate):
    with local(threads_per_worker=1) as cluster:
        flow = Flow(cluster)
        flow.wait_until(lambda: len(flow.of("joined")) == 2)
        address = min(flow.workers())
        keys = [f"work-{n}" for n in range(5)]
        kept = [flow.submit(key, None, str(notes), gate, workers=[address]) for key in keys]
        flow.arrive()
        flow.wait_until(lambda: flow.of("begun"))
        with ThreadPoolExecutor(1) as thread:
            retired = thread.submit(flow.client.retire_workers, [address])
            flow.wait_until(lambda: flow.of("leaving"))
            Path(gate).touch()
            retired.result(LIMIT)
        flow.wait_until(lambda: flow.of("left"))

        (running,) = flow.keys("begun")
        assert flow.of("leaving") == [{"op": "leaving", "worker": address, "running": (running,)}]
        assert flow.keys("done") == [running]
        assert Counter(flow.keys("lost", "leaving")) == Counter(keys)
        assert {event["worker"] for event in flow.of("lost")} == {address}
        ops = [event["op"] for event in flow.events if event["op"] in {"lost", "leaving", "done", "left"}]
        assert ops == ["lost"] * 5 + ["leaving", "done", "left"]
        assert counts(notes) == Counter([running])
        assert len(kept) == 5
        forget(flow.client)
        flow.client.close()


def test_a_local_cluster_that_shrinks_lets_what_runs_end(notes, gate):
    with local(threads_per_worker=1) as cluster:
        flow = Flow(cluster)
        keys = ["one", "two"]
        kept = [flow.submit(key, None, str(notes), gate) for key in keys]
        flow.wait_until(lambda: len(flow.of("begun")) == 2)
        cluster.scale(1)
        flow.wait_until(lambda: flow.of("leaving"))
        Path(gate).touch()
        flow.wait_until(lambda: flow.of("left") and len(flow.of("done")) == 2)
        assert flow.keys("lost") == flow.keys("lost", "leaving")
        assert len(flow.keys("lost")) == 1
        assert counts(notes) == Counter(keys)
        assert len(kept) == 2
        forget(flow.client)
        flow.client.close()


def test_a_cluster_that_closes_does_not_wait_once_it_was_told_to_forget():
    with local(n_workers=1) as cluster:
        flow = Flow(cluster)
        kept = flow.submit("long", None, None, 600)
        flow.wait_until(lambda: flow.of("begun"))
        forget(flow.client)
        assert not flow.of("leaving")
        assert kept.key == "long"
        flow.client.close()


def test_a_value_that_is_lost_with_its_worker_is_told_and_not_computed_again(flow, notes):
    address, pid = next(iter(flow.workers().items()))
    future = flow.submit("value", None, str(notes), workers=[address], allow_other_workers=True)
    assert future.result(timeout=LIMIT) == "value"
    os.kill(pid, signal.SIGKILL)
    flow.wait_until(lambda: flow.of("lost"))
    flow.wait_until(lambda: len(flow.of("joined")) == 3)
    flow.settle()
    why = "the only worker with its value is gone"
    assert flow.of("lost") == [{"op": "lost", "key": "value", "kind": "value", "worker": address, "text": why}]
    assert counts(notes) == Counter(["value"])


def test_sent_data_that_is_lost_is_told_with_what_waits_for_it(flow, notes):
    address, pid = next(iter(flow.workers().items()))
    data = flow.client.scatter(["data"], workers=[address], hash=False)[0]
    waits = flow.submit("waits", None, str(notes), 0, data, workers=[NOWHERE])
    flow.arrive()
    os.kill(pid, signal.SIGKILL)
    flow.wait_until(lambda: len(flow.of("lost")) == 2)
    flow.settle()
    assert {(event["key"], event["kind"]) for event in flow.of("lost")} == {(data.key, "value"), ("waits", "upstream")}
    assert flow.of("lost")[0]["worker"] == address
    assert not counts(notes)
    assert waits.key not in flow.keys("begun")


def test_what_waits_for_a_lost_value_is_told_and_never_runs(flow, notes):
    address, pid = next(iter(flow.workers().items()))
    first = flow.submit("first", None, str(notes), workers=[address])
    first.result(timeout=LIMIT)
    second = flow.submit("second", None, str(notes), 0, first, workers=[NOWHERE])
    third = flow.submit("third", None, str(notes), 0, second)
    flow.arrive()
    os.kill(pid, signal.SIGKILL)
    flow.wait_until(lambda: len(flow.of("lost")) == 3)
    flow.settle()
    told = {event["key"]: event["kind"] for event in flow.of("lost")}
    assert told == {"first": "value", "second": "upstream", "third": "upstream"}
    assert len(flow.of("lost")) == 3
    assert counts(notes) == Counter(["first"])
    assert third.key not in flow.keys("begun")


def test_what_another_client_cancels_is_told_and_what_our_own_does_is_not(flow, gate):
    from distributed import Future

    ours, theirs = (flow.submit(key, None, None, gate) for key in ("ours", "theirs"))
    flow.wait_until(lambda: len(flow.of("begun")) == 2)
    ours.cancel()
    flow.settle()
    with Client(flow.client.scheduler.address, set_as_default=False) as other:
        other.cancel([Future("theirs", other)], force=True)
        flow.wait_until(lambda: flow.of("lost"))
    flow.settle()
    why = "another client cancelled it"
    assert flow.of("lost") == [{"op": "lost", "key": "theirs", "kind": "cancelled", "worker": "", "text": why}]
    assert theirs.key == "theirs"


def test_a_restart_of_the_cluster_is_told(flow, gate):
    done = flow.submit("done")
    done.result(timeout=LIMIT)
    runs = flow.submit("runs", None, None, gate)
    flow.wait_until(lambda: len(flow.of("begun")) == 2)
    with Client(flow.client.scheduler.address, set_as_default=False) as other:
        other.restart(timeout=LIMIT)
    flow.wait_until(lambda: flow.of("restarted"))
    assert {(event["key"], event["kind"]) for event in flow.of("lost")} == {
        ("done", "cancelled"),
        ("runs", "cancelled"),
    }
    assert {event["text"] for event in flow.of("lost")} == {"the cluster was restarted"}
    assert len(flow.of("lost")) == 2
    assert runs.key == "runs"


def test_a_call_that_reported_its_error_is_not_told_and_one_that_dask_failed_is(flow):
    def reports(key):
        class Reported(Exception): ...

        raise Reported(key)

    def fails(key):
        raise ValueError(f"no {key}")

    one = flow.submit("reported", reports)
    after = flow.submit("after", None, None, 0, one)
    two = flow.submit("failed", fails)
    after_two = flow.submit("after-two", None, None, 0, two)
    flow.wait_until(lambda: flow.of("lost"))
    for future in (one, after, two, after_two):
        future.exception(timeout=LIMIT)
    flow.settle()
    (told,) = flow.of("lost")
    assert (told["key"], told["kind"], told["text"]) == ("failed", "erred", "ValueError('no failed')")
    assert told["worker"] in flow.workers()


def test_an_argument_that_ends_its_worker_as_it_is_read_is_told():
    class Stubborn:
        def __reduce__(self):
            import os

            def read(pid):
                import os

                if os.getpid() != pid:
                    raise OSError("not in this process")
                return Stubborn()

            return read, (os.getpid(),)

    with local(n_workers=1) as cluster:  # its own: the nanny starts no other worker in place of this one
        flow = Flow(cluster)
        flow.wait_until(lambda: flow.of("joined"))
        future = flow.submit("stubborn", None, None, 0, Stubborn())
        flow.wait_until(lambda: flow.of("lost"))
        flow.settle()
        (told,) = flow.of("lost")  # Dask's worker dies of a message that it cannot read
        assert (told["key"], told["kind"]) == ("stubborn", "processing")
        assert future.key == "stubborn"
        forget(flow.client)
        flow.client.close()


def test_what_a_user_gives_to_dask_itself_is_left_to_dask(flow):
    address, pid = next(iter(flow.workers().items()))
    future = flow.client.submit(os.getpid, workers=[address], allow_other_workers=True, pure=False)
    assert future.result(timeout=LIMIT) == pid
    os.kill(pid, signal.SIGKILL)
    flow.wait_until(lambda: len(flow.of("joined")) == 3)
    assert future.result(timeout=LIMIT) != pid
    flow.settle()
    assert not flow.of("lost")


def test_events_arrive_in_order_and_the_loss_comes_last(flow, gate):
    topic = flow.topic

    def counts_up(key):
        import os
        import time

        from distributed import get_worker

        for n in range(200):
            get_worker().log_event(topic, {"op": "count", "n": n})
        end = time.monotonic() + 600
        while not os.path.exists(gate) and time.monotonic() < end:  # noqa: PTH110 - until what was logged has arrived
            time.sleep(0.01)
        os._exit(9)

    future = flow.submit("counts", counts_up)
    flow.wait_until(lambda: len(flow.of("count")) == 200)
    Path(gate).touch()
    flow.wait_until(lambda: flow.of("lost"))
    told = [event.get("n") for event in flow.events if event["op"] in {"count", "lost"}]
    assert told == [*range(200), None]
    assert future.key == "counts"


def test_adaptive_scaling_takes_no_worker_that_has_a_call_of_ours(flow, gate):
    def candidates(dask_scheduler):
        return dask_scheduler.workers_to_close(n=2)

    busy, idle = flow.workers()
    kept = [flow.submit("busy", None, None, gate, workers=[busy])]
    flow.wait_until(lambda: flow.of("begun"))
    assert flow.client.run_on_scheduler(candidates) == [idle]
    kept.append(flow.submit("too", None, None, gate, workers=[idle]))
    flow.wait_until(lambda: len(flow.of("begun")) == 2)
    assert flow.client.run_on_scheduler(candidates) == []


def remains(client, dask_scheduler):
    """Whatever the scheduler still has of a client, apart from Dask's own notes that it has gone."""
    everything = [
        *dask_scheduler.plugins,
        *dask_scheduler.worker_plugins,
        *(topic for topic, kept in dask_scheduler._broker._topics.items() if topic != client or len(kept.events) > 2),
        *dask_scheduler.clients,
        *(str(key) for key in dask_scheduler.tasks),
    ]
    return [name for name in everything if client in name]


def test_introductions_arrive_though_the_stream_to_the_scheduler_is_slow(cluster, monkeypatch):
    # Dask sends what goes over it from every 10 ms only: in that time all of our calls to the scheduler can be done.
    monkeypatch.setattr("distributed.client.BatchedSend", lambda interval, **rest: BatchedSend("2s", **rest))
    made = Flow(cluster)
    made.wait_until(lambda: len(made.of("joined")) >= 2)
    forget(made.client)
    made.client.close()


def test_nothing_is_left_on_the_scheduler_after_a_flow_run(cluster):
    with Client(cluster, set_as_default=False) as onlooker:
        for _ in range(3):
            flow = Flow(cluster)
            name = flow.client.id
            futures = [flow.submit(f"{name}-{n}") for n in range(20)]
            for future in futures:
                future.result(timeout=LIMIT)
            flow.settle()
            assert onlooker.run_on_scheduler(remains, name)
            assert not flow.client.get_events(flow.topic)  # nothing is kept while it runs, either
            forget(flow.client)
            flow.client.close()
            del futures, future
            assert not flow.of("lost")
            end = time.monotonic() + LIMIT
            while (left := onlooker.run_on_scheduler(remains, name)) and time.monotonic() < end:
                time.sleep(0.05)
            assert not left


def test_forgetting_a_cluster_that_is_gone_is_quiet():
    with local(n_workers=0) as cluster:
        flow = Flow(cluster)
    forget(flow.client, timeout=1)
    flow.client.close()


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"runner_dask", "riverrun"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Block())
"""


class Servers:
    """A scheduler and workers, each a process started as on a command line."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.blocked = folder / "blocked"
        self.blocked.mkdir()
        (self.blocked / "sitecustomize.py").write_text(BLOCK)
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"

    def start(self, command, *options, without_us=False):
        environment = {**os.environ, **({"PYTHONPATH": str(self.blocked)} if without_us else {})}
        log = (self.folder / f"{command}-{len(self.processes)}.log").open("w")
        arguments = [sys.executable, "-m", f"distributed.cli.dask_{command}", *options, "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*arguments, "--no-dashboard"], env=environment, stderr=log, stdout=log, start_new_session=True
        )
        log.close()
        self.processes.append(process)
        return process

    def scheduler(self, **options):
        return self.start("scheduler", "--port", str(self.port), **options)

    def worker(self, *options, **how):
        where = ("--local-directory", str(self.folder / f"worker-{len(self.processes)}"))
        return self.start("worker", self.address, "--nthreads", "1", *where, *options, **how)

    def stop(self):
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(LIMIT)


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path)
    yield made
    made.stop()


def test_a_scheduler_without_riverrun_takes_the_watch_and_nothing_loops_when_no_worker_is_left(servers, notes):
    servers.scheduler(without_us=True)
    flow = Flow(servers.address, timeout=LIMIT)
    worker = servers.worker("--no-nanny")
    keys = [f"work-{n}" for n in range(4)]
    kept = [flow.submit(key, None, str(notes), 600, workers=["127.0.0.1"]) for key in keys]
    flow.arrive()
    flow.wait_until(lambda: flow.of("begun"))
    os.killpg(worker.pid, signal.SIGKILL)
    flow.wait_until(lambda: set(flow.keys("lost")) == set(keys))
    flow.settle()

    def state(dask_scheduler):
        return len(dask_scheduler.tasks), dask_scheduler.transition_counter, "runner_dask" in sys.modules

    tasks, before, imported = flow.client.run_on_scheduler(state)
    flow.settle()
    assert (tasks, before, imported) == (0, flow.client.run_on_scheduler(state)[1], False)
    assert len(flow.of("lost")) == len(kept)
    assert set(flow.keys("lost", "processing")) == set(keys)
    assert counts(notes) == Counter(flow.keys("begun"))
    forget(flow.client)
    flow.client.close()


def test_a_worker_without_riverrun_says_so_and_serves_others(servers):
    servers.scheduler()
    flow = Flow(servers.address, timeout=LIMIT)
    servers.worker("--no-nanny", without_us=True)
    flow.wait_until(lambda: flow.of("joined"))
    (told,) = flow.of("joined")
    assert told["error"] == "ImportError: runner_dask is not installed here"
    assert flow.client.submit(abs, -1).result(timeout=LIMIT) == 1
    forget(flow.client)
    flow.client.close()


def test_of_a_client_that_was_killed_nothing_is_left(servers):
    servers.scheduler()
    servers.worker("--no-nanny")
    script = f"""
import os, sys, time
from distributed import Client
from runner_dask._watch import Watch
from runner_dask._presence import Presence
client = Client({servers.address!r}, timeout={LIMIT})
client.register_plugin(Watch(client.id))
client.register_plugin(Presence(client.id))
client.log_event("riverrun-" + client.id, {{"op": "hello"}})
print(client.id, flush=True)
time.sleep(600)
"""
    with Client(servers.address, timeout=LIMIT, set_as_default=False) as onlooker:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                client = process.stdout.readline().strip()
                assert onlooker.run_on_scheduler(remains, client)
            finally:
                process.kill()
        end = time.monotonic() + LIMIT
        while (left := onlooker.run_on_scheduler(remains, client)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left


def test_what_a_worker_tells_when_it_joins(flow):
    for told in flow.of("joined"):
        assert told["error"] == ""
        assert told["pid"] != os.getpid()
        assert told["host"] == socket.gethostname()
        assert told["nanny"].startswith("tcp://127.0.0.1:")
        assert told["environment"]["packages"]["distributed"]
        assert told["threads"] == 2
        assert Path(told["journal"]).exists()
