from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from riverrun import (
    MappingLengthMismatch,
    MappingMissingIterable,
    TaskFuture,
    TaskFutureList,
    allow_failure,
    flow,
    task,
    unmapped,
)
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: Any, b: Any = 10) -> Any:
    return a + b


@task
def give(*args: Any, **kwargs: Any) -> Any:
    return (*args, kwargs) if kwargs else args


@task
def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


# -- what is mapped over, and what is repeated


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: add.map([1, 2, 3]), [11, 12, 13]),
        (lambda: add.map((1, 2)), [11, 12]),
        (lambda: add.map(range(3)), [10, 11, 12]),
        (lambda: add.map({5}), [15]),
        (lambda: add.map({1: "a", 2: "b"}.keys()), [11, 12]),
        (lambda: add.map(iter([1, 2])), [11, 12]),
        (lambda: add.map(n * n for n in range(3)), [10, 11, 14]),
        (lambda: add.map([1, 2], [3, 4]), [4, 6]),
        (lambda: add.map(a=[1, 2], b=[3, 4]), [4, 6]),
        (lambda: add.map([1, 2], b=5), [6, 7]),
        (lambda: add.map(5, [1, 2]), [6, 7]),
        (lambda: add.map(["a", "b"], "xy"), ["axy", "bxy"]),
        (lambda: give.map([1, 2], b"xy"), [(1, b"xy"), (2, b"xy")]),
        (lambda: give.map([1, 2], {"a": 1}), [(1, {"a": 1}), (2, {"a": 1})]),
        (lambda: give.map([1], None, 5, 1.5, True), [(1, None, 5, 1.5, True)]),
        (lambda: add.map([[1], [2]], unmapped([3, 4])), [[1, 3, 4], [2, 3, 4]]),
        (lambda: give.map([1, 2], x=[3, 4], y=unmapped([5])), [(1, {"x": 3, "y": [5]}), (2, {"x": 4, "y": [5]})]),
        (lambda: add.map([]), []),
        (lambda: add.map([], []), []),
        (lambda: add.map(n for n in ()), []),
        (lambda: add.map([1, 2], itertools.count()), [1, 3]),
    ],
)
def test_iterables_are_mapped_and_the_rest_is_repeated(task_runner, make, expected):
    @flow(task_runner=task_runner)
    def my_flow():
        return make().result()

    assert my_flow() == expected


def test_a_default_is_never_mapped(task_runner):
    @task
    def with_default(a, b=(1, 2, 3)):
        return a, b

    @flow(task_runner=task_runner)
    def my_flow():
        return with_default.map([1, 2])

    assert my_flow() == [(1, (1, 2, 3)), (2, (1, 2, 3))]


def test_data_frames_are_repeated_and_arrays_are_mapped(task_runner):
    class Table:
        def __dataframe__(self):
            raise AssertionError("somebody converted it")

        def __iter__(self):
            raise AssertionError("somebody walked it")

    class Vector:
        ndim = 1

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return [7, 8][index]

        def __iter__(self):
            return iter([7, 8])

    class Scalar(Vector):
        ndim = 0

    table, scalar = Table(), Scalar()

    @flow(task_runner=task_runner)
    def my_flow():
        return give.map(Vector(), table, scalar).result()

    assert my_flow() == [(7, table, scalar), (8, table, scalar)]


def test_files_are_repeated(task_runner, tmp_path):
    (tmp_path / "file").write_text("a\nb\n")

    @flow(task_runner=task_runner)
    def my_flow():
        with (tmp_path / "file").open() as file:
            return give.map([1], file).result()[0][1] is file

    assert my_flow()


# -- what is refused


