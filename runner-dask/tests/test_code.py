"""How code gets to workers: by name, by value, shipped, or not at all; and scripts without a guard."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest
from riverrun.exceptions import TaskRunnerStartError

pytestmark = pytest.mark.timeout(120)

FLOW = """
import os
from riverrun import flow
from riverrun.task_runners import DaskTaskRunner
import steps_of_mine

@flow(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"], ship=SHIP))
def lines():
    return steps_of_mine.double.map(range(COUNT)).result()

if __name__ == "__main__":
    print(sum(lines()))
"""
STEPS = """
from riverrun import task

@task
def double(number):
    return 2 * number
"""


@pytest.fixture
def run_flow(shared_dask_cluster, run_script, tmp_path):
    """Run a flow whose task is in a module that lies beside the script, and that no worker has."""
    (tmp_path / "steps_of_mine.py").write_text(STEPS)

    def run(ship):
        source = FLOW.replace("SHIP", ship).replace("COUNT", "10")
        return run_script(source, env={"ADDRESS": shared_dask_cluster.address})

    return run


def test_a_module_that_the_workers_lack(run_flow):
    done = run_flow("()")
    assert done.returncode == 1
    assert "ModuleNotFoundError: Task run 'double-" in done.err
    assert "needs the module 'steps_of_mine', which worker " in done.err
    assert "does not have. Install it there, or send it along if the task runner has an option" in done.err


LACKING = """
import os
from riverrun import flow
from riverrun.task_runners import DaskTaskRunner
import steps_of_mine

@flow(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"]))
def lines():
    steps_of_mine.double(1).wait()
    messages = [future.wait().message for future in steps_of_mine.double.map(range(2000))]
    print(sum("was not run: it needs the module 'steps_of_mine'" in message for message in messages))
    print(sum("does not have, as another run of this task has found." in message for message in messages))

if __name__ == "__main__":
    lines(return_state=True)
"""


def test_a_module_that_the_workers_lack_is_not_found_out_two_thousand_times(run_flow, run_script, shared_dask_cluster):
    done = run_script(LACKING, env={"ADDRESS": shared_dask_cluster.address})
    assert done.out.split() == ["2000", "2000"], done.err[-2000:]


@pytest.mark.parametrize(
    "ship",
    [  # the core's tests of parcels try each form; here one of them travels
        "['steps_of_mine']",
        pytest.param("'./steps_of_mine.py'", marks=pytest.mark.stress),
        pytest.param("[steps_of_mine]", marks=pytest.mark.stress),
    ],
)
def test_a_module_that_is_shipped(run_flow, ship):
    done = run_flow(ship)
    assert done.out.strip() == "90", done.err


def test_a_module_to_ship_that_does_not_exist_and_nothing_is_left_of_the_start_that_failed(
    run_flow, shared_dask_cluster
):
    before = topics_of(shared_dask_cluster)
    done = run_flow("['no_such_module_of_mine']")
    assert TaskRunnerStartError.__name__ in done.err
    assert "no_such_module_of_mine" in done.err
    assert topics_of(shared_dask_cluster) <= before


def topics_of(cluster):
    """What the scheduler keeps events of, for flow runs."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        topics = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler._broker._topics))
    return {topic for topic in topics if topic.startswith("riverrun")}


SCRIPT = """
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

FACTOR = 3

class Pair:
    def __init__(self, one, other):
        self.one, self.other = one, other

@task
def multiplied(number):
    return Pair(number, helper(number))

def helper(number):
    return FACTOR * number

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "dashboard_address": "127.0.0.1:0"}))
def script():
    return sum(pair.other for pair in multiplied.map(range(4)).result())

print("result", script())
"""


def test_a_script_without_a_guard_runs_once(run_script):
    done = run_script(SCRIPT)
    assert done.returncode == 0, done.err
    assert done.out.splitlines() == ["result 18"]


def test_what_a_notebook_defines_travels_by_value(run_script):
    done = run_script(f"exec(compile({SCRIPT!r}, '<cell 1>', 'exec'), globals())")
    assert done.out.splitlines() == ["result 18"], done.err


# -- The handshake


def fake_distribution(folder, name, version):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


ONE_TASK = """
import os
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

@task
def one():
    return 1

@flow(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"]))
def small():
    return one()

print(small(), small())
"""


def start_worker(cluster, processes, folder, **env):
    log = (folder / "worker.log").open("a")
    with log:
        return processes.start(
            "-m", "dask", "worker", cluster.address, "--host", "127.0.0.1", "--no-dashboard", "--no-nanny",
            "--local-directory", str(folder), env=env, stdout=log, stderr=log,
        )  # fmt: skip


def test_other_versions_are_told_once_for_each_flow_run_and_not_by_dask_as_well(
    dask_scheduler, processes, run_script, tmp_path
):
    fake_distribution(tmp_path / "other", "cloudpickle", "2.4711")
    start_worker(dask_scheduler, processes, tmp_path, PYTHONPATH=str(tmp_path / "other"))
    done = run_script(ONE_TASK, env={"ADDRESS": dask_scheduler.address})
    assert done.out.strip() == "1 1", done.err
    assert done.err.count("PACKAGE") == 2
    assert f"cloudpickle  {version('cloudpickle')}" in done.err
    assert done.err.count("2.4711") == 2, done.err


def test_another_minor_version_of_python_is_an_error(dask_scheduler, processes, run_script, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import platform\nplatform.python_version = lambda: '3.99.1'\n")
    start_worker(dask_scheduler, processes, tmp_path, PYTHONPATH=str(other))
    done = run_script(ONE_TASK, env={"ADDRESS": dask_scheduler.address})
    assert done.returncode == 1
    assert "cannot run tasks of this process" in done.err
    assert "3.99.1" in done.err
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in done.err


def test_a_real_other_minor_version_of_python_is_told_before_anything_is_sent(
    dask_scheduler, processes, run_script, tmp_path
):
    preloaded = tmp_path / "preloaded.py"
    preloaded.write_text(
        "import distributed.versions\ndistributed.versions.get_system_info = lambda: [('python', '3.99.1.final.0')]\n"
    )
    start_worker(dask_scheduler, processes, tmp_path, DASK_DISTRIBUTED__WORKER__PRELOAD=f"['{preloaded}']")
    done = run_script(ONE_TASK, env={"ADDRESS": dask_scheduler.address})
    assert done.returncode == 1
    assert "cannot run the tasks of this flow: it has Python 3.99.1, and this process has Python 3." in done.err
    assert "Functions travel as byte code, so all need the same minor version: use Python 3." in done.err
