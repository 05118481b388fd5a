"""What is said about lost workers: found out on real ones, and each sentence as people read it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager

import pytest
from distributed import Client, LocalCluster
from runner_dask._forget import forget
from runner_dask._losses import Joined, Loss, explain, size
from runner_dask._presence import Presence
from runner_dask._watch import Watch

LIMIT = 100
WORKER = Joined("tcp://127.0.0.1:40123", host="x", pid=4711, memory_limit=1 << 30)
PLACE = "Dask worker tcp://127.0.0.1:40123 (pid 4711 on host x)"
pytestmark = [
    pytest.mark.timeout(120),
    # Sockets that Dask itself leaves to the garbage collector when workers die.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (
            Loss(WORKER, "boom", started=True, status=9, running=["boom"]),
            (
                f"it was running on {PLACE} when that exited with status 9."
                " Nothing else ran there: the task itself ends its worker."
            ),
        ),
        (
            Loss(WORKER, "boom", started=True, signal=9, running=["boom", "other"]),
            (f"it was running on {PLACE} when that was killed by SIGKILL. With it ran 'other'."),
        ),
        (
            Loss(WORKER, "boom", started=True, signal=11, running=["boom"], lines=["one", "two"]),
            (
                f"it was running on {PLACE} when that was killed by SIGSEGV."
                " Nothing else ran there: the task itself ends its worker.\nIts last lines:\n    one\n    two"
            ),
        ),
        (
            Loss(WORKER, "boom", started=True, signal=15, over_memory=True, peak=1_299_227_607),
            (
                f"it was running on {PLACE} when that was killed because it"
                " exceeded its memory limit of 1.00 GiB (peak 1.21 GiB). Give workers more memory"
                " (cluster_kwargs={'memory_limit': ...}) or do less at once."
            ),
        ),
        (
            Loss(WORKER, "boom", started=False, signal=9, running=["a"]),
            (f"it was waiting on {PLACE} when that was killed by SIGKILL. It had not started."),
        ),
        (
            Loss(Joined("tcp://127.0.0.1:40123"), "boom"),
            (
                "it was assigned to Dask worker tcp://127.0.0.1:40123 (which never introduced itself) when that"
                " disappeared."
            ),
        ),
    ],
)
def test_the_sentences(loss, text):
    assert loss.text("boom-1a2b3c4d-0", 3) == f"Task run 'boom-1a2b3c4d-0' was lost in attempt 3: {text}"


def test_the_sentences_of_a_lost_value_and_of_a_worker_that_left():
    begin = "Task run 'boom-1a2b3c4d-0' was lost in attempt 1: "
    worker = "Dask worker tcp://127.0.0.1:40123 (pid 4711 on host x)"
    assert Loss(WORKER, "boom").text("boom-1a2b3c4d-0", 1, "value") == (
        f"{begin}it had finished, and its value was only on {worker}, which is gone."
    )
    assert Loss(WORKER, "boom").text("boom-1a2b3c4d-0", 1, "leaving") == (
        f"{begin}{worker} left the cluster before it had ended."
    )


def test_sizes_are_written_for_people():
    assert [size(n) for n in (5, 2048, 3 << 20, 1 << 30)] == ["5 B", "2.00 KiB", "3.00 MiB", "1.00 GiB"]


class Flow:
    """A client that watches a cluster, and what it was told."""

    def __init__(self, address):
        self.client = Client(address, set_as_default=False)
        self.events: list[dict] = []
        self.changed = threading.Condition()
        self.client.subscribe_topic(f"riverrun-{self.client.id}", self.hear)
        self.client.register_plugin(Watch(self.client.id, __name__))
        self.client.register_plugin(Presence(self.client.id))

    def hear(self, event):
        with self.changed:
            self.events.append(event[1])
            self.changed.notify_all()

    def wait_for(self, op, number=1):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(op)) >= number, LIMIT), self.events
        return self.of(op)[0]

    def of(self, op):
        return [event for event in self.events if event["op"] == op]


@contextmanager
def watched(cluster):
    """Watch a cluster until the block ends; its workers have introduced themselves."""
    flow = Flow(cluster)
    flow.wait_for("joined", len(cluster.workers))
    yield cluster, flow
    forget(flow.client)
    flow.client.close()


@pytest.fixture
def cluster(forked_clusters):
    """A cluster whose two workers start again when they are killed, and who watches it."""
    made = forked_clusters(2)
    with watched(made.cluster) as both:
        yield both
    made.wait_for_workers()


def run(key, end):
    from distributed import get_worker
    from runner_dask import _running

    assert _running.begin(key, get_worker().address)
    _running.line(key, "about to end")
    end()


def lost(flow, end):
    def call(key):
        run_here(key, end)

    run_here = by_value(run)
    future = flow.client.submit(call, "boom", key="boom", pure=False)
    told = flow.wait_for("lost")
    (joined,) = [event for event in flow.of("joined") if event["worker"] == told["worker"]]
    assert future.key == "boom"
    return Joined.of(joined)


def by_value(function):
    """Make a copy of a function that is pickled with its code: workers cannot import this module."""
    import types

    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__qualname__ = "by_value.<locals>.copy"
    return copy


def status_nine():
    import os

    os._exit(9)


def kill():
    import os

    os.kill(os.getpid(), 9)


def test_a_task_that_ends_its_worker_is_named_as_the_one(cluster):
    made, flow = cluster
    joined = lost(flow, by_value(status_nine))
    loss = explain(flow.client, made, joined, "boom")
    assert (loss.status, loss.signal, loss.started, loss.running) == (9, None, True, ["boom"])
    assert loss.lines == ["about to end"]
    assert loss.peak > 1 << 20
    assert loss.text("boom-0", 1) == (
        f"Task run 'boom-0' was lost in attempt 1: it was running on Dask worker {joined.worker} (pid {joined.pid}"
        f" on host {socket.gethostname()}) when that exited with status 9. Nothing else ran there: the task itself"
        " ends its worker.\nIts last lines:\n    about to end"
    )


def test_a_killed_worker_of_a_cluster_elsewhere_is_asked_for_through_its_nanny(cluster):
    _, flow = cluster
    joined = lost(flow, by_value(kill))
    loss = explain(flow.client, None, joined, "boom")
    assert (loss.status, loss.signal, loss.started) == (None, signal.SIGKILL, True)


def test_a_worker_over_its_memory_limit_is_told_with_limit_and_peak():
    def fill():
        import time

        kept = [bytearray(os.urandom(1) * (20 << 20)) for _ in range(25)]
        time.sleep(600)  # its nanny looks at it from time to time
        return len(kept)

    options = {"n_workers": 1, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(memory_limit="350 MiB", **options) as local, watched(local) as (made, flow):
        joined = lost(flow, fill)
        loss = explain(flow.client, made, joined, "boom")
        assert loss.over_memory
        assert loss.started
        assert loss.peak > 300 << 20
        text = loss.text("boom-0", 1)
        assert f"was killed because it exceeded its memory limit of 350.00 MiB (peak {size(loss.peak)})." in text


def test_of_a_call_that_only_waited_it_is_known_that_it_did_not_start(cluster):
    made, flow = cluster
    joined = Joined.of(flow.wait_for("joined"))
    os.kill(joined.pid, signal.SIGKILL)
    loss = explain(flow.client, made, joined, "never")
    assert loss.started is False
    assert loss.text("never-0", 1).endswith("when that was killed by SIGKILL. It had not started.")


def test_without_anything_to_ask_it_says_what_is_known(cluster):
    _, flow = cluster
    nowhere = Joined("tcp://127.0.0.1:9", host="elsewhere", pid=1, nanny="tcp://127.0.0.1:9", journal="/nowhere")
    assert explain(flow.client, None, nowhere, "boom") == Loss(nowhere, "boom")
    flow.client.close()
    assert explain(flow.client, None, nowhere, "boom").started is None  # with a client that is closed
