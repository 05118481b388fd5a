"""The temporary cluster: what it is made of, that it is alone on loopback, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import distributed
import psutil
import pytest
from distributed import SpecCluster
from riverrun.exceptions import TaskRunnerStartError
from runner_dask import DaskTaskRunner, _quiet
from runner_dask._clusters import opened

pytestmark = pytest.mark.usefixtures("nothing_left")
LIMIT = 100
IN_THREADS = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
ONE = {"n_workers": 1, "threads_per_worker": 1}


def one_worker(**options):
    return DaskTaskRunner(cluster_kwargs={**ONE, **options})


def said_by_riverrun(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("riverrun")]


def test_runs_a_task_in_another_process():
    with opened(one_worker()) as cluster:
        assert cluster.client.submit(os.getpid).result(LIMIT) != os.getpid()
        assert cluster.temporary
        assert not cluster.adaptive
        assert cluster.cluster.scheduler_address.startswith("tcp://127.0.0.1:")


def test_the_log_tells_what_is_made_and_where_its_dashboard_is(caplog):
    caplog.set_level(logging.INFO, "riverrun")
    with opened(one_worker()) as cluster:
        assert said_by_riverrun(caplog) == [
            "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`",
            f"The Dask dashboard is available at {cluster.cluster.dashboard_link}",
        ]
        assert cluster.cluster.dashboard_link.startswith("http://127.0.0.1:")


def test_without_a_dashboard_there_is_no_line_about_it(caplog):
    caplog.set_level(logging.INFO, "riverrun")
    with opened(one_worker(dashboard_address=None)):
        assert len(said_by_riverrun(caplog)) == 1


def test_everything_listens_on_loopback_only(ports_in_use):
    before = ports_in_use()
    with opened(one_worker()) as cluster:
        cluster.client.submit(int).result(LIMIT)
        used = set(ports_in_use()) - set(before)
    assert {host for host, _ in used} == {"127.0.0.1"}
    assert len(used) >= 4  # scheduler, dashboard, nanny, worker


def test_a_cluster_of_threads_listens_on_loopback_only(ports_in_use, caplog):
    caplog.set_level(logging.INFO, "riverrun")
    before = ports_in_use()
    with opened(one_worker(processes=False)) as cluster:
        assert cluster.client.submit(os.getpid).result(LIMIT) == os.getpid()
        used = set(ports_in_use()) - set(before)
    assert {host for host, _ in used} == {"127.0.0.1"}
    assert "The Dask dashboard is available at http://127.0.0.1:" in caplog.text


def test_what_the_user_says_wins():
    kwargs = {"n_workers": 2, "threads_per_worker": 3, "resources": {"gpu": 1}, "memory_limit": "300MiB"}
    with opened(DaskTaskRunner(cluster_kwargs={**kwargs, "dashboard_address": "127.0.0.1:0"})) as cluster:
        workers = cluster.client.scheduler_info(n_workers=-1)["workers"].values()
        assert [worker["nthreads"] for worker in workers] == [3, 3]
        assert [worker["resources"] for worker in workers] == [{"gpu": 1}, {"gpu": 1}]
        assert {worker["memory_limit"] for worker in workers} == {300 * 2**20}


def test_the_port_of_the_dashboard_may_be_taken():
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # then somebody else has it
            other.bind(("127.0.0.1", 8787))
            other.listen()
        with opened(one_worker()) as cluster:
            assert cluster.cluster.dashboard_link.startswith("http://127.0.0.1:")
            assert cluster.cluster.dashboard_link != "http://127.0.0.1:8787/status"


# The socket that cannot have the port, Dask leaves to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_the_port_of_the_dashboard_may_be_taken_at_the_last_moment(monkeypatch):
    monkeypatch.setattr("runner_dask._local._is_free", lambda port: True)  # Dask's warning would be an error here
    test_the_port_of_the_dashboard_may_be_taken()
    gc.collect()


ENDS = """
import asyncio, sys, threading, time
from pathlib import Path

import distributed
from runner_dask import DaskTaskRunner
from runner_dask._clusters import opened

def run_on(mark):
    mark.touch()
    time.sleep(600)

class FailsAtTheEnd(distributed.WorkerPlugin):
    def teardown(self, worker):
        raise ValueError("no such luck")

class Heart:
    def __init__(self):
        self.has_beaten = threading.Event()

    async def gives_no_answer(self, **_):
        self.has_beaten.set()
        await asyncio.sleep(600)

    def gives_the_answer_to_a_worker_that_has_left(self, **_):
        self.has_beaten.set()
        return {"status": "missing"}

