"""A start that fails says so within the time limit: what was tried, what is known, what to do."""

from __future__ import annotations

import os
import pickle
import socket
import threading

import pytest
from riverrun import flow, task
from riverrun.exceptions import TaskRunnerStartError
from riverrun.task_runners import RayTaskRunner
from runner_ray import _introduction

LIMIT = 120


@task
def answer():
    return 42


def failure_of(runner):
    """The text of the error with which a runner does not start."""

    @flow(task_runner=runner)
    def asking():
        return answer().result()

    with pytest.raises(TaskRunnerStartError) as error:
        asking()
    return str(error.value)


@pytest.fixture
def failure_elsewhere(run_script):
    """Do what `failure_of` does in a process of its own: where an instance begins, Ray may end the process with it."""

    def failure_elsewhere(runner):
        process = run_script(f"""
            import pickle
            from riverrun import flow
            from riverrun.exceptions import TaskRunnerStartError

            @flow(task_runner=pickle.loads({pickle.dumps(runner)!r}))
            def asking():
                pass

            try:
                asking()
            except TaskRunnerStartError as error:
                print(error)
        """, lean=True)  # fmt: skip
        assert process.out, process.err
        return process.out.removesuffix("\n")

    return failure_elsewhere


@pytest.fixture
def ray_is_not_asked(monkeypatch, no_session):
    """Ray itself would try for minutes where nothing is."""
    import ray

    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was asked"))


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        ("", "Is a Ray cluster running there (`ray start --head` prints its address)?"),
        ("ray://", "Is the Ray Client server running there (`ray start --head --ray-client-server-port=...`; by defa"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("ray_is_not_asked")
def test_a_closed_port(closed_port, prefix, advice):
    address = f"{prefix}127.0.0.1:{closed_port}"
    text = failure_of(RayTaskRunner(address=address))
    assert text.startswith(f"No connection to a Ray cluster at {address!r}: connection refused. {advice}")


@pytest.mark.usefixtures("ray_is_not_asked")
def test_a_host_that_does_not_exist():
    text = failure_of(RayTaskRunner(address="no.such.host.invalid:6379", start_timeout=5))
    assert text.startswith("No connection to a Ray cluster at 'no.such.host.invalid:6379': ")


def test_no_cluster_to_be_found(run_script):
    process = run_script("""
        from riverrun import flow
        from riverrun.task_runners import RayTaskRunner
        from ray._private import services
        services.find_gcs_addresses = lambda: set()  # others may run one on this machine

        @flow(task_runner=RayTaskRunner(address="auto"))
        def asking():
            pass

        asking()
    """, env={"RAY_ADDRESS": "", "RAY_TMPDIR": "/nonexistent"})  # fmt: skip
    assert (
        "`RayTaskRunner(address='auto')`: no running Ray cluster was found on this machine, and RAY_ADDRESS names none."
        " Start one with `ray start --head`, give its address, or leave address out for a temporary instance."
    ) in process.err


def test_a_server_that_does_not_speak_as_ray_does(run_script):
    """In a process of its own: Ray goes on trying there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = run_script(f"""
            from riverrun import flow
            from riverrun.task_runners import RayTaskRunner

            @flow(task_runner=RayTaskRunner(address="127.0.0.1:{port}", start_timeout=3))
            def asking():
                pass

            asking()
        """)
    start = f"No connection to the Ray cluster at 127.0.0.1:{port}: "
    assert f"{start}something listens there, and did not answer as a Ray cluster does within 3 s." in process.err


def test_a_temporary_instance_that_does_not_start_in_time_does_not_end_the_next_flow_run(
    run_script, shared_ray_cluster
):
    """It goes on in its thread; a session of the next flow run begins when it has come back and is shut down."""
    process = run_script(f"""
        from riverrun import flow, task
        from riverrun.exceptions import TaskRunnerStartError
        from riverrun.task_runners import RayTaskRunner
        from runner_ray import _keeper

        @task
        def answer():
            return 42

        @flow
        def asking():
            return answer().result({LIMIT})

        try:
            asking.with_options(task_runner=RayTaskRunner(init_kwargs={{"num_cpus": 1}}, start_timeout=0.2))()
        except TaskRunnerStartError as error:
            print(error)
            given_up = _keeper._told
            later = RayTaskRunner(address={shared_ray_cluster.address!r}, start_timeout={LIMIT})
            print(asking.with_options(task_runner=later)(), given_up.has_ended)
    """, lean=True)  # fmt: skip
    text = "The temporary Ray instance did not start within 0.2 s. Allow more with start_timeout=SECONDS."
    assert process.out == f"{text}\n42 True\n", process.err


def test_a_start_that_was_given_up_and_does_not_come_back(monkeypatch, no_session):
    from runner_ray import _keeper

    monkeypatch.setattr(_keeper, "_told", None)
    back = threading.Event()
    stuck = _keeper.Keeper(None, None)
    monkeypatch.setattr(stuck, "_open", lambda _: back.wait())
    stuck.start()
    stuck.give_up()
    try:
        assert failure_of(RayTaskRunner(start_timeout=0.2)) == (
            "An earlier session of Ray in this process is still being opened or closed. Try again later, or in a new "
            "process."
        )
    finally:
        back.set()
        stuck.join()


@pytest.fixture(params=["address", pytest.param("temporary", marks=pytest.mark.stress)])
def options(request, shared_ray_cluster):
    """Those of a runner, as Python writes them."""
    return f"address={shared_ray_cluster.address!r}" if request.param == "address" else "init_kwargs={'num_cpus': 1}"


def test_a_flow_run_waits_for_a_closing_that_nobody_waited_for(run_script, options):
    """It would take the session for the user's, and lose it in the middle."""
    process = run_script(f"""
        import threading
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner
        from runner_ray import _keeper

        @task
        def answer():
            return 42

        @flow(task_runner=RayTaskRunner({options}))
        def asking():
            return answer().result()

        shut_down, await_closed, awaited = _keeper.shut_down, _keeper.await_closed, threading.Event()

        def held():
            awaited.wait({LIMIT})
            shut_down()

        def noted(deadline):
            if _keeper._told is not None:
                awaited.set()
            await_closed(deadline)

        _keeper.shut_down, _keeper.await_closed, _keeper.CLOSE_WITHIN = held, noted, 0.01
        print(asking(), _keeper._told.has_ended)
        _keeper.CLOSE_WITHIN = {LIMIT}
        print(asking(), _keeper._told.has_ended)
    """)
    assert process.out == "42 False\n42 True\n", process.err


def test_the_end_of_a_flow_run_whose_session_was_shut_down_leaves_that_of_the_next_one_alone(run_script, options):
    process = run_script(f"""
        import threading
        import ray
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        opened, left = threading.Event(), threading.Event()
        runner = RayTaskRunner({options})

        @task
        def answer():
            return 42

        @flow(task_runner=runner)
        def second():
            opened.set()
            left.wait({LIMIT})
            return answer().result()

        @flow(task_runner=runner)
        def first():
            ray.shutdown()
            thread.start()
            opened.wait({LIMIT})
            return "left"

        thread = threading.Thread(target=lambda: print(second()))
        print(first())
        left.set()
        thread.join()
    """)
    assert process.out == "left\n42\n", process.err


def test_the_time_limit_is_kept_while_another_flow_run_opens_its_session(no_session):
    from runner_ray import _sessions

    with _sessions._lock:
        text = failure_of(RayTaskRunner(start_timeout=0.2))
    assert text == (
        "`RayTaskRunner(start_timeout=0.2)` was not started within 0.2 s: another flow run of this process was opening "
        "or closing its session of Ray all the time, and there is one per process. Allow more with "
        "start_timeout=SECONDS, or run them in processes of their own."
    )


@pytest.mark.parametrize("address", ["myhost", "http://127.0.0.1:8265", "127.0.0.1:99999"])
@pytest.mark.usefixtures("ray_is_not_asked")
def test_an_address_in_the_environment_that_is_none(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert failure_of(RayTaskRunner(address="auto")) == (
        f"`RayTaskRunner(address='auto')`: RAY_ADDRESS is {address!r}, and not 'host:port' or 'ray://host:port'. "
        "Correct it, or give the address to the runner."
    )


def test_init_kwargs_that_ray_does_not_take(failure_elsewhere):
    text = failure_elsewhere(RayTaskRunner(init_kwargs={"no_such_option": 1}))
    assert text == (
        "The temporary Ray instance did not start: RuntimeError: Unknown keyword argument(s): no_such_option"
    )


def test_a_temporary_instance_without_a_cpu(failure_elsewhere):
    text = failure_elsewhere(RayTaskRunner(init_kwargs={"num_cpus": 0}))
    assert text.startswith("The temporary Ray instance has 1 node and no CPU: no task could run.")


WITHOUT_A_CPU = (
    "The Ray cluster at {} has 1 node and no CPU: no task could run. Start a node that has one "
    "(`ray start --address=... --num-cpus=2`), or see to it that `num_cpus` is not 0."
)


@pytest.mark.stress
def test_a_cluster_without_a_cpu(make_ray_cluster, failure_elsewhere):
    cluster = make_ray_cluster(cpus=0)
    text = failure_elsewhere(RayTaskRunner(address=cluster.address, start_timeout=30))
    assert text == WITHOUT_A_CPU.format(cluster.address)


def test_a_cluster_whose_head_says_that_it_has_no_cpu(held_session, monkeypatch):
    from runner_ray import _head

    nodes = _head.nodes
    monkeypatch.setattr(_head, "nodes", lambda: [{**node, "Resources": {"memory": 1.0}} for node in nodes()])
    text = failure_of(RayTaskRunner(address=held_session.address, start_timeout=1))
    assert text == WITHOUT_A_CPU.format(held_session.address)


@pytest.mark.parametrize("kind", ["address", "client_address"])
def test_a_cluster_that_asks_for_another_token(shared_ray_cluster, run_script, kind):
    address = getattr(shared_ray_cluster, kind)
    process = run_script(f"""
        from riverrun import flow
        from riverrun.task_runners import RayTaskRunner

        @flow(task_runner=RayTaskRunner(address={address!r}, start_timeout=5))
        def asking():
            pass

        asking()
    """, env={"RAY_AUTH_TOKEN": "not-the-token-of-the-cluster"})  # fmt: skip
    assert f"No connection to the Ray cluster at {address}: " in process.err
    assert "RAY_AUTH_TOKEN" in process.err
    assert "token" in process.err


def test_ray_client_that_gives_up_before_the_time_limit_of_the_start():
    """It does so after 30 seconds, and does not say that a token may be the reason."""
    from runner_ray._addresses import Place
    from runner_ray._sessions import Session
    from runner_ray._start_errors import explained

    place = Place("ray://127.0.0.1:10001", "127.0.0.1", 10001, is_client=True)
    session = Session((place.address, None), place, temporary=False, owner=True)
    assert explained(session, ConnectionError("ray client connection timeout"), 60) == (
        "No connection to the Ray cluster at ray://127.0.0.1:10001: something listens there, and did not answer as a "
        "Ray cluster does. Is this the address that `ray start --head` printed? If the cluster asks for an "
        "authentication token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
    )


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        (2, "RuntimeError: Starting Ray client server failed. See some.err for more."),
        (3, "psutil.ZombieProcess: PID still exists but it's a zombie (pid=13618)"),
    ],
)
def test_a_server_for_ray_client_that_does_not_start_is_asked_for_again(shared_ray_cluster, run_script, failures, said):
    process = run_script(f"""
        import ray
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        init, calls = ray.init, []

        def failing(*args, **kwargs):
            calls.append(1)
            if len(calls) <= {failures}:
                raise ConnectionAbortedError({said!r})
            return init(*args, **kwargs)

        ray.init = failing

        @task
        def answer():
            return 42

        @flow(task_runner=RayTaskRunner(address={shared_ray_cluster.client_address!r}))
        def asking():
            return answer().result({LIMIT})

        try:
            print(asking())
        finally:
            print(len(calls))
    """)
    again = (
        f"| WARNING | A server for Ray Client did not start at {shared_ray_cluster.client_address}; trying again. "
        "Where the head was started with GRPC_ENABLE_FORK_SUPPORT=0 in its environment, they do\n"
    )
    assert process.err.count(again) == 2
    if failures == 2:
        assert process.out == "42\n3\n", process.err
    else:
        assert process.out == "3\n", process.err
        assert f"No connection to the Ray cluster at {shared_ray_cluster.client_address}: ConnectionAbortedError: " in (
            process.err
        )