def test_different_lengths_are_an_error_with_the_lengths_by_name(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(MappingLengthMismatch) as caught:
            add.map([1, 2, 3], b=[1, 2])
        assert str(caught.value) == (
            "add.map() got iterables of different lengths (a: 3, b: 2). Wrap what is not to be mapped over in "
            "unmapped(...)."
        )
        with pytest.raises(MappingLengthMismatch, match=r"\(argument 1: 1, argument 2: 0, more: 2\)"):
            give.map([1], [], more=[1, 2])
        return isinstance(caught.value, ValueError)

    assert my_flow()


def test_nothing_is_submitted_when_lengths_differ(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(MappingLengthMismatch):
            give.map([1, 2], [1])

    assert repr(my_flow(return_state=True)) == "Completed(message='All states completed.', type=COMPLETED)"


def test_generators_of_different_lengths_are_told_when_one_ends(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(MappingLengthMismatch) as caught:
            add.map((n for n in range(3)), (n for n in range(2))).result()
        assert str(caught.value) == (
            "add.map() got iterables of different lengths (one of a, b ended after 2 elements, and another did not). "
            "Wrap what is not to be mapped over in unmapped(...)."
        )
        return 1

    assert my_flow() == 1


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (lambda: add.map(5, b="text"), "a: int, b: str"),
        (add.map, "no arguments"),
        (lambda: add.map(unmapped([1, 2])), "a: unmapped"),
        (lambda: add.map({"a": 1}), "a: dict"),
    ],
)
def test_nothing_to_map_over_is_an_error(task_runner, call, given):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(MappingMissingIterable) as caught:
            call()
        assert str(caught.value) == (
            f"add.map() needs at least one iterable to map over, and got {given}. To call it once, write add(...)."
        )
        return isinstance(caught.value, ValueError)

    assert my_flow()


def test_arguments_that_do_not_fit_are_told_at_the_call(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(TypeError, match="^Task 'add' was called with arguments that do not fit: 'c' is not a"):
            add.map([1], c=1)
        return 1

    assert my_flow() == 1


# -- the list


def test_the_list_is_a_sequence(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        futures = add.map([1, 2, 3])
        assert isinstance(futures, TaskFutureList)
        assert repr(futures) == "<TaskFutureList of 3 futures>"
        assert len(futures) == 3
        assert bool(futures)
        assert all(isinstance(future, TaskFuture) for future in futures)
        assert futures[0].result() == 11
        assert futures[-1].result() == 13
        assert isinstance(futures[1:], TaskFutureList)
        assert futures[1:].result() == [12, 13]
        assert futures[::-1].result() == [13, 12, 11]
        assert futures.index(futures[1]) == 1
        assert futures[1] in futures
        assert [future.result() for future in reversed(futures)] == [13, 12, 11]
        with pytest.raises(IndexError):
            futures[3]
        done, not_done = futures.wait()
        assert (done, not_done) == (list(futures), [])
        assert futures.wait(timeout=10).done == list(futures)
        return futures.result(timeout=10)

    assert my_flow() == [11, 12, 13]


def test_the_result_raises_the_first_failure_or_shows_all(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        futures = odd.map([1, 2, 3, 4])
        with pytest.raises(ValueError, match="^2 is even$"):
            futures.result()
        with pytest.raises(ValueError, match="^2 is even$"):
            futures.result(timeout=10)
        return [str(value) for value in futures.result(raise_on_failure=False)]

    assert my_flow() == ["1", "2 is even", "3", "4 is even"]


def test_the_time_of_a_result_is_over_for_all_together():
    gate = threading.Event()

    @task
    def until(n):
        assert gate.wait(10)

    @flow(task_runner="concurrent")
    def my_flow():
        futures = until.map([1, 2])
        with pytest.raises(TimeoutError):
            futures.result(timeout=0.01)
        assert [len(part) for part in futures.wait(timeout=0.01)] == [0, 2]
        gate.set()

    my_flow()


def test_names_have_an_index(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return [future.name.rpartition("-")[2] for future in add.map([1, 2, 3])]

    assert my_flow() == ["0", "1", "2"]


# -- futures


def test_a_map_over_the_futures_of_a_map(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.map(add.map([1, 2]), add.map([3, 4]))

    assert my_flow() == [24, 26]


def test_a_map_over_a_map_pipelines_element_by_element():
    gate = threading.Event()

    @task
    def first(n):
        assert n == 0 or gate.wait(10)
        return n

    @flow(task_runner=ConcurrentTaskRunner(max_workers=4))
    def my_flow():
        seconds = add.map(first.map([0, 1, 2]))
        assert seconds[0].result() == 10  # while the other two of the first map are still running
        assert not seconds[1].done()
        gate.set()
        return seconds.result()

    assert my_flow() == [10, 11, 12]


def test_a_failed_element_fails_its_own_line_only(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return [future.wait().name for future in add.map(odd.map([1, 2, 3]))]

    assert my_flow() == ["Completed", "NotReady", "Completed"]


def test_allow_failure_applies_to_each_element(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return give.map(allow_failure(odd.map([1, 2]))).result()

    (one,), (error,) = my_flow()
    assert (one, str(error)) == (1, "2 is even")


def test_a_list_of_futures_is_mapped_over(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.map([add(1), add(2), 3], b=add(1))

    assert my_flow() == [22, 23, 14]


def test_a_future_whose_value_is_a_list_is_waited_for_and_mapped_over(task_runner):
    @task
    def numbers():
        return [1, 2, 3]

    @flow(task_runner=task_runner)
    def my_flow():
        return add.map(numbers()), add.map([1, 2, 3], numbers())

    assert my_flow() == ([11, 12, 13], [2, 4, 6])


def test_a_future_whose_value_is_no_iterable_is_repeated(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.map([1, 2], add(1))

    assert my_flow() == [12, 13]


def test_an_unmapped_future_of_a_list_is_repeated(task_runner):
    @task
    def numbers():
        return [1, 2, 3]

    @flow(task_runner=task_runner)
    def my_flow():
        return give.map([1, 2], unmapped(numbers()))

    assert my_flow() == [(1, [1, 2, 3]), (2, [1, 2, 3])]


def test_a_state_whose_value_is_a_list_is_mapped_over(task_runner):
    @task
    def numbers():
        return [1, 2, 3]

    @flow(task_runner=task_runner)
    def my_flow():
        return add.map(numbers(return_state=True))

    assert my_flow() == [11, 12, 13]


def test_a_map_over_a_future_that_failed_says_that(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        failing = odd(2)
        failing.wait()
        with pytest.raises((ValueError, MappingMissingIterable), match="2 is even"):
            add.map(failing).result()
        return 1

    assert my_flow() == 1


def test_wait_for_applies_to_each_element(task_runner):
    order = []

    @task
    def first():
        order.append("first")

    @task
    def second(n):
        order.append(n)

    @flow(task_runner=task_runner)
    def my_flow():
        second.map([1, 2], wait_for=[first()])
        return [future.wait().name for future in add.map([1, 2], wait_for=[odd(2)])]

    assert my_flow() == ["NotReady", "NotReady"]
    assert order[0] == "first"
    assert sorted(order[1:]) == [1, 2]


def test_wait_for_may_be_a_generator(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        failing = odd(2)
        return [future.wait().name for future in add.map([1, 2], wait_for=(upstream for upstream in [failing]))]

    assert my_flow() == ["NotReady", "NotReady"]


# -- generators


def test_a_generator_is_read_some_way_ahead_and_no_further():
    read = []

    def numbers():
        for n in range(1_000):
            read.append(n)
            yield n

    @flow(task_runner="concurrent")
    def my_flow():
        futures = add.map(numbers())
        assert repr(futures).endswith("futures so far, more to come>")
        ahead = len(read)
        assert 1 <= ahead <= 100
        assert futures[0].result() == 10
        iterator = iter(futures)
        for _ in range(100):
            next(iterator).result()
        assert ahead < len(read) <= 100 + 2 * ahead
        assert futures[500].result() == 510
        assert len(read) < 1_000
        assert len(futures) == 1_000
        return sum(futures.result())

    assert my_flow() == sum(range(1_000)) + 10_000


def test_max_in_flight_bounds_how_far_a_generator_is_read():
    read = []

    def numbers():
        for n in range(100):
            read.append(n)
            yield n

    @flow(task_runner="concurrent")
    def my_flow():
        futures = add.with_options(max_in_flight=3).map(numbers())
        assert len(read) <= 4
        return len([future.result() for future in futures])

    assert my_flow() == 100


def test_a_generator_that_nobody_reads_is_read_to_its_end_by_the_end_of_the_flow(task_runner):
    done = []

    @task
    def note(n):
        done.append(n)

    @flow(task_runner=task_runner)
    def my_flow():
        note.map(n for n in range(200))

    assert my_flow() is None
    assert sorted(done) == list(range(200))


def test_a_flow_that_raised_reads_no_generator_any_further():
    read = []

    def numbers():
        for n in range(2_000):
            read.append(n)
            yield n

    @flow(task_runner="sequential")
    def my_flow():
        first = [future.result() for future in itertools.islice(add.map(numbers()), 100)]
        raise ValueError(str(sum(first)))

    with pytest.raises(ValueError, match="^5950"):
        my_flow()
    assert len(read) < 500


def test_a_generator_that_raises_raises_where_it_is_read(task_runner):
    def numbers():
        yield 1
        raise OSError("the disk")

    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(OSError, match="^the disk$"):
            add.map(numbers()).result()
        return 1

    assert my_flow() == 1


def test_a_generator_that_raises_at_the_end_of_the_flow_fails_the_flow(task_runner):
    def numbers():
        yield from range(100)
        raise OSError("the disk")

    @flow(task_runner=task_runner)
    def my_flow():
        add.map(numbers())
        return 5

    state = my_flow(return_state=True)
    assert repr(state) == "Failed(message='Flow run encountered an exception: OSError: the disk', type=FAILED)"


def test_a_generator_in_an_async_flow(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        futures = add.map(n for n in range(200))
        seen = [await future async for future in futures]
        return seen == await add.map(n for n in range(200))

    assert run_async(my_flow)


# -- max_in_flight, batch_size


def test_max_in_flight_bounds_what_runs_at_once():
    lock, now, most = threading.Lock(), [0], [0]
    barrier = threading.Barrier(3)

    @task(max_in_flight=3)
    def working(n):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait(10)
        with lock:
            now[0] -= 1
        barrier.wait(10)
        return n

    @flow(task_runner=ConcurrentTaskRunner(max_workers=8))
    def my_flow():
        return working.map(range(12))

    assert my_flow() == list(range(12))
    assert most == [3]


def test_max_in_flight_goes_on_after_failures_and_cancellations(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        futures = odd.with_options(max_in_flight=1).map(range(20))
        futures[19].cancel()
        return len(futures.wait().done)

    state = my_flow(return_state=True)
    assert state.result() == 20


def test_max_in_flight_bounds_async_tasks(run_async):
    import anyio

    now, most = [0], [0]

    @task(max_in_flight=3)
    async def working(n):
        now[0] += 1
        most[0] = max(most[0], now[0])
        await anyio.sleep(0.001)
        now[0] -= 1
        return n

    @flow(task_runner="concurrent")
    async def my_flow():
        return await working.map(range(12))

    assert run_async(my_flow) == list(range(12))
    assert most == [3]


def test_batch_size_changes_nothing_here(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.with_options(batch_size="auto").map([1, 2]), add.with_options(batch_size=1).map([1, 2])

    assert my_flow() == ([11, 12], [11, 12])


# -- async


def test_a_map_is_awaited_in_an_async_flow(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        futures = add.map([1, 2])
        assert await futures == [11, 12]
        assert [await future for future in futures] == [11, 12]
        assert [await future async for future in futures] == [11, 12]
        with pytest.raises(ValueError, match="^2 is even$"):
            await odd.map([1, 2])
        assert await futures[1:] == [12]
        return futures

    assert run_async(my_flow) == [11, 12]


def test_async_tasks_are_mapped(run_async, task_runner):
    @task
    async def later(n):
        return n + 1

    @flow(task_runner=task_runner)
    async def my_flow():
        return await later.map(range(5))

    @flow(task_runner=task_runner)
    def sync_flow():
        return later.map(range(5)).result()

    assert run_async(my_flow) == sync_flow() == [1, 2, 3, 4, 5]


def test_a_map_in_a_task_runs_in_place(task_runner):
    @task
    def outer(n):
        return add.map([n, n + 1]).result()

    @flow(task_runner=task_runner)
    def my_flow():
        return outer.map([1, 2])

    assert my_flow() == [[11, 12], [12, 13]]