if __name__ == "__main__":
    mark = Path("mark")
    heart = Heart()
    with opened(DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})) as cluster:
        client, handlers = cluster.client, cluster.cluster.scheduler.handlers
"""
HEARTBEAT = """
        handlers["heartbeat_worker"] = heart.ANSWER
        assert heart.has_beaten.wait(100)
"""
A_CALL = """
        future = client.submit(run_on, mark)
        while not mark.exists():
            time.sleep(0.01)
"""
WHAT_ENDS = {
    "a call": A_CALL,
    "a heartbeat": HEARTBEAT.replace("ANSWER", "gives_no_answer"),
    "a retirement": HEARTBEAT.replace("ANSWER", "gives_the_answer_to_a_worker_that_has_left"),
}


# In a script: the workers' stderr is that of the process which started the fork server.
@pytest.mark.parametrize("what", WHAT_ENDS)
def test_what_the_end_of_the_cluster_cuts_short_is_no_warning_of_dask(run_script, what):
    script = run_script(ENDS + WHAT_ENDS[what])
    assert (script.returncode, script.err) == (0, "")


def test_a_plugin_of_the_users_that_fails_at_the_end_of_the_cluster_is_told(run_script):
    script = run_script(ENDS + "        client.register_plugin(FailsAtTheEnd())")
    assert "ValueError: no such luck" in script.err
    assert script.returncode == 0


def test_a_local_directory_of_the_users_is_used_and_left(tmp_path):
    with opened(one_worker(local_directory=str(tmp_path / "mine"))) as cluster:
        assert (
            cluster.client.submit(lambda: distributed.get_worker().local_directory)
            .result(LIMIT)
            .startswith(str(tmp_path / "mine"))
        )
    assert (tmp_path / "mine").exists()


def test_the_workers_have_the_environment_of_now(monkeypatch):
    def variables():
        return [os.environ.get(name) for name in ("RIVERRUN_TEST_A", "RIVERRUN_TEST_B")]

    monkeypatch.setenv("RIVERRUN_TEST_A", "first")
    with opened(one_worker()) as cluster:
        assert cluster.client.submit(variables).result(LIMIT) == ["first", None]
    monkeypatch.delenv("RIVERRUN_TEST_A")
    monkeypatch.setenv("RIVERRUN_TEST_B", "second")
    with opened(one_worker(env={"RIVERRUN_TEST_A": "given"})) as cluster:
        assert cluster.client.submit(variables, pure=False).result(LIMIT) == ["given", "second"]


def test_what_libraries_read_when_they_are_loaded_is_there_in_time(monkeypatch):
    with opened(one_worker()) as cluster:
        assert cluster._house.method == "forkserver"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")  # the fork server has loaded numpy: too late for it
    with opened(one_worker()) as cluster:
        assert cluster._house.method == "spawn"
        assert cluster.client.submit(lambda: os.environ["OPENBLAS_NUM_THREADS"]).result(LIMIT) == "3"


def test_the_environment_of_the_flows_process_stays_as_it_is():
    before = dict(os.environ)
    with opened(one_worker()) as cluster:
        assert cluster.client.submit(lambda: os.environ["PYTHONHASHSEED"]).result(LIMIT)
        assert dict(os.environ) == before


def test_the_settings_of_dask_stay_as_they_are():
    before = dask.config.get("distributed.worker.multiprocessing-method")
    with opened(one_worker()):
        assert dask.config.get("distributed.worker.multiprocessing-method") == before
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    assert not [logger for logger in loggers if _quiet._silence in logger.filters]


def test_workers_draw_different_random_numbers():
    pytest.importorskip("numpy")

    def draw():
        import random

        import numpy as np

        return float(np.random.random()), random.random()  # noqa: NPY002 - the global state is the point

    with opened(DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1})) as cluster:
        drawn = list(cluster.client.run(draw).values())
    assert len({first for first, _ in drawn}) == len({second for _, second in drawn}) == len(drawn) == 2


def test_the_users_own_client_stays_the_default_and_ours_never_is():
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as theirs,
        distributed.Client(theirs) as client,
        opened(one_worker()) as cluster,
    ):
        assert distributed.default_client() is client
        assert cluster.client is not client
        assert cluster.cluster.scheduler_address != theirs.scheduler_address
    with opened(one_worker()), pytest.raises(ValueError, match="No client"):
        distributed.default_client()


def test_a_nanny_starts_a_killed_worker_again(wait_until):
    with opened(one_worker()) as cluster:
        first = cluster.client.submit(os.getpid).result(LIMIT)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: cluster.client.submit(os.getpid, pure=False).result(LIMIT) != first, "another worker")


# -- the end


@pytest.fixture
def start_holding(tmp_path, wait_until):
    """Let a task run that does not end while the test lasts: that nobody waited for its end is looked at.

    A task in a thread cannot be ended, but it can be let go.
    """
    began, free, ended = (str(tmp_path / name) for name in ("began", "free", "ended"))

    def hold():
        open(began, "w").close()  # noqa: PTH123 - it runs on workers
        end = time.monotonic() + 600
        while not os.path.exists(free) and time.monotonic() < end:  # noqa: PTH110
            time.sleep(0.05)
        open(ended, "w").close()  # noqa: PTH123

    def start(cluster):
        future = cluster.client.submit(hold)
        wait_until(Path(began).exists, "the task runs")
        return future

    yield start
    assert not Path(ended).exists(), "nobody has waited for it"
    Path(free).touch()


class Stop(BaseException):
    """Something that ends the flow, such as an interrupt."""


@pytest.mark.parametrize(
    ("processes", "error"),
    [
        (True, ValueError),
        (True, Stop),
        (False, KeyboardInterrupt),
        pytest.param(True, KeyboardInterrupt, marks=pytest.mark.stress),
        pytest.param(False, ValueError, marks=pytest.mark.stress),
        pytest.param(False, Stop, marks=pytest.mark.stress),
    ],
)
def test_an_exception_passes_and_nothing_is_waited_for(error, processes, start_holding):
    def run():
        with opened(one_worker(processes=processes)) as cluster:
            start_holding(cluster)
            raise error

    with pytest.raises(error):
        run()


def test_leaving_ends_what_runs_a_little_later(start_holding):
    with opened(one_worker()) as cluster:
        start_holding(cluster)


@pytest.mark.parametrize("processes", [True, False])
def test_leaving_in_a_hurry_ends_what_runs_and_says_nothing(processes, start_holding, capfd):
    with opened(one_worker(processes=processes)) as cluster:
        start_holding(cluster)
        cluster.hurry()
    assert capfd.readouterr().err == ""


def test_workers_die_with_the_process_of_the_flow(run_script, wait_until):
    process = run_script(
        """
        import os, time
        from runner_dask import DaskTaskRunner
        from runner_dask._clusters import opened

        with opened(DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1})) as cluster:
            print(*cluster.client.run(os.getpid).values(), flush=True)
            time.sleep(600)
        """,
        wait=False,
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    workers = [psutil.Process(pid) for pid in pids]
    fork_server = workers[0].parent()
    process.kill()
    for each in [*workers, fork_server]:
        wait_until(lambda each=each: not each.is_running() or each.status() == psutil.STATUS_ZOMBIE, "it has died")


def test_ctrl_c_in_a_terminal_is_the_flows_business(run_script):
    process = run_script(
        """
        import os, time
        from runner_dask import DaskTaskRunner
        from runner_dask._clusters import opened

        try:
            with opened(DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1})) as cluster:
                cluster.client.submit(time.sleep, 600)
                print("ready", flush=True)
                time.sleep(600)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        wait=False,
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of its processes
    out, err = process.communicate(timeout=LIMIT)
    assert (out, process.returncode) == ("interrupted\n", 0)
    assert "Traceback" not in err
    assert "distributed" not in err.replace("distributed.deploy.local.LocalCluster", "")


