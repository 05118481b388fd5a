"""`dask.annotate` around calls, `resources` and `runner_options` of tasks, on clusters that are asked for them."""

from __future__ import annotations

import logging
import os
import time

import dask
import distributed
import pytest
from riverrun import allow_failure, flow, task, unmapped
from riverrun.exceptions import TaskRunnerOptionError
from riverrun.task_runners import DaskTaskRunner

LIMIT = 100
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cluster(local_cluster):
    """Two workers with two threads; the first declares a `process`, both a `slot`; they are named `one` and `two`."""
    return local_cluster


@pytest.fixture
def runner(cluster):
    return DaskTaskRunner(cluster=cluster)


@pytest.fixture
def address_of(cluster):
    """The address of a worker, by its name."""
    return lambda name: next(
        address for address, info in cluster.scheduler_info["workers"].items() if info["name"] == name
    )


@task
def where(*_):
    return distributed.get_worker().address


@task
def what(*_):
    """What the scheduler knows of the annotations of the task that runs this."""
    worker = distributed.get_worker()
    return worker.state.tasks[worker.get_current_task()].annotations or {}


@task
def alone(path, *_):
    """Fail if another one is at it: each makes a file that must not be there yet."""
    with open(path, "x"):  # noqa: PTH123 - it runs on workers
        time.sleep(0.1)  # so that another one would come meanwhile
    os.remove(path)  # noqa: PTH107
    return distributed.get_worker().address


# -- The two examples of Dask's annotations


def test_what_has_a_higher_priority_runs_first(tmp_path):
    file = tmp_path / "order.txt"

    @task
    def show(text):
        with file.open("a") as opened:
            opened.write(f"{text}\n")

    @task
    def block(until):
        end = time.monotonic() + LIMIT
        while not until.exists() and time.monotonic() < end:
            time.sleep(0.01)

    one_thread = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=one_thread))
    def priorities():
        blocks = [block(tmp_path / "go")]
        with dask.annotate(priority=-10):
            low = show.map([f"low {i}" for i in range(3)])
        with dask.annotate(priority=10):
            high = show.map([f"high {i}" for i in range(3)])
        end = time.monotonic() + LIMIT
        while len(blocks) + len(low) + len(high) != _on_the_worker():
            assert time.monotonic() < end
            time.sleep(0.02)
        (tmp_path / "go").touch()
        blocks[0].result()

    # Without a queue in the scheduler, the worker has all of them, and it is the one who decides.
    with dask.config.set({"distributed.scheduler.worker-saturation": float("inf")}):
        priorities()
    kinds = [line.split()[0] for line in file.read_text().splitlines()]
    assert kinds == ["high"] * 3 + ["low"] * 3


def _on_the_worker():
    from runner_dask import get_dask_client

    with get_dask_client() as client:
        found = client.run(lambda dask_worker: len(dask_worker.state.ready) + len(dask_worker.state.executing))
    return sum(found.values())


def test_three_tasks_that_share_a_resource_run_one_after_the_other(runner, address_of, tmp_path):
    @flow(task_runner=runner)
    def shared():
        with dask.annotate(resources={"process": 1}):
            return alone.map(unmapped(tmp_path / "at it"), [1, 2, 3])

    assert shared() == [address_of("one")] * 3


# -- Each annotation, and each way a call goes


@pytest.fixture(params=["at once", "after a pending upstream", "wait_for", "allow_failure", "map", "retried"])
def call(request):  # noqa: C901 - one way after the other
    """Call a task in one of the ways in which calls go to the cluster."""

    @task
    def upstream(gate, fails=False):
        end = time.monotonic() + LIMIT
        while not gate.exists() and time.monotonic() < end:
            time.sleep(0.01)
        if fails:
            raise ValueError("on purpose")
        return 1

    @task(retries=1)
    def retried(file, function):
        if not file.exists():
            file.touch()
            raise ValueError("the first time")
        return function()

    def call(function, tmp_path):
        gate = tmp_path / "gate"  # it is opened when the call is made: until then its upstream is pending
        match request.param:
            case "at once":
                future = function()
            case "after a pending upstream":
                future = function(upstream(gate))
            case "wait_for":
                future = function(wait_for=[upstream(gate)])
            case "allow_failure":
                future = function(allow_failure(upstream(gate, fails=True)))
            case "map":
                future = function.map(upstream.map([gate]))[0]
            case "retried":
                future = retried(tmp_path / "once", function.fn)
        gate.touch()
        return future.result()

    return call


