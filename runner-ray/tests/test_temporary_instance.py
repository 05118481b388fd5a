"""A temporary instance: on loopback only, with a token, without a dashboard; and gone when its flow run has ended."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

LIMIT = 120

SCRIPT = """
    import json, os, sys, threading, time
    import psutil
    from riverrun import flow, task
    from riverrun.task_runners import RayTaskRunner

    @task
    def answer():
        return 42

    @flow(task_runner=RUNNER)
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
    end = time.monotonic() + 60
    while True:  # who has been told to end takes a moment
        left = psutil.Process().children(recursive=True)
        seen["left"] = [repr(each) for each in left if each.is_running() and "zombie" not in repr(each)]
        if not seen["left"] or time.monotonic() > end:
            break
        time.sleep(0.05)
    seen["threads_left"] = [each.name for each in threading.enumerate() if "riverrun" in each.name]
    seen["folder_left"] = os.path.exists(seen["folder"])
    print(json.dumps(seen))
"""


@pytest.fixture
def asking(run_script, tmp_path):
    """Run a flow on a temporary instance, in a process without our settings of Ray; give what it saw."""

    def run(runner, **env):
        bare = {name: "" for name in os.environ if name.startswith("RAY_")}
        script = "import os\nfor name in list(os.environ):\n    if name.startswith('RAY_') and not os.environ[name]:"
        script += "\n        del os.environ[name]\n"
        from textwrap import dedent

        process = run_script(script + dedent(SCRIPT).replace("RUNNER", runner),
                             env={**bare, "HOME": str(tmp_path), "RIVERRUN_LOG_LEVEL": "WARNING", **env})  # fmt: skip
        assert process.returncode == 0, process.err
        return json.loads(process.out.splitlines()[-1]), process

    return run


def test_by_default(asking):
    """In a script without a guard for `__main__`."""
    seen, process = asking("'ray'")
    assert len(seen["listeners"]) >= 5
    assert {address.removeprefix("::ffff:") for address in seen["listeners"]} == {"127.0.0.1"}
    assert seen["auth"] == "token"
    assert seen["auth_after"] is None
    assert seen["cpus"] == os.cpu_count()
    assert not seen["dashboard"]
    assert seen["left"] == []
    assert seen["threads_left"] == []
    assert not seen["folder_left"]
    assert process.err == "", "nothing of Ray's own goes to the terminal"


@pytest.mark.stress  # an instance more
def test_init_kwargs_win_over_each_default(asking):
    folder = f"/tmp/rr-{os.getpid()}"  # noqa: S108 - the names of sockets are made of it
    options = f"init_kwargs={{'num_cpus': 3, '_temp_dir': {folder!r}, 'include_dashboard': False}}"
    seen, _ = asking(f"RayTaskRunner({options})", RAY_AUTH_MODE="disabled")
    assert seen["cpus"] == 3
    assert seen["auth"] == "disabled"
    assert seen["folder"].startswith(f"{folder}/")
    assert seen["folder_left"], "a folder that the user has named is the user's"
    shutil.rmtree(folder)


def test_what_is_given_to_ray_in_place_of_each_default(monkeypatch):
    import ray
    from ray._private import ray_constants
    from runner_ray import _temporary

    given = []
    monkeypatch.setattr(
        ray, "init", lambda *args, **kwargs: given.append((args, kwargs, ray_constants.ENABLE_RAY_CLUSTER))
    )
    before = ray_constants.ENABLE_RAY_CLUSTER
    of_user = {"num_cpus": 3, "_temp_dir": "/mine", "include_dashboard": True, "logging_level": logging.INFO}
    with _temporary.folder(of_user) as folder:
        assert folder is None, "a folder that the user has named is the user's"
    _temporary.started({}, "/ours")
    _temporary.started({**of_user, "configure_logging": False, "_node_ip_address": "10.0.0.1"}, None)
    quiet = {"include_dashboard": False, "configure_logging": True, "logging_level": logging.WARNING}
    assert given == [
        (("local",), {**quiet, "_temp_dir": "/ours", "_node_ip_address": "127.0.0.1"}, False),
        (("local",), {**of_user, "configure_logging": False, "_node_ip_address": "10.0.0.1"}, before),
    ]
    assert before == ray_constants.ENABLE_RAY_CLUSTER


def test_variables_of_the_environment_that_the_user_has_set_stay(monkeypatch):
    from runner_ray import _temporary

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with _temporary.environment():
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_the_dashboard_if_it_is_asked_for(asking):
    pytest.importorskip("aiohttp_cors")  # ray[default]
    seen, _ = asking("RayTaskRunner(init_kwargs={'include_dashboard': True})")
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

    ray.init(WHERE, log_to_driver=False)
    names = set(greeting())
    assert len(names) == 3
    end = time.monotonic() + 100
    while not names <= (seen := SEEN):  # Ray sends what it has seen once a second
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    print("there")
"""