def test_ctrl_c_during_the_start_is_heard_at_once(run_script, tmp_path):
    (tmp_path / "hanging.py").write_text("import sys, time\nprint('hanging', flush=True)\ntime.sleep(600)\n")
    process = run_script(
        """
        from runner_dask import DaskTaskRunner
        from runner_dask._clusters import opened

        try:
            with opened(DaskTaskRunner(cluster_kwargs={"n_workers": 1, "preload": ["hanging"]})):
                print("open")
        except KeyboardInterrupt:
            import os, psutil, tempfile
            workers = [p for p in psutil.Process().children(recursive=True) if p.ppid() != os.getpid()]
            folders = [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("riverrun-dask")]
            print("interrupted", workers, folders)
        """,
        env={"TMPDIR": str(tmp_path)},
        wait=False,
    )
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert out == "interrupted [] []\n", err
    assert "Traceback" not in err


# -- many


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.stress)])
def test_many_at_once_with_one_runner(count):
    runner = one_worker()
    together = threading.Barrier(count)

    def run(number):
        with opened(runner) as cluster:
            together.wait(LIMIT)
            return cluster.client.submit(lambda: (number, os.getpid())).result(LIMIT)

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(run, range(count)))
    assert [number for number, _ in results] == list(range(count))
    assert len({pid for _, pid in results}) == count