# -- a session that is open in the process


ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What lets a `ray.init` of the user's reach a cluster that listens on loopback only."""


def test_a_session_that_the_user_has_opened_is_used_and_left_open(run_script, shared_ray_cluster):
    process = run_script(f"""
        import ray
        from riverrun import flow, task
        from riverrun.exceptions import TaskRunnerStartError
        from riverrun.task_runners import RayTaskRunner

        @task
        def where():
            import ray
            return ray.get_runtime_context().get_node_id()

        @flow
        def asking():
            return where().result()

        def error_of(runner):
            try:
                asking.with_options(task_runner=runner)()
            except TaskRunnerStartError as error:
                return str(error)

        ray.init({shared_ray_cluster.address!r}, log_to_driver=False)
        here = ray.get_runtime_context().get_node_id()
        print(asking.with_options(task_runner=RayTaskRunner())() == here)
        print(asking.with_options(task_runner=RayTaskRunner(address="auto"))() == here)
        address = ray.get_runtime_context().gcs_address
        print(asking.with_options(task_runner=RayTaskRunner(address=address))() == here)
        print(ray.is_initialized())
        print(error_of(RayTaskRunner(init_kwargs={{"num_cpus": 2}})))
        print(error_of(RayTaskRunner(address="10.0.0.5:6379")))
        print(error_of(RayTaskRunner(address="ray://" + address)))
        print(address)
    """, env={**ON_LOOPBACK, "RIVERRUN_LOG_LEVEL": "ERROR"})  # fmt: skip
    lines = process.out.splitlines()
    assert lines[:4] == ["True"] * 4, process.out + process.err
    address = lines[-1]
    start = "a session of Ray is already open in this process, with "
    assert lines[4] == (
        "`RayTaskRunner(init_kwargs={'num_cpus': 2})` cannot be started: "
        + start
        + f"the Ray cluster at {address}, so "
        "`init_kwargs` would have no effect. Call `ray.shutdown()` before the flow, or make the runner without "
        "this option."
    )
    assert lines[5].startswith(
        f"`RayTaskRunner(address='10.0.0.5:6379')` cannot be started: {start}another cluster, at {address}. "
    )
    assert f"{start}another cluster, at {address}. " in lines[6]


