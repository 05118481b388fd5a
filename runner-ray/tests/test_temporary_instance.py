"""A temporary instance: on loopback only, with a token, without a dashboard; and gone when its flow run has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

LIMIT = 60

SCRIPT = """
    import json, os, sys
    import psutil
    from riverrun import flow, task
    from riverrun.task_runners import RayTaskRunner

    @task
    def answer():
        return 42

    @flow(task_runner=RayTaskRunner(OPTIONS))
    def asking():
        import ray
        assert answer().result() == 42
        listeners, processes = [], [psutil.Process(), *psutil.Process().children(recursive=True)]
        for process in processes:
            try:
                listeners += [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
            except psutil.NoSuchProcess:
                pass
        return {
            "listeners": listeners,
            "auth": os.environ.get("RAY_AUTH_MODE"),
            "cpus": ray.cluster_resources()["CPU"],
            "folder": ray._private.worker._global_node.get_session_dir_path(),
            "dashboard": ray._private.worker._global_node.webui_url,
        }

    seen = asking()
    seen["auth_after"] = os.environ.get("RAY_AUTH_MODE")
    seen["left"] = [p.name() for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    seen["folder_left"] = os.path.exists(seen["folder"])
    print(json.dumps(seen))
"""


@pytest.fixture
def asking(run_script, tmp_path):
    """Run a flow on a temporary instance, in a process without our settings of Ray; give what it saw."""

    def run(options="", **env):
        bare = {name: "" for name in os.environ if name.startswith("RAY_")}
        script = "import os\nfor name in list(os.environ):\n    if name.startswith('RAY_') and not os.environ[name]:"
        script += "\n        del os.environ[name]\n"
        from textwrap import dedent

        process = run_script(script + dedent(SCRIPT).replace("OPTIONS", options),
                             env={**bare, "HOME": str(tmp_path), "RIVERRUN_LOG_LEVEL": "WARNING", **env})  # fmt: skip
        assert process.returncode == 0, process.err
        return json.loads(process.out.splitlines()[-1]), process

    return run


def test_by_default(asking):
    seen, process = asking()
    assert len(seen["listeners"]) >= 5
    assert {address.removeprefix("::ffff:") for address in seen["listeners"]} == {"127.0.0.1"}
    assert seen["auth"] == "token"
    assert seen["auth_after"] is None
    assert seen["cpus"] == os.cpu_count()
    assert not seen["dashboard"]
    assert seen["left"] == []
    assert not seen["folder_left"]
    assert process.err == "", "nothing of Ray's own goes to the terminal"


def test_init_kwargs_win_over_each_default(asking, tmp_path):
    folder = f"/tmp/rr-{os.getpid()}"  # noqa: S108 - the names of sockets are made of it
    options = f"init_kwargs={{'num_cpus': 3, '_temp_dir': {folder!r}, 'include_dashboard': False}}"
    seen, _ = asking(options, RAY_AUTH_MODE="disabled")
    assert seen["cpus"] == 3
    assert seen["auth"] == "disabled"
    assert seen["folder"].startswith(f"{folder}/")
    assert seen["folder_left"], "a folder that the user has named is the user's"
    shutil.rmtree(folder)


def test_the_dashboard_if_it_is_asked_for(asking):
    pytest.importorskip("aiohttp_cors")  # ray[default]
    seen, _ = asking("init_kwargs={'include_dashboard': True}")
    assert seen["dashboard"].startswith("127.0.0.1:")


NAMES = """
    import sys, time
    import ray
    from riverrun import flow, task
    from riverrun.task_runners import RayTaskRunner

    @task
    def greet(number):
        return number

    @flow(task_runner=RayTaskRunner())
    def greeting():
        futures = [greet.with_options(name="hello")(number) for number in range(3)]
        return [(future.name, future.result())[0] for future in futures]

    ray.init("local", num_cpus=1, include_dashboard=DASHBOARD, log_to_driver=False)
    names = set(greeting())
    assert len(names) == 3
    end = time.monotonic() + 30
    while not names <= (seen := SEEN):  # Ray sends what it has seen once a second
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    print("there")
"""


def test_names_in_ray_are_those_of_the_task_runs(run_script):
    seen = '{event["cat"].removeprefix("task::") for event in ray.timeline()}'
    process = run_script(NAMES.replace("DASHBOARD", "False").replace("SEEN", seen))
    assert process.out == "there\n", process.err


def test_names_in_rays_state_api_are_those_of_the_task_runs(run_script):
    pytest.importorskip("aiohttp_cors")  # ray[default]
    seen = "{each.name for each in __import__('ray.util.state').util.state.list_tasks()}"
    process = run_script(NAMES.replace("DASHBOARD", "True").replace("SEEN", seen))
    assert process.out == "there\n", process.err


SLEEPING = """
    import sys, time
    from riverrun import flow, task
    from riverrun.task_runners import RayTaskRunner

    @task
    def sleep(folder):
        open(folder + "/runs", "a").close()
        time.sleep(600)

    @flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2}))
    def sleeping(folder):
        for number in range(100):
            sleep(folder)

    if __name__ == "__main__":
        sleeping(sys.argv[1])