def test_opens_in_a_thread_beside_a_running_event_loop():
    def run():
        with opened(one_worker()) as cluster:
            return cluster.client.submit(int).result(LIMIT)

    async def main():
        return await asyncio.gather(asyncio.to_thread(run), asyncio.to_thread(run))

    assert asyncio.run(main()) == [0, 0]


def test_opens_on_the_thread_of_a_running_event_loop():
    async def main():
        with opened(one_worker()) as cluster:
            return cluster.client.submit(int).result(LIMIT)

    assert asyncio.run(main()) == 0


def test_a_task_can_open_a_cluster_of_its_own():
    def nested():
        with opened(one_worker()) as inner:
            return inner.client.submit(os.getpid).result(LIMIT), os.getpid()

    with opened(one_worker()) as cluster:
        inner, outer = cluster.client.submit(nested).result(LIMIT)
    assert len({inner, outer, os.getpid()}) == 3


# -- adaptive


@pytest.mark.parametrize("minimum", [0, 1])
def test_an_adaptive_cluster_gets_its_workers_when_there_is_work(minimum):
    runner = DaskTaskRunner(adapt_kwargs={"minimum": minimum, "maximum": 2, "interval": "50ms"})
    with opened(runner) as cluster:
        assert cluster.adaptive
        assert len(cluster.cluster.workers) == minimum
        assert cluster.client.submit(int).result(LIMIT) == 0


class SlowToAdapt(distributed.LocalCluster):
    """A cluster of somebody else's, whose `adapt` is a coroutine."""

    async def adapt(self, **kwargs):
        await asyncio.sleep(0)
        self.adapted = asyncio.get_running_loop()
        return super().adapt(**kwargs)


def test_adapt_may_be_a_coroutine():
    runner = DaskTaskRunner(
        cluster_class=SlowToAdapt,
        cluster_kwargs={"n_workers": 0, **IN_THREADS},
        adapt_kwargs={"minimum": 0, "maximum": 1, "interval": "50ms"},
    )
    with opened(runner) as cluster:
        assert cluster.cluster.adapted is cluster.cluster.loop.asyncio_loop
        assert cluster.client.submit(int).result(LIMIT) == 0


def test_adapt_kwargs_that_the_cluster_does_not_take_are_told():
    runner = DaskTaskRunner(adapt_kwargs={"minimum": 0, "maximal": 1, "Adaptive": 5})
    with pytest.raises(TaskRunnerStartError) as error, opened(runner):
        pass
    assert "cannot be made adaptive with adapt_kwargs={'minimum': 0, 'maximal': 1, 'Adaptive': 5}" in str(error.value)


# -- performance reports


def test_a_performance_report_of_the_flow_run(tmp_path, caplog):
    pytest.importorskip("bokeh.plotting")
    path = tmp_path / "report.html"
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as theirs,
        distributed.Client(theirs),  # the default client of the process, which is not the one to report on
        opened(one_worker().with_options(performance_report_path=path)) as cluster,
    ):
        assert cluster.client.submit(int, key="the-task-of-the-report").result(LIMIT) == 0
        assert not path.exists()
        assert dask.config.get("scheduler", None) == "dask.distributed"  # theirs
    assert "<title>Dask Performance Report</title>" in path.read_text()
    assert not [record for record in caplog.records if "performance report" in record.getMessage()]


# -- other cluster classes


def make_cluster(**kwargs):
    return distributed.LocalCluster(**IN_THREADS, **kwargs)


def test_a_function_makes_the_cluster_from_cluster_kwargs_and_nothing_else(caplog):
    seen = {}

    def make(**kwargs):
        seen.update(kwargs)
        return make_cluster(**kwargs)

    caplog.set_level(logging.INFO, "riverrun")
    with opened(DaskTaskRunner(cluster_class=make, cluster_kwargs={"n_workers": 1})) as cluster:
        assert cluster.client.submit(int).result(LIMIT) == 0
    assert seen == {"n_workers": 1}
    assert f"Creating a new Dask cluster with `{__name__}.{make.__qualname__}`" in caplog.text