def test_ray_does_not_tell_of_failed_tasks_a_second_time_in_a_session_of_the_users(run_script, shared_ray_cluster):
    process = run_script(f"""
        import logging, threading
        import ray
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        told = threading.Event()

        class Told(logging.Filter):
            def filter(self, record):
                if "Unhandled error" in record.getMessage():
                    told.set()
                return True

        logging.getLogger("ray._private.worker").addFilter(Told())  # before ours, which drops it

        @task
        def fails():
            raise ValueError("on purpose")

        @flow(task_runner=RayTaskRunner())
        def failing():
            for future in [fails() for _ in range(60)]:
                future.wait()

        ray.init({shared_ray_cluster.address!r}, log_to_driver=False)
        failing(return_state=True)
        print(told.wait({LIMIT}))
    """, env=ON_LOOPBACK)  # fmt: skip
    assert process.out == "True\n", process.err
    assert "ValueError: on purpose" in process.err
    assert "Unhandled error" not in process.err


def test_a_call_for_which_a_head_would_have_to_be_asked_that_does_not_answer(held_session, monkeypatch):
    """Ray would ask for ever, and end this process after a minute."""
    from runner_ray._sessions import Session

    @flow(task_runner=RayTaskRunner(address=held_session.address))
    def asking():
        monkeypatch.setattr(Session, "is_reachable", False)
        future = answer()
        return [future.name, future.wait(LIMIT).message]

    name, message = asking()
    assert message == (
        f"Task run {name!r} was not sent: lost the connection to the Ray cluster at {held_session.address}: its head "
        "does not answer."
    )