def test_names_in_ray_are_those_of_the_task_runs(run_script, shared_ray_cluster):
    seen = '{event["cat"].removeprefix("task::") for event in ray.timeline()}'
    source = NAMES.replace("WHERE", repr(shared_ray_cluster.address)).replace("SEEN", seen)
    process = run_script(source, env={"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    assert process.out == "there\n", process.err


def test_names_in_rays_state_api_are_those_of_the_task_runs(run_script):
    pytest.importorskip("aiohttp_cors")  # ray[default]
    seen = "{each.name for each in __import__('ray.util.state').util.state.list_tasks()}"
    process = run_script(NAMES.replace("WHERE", '"local", num_cpus=1, include_dashboard=True').replace("SEEN", seen))
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


def gone(members):
    left = []
    for each in members:
        with suppress(psutil.NoSuchProcess):
            left += [each] if each.is_running() and each.status() != psutil.STATUS_ZOMBIE else []
    return not left


@pytest.mark.parametrize(
    ("send", "number", "status"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, id="Ctrl-C in a terminal"),
        pytest.param(os.kill, signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(os.kill, signal.SIGINT, 130, id="SIGINT", marks=pytest.mark.stress),
    ],
)
def test_a_signal_ends_a_flow_of_100_sleeping_tasks(  # noqa: PLR0917 - fixtures
    run_script, tmp_path, wait_until, family_of, send, number, status
):
    """The tasks sleep for ten minutes."""
    script = tmp_path / "script.py"
    process = run_script(SLEEPING, str(script), str(tmp_path), wait=False)
    wait_until((tmp_path / "runs").exists, "a task runs")
    members = family_of(process.pid)
    assert len(members) > 5
    send(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {status, -number}, err
    wait_until(lambda: gone(members), "no process is left")


@pytest.mark.parametrize("address", ["of a cluster", pytest.param(None, marks=pytest.mark.stress)])
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
            time.sleep(5)  # longer than Ray's 3 seconds
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


@pytest.mark.parametrize("kind", ["address", pytest.param("temporary", marks=pytest.mark.stress)])
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_handler_of_sigterm_stays(run_script, shared_ray_cluster, where, kind):
    options = f"address={shared_ray_cluster.address!r}" if kind == "address" else "init_kwargs={'num_cpus': 1}"
    process = run_script(f"""
        import os, signal, threading
        from riverrun import flow
        from riverrun.task_runners import RayTaskRunner

        signal.signal(signal.SIGTERM, lambda *_: print("heard"))

        @flow(task_runner=RayTaskRunner({options}))
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
    patient = "    from runner_ray import _keeper; _keeper.EXIT_WITHIN = 100.0  # a busy machine needs longer"
    process = run_script(
        f"{patient}\n{SLEEPING}", str(tmp_path / "script.py"), str(tmp_path), wait=False, env={"TMPDIR": place}
    )
    wait_until(lambda: list(Path(place).glob("riverrun-ray-*")), "an instance begins to start")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {130, -signal.SIGINT}, err
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert not list(Path(place).glob("riverrun-ray-*"))
    wait_until(lambda: not of_group(process.pid), "no process is left")


HELD = """
import ctypes, os, signal, time

import ray._private.node
from riverrun import flow
from riverrun.task_runners import RayTaskRunner
from runner_ray import _keeper

def note(name):
    with open(f"{PLACE}/{name}", "a") as file:
        file.write(".")

def held(function):
    def hold(*args, **kwargs):
        # Ray has just taken its own handler away, and SIGTERM has none for some milliseconds: see `_signals`.
        while not ctypes.pythonapi.PyOS_getsig(signal.SIGTERM):
            time.sleep(0.001)
        note("held")
        while not os.path.exists(f"{PLACE}/go"):
            time.sleep(0.01)
        return function(*args, **kwargs)

    return hold

def waiting(finish):
    def wait(self, seconds):
        note("waits")  # for the shutdown; once more after each signal that has interrupted that
        finish(self, seconds)

    return wait

WHERE = held(WHERE)
_keeper.Keeper.finish = waiting(_keeper.Keeper.finish)
_keeper.CLOSE_WITHIN = 600.0

@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 1}))
def quick():
    pass

quick()
"""
SHUT_DOWN, NODE_ENDS = "_keeper.shut_down", "ray._private.node.Node.kill_all_processes"


@pytest.mark.parametrize(
    ("where", "signals"),
    [
        (SHUT_DOWN, [signal.SIGINT]),
        (NODE_ENDS, [signal.SIGTERM] * 2),
        *(
            pytest.param(where, [number] * times, marks=pytest.mark.stress)
            for where, number, times in [
                (SHUT_DOWN, signal.SIGINT, 2),
                (SHUT_DOWN, signal.SIGTERM, 1),
                (SHUT_DOWN, signal.SIGTERM, 2),
                (NODE_ENDS, signal.SIGINT, 1),
                (NODE_ENDS, signal.SIGINT, 2),
                (NODE_ENDS, signal.SIGTERM, 1),
            ]
        ),
    ],
)
def test_a_signal_while_an_instance_is_shut_down(run_script, wait_until, place, signals, where):
    """It is shut down to its end all the same: else Ray would do so again as the process ends, and abort it."""
    source = HELD.replace("WHERE", where).replace("{PLACE}", place)
    process = run_script(source, wait=False, lean=True, env={"TMPDIR": place})
    waits = Path(place) / "waits"
    wait_until((Path(place) / "held").exists, "Ray is being shut down")
    wait_until(waits.exists, "the flow run waits for that")
    for number in signals:
        before = waits.stat().st_size
        os.kill(process.pid, number)
        wait_until(lambda: waits.stat().st_size > before, "it has heard, and waits again")  # noqa: B023 - at once
    (Path(place) / "go").touch()
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {128 + number, -number}, err
    assert number == signal.SIGTERM or err.rstrip().endswith("KeyboardInterrupt"), err
    assert not list(Path(place).glob("riverrun-ray-*"))
    wait_until(lambda: not of_group(process.pid), "no process is left")


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.stress)])
def test_ctrl_c_just_before_an_instance_is_shut_down(run_script, wait_until, place, times):
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
    """, lean=True, env={"TMPDIR": place})  # fmt: skip
    assert process.out == f"{times > 1}\n"
    assert process.returncode in {130, -signal.SIGINT}, process.err
    assert process.err.rstrip().endswith("KeyboardInterrupt"), process.err
    assert not list(Path(place).glob("riverrun-ray-*"))
    wait_until(lambda: not of_group(process.pid), "no process is left")


def folders():
    return set(Path(tempfile.gettempdir()).glob("riverrun-ray-*"))


AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def test_a_process_that_is_killed_leaves_no_worker_and_no_server(run_script, tmp_path, wait_until, family_of):
    """But for two agents of Ray's own, which look after themselves (they are ended with the test), and the folder."""
    before = folders()
    process = run_script(SLEEPING, str(tmp_path / "script.py"), str(tmp_path), wait=False)
    wait_until((tmp_path / "runs").exists, "a task runs")
    members = family_of(process.pid)
    assert len(members) > len(AGENTS) + 3

    def left():
        names = set()
        for each in members:
            with suppress(psutil.NoSuchProcess):
                if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                    names.add(each.name())
        return names

    assert not left() <= AGENTS
    process.kill()
    process.communicate(timeout=LIMIT)
    wait_until(lambda: left() <= AGENTS, "no worker is left")
    for each in members:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    for folder in folders() - before:
        shutil.rmtree(folder, ignore_errors=True)