@pytest.mark.parametrize("path", ["distributed.SpecCluster", "distributed.deploy.spec:SpecCluster"])
def test_a_dotted_path_names_a_class(path):
    worker = {"cls": distributed.Worker, "options": {"nthreads": 1, "protocol": "tcp", "host": "127.0.0.1"}}
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "port": 0},
    }
    kwargs = {"workers": {"one": worker}, "scheduler": scheduler}
    with opened(DaskTaskRunner(cluster_class=path, cluster_kwargs=kwargs)) as cluster:
        assert type(cluster.cluster) is SpecCluster
        assert cluster.client.submit(int).result(LIMIT) == 0


def test_the_default_class_by_name_is_the_same_as_by_default(caplog):
    caplog.set_level(logging.INFO, "riverrun")
    runner = DaskTaskRunner(cluster_class="distributed.LocalCluster", cluster_kwargs=ONE)
    with opened(runner) as cluster:
        assert cluster.folder is not None
        assert Path(cluster.folder).is_dir()
    assert "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`" in caplog.text


def test_a_nanny_class_of_the_users_is_used_as_it_is():
    class Mine(distributed.Nanny):
        pass

    with opened(one_worker(worker_class=Mine)) as cluster:
        assert [type(nanny) for nanny in cluster.cluster.workers.values()] == [Mine]
        assert cluster.client.submit(os.getpid).result(LIMIT) != os.getpid()


# -- scripts

FLOW = """
import os
from runner_dask import DaskTaskRunner
from runner_dask._clusters import opened
{extra}
print("main", os.getpid(), flush=True)

class Thing:
    value = 42

def task():
    return os.getpid(), Thing().value

with opened(DaskTaskRunner(cluster_kwargs={{"n_workers": 1, "threads_per_worker": 1}})) as cluster:
    pid, value = cluster.client.submit(task).result(100)
    os.kill(pid, 9)  # the nanny starts another one, which must not run the script either
    again = pid
    while again == pid:
        try:
            again, value = cluster.client.submit(task, pure=False).result(100)
        except Exception as error:
            print(error)
print("value", value, "in another process:", len({{pid, again, os.getpid()}}) == 3)
{more}
"""


def check_script(process, more=""):
    assert process.err.count("Traceback") == 0, process.err
    lines = process.out.splitlines()
    assert lines[0].startswith("main ")
    assert lines[1:] == ["value 42 in another process: True", *more.splitlines()]


def test_a_script_without_a_guard_works(run_script):
    check_script(run_script(FLOW.format(extra="", more="")))


@pytest.mark.stress
def test_a_module_without_a_guard_works(run_script, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    check_script(run_script(FLOW.format(extra="", more=""), "-m", "package.module", name="package/module.py"))


@pytest.mark.stress
def test_a_script_from_standard_input_works(run_script, tmp_path):
    (tmp_path / "input").write_text(FLOW.format(extra="", more=""))
    with (tmp_path / "input").open() as file:
        check_script(run_script("", "-", stdin=file))


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.stress), "forkserver"])
def test_other_processes_of_the_script_still_get_its_main_module(run_script, method):
    script = f"""
import multiprocessing, os, threading
from runner_dask import DaskTaskRunner
from runner_dask._clusters import opened

def double(x):
    return 2 * x

if __name__ == "__main__":
    with opened(DaskTaskRunner(cluster_kwargs={{"n_workers": 1, "threads_per_worker": 1}})) as cluster:
        with multiprocessing.get_context("{method}").Pool(1) as pool:
            print(pool.map(double, [21]), cluster.client.submit(double, 4).result(100))
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        print(pool.map(double, [22]))
"""
    process = run_script(script)
    assert process.out == "[42] 8\n[44]\n", process.err


def test_the_method_that_the_user_configured_is_used(run_script):
    script = FLOW.format(extra="", more="print(cluster._house.method)")
    process = run_script(script, env={"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "spawn"})
    check_script(process, "spawn")


def test_the_fork_server_ends_with_the_script(run_script, wait_until):
    more = "import psutil\nprint(*[p.pid for p in psutil.Process().children()])"
    process = run_script(FLOW.format(extra="", more=more))
    pids = [int(pid) for pid in process.out.splitlines()[-1].split()]
    assert pids
    wait_until(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], "they have ended")