def test_a_head_that_does_not_say_which_nodes_there_are(held_session, monkeypatch):
    from runner_ray import _head

    def overdue():
        raise TimeoutError

    monkeypatch.setattr(_head, "nodes", overdue)
    assert failure_of(RayTaskRunner(address=held_session.address, start_timeout=1)) == (
        f"The Ray cluster at {held_session.address} did not say within 1 s which nodes it has: its head is busy, or "
        "gone. See with `ray status` whether it answers, or allow more time with start_timeout=SECONDS."
    )


def test_a_worker_that_dies_as_it_is_asked_what_it_has_fails_no_start(held_session, monkeypatch, tmp_path):
    """It may have been told to end by the flow run before this one."""
    mark = tmp_path / "asked"
    introduce = _introduction._QUESTIONS["introduce"]

    @_introduction._by_value
    def dies_at_first(packages):
        if not mark.exists():
            mark.touch()
            os._exit(9)
        return introduce(packages)

    monkeypatch.setitem(_introduction._QUESTIONS, "introduce", dies_at_first)

    @flow(task_runner=RayTaskRunner(address=held_session.address))
    def asking():
        return answer().result(LIMIT)

    assert asking() == 42
    assert mark.exists()


def test_flow_runs_that_overlap_share_a_session_if_they_ask_for_the_same(held_session):
    other = RayTaskRunner(init_kwargs={"num_cpus": 1})
    assert failure_of(other) == (
        "`RayTaskRunner(init_kwargs={'num_cpus': 1})` cannot be started: another flow run of this process uses "
        f"`RayTaskRunner(address='{held_session.address}')`, and Ray has one session per process. Use the same options "
        "in both, let one flow run end before the other begins, or run them in processes of their own."
    )