"""


def of_group(pid):
    """The processes of a process group, and those below, that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_a_flow_of_100_sleeping_tasks(  # noqa: PLR0917 - fixtures
    run_script, tmp_path, wait_until, family_of, number, status
):
    script = tmp_path / "script.py"
    process = run_script(SLEEPING, str(script), str(tmp_path), wait=False)
    wait_until((tmp_path / "runs").exists, "a task runs")
    members = family_of(process.pid)
    assert len(members) > 5
    began = time.monotonic()
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    print(f"{number.name}: ended within {time.monotonic() - began:.2f} s")
    assert process.returncode in {status, -number}, err
    wait_until(
        lambda: not [each for each in members if each.is_running() and each.status() != psutil.STATUS_ZOMBIE],
        "no process is left", limit=15,
    )  # fmt: skip


@pytest.mark.parametrize("address", [None, "of a cluster"])
def test_a_process_may_take_its_time_after_sigterm(run_script, tmp_path, wait_until, shared_ray_cluster, address):
    """Ray's own handler would abort it after 3 seconds."""
    address = address and shared_ray_cluster.address
    process = run_script(f"""
        import sys, time
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        @task
        def sleep(file):
            open(file, "w").close()
            time.sleep(600)

        def takes_its_time(*_):
            time.sleep(5)
            print("told")

        @flow(task_runner=RayTaskRunner(address={address!r}), on_crashed=[takes_its_time])
        def sleeping():
            sleep({str(tmp_path / "runs")!r}).result()

        sleeping()
    """, wait=False)  # fmt: skip
    wait_until((tmp_path / "runs").exists, "the task runs")
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {143, -signal.SIGTERM}, err
    assert out == "told\n"
    assert "SIGTERM received" not in err  # by Ray, with a stack trace


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_handler_of_sigterm_stays(run_script, where):
    process = run_script(f"""
        import os, signal, threading
        from riverrun import flow
        from riverrun.task_runners import RayTaskRunner

        signal.signal(signal.SIGTERM, lambda *_: print("heard"))

        @flow(task_runner=RayTaskRunner(init_kwargs={{"num_cpus": 1}}))
        def quick():
            os.kill(os.getpid(), signal.SIGTERM)

        if {where!r} == "thread":
            thread = threading.Thread(target=quick)
            thread.start()
            thread.join()
        else:
            quick()
        os.kill(os.getpid(), signal.SIGTERM)
        print("at the end")
    """)
    assert process.out == "heard\nheard\nat the end\n", process.err
    assert process.returncode == 0


@pytest.fixture
def place():
    """A folder for temporary files; its name is short, for the names of sockets are made of it."""
    with tempfile.TemporaryDirectory(prefix="rr-", dir="/tmp") as made:
        yield made


def test_ctrl_c_while_an_instance_starts(run_script, tmp_path, wait_until, place):
    """Ray cannot be told to give up; the process waits for it, not for long, and leaves nothing."""
    patient = "    from runner_ray import _keeper; _keeper.EXIT_WITHIN = 50.0  # a busy machine needs longer"
    process = run_script(
        f"{patient}\n{SLEEPING}", str(tmp_path / "script.py"), str(tmp_path), wait=False, env={"TMPDIR": place}
    )
    wait_until(lambda: list(Path(place).glob("riverrun-ray-*")), "an instance begins to start")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {130, -signal.SIGINT}, err
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert not list(Path(place).glob("riverrun-ray-*"))
    assert not of_group(process.pid)