def run_with(runner, call, function, tmp_path, **annotations):
    states = []

    @flow(task_runner=runner)
    def annotated():
        with dask.annotate(**annotations):
            states.append(call(function, tmp_path))

    annotated(return_state=True)
    return states[0]


def test_workers_by_address(runner, address_of, call, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run_with(runner, call, where, tmp_path / name, workers=[address_of(name)]) == address_of(name)


def test_resources(runner, address_of, call, tmp_path):
    assert run_with(runner, call, where, tmp_path, resources={"process": 1}) == address_of("one")


def test_priority_and_what_users_invent(runner, call, tmp_path):
    known = run_with(runner, call, what, tmp_path, priority=7, colour="green")
    assert known.get("priority") == 7
    assert known.get("colour") == "green"


def test_nested_annotations_are_merged_and_the_inner_wins(runner, address_of):
    @flow(task_runner=runner)
    def nested():
        with dask.annotate(priority=1, workers=[address_of("two")]), dask.annotate(priority=2):
            inner = what(), where()
        return inner[0].result(), inner[1].result(), what().result()

    known, there, outside = nested()
    assert known["priority"] == 2
    assert there == address_of("two")
    assert "priority" not in outside


def test_calls_with_many_annotations_keep_each_its_own(runner):
    @flow(task_runner=runner)
    def many():
        futures = []
        for number in range(40):
            with dask.annotate(number=number):
                futures.append(what())
        return futures

    assert [known["number"] for known in many()] == list(range(40))


def test_annotated_retries_are_retries_of_riverrun(runner, tmp_path):
    @task
    def third_time():
        with (tmp_path / "attempts").open("a") as file:
            file.write("x")
        if (tmp_path / "attempts").stat().st_size < 3:
            raise ValueError("not yet")
        return (tmp_path / "attempts").stat().st_size

    @flow(task_runner=runner)
    def retrying():
        with dask.annotate(retries=2):
            return third_time()

    assert retrying() == 3


def test_annotated_retries_that_are_no_number(runner):
    @flow(task_runner=runner)
    def retrying():
        with dask.annotate(retries=lambda key: 2):
            return where()

    with pytest.raises(
        TaskRunnerOptionError, match=r"^Task run 'where-\w+-0': dask.annotate\(retries=...\) is a whole number, not <"
    ):
        retrying()


def test_other_workers_may_do_it_if_that_is_allowed(runner, address_of):
    @flow(task_runner=runner)
    def elsewhere():
        with dask.annotate(workers=["tcp://127.0.0.1:9"], allow_other_workers=True):
            return where()

    assert elsewhere() in {address_of("one"), address_of("two")}


def test_workers_that_are_not_there(runner, address_of):
    @flow(task_runner=runner)
    def elsewhere():
        with dask.annotate(workers=["tcp://127.0.0.1:9"]):
            return where()

    with pytest.raises(TaskRunnerOptionError) as error:
        elsewhere()
    text = str(error.value)
    assert "asks for workers=['tcp://127.0.0.1:9'], which the Dask cluster does not have" in text
    assert address_of("one") in text
    assert "allow_other_workers=True" in text


@pytest.mark.parametrize("form", ["a name", "a host", "a text"])
def test_workers_by_what_else_dask_takes(runner, address_of, form):
    asked = {"a name": ["two"], "a host": ["127.0.0.1"], "a text": address_of("two")}[form]

    @flow(task_runner=runner)
    def by_name():
        with dask.annotate(workers=asked):
            return where()

    assert by_name() in ({address_of("one"), address_of("two")} if form == "a host" else {address_of("two")})


# -- What tasks say themselves


def test_runner_options(runner, address_of):
    options = {"priority": 5, "workers": [address_of("two")], "resources": {"slot": 1}, "allow_other_workers": False}

    @flow(task_runner=runner)
    def optioned():
        return what.with_options(runner_options={"dask": options}), where.with_options(runner_options={"dask": options})

    @flow(task_runner=runner)
    def called():
        one, other = optioned.fn()
        return one(), other()

    known, there = called()
    assert known["priority"] == 5
    assert known["resources"] == {"slot": 1}
    assert there == address_of("two")


def test_an_option_that_does_not_exist(runner):
    @flow(task_runner=runner)
    def mistaken():
        return where.with_options(runner_options={"dask": {"prio": 5}})()

    with pytest.raises(TaskRunnerOptionError) as error:
        mistaken()
    assert "runner_options['dask'] has no option 'prio'. Its options are: priority, resources, workers," in str(
        error.value
    )


def test_allow_other_workers_without_workers(runner):
    @flow(task_runner=runner)
    def mistaken():
        return where.with_options(runner_options={"dask": {"allow_other_workers": True}})()

    with pytest.raises(
        TaskRunnerOptionError, match=r"allow_other_workers in runner_options\['dask'\] needs workers= beside it\."
    ):
        mistaken()


def test_options_for_other_runners_are_none_of_ours(runner):
    @flow(task_runner=runner)
    def other():
        return where.with_options(runner_options={"ray": {"anything": 5}})()

    assert other().startswith("tcp://")


@pytest.mark.parametrize("resources", [{"cpu": 1}, {"cpu": 2}, {"memory": "1MiB"}, {"memory": 1000, "cpu": 0.5}])
def test_resources_that_the_cluster_does_not_declare_but_has(runner, resources):
    @flow(task_runner=runner)
    def asking():
        return where.with_options(resources=resources)()

    assert asking().startswith("tcp://")


def test_declared_resources_are_counted(tmp_path):
    kwargs = {
        "n_workers": 1,
        "threads_per_worker": 3,
        "processes": False,
        "dashboard_address": "127.0.0.1:0",
        "resources": {"CPU": 1, "GPU": 1, "memory": 1e9},
    }

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=kwargs))
    def counted():
        return [
            alone.with_options(resources=resources).map(unmapped(tmp_path / "at it"), [1, 2]).result()
            for resources in ({"cpu": 1}, {"gpu": 1}, {"memory": "0.6 GB"})
        ]

    assert [len(ran) for ran in counted()] == [2, 2, 2]


