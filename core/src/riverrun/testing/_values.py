"""Values and failures: what tasks give to each other, and to their flow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from riverrun import NotReadyError, allow_failure, flow, unmapped
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite, is_sequential

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from riverrun import State
    from riverrun.abc import TaskRunner


SIZES = {"small": 0, "large": 2_000_000}
"""Of an argument, in bytes: a small one is part of the call, a large one may go to the workers by itself."""
KINDS = ("number", "none", "false", "text", "large", "nested")


@dataclass(frozen=True)
class Pair:
    """Something of the user's that holds futures."""

    left: Any
    right: Any


@limited
class Values(Suite):
    """What a flow means does not depend on its runner."""

    @pytest.mark.parametrize("value", [3, None, False, "text", b"\0" * 100_000, {"nested": [1, (2, 3)]}], ids=KINDS)
    def test_a_task_gives_its_value(self, task_runner: TaskRunner, value: object) -> None:
        @flow(task_runner=task_runner)
        def one() -> object:
            return _jobs.same(value).result()

        assert one() == value, "the value of a task arrives as it was"

    def test_a_task_that_raises_fails_with_that_exception(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def failing() -> None:
            future = _jobs.fail("no disk")
            with pytest.raises(ValueError, match="no disk"):
                future.result()
            assert future.state.is_failed(), "a task that raised is Failed"

        with pytest.raises(ValueError, match="no disk"):
            failing()

    def test_values_go_from_task_to_task(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def chain() -> object:
            future = _jobs.add(0, 0)
            for number in range(10):
                future = _jobs.add(future, number)
            return future

        assert chain() == 45, "a future as an argument is replaced by its value"

    def test_a_failure_goes_through_a_chain_and_nothing_behind_it_runs(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        states: list[State] = []
        file = tmp_path / "ran"

        @flow(task_runner=task_runner)
        def chain() -> None:
            second = _jobs.add(_jobs.fail("no disk"), 1)
            third = _jobs.note(file, second)
            third.wait()
            states.extend([second.state, third.state])
            with pytest.raises(NotReadyError) as caught:
                third.result()
            assert isinstance(caught.value.__cause__, ValueError), "the root failure is the cause"

        with pytest.raises(ValueError, match="no disk"):
            chain()
        assert [state.name for state in states] == ["NotReady", "NotReady"], "what depends on a failed run is not ready"
        assert not file.exists(), "a task whose upstream failed never runs"

    @pytest.mark.parametrize("size", SIZES)
    def test_a_task_whose_upstream_fails_while_it_is_being_sent_never_runs(
        self, task_runner: TaskRunner, tmp_path: Path, size: str
    ) -> None:
        release, file = tmp_path / "release", tmp_path / "ran"
        if is_sequential(task_runner):
            release.touch()  # where the upstream has ended before its dependent is called
        failed = threading.Event()

        def fail_meanwhile() -> None:
            release.touch()
            failed.wait(self.patience)

        @flow(task_runner=task_runner)
        def chain() -> None:
            upstream = _jobs.fail_when_released(release)
            upstream.add_done_callback(lambda _: failed.set())
            dependent = _jobs.note_arguments(file, _jobs.SlowToPickle(SIZES[size], fail_meanwhile), upstream)
            release.touch()  # where arguments are not pickled, or later
            with pytest.raises(NotReadyError, match="no disk"):
                dependent.result()
            ended.append((dependent.state.name, dependent.task_run.run_count))

        ended: list[tuple[str, int]] = []
        with pytest.raises(ValueError, match="no disk"):
            chain()
        assert ended == [("NotReady", 0)], "what depends on a failed run is not ready, also if it is on its way"
        ran = file.read_text() if file.exists() else None
        assert ran is None, f"a task whose upstream failed never runs; this one got {ran}"

    def test_allow_failure_hands_the_exception_to_the_task(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def forgiving() -> object:
            return _jobs.same(allow_failure(_jobs.fail("no disk"))).result()

        error = forgiving()
        assert isinstance(error, ValueError), "with allow_failure() a task gets the exception itself"
        assert str(error) == "no disk"

    def test_wait_for_holds_a_task_back_until_others_have_ended(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        file = tmp_path / "order"

        @flow(task_runner=task_runner)
        def ordered() -> None:
            earlier = [_jobs.note(file, "first"), _jobs.note_async(file, "first")]
            last = _jobs.note(file, "second", wait_for=earlier)
            _jobs.note(file, "third", wait_for=[last])

        ordered()
        assert file.read_text().split() == ["first", "first", "second", "third"], "wait_for= is an order"

    def test_wait_for_a_failed_run_means_not_ready(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def ordered() -> str:
            future = _jobs.add(1, 2, wait_for=[_jobs.fail()])
            state = future.wait()
            assert state is not None
            return state.name

        assert ordered() == "NotReady", "a task that waits for a failed one never runs"

    def test_futures_are_found_in_nested_data(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def nested() -> object:
            one, two = _jobs.add(0, 1), _jobs.add(1, 1)
            return _jobs.same([(one, [two]), {"key": one}, {two}, Pair(one, {"deep": two})])

        assert nested() == [(1, [2]), {"key": 1}, {2}, Pair(1, {"deep": 2})], "futures inside data become values"

    def test_a_map_gives_its_values_in_order(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> object:
            return _jobs.add.map(range(20), unmapped(1)).result()

        assert mapped() == list(range(1, 21)), "the results of a map stand in the order of its elements"

    def test_a_map_over_a_map_goes_element_by_element(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> object:
            squares = _jobs.add.map([1, 2, 3], [1, 2, 3])
            return _jobs.total(_jobs.add.map(squares, 1))

        assert mapped() == 15, "a map over a map uses the elements of the first"

    def test_a_map_reads_a_generator(self, task_runner: TaskRunner) -> None:
        def numbers() -> Iterator[int]:
            yield from range(150)

        @flow(task_runner=task_runner)
        def mapped() -> object:
            return _jobs.add.map(numbers(), 1).result()

        assert mapped() == list(range(1, 151)), "a map over a generator reads all of it"

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_a_map_is_a_list_for_a_task_that_takes_it(self, task_runner: TaskRunner, size: int) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> tuple[object, ...]:
            futures = _jobs.add.map(range(size), 1)
            nested = _jobs.same([{"a map": futures}, (futures,), Pair(futures, {"deep": [futures]})])
            return _jobs.type_name(futures).result(), _jobs.same(futures).result(), nested.result()

        values = list(range(1, size + 1))
        kind, plain, nested = mapped()
        assert (kind, plain) == ("list", values), "a task that takes a map gets a list of its values"
        assert nested == [{"a map": values}, (values,), Pair(values, {"deep": [values]})], "... also inside of data"

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_a_map_is_a_list_for_who_calls_a_flow_that_returns_it(self, task_runner: TaskRunner, size: int) -> None:
        @flow(task_runner=task_runner)
        def plain() -> object:
            return _jobs.add.map(range(size), 1)

        @flow(task_runner=task_runner)
        def nested() -> object:
            futures = _jobs.add.map(range(size), 1)
            return [{"a map": futures}, (futures,), Pair(futures, {"deep": [futures]})]

        values = list(range(1, size + 1))
        given = plain()
        assert (type(given), given) == (list, values), "a flow that returns a map gives a list of its values"
        assert plain(return_state=True).result() == values, "... also in its state"
        assert nested() == [{"a map": values}, (values,), Pair(values, {"deep": [values]})], "... also inside of data"

    def test_one_failure_in_a_map_leaves_its_neighbours_alone(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> tuple[list[str], int]:
            futures = _jobs.add.map([1, "two", 3], 1)
            futures.wait()
            return [future.state.name for future in futures], futures[2].result()

        assert mapped() == (["Completed", "Failed", "Completed"], 4), "a task that fails fails alone"

    def test_a_flow_waits_for_futures_that_nobody_kept(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        @flow(task_runner=task_runner)
        def careless() -> None:
            for number in range(20):
                _jobs.leave_a_mark(tmp_path, str(number))

        careless()
        assert len(list(tmp_path.iterdir())) == 20, "at the end of a flow all that was submitted in it has ended"

    def test_a_flow_fails_if_a_future_that_nobody_kept_failed(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def careless() -> None:
            _jobs.add(1, 2)
            _jobs.fail("nobody looks")
            _jobs.add(3, 4)

        state = careless(return_state=True)
        assert repr(state) == "Failed(message='1/3 states failed.', type=FAILED)"

    def test_a_subflow_runs_on_the_same_runner_object(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def inner(number: int) -> object:
            return _jobs.add(number, 1)

        @flow(task_runner=task_runner)
        def outer() -> object:
            return _jobs.add(inner(1), inner(_jobs.add(1, 1)))

        assert outer() == 5, "a subflow gives its value to the flow around it"
