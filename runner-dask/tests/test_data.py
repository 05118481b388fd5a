"""Values stay on the cluster and large arguments are sent once; Dask collections pass lazily; Dask's own client."""

from __future__ import annotations

import asyncio

import distributed
import pytest
from riverrun import flow, task
from riverrun.exceptions import MissingContextError
from riverrun.task_runners import DaskTaskRunner
from runner_dask import get_dask_client

np = pytest.importorskip("numpy")
pytestmark = pytest.mark.timeout(120)
MEGABYTE = 1_000_000


LIMIT = 100


@pytest.fixture
def runner(shared_dask_cluster):
    return DaskTaskRunner(address=shared_dask_cluster.address)


@pytest.fixture
def script_on_a_cluster(shared_dask_cluster, run_script):
    """Run a flow in a process of its own; give what it printed."""

    def run(source):
        done = run_script(source, env={"ADDRESS": shared_dask_cluster.address})
        assert done.returncode == 0, done.err
        return done.out

    return run


MEASURED = """
import os
import numpy as np
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

from tornado.iostream import IOStream

count = 0

def counting(method):
    def counted(*args):
        global count
        done = method(*args)
        count += done or 0
        return done
    return counted

IOStream.read_from_fd = counting(IOStream.read_from_fd)  # each byte of each connection of this process
IOStream.write_to_fd = counting(IOStream.write_to_fd)

def moved():
    return count

def measured(flow):
    @flow_of(flow)
    def around():
        before = moved()
        value = flow()
        return value, moved() - before
    return around()

def flow_of(flow):
    from riverrun import flow as decorate
    return decorate(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"]))

@task
def make(size):
    return np.ones(size // 8)

@task
def double(array):
    return 2 * array

@task
def total(array, number=0):
    return float(array.sum()) + number
"""


def test_a_chain_over_arrays_moves_next_to_nothing_through_the_flows_process(script_on_a_cluster):
    out = script_on_a_cluster(
        MEASURED
        + """
def chain():
    array = make(20_000_000)
    for _ in range(3):
        array = double(array)
    return total(array).result()

print(*measured(chain))
"""
    )
    value, moved = out.split()
    assert float(value) == 8 * 2_500_000
    assert float(moved) < MEGABYTE


def test_a_value_is_fetched_when_somebody_asks_for_it(script_on_a_cluster):
    out = script_on_a_cluster(
        MEASURED
        + """
def fetched():
    future = make(20_000_000)
    future.wait()
    before = moved()
    assert len(future.result()) == 2_500_000
    once = moved() - before
    return once

print(*measured(fetched))
"""
    )
    fetched, everything = map(float, out.split())
    assert fetched > 20 * MEGABYTE
    assert everything < 22 * MEGABYTE


ARGUMENTS = [
    "np.ones(625_000)",
    "b'.' * 5_000_000",
    "list(map(float, range(600_000)))",
    "{'one': np.ones(300_000), 'other': np.ones(325_000)}",
    "(np.ones(625_000), 'and', [1, 2])",
]


def test_a_large_argument_is_sent_once(script_on_a_cluster):
    out = script_on_a_cluster(
        MEASURED
        + f"""
@task
def length(argument, number):
    return len(argument) + number

def many():
    return sum(length(argument, number).result() - number - len(argument) for number in range(30))

for argument in [{", ".join(ARGUMENTS)}]:
    print(*measured(many))
"""
    )
    lines = out.splitlines()
    assert len(lines) == len(ARGUMENTS)
    for line, argument in zip(lines, ARGUMENTS, strict=True):
        value, moved = line.split()
        assert value == "0"
        # With the pipes and sockets between scheduler and client it would be 150 MB if each took its own.
        assert 5 * MEGABYTE <= float(moved) < 8 * MEGABYTE, argument


def test_a_large_argument_that_was_changed_in_place_is_sent_anew(runner):
    @task
    def total(array):
        return float(array.sum())

    @flow(task_runner=runner)
    def changing():
        array = np.ones(500_000)
        futures = []
        for _ in range(3):
            futures.append(total(array))
            array += 1
        numbers = [0.0] * 300_000
        for _ in range(2):
            futures.append(summed(numbers))
            numbers[7] += 5
        return futures

    @task
    def summed(numbers):
        return sum(numbers)

    assert changing() == [500_000.0, 1_000_000.0, 1_500_000.0, 0.0, 5.0]


def test_a_task_that_changes_its_argument_changes_nobody_elses(runner):
    @task
    def change(numbers):
        before = numbers[0]
        numbers[0] = -1
        return before

    @flow(task_runner=runner)
    def changing():
        return [change(many) for _ in range(4)]

    many = [7, *map(float, range(400_000))]
    assert changing() == [7, 7, 7, 7]