@pytest.mark.parametrize(
    ("resources", "asked", "available"),
    [
        ({"gpu": 1}, "GPU=1", "declare"),
        ({"cpu": 64000}, "cpu=64000", "the largest worker has 2 threads"),
        ({"memory": "1 PiB"}, "memory=1.1259e+15", "the largest worker has"),
    ],
)
def test_a_resource_that_no_worker_has(runner, resources, asked, available):
    @flow(task_runner=runner)
    def asking():
        return where.with_options(resources=resources)()

    with pytest.raises(TaskRunnerOptionError) as error:
        asking()
    text = str(error.value)
    assert f"asks for {asked}, which no worker of the Dask cluster has: " in text
    assert available in text
    assert "Start workers with `--resources` (or cluster_kwargs={'resources': {...}}), or ask for less." in text


def test_a_resource_of_which_a_worker_has_too_little(runner):
    @flow(task_runner=runner)
    def asking():
        with dask.annotate(resources={"process": 2}):
            return where()

    with pytest.raises(TaskRunnerOptionError, match=r"asks for process=2, which no worker .*\{'process': 1.0, 'slot'"):
        asking()


def test_the_neighbours_of_a_call_that_asks_too_much_complete(runner):
    states = []

    @flow(task_runner=runner)
    def asking():
        with dask.annotate(resources={"process": 2}):
            futures = [where()]
        futures += where.map(range(20))
        states.extend(future.wait() for future in futures)

    asking(return_state=True)
    assert [state.is_completed() for state in states] == [False] + 20 * [True]


def test_on_an_adaptive_cluster_it_is_a_warning(caplog):
    caplog.set_level(logging.WARNING, "riverrun")
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    runner = DaskTaskRunner(cluster_kwargs=kwargs, adapt_kwargs={"minimum": 1, "maximum": 1})

    @flow(task_runner=runner)
    def asking():
        future = where.with_options(resources={"gpu": 1})()
        assert future.wait(timeout=0.5) is None
        assert future.cancel()
        return os.getpid()

    assert asking() == os.getpid()
    (warning,) = [record.getMessage() for record in caplog.records if "asks for" in record.getMessage()]
    assert "asks for GPU=1, which no worker of the Dask cluster has" in warning
    assert "It waits until the cluster gets one." in warning
