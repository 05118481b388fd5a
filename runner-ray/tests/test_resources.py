"""What a call asks of Ray: `resources`, `runner_options["ray"]`, `remote_options()`; and what nobody can give."""

from __future__ import annotations

import logging

import pytest
from riverrun import flow, task
from riverrun.exceptions import TaskRunnerOptionError
from riverrun.task_runners import RayTaskRunner
from runner_ray import remote_options

LIMIT = 120


@task
def assigned():
    import ray

    return dict(ray.get_runtime_context().get_assigned_resources())


@task
def assigned_after(_):
    import ray

    return dict(ray.get_runtime_context().get_assigned_resources())


@pytest.fixture
def on_shared(held_session):
    return RayTaskRunner(address=held_session.address)


def test_resources_of_a_task_and_its_runner_options(on_shared):
    both = assigned.with_options(
        resources={"cpu": 1, "memory": "100MiB"}, runner_options={"ray": {"num_cpus": 2, "enable_task_events": True}}
    )

    @flow(task_runner=on_shared)
    def asking():
        return [
            assigned().result(LIMIT),
            assigned.with_options(resources={"cpu": 0.5})().result(LIMIT),
            both().result(LIMIT),
        ]

    plain, half, whole = asking()
    assert plain == {"CPU": 1.0}
    assert half == {"CPU": 0.5}
    assert whole["CPU"] == 2.0
    assert 99 << 20 <= whole["memory"] <= 100 << 20


def test_remote_options_around_calls_nested_and_where_the_call_is_sent_later(on_shared):
    @task
    def failing():
        raise ValueError("once")

    @flow(task_runner=on_shared)
    def asking():
        with remote_options(num_cpus=2, memory=1 << 20):
            outer = assigned()
            with remote_options(num_cpus=0.5):
                inner = assigned()
                first = assigned()
                deferred = assigned_after(first, wait_for=[first])
                mapped = assigned_after.map([1, 2])
            again = assigned()
        plain = assigned()
        return [each.result(LIMIT)["CPU"] for each in [outer, inner, deferred, *mapped, again, plain]]

    assert asking() == [2.0, 0.5, 0.5, 0.5, 0.5, 2.0, 1.0]


def test_what_is_said_at_the_call_wins_over_what_the_task_says(on_shared):
    @flow(task_runner=on_shared)
    def asking():
        with remote_options(num_cpus=2):
            return assigned.with_options(resources={"cpu": 1})().result(LIMIT)

    assert asking()["CPU"] == 2.0


def test_a_runtime_env_of_a_task(on_shared):
    @task(runner_options={"ray": {"runtime_env": {"env_vars": {"RIVER": "Liffey"}}}})
    def river():
        import os

        return os.environ.get("RIVER")

    @flow(task_runner=on_shared)
    def asking():
        return [future.result(LIMIT) for future in [river(), river()]]

    assert asking() == ["Liffey"] * 2


@pytest.mark.parametrize(
    ("resources", "options", "asked"),
    [
        ({"cpu": 64}, {}, "CPU=64"),
        ({"gpu": 1}, {}, "CPU=1, GPU=1"),
        ({"memory": "4000GiB"}, {}, "CPU=1, memory=4000.00GiB"),
        ({}, {"resources": {"unicorn": 1}}, "CPU=1, unicorn=1"),
    ],
)
def test_what_no_node_can_ever_give_is_an_error_that_shows_wanted_and_available(on_shared, resources, options, asked):
    greedy = assigned.with_options(resources=resources, runner_options={"ray": options})

    @flow(task_runner=on_shared)
    def asking():
        future = greedy()
        assert assigned().result(LIMIT) == {"CPU": 1.0}
        with pytest.raises(TaskRunnerOptionError) as error:
            future.result(LIMIT)
        return future.name, str(error.value)

    name, text = asking(return_state=True).result(raise_on_failure=False)
    start = f"Task run '{name}' asks for {asked}, which no node of the Ray cluster has. Its 1 node have at most: CPU=2"
    assert text.startswith(start)
    assert text.endswith("Ask for less, or start a node that has it.")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"num_cpus": "many"}, "num_cpus is a number, 0 or more, not 'many'."),
        ({"num_gpus": -1}, "num_gpus is a number, 0 or more, not -1."),
        ({"resources": {"unicorn": "two"}}, "resources['unicorn'] is a number, 0 or more, not 'two'."),
    ],
)
def test_an_amount_that_is_no_number(on_shared, options, what):
    @flow(task_runner=on_shared)
    def asking():
        with remote_options(**options):
            future = assigned()
        with pytest.raises(TaskRunnerOptionError) as error:
            future.result(LIMIT)
        return future.name, str(error.value)

    name, text = asking(return_state=True).result(raise_on_failure=False)
    assert text == f"Task run '{name}': {what}"


def test_labels_that_no_node_has(on_shared):
    @flow(task_runner=on_shared)
    def asking():
        with remote_options(label_selector={"zone": "nowhere"}):
            future = assigned()
        with remote_options(label_selector={"zone": "!nowhere"}):  # what operators mean is Ray's to say
            assert assigned().result(LIMIT) == {"CPU": 1.0}
        with pytest.raises(TaskRunnerOptionError) as error:
            future.result(LIMIT)
        return future.name, str(error.value)

    name, text = asking(return_state=True).result(raise_on_failure=False)
    assert text == (
        f"Task run '{name}' asks for a node with the labels zone=nowhere, and the Ray cluster has none. Of these "
        "labels, its nodes have: nothing. Correct label_selector, or start a node that has them (`ray start "
        "--labels=...`)."
    )


def test_labels_that_a_node_has():
    from runner_ray import _wanted

    nodes = [{"Alive": True, "Labels": {"zone": "a"}}, {"Alive": False, "Labels": {"zone": "b"}}]
    _wanted.refuse_labels("x-0", {"zone": "a"}, lambda **_: nodes)
    _wanted.refuse_labels("x-0", {"zone": "in(b, c)"}, lambda **_: nodes)
    with pytest.raises(TaskRunnerOptionError, match=r"the labels zone=b, .* its nodes have: zone=a\."):
        _wanted.refuse_labels("x-0", {"zone": "b"}, lambda **_: nodes)


def test_on_a_cluster_that_may_grow_it_is_a_warning(caplog):
    from runner_ray import _wanted

    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    caplog.set_level(logging.WARNING)
    _wanted.refuse_unmet("greedy-0", {"CPU": 64.0}, lambda: nodes, may_grow=True)
    (text,) = caplog.messages
    assert text == (
        "Task run 'greedy-0' asks for CPU=64, which no node of the Ray cluster has. Its 1 node have at most: CPU=2. It "
        "waits until the cluster gets one."
    )


def test_an_option_that_does_not_exist(on_shared):
    wrong = assigned.with_options(runner_options={"ray": {"cpus": 1}})

    @flow(task_runner=on_shared)
    def asking():
        future = wrong()
        with pytest.raises(TaskRunnerOptionError) as error:
            future.result(LIMIT)
        return future.name, str(error.value)

    name, text = asking(return_state=True).result(raise_on_failure=False)
    assert text.startswith(f"Task run '{name}': runner_options['ray'] has no option 'cpus'. Its options are: num_cpus,")
