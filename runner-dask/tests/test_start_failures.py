"""A start that fails says so within the time limit: what was tried, what is known, what to do. Nothing of it stays."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import socket
import threading
from types import SimpleNamespace

import distributed
import pytest
from riverrun import flow
from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Call, Deadline
from runner_dask import DaskTaskRunner
from runner_dask._clusters import opened
from runner_dask._connections import _connect as _connections_connect
from runner_dask._unheard import no_answer

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    # What Dask could not open it leaves, half made, to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <(socket|function Cluster.__del__):pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(autouse=True)
def _collected():
    yield
    gc.collect()  # within the test to which it belongs


LIMIT = 100
ONE = {"n_workers": 1, "threads_per_worker": 1}


def failure_of(runner):
    """The text of the error with which a runner does not start."""
    with pytest.raises(TaskRunnerStartError) as error, opened(runner):
        pass
    return str(error.value)


@pytest.fixture
def over_when_connected(monkeypatch):
    """Let `start_timeout` be over as soon as the scheduler has answered, however long that takes."""

    def connect(runner, cluster, deadline):
        client = _connections_connect(runner, cluster, deadline)
        deadline._at = 0
        return client

    monkeypatch.setattr("runner_dask._connections._connect", connect)


@pytest.fixture
def over_when(monkeypatch, wait_until):
    """Let `start_timeout` be over when a file is there that a worker makes, however long that takes."""

    def over_when(file):
        class UntilThen(Call):
            def result(self, seconds):
                wait_until(lambda: self._ended.is_set() or file.exists(), "the worker is as far as that")
                return super().result(LIMIT if self._ended.is_set() else 0)

        monkeypatch.setattr("runner_dask._temporary.Call", UntilThen)

    return over_when


# -- no cluster at that address


def test_a_closed_port(closed_port):
    text = failure_of(DaskTaskRunner(address=f"tcp://127.0.0.1:{closed_port}", start_timeout=0.5))
    assert text.startswith(f"No connection to a Dask scheduler at 'tcp://127.0.0.1:{closed_port}': ")
    assert "Is a scheduler running there (`dask scheduler` prints its address)? Start timeout: 0.5 s." in text
    assert "If the scheduler uses TLS, its address begins with tls://" in text


def test_a_server_that_does_not_speak_dask():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        text = failure_of(DaskTaskRunner(address=address, start_timeout=0.5))
    assert text.startswith(f"No connection to a Dask scheduler at {address!r}: ")


@pytest.mark.parametrize(
    "address", ["tpc://127.0.0.1:8786", "tcp://", "127.0.0.1:port", "tcp://no.such.host.invalid:1"]
)
def test_a_malformed_address(address):
    text = failure_of(DaskTaskRunner(address=address, start_timeout=1))
    assert text.startswith(f"No connection to a Dask scheduler at {address!r}: ")


def test_a_cluster_object_that_is_closed():
    cluster = distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0")
    runner = DaskTaskRunner(cluster=cluster, start_timeout=LIMIT)
    cluster.close()
    assert "closed or closing Cluster" in failure_of(runner)


def test_a_scheduler_without_workers(dask_scheduler, over_when_connected):
    text = failure_of(DaskTaskRunner(address=dask_scheduler.address, start_timeout=LIMIT))
    assert text == (
        f"The Dask cluster at {dask_scheduler.address} has a scheduler and no worker: none came within 100 s. Start "
        f"one (`dask worker {dask_scheduler.address}`), look at why its workers do not start (their logs), or allow "
        "more time with start_timeout=SECONDS."
    )


def test_a_scheduler_that_is_stopped(dask_cluster):
    dask_cluster.scheduler.send_signal(signal.SIGSTOP)
    text = failure_of(DaskTaskRunner(address=dask_cluster.address, start_timeout=0.5))
    assert text.startswith("No connection to a Dask scheduler at ")


def test_a_worker_that_is_stopped(dask_cluster, monkeypatch):
    # Dask itself waits for it without end.
    monkeypatch.setattr("runner_dask._unheard.ANSWER_WITHIN", LIMIT)
    dask_cluster.start_worker()
    with distributed.Client(dask_cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=LIMIT)
        (stopped, pid), (other, _) = client.run(os.getpid).items()
    os.kill(pid, signal.SIGSTOP)

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address, start_timeout=10))
    def never_begins():
        raise AssertionError

    with pytest.raises(TaskRunnerStartError) as error:
        never_begins()
    # It is the one of which nothing was heard for longest; on a busy machine the other may be named behind it.
    ago = r"\(last heard of [0-9]+ s ago\)"
    assert re.fullmatch(
        f"The Dask cluster at {dask_cluster.address} did not answer within 10 s: of its 2 workers, these have not: "
        f"{stopped} {ago}(, {other} {ago})?. End those that hang, or take them off the cluster "
        r"\(`client.retire_workers`\), or allow more time with start_timeout=SECONDS.",
        str(error.value),
    )


class Asked:
    """What is asked of a client whose scheduler knows these workers."""

    def __init__(self, found):
        self.found = found
        self.scheduler = SimpleNamespace(address="tcp://there:1")

    def run_on_scheduler(self, function):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (OSError("gone"), "within 3 s, and its scheduler does not say why. See to the scheduler, or allow more time"),
        ({"a": 1.0}, "within 3 s, though each of its workers has. Try again, or allow more time"),
        (
            {"a": 40.0, "b": 31.0, "c": 40.4, "d": 39.0, "e": 38.0, "f": 0.5},
            "c (last heard of 40 s ago), d (last heard of 39 s ago), e (last heard of 38 s ago) and 1 more. End those",
        ),
    ],
)
def test_the_text_for_a_cluster_that_does_not_answer(found, text):
    assert text in no_answer(Asked(found), {"a"}, Deadline(3))


# -- a temporary cluster that does not start


def test_a_worker_that_raises_while_it_starts(tmp_path, monkeypatch, capfd):
    (tmp_path / "raising_preload.py").write_text("raise RuntimeError('no licence for this worker')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = failure_of(DaskTaskRunner(cluster_kwargs={**ONE, "preload": ["raising_preload"]}))
    assert text.startswith("The Dask cluster `distributed.deploy.local.LocalCluster` did not start: ")
    assert "RuntimeError: no licence for this worker" in text
    assert "0 of 1 workers had started. Check cluster_kwargs" in text
    assert "The last lines that its workers wrote to stderr:\n  " in text
    assert capfd.readouterr().err == ""  # the error says it, and Dask does not say it beside


def test_a_worker_that_dies_while_it_starts(tmp_path, monkeypatch, over_when):
    mark = tmp_path / "dying"
    source = f"import os, sys\nos.write(2, b'fatal: out of luck\\n')\nopen({str(mark)!r}, 'w').close()\nos._exit(3)\n"
    (tmp_path / "dying_preload.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    over_when(mark)  # older versions of Dask do not notice the death, and start the worker again and again
    text = failure_of(DaskTaskRunner(cluster_kwargs={**ONE, "preload": ["dying_preload"]}, start_timeout=LIMIT))
    assert "wrote to stderr:\n  fatal: out of luck" in text


def test_workers_that_never_come(tmp_path, monkeypatch, worker_processes, over_when):
    mark = tmp_path / "hanging"
    (tmp_path / "hanging_preload.py").write_text(
        "import sys, time\nprint('waiting for a lock', file=sys.stderr, flush=True)\n"
        f"open({str(mark)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    over_when(mark)
    text = failure_of(DaskTaskRunner(cluster_kwargs={**ONE, "preload": ["hanging_preload"]}, start_timeout=LIMIT))
    assert (
        "did not start within 100 s. 0 of 1 workers had started. Check cluster_kwargs, or allow more time with" in text
    )
    assert "start_timeout=SECONDS" in text
    assert text.endswith("wrote to stderr:\n  waiting for a lock")
    assert worker_processes() == set()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({**ONE, "worker_count": 1}, "TypeError: Server.__init__() got an unexpected keyword argument 'worker_count'"),
        ({"n_workers": "many"}, "did not start: "),
        ({"security": 5}, "did not start: TypeError: security must be a Security object"),
        ({**ONE, "host": "192.0.2.77"}, "Cannot assign requested address"),
    ],
)
def test_cluster_kwargs_that_do_not_fit(kwargs, text, capfd):
    failure = failure_of(DaskTaskRunner(cluster_kwargs={"dashboard_address": None, **kwargs}))
    assert text in failure
    assert failure.startswith("The Dask cluster `distributed.deploy.local.LocalCluster` did not start: ")
    assert capfd.readouterr().err == ""


def test_a_start_that_fails_leaves_no_thread(wait_until):
    before = threading.active_count()
    failure_of(DaskTaskRunner(cluster_kwargs={**ONE, "host": "192.0.2.77", "dashboard_address": None}))
    wait_until(lambda: threading.active_count() <= before, "the threads have ended")


def test_a_class_that_raises():
    def broken(**kwargs):
        raise ValueError("no quota") from OSError("403")

    text = failure_of(DaskTaskRunner(cluster_class=broken))
    assert text.endswith(
        "broken` did not start: ValueError: no quota (OSError: 403). Check cluster_kwargs, or allow more time with "
        "start_timeout=SECONDS."
    )


def test_a_class_that_hangs_and_is_closed_when_it_comes():
    closed, go_on = threading.Event(), threading.Event()

    class Late:
        scheduler_address = "tcp://127.0.0.1:1"

        def __init__(self) -> None:
            go_on.wait(LIMIT)

        def close(self):
            closed.set()

    text = failure_of(DaskTaskRunner(cluster_class=Late, start_timeout=0.3))
    assert "Late` did not start within 0.3 s." in text
    go_on.set()
    assert closed.wait(LIMIT)


def test_a_cluster_whose_workers_never_come_is_closed(over_when_connected):
    closed = []

    class Empty(distributed.LocalCluster):
        def close(self, *args, **kwargs):
            closed.append(self)
            return super().close(*args, **kwargs)

    kwargs = {
        "n_workers": 0,
        "processes": False,
        "dashboard_address": "127.0.0.1:0",
        "protocol": "tcp",
        "host": "127.0.0.1",
    }
    text = failure_of(DaskTaskRunner(cluster_class=Empty, cluster_kwargs=kwargs, start_timeout=LIMIT))
    assert "has a scheduler and no worker: none came within 100 s." in text
    assert closed


async def make_nothing(**kwargs):
    raise AssertionError("never awaited")


@pytest.mark.filterwarnings("ignore:coroutine 'make_nothing' was never awaited")
@pytest.mark.parametrize(("make", "what"), [(make_nothing, "a coroutine"), (dict, "{}")])
def test_what_gives_no_cluster(make, what):
    text = failure_of(DaskTaskRunner(cluster_class=make))
    assert f"` gave {what}, and not a cluster that is running." in text
    assert "leave `asynchronous=True` out, and give a function that is no `async def`." in text


def test_a_closing_that_fails_is_told_and_is_not_the_flows_failure(caplog):
    class Stubborn(distributed.LocalCluster):
        def close(self, *args, **kwargs):
            super().close(*args, **kwargs)
            raise OSError("the batch system does not answer")

        def __del__(self, *args) -> None:
            pass

    kwargs = {
        "n_workers": 1,
        "processes": False,
        "dashboard_address": "127.0.0.1:0",
        "worker_dashboard_address": "127.0.0.1:0",
    }
    with opened(DaskTaskRunner(cluster_class=Stubborn, cluster_kwargs=kwargs)) as cluster:
        assert cluster.client.submit(int).result(LIMIT) == 0
    assert "Stubborn` was closed with an error: OSError: the batch system does not answer" in caplog.text


# -- cluster_class by name


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "dask_absent.SLURMCluster",
            (
                "cluster_class='dask_absent.SLURMCluster' needs the package 'dask_absent', which is not installed "
                "here: pip install dask-absent (if that is its name there)."
            ),
        ),
        (
            "distributed.LocalClustr",
            "cluster_class='distributed.LocalClustr': distributed has no 'LocalClustr'; did you mean 'LocalCluster'?",
        ),
        ("distributed.__version__", "cluster_class='distributed.__version__' is no class and no function, but "),
        (
            "distributed.absent:Cluster",
            "cluster_class='distributed.absent:Cluster': importing distributed.absent failed: ModuleNotFoundError: ",
        ),
    ],
)
def test_a_dotted_path_that_leads_nowhere(path, text):
    assert failure_of(DaskTaskRunner(cluster_class=path)).startswith(text)


# -- performance reports


def test_a_report_without_bokeh(tmp_path, monkeypatch):
    monkeypatch.setattr("runner_dask._reports.find_spec", lambda name: None)
    text = failure_of(DaskTaskRunner(cluster_kwargs=ONE, performance_report_path=tmp_path / "report.html"))
    assert text == (
        f"The performance report {str(tmp_path / 'report.html')!r} needs the package bokeh, which is not installed: "
        'pip install "runner-dask[dashboard]"'
    )


def test_a_report_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("runner_dask._reports.find_spec", lambda name: True)
    path = str(tmp_path / "absent" / "report.html")
    text = failure_of(DaskTaskRunner(cluster_kwargs=ONE, performance_report_path=path))
    assert text == (
        f"The performance report cannot be written to {path!r}: No such file or directory. Choose another "
        "performance_report_path."
    )


def test_dask_keeps_its_loggers(closed_port):
    failure_of(DaskTaskRunner(address=f"127.0.0.1:{closed_port}", start_timeout=0.2))
    names = [name for name in logging.root.manager.loggerDict if re.match("distributed", name)]
    assert not any(
        type(f).__module__ == "runner_dask._quiet" for name in names for f in logging.getLogger(name).filters
    )