def test_large_values_in_containers_and_in_map(runner):
    @task
    def make(number):
        return np.full(300_000, number)

    @task
    def totals(parts):
        return [float(part.sum()) for part in parts["all"]]

    @task
    def total(part):
        return float(part.sum())

    @flow(task_runner=runner)
    def gathered():
        made = make.map([1, 2, 3])
        return totals({"all": list(made)}), total.map(made), made[1]

    together, each, array = gathered()
    assert together == each == [300_000.0, 600_000.0, 900_000.0]
    assert array[0] == 2


# -- Dask collections


def test_a_dask_array_passes_lazily(runner):
    da = pytest.importorskip("dask.array")

    @task
    def make():
        return da.ones(1000, chunks=100)

    @task
    def double(array):
        assert type(array).__module__.startswith("dask.array")
        return 2 * array

    @task
    def total(array):
        with get_dask_client():
            return float(array.sum().compute())

    @flow(task_runner=runner)
    def lazy():
        there = double(make())
        argument = double(da.ones(10, chunks=5))
        return total(there), total(argument), there

    one, other, collection = lazy()
    assert (one, other) == (2000.0, 20.0)
    assert type(collection).__module__.startswith("dask.array")
    assert float(collection.sum().compute(scheduler="synchronous")) == 2000.0


def test_a_dask_array_that_was_persisted(runner):
    da = pytest.importorskip("dask.array")

    @task
    def total(array):
        with get_dask_client():
            return float(array.sum().compute())

    @task
    def persisted():
        with get_dask_client() as client:
            array = client.persist(da.ones(1000, chunks=100))
            distributed.wait(array)
            return array

    @flow(task_runner=runner)
    def persisting():
        with get_dask_client() as client:
            array = client.persist(da.ones(1000, chunks=100))
            return total(array).result(), total(persisted()).result()

    assert persisting() == (1000.0, 1000.0)


def test_a_dask_dataframe_passes_lazily(runner):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")

    @task
    def evens(frame):
        assert type(frame).__module__.startswith("dask.dataframe")
        return frame[frame.number % 2 == 0]

    @task
    def total(frame):
        with get_dask_client():
            return int(frame.number.sum().compute())

    @flow(task_runner=runner)
    def lazy():
        frame = dd.from_pandas(pd.DataFrame({"number": range(10)}), npartitions=2)
        return total(evens(frame))

    assert lazy() == 20


def test_delayed_values_pass_lazily(runner):
    import dask

    @task
    def add_one(delayed):
        return delayed + 1

    @task
    def compute(delayed):
        with get_dask_client():
            return delayed.compute()

    @flow(task_runner=runner)
    def lazy():
        return compute(add_one(dask.delayed(sum)([1, 2, 3])))

    assert lazy() == 7


# -- Dask's own client

ONE_THREAD = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


def test_the_client_in_tasks_on_one_worker_with_one_thread():
    @task
    def squares(count):
        with get_dask_client() as client:
            return sum(client.gather(client.map(lambda x: x * x, range(count))))

    @task
    async def squares_async(count):
        with get_dask_client() as client:
            futures = client.map(lambda x: x * x, range(count), pure=False)
            return sum(await asyncio.to_thread(client.gather, futures))

    limited = squares.with_options(timeout_seconds=60)

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE_THREAD))
    def in_tasks():
        return [*squares.map([3, 4]), squares_async(5), limited(6), limited(7), squares(8)]

    assert in_tasks() == [sum(x * x for x in range(count)) for count in range(3, 9)]


def test_the_client_in_a_flow(runner):
    @flow(task_runner=runner)
    def in_flow():
        with get_dask_client() as client:
            return client.submit(sum, [1, 2]).result(LIMIT)

    assert in_flow() == 3


def test_the_client_in_an_async_flow(runner):
    @flow(task_runner=runner)
    async def in_flow():
        with get_dask_client() as client:
            future = client.submit(sum, [1, 2])
            return await asyncio.to_thread(future.result, 30)

    assert asyncio.run(in_flow()) == 3


def test_the_client_where_there_is_none():
    text = (
        "get_dask_client() was called where no Dask cluster is at hand. Call it inside a flow with "
        '`task_runner="dask"`, or inside one of its tasks.'
    )
    with pytest.raises(MissingContextError) as error, get_dask_client():
        pass
    assert str(error.value) == text

    @flow(task_runner="sequential")
    def elsewhere():
        with get_dask_client():
            pass

    with pytest.raises(MissingContextError) as error:
        elsewhere()
    assert str(error.value) == text


def test_the_client_does_not_outlive_its_block(runner):
    @flow(task_runner=runner)
    def in_flow():
        with get_dask_client() as client:
            assert distributed.get_client() is client
        with pytest.raises(ValueError, match="No global client"):
            distributed.get_client()
        return "done"

    assert in_flow() == "done"