HELD = """
import time
from pathlib import Path

import ray._private.node
from riverrun import flow
from riverrun.task_runners import RayTaskRunner
from runner_ray import _keeper

def held(function):
    def hold(*args, **kwargs):
        Path(MARK).touch()
        time.sleep(1)
        return function(*args, **kwargs)

    return hold

WHERE = held(WHERE)

@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 1}))
def quick():
    pass

quick()
"""


# Not in the milliseconds in which Ray takes its own handler away, and SIGTERM has none: see `_signals`.
@pytest.mark.parametrize("where", ["_keeper.shut_down", "ray._private.node.Node.kill_all_processes"])
@pytest.mark.parametrize(
    "signals", [[number] * times for number in (signal.SIGINT, signal.SIGTERM) for times in (1, 2)]
)
def test_a_signal_while_an_instance_is_shut_down(run_script, wait_until, place, signals, where):
    """It is shut down to its end all the same: else Ray would do so again as the process ends, and abort it."""
    mark = Path(place) / "mark"
    source = HELD.replace("WHERE", where).replace("MARK", repr(str(mark)))
    process = run_script(source, wait=False, env={"TMPDIR": place})
    wait_until(mark.exists, "Ray is being shut down")
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.3)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {128 + number, -number}, err
    assert number == signal.SIGTERM or err.rstrip().endswith("KeyboardInterrupt"), err
    assert not list(Path(place).glob("riverrun-ray-*"))
    assert not of_group(process.pid)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_just_before_an_instance_is_shut_down(run_script, place, times):
    """After one, it is shut down there; after two, as the process ends, and not by Ray, who leaves the folder."""
    process = run_script(f"""
        import os
        from riverrun import flow
        from riverrun.task_runners import RayTaskRunner
        from runner_ray import _sessions

        left = _sessions._left
        times = 0

        def interrupted(*args):
            global times
            times += 1
            if times <= {times}:
                raise KeyboardInterrupt
            left(*args)

        _sessions._left = interrupted

        @flow(task_runner=RayTaskRunner(init_kwargs={{"num_cpus": 1}}))
        def quick():
            pass

        try:
            quick()
        finally:
            print(any(name.startswith("riverrun-ray-") for name in os.listdir(os.environ["TMPDIR"])))
    """, env={"TMPDIR": place})  # fmt: skip
    assert process.out == f"{times > 1}\n"
    assert process.returncode in {130, -signal.SIGINT}, process.err
    assert process.err.rstrip().endswith("KeyboardInterrupt"), process.err
    assert not list(Path(place).glob("riverrun-ray-*"))
    assert not of_group(process.pid)


def folders():
    return set(Path(tempfile.gettempdir()).glob("riverrun-ray-*"))


def test_a_process_that_is_killed_leaves_no_worker_and_no_server(run_script, tmp_path, wait_until, family_of):
    """But for two agents of Ray's own, which look after themselves (they are ended with the test), and the folder."""
    before = folders()
    process = run_script(SLEEPING, str(tmp_path / "script.py"), str(tmp_path), wait=False)
    wait_until((tmp_path / "runs").exists, "a task runs")
    members = family_of(process.pid)
    agents = [each for each in members if each.name() in {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}]
    assert len(members) > len(agents) + 3
    process.kill()
    process.communicate(timeout=LIMIT)
    wait_until(
        lambda: not [
            each
            for each in members
            if each not in agents and each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        ],
        "no worker is left", limit=30,
    )  # fmt: skip
    for each in agents:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    for folder in folders() - before:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_script_without_a_guard(run_script):
    process = run_script("""
        from riverrun import flow, task

        @task
        def answer():
            return 42

        @flow(task_runner="ray")
        def asking():
            return answer().result()

        print(asking())
    """)
    assert process.out == "42\n", process.err
