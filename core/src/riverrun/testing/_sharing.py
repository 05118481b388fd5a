"""One runner object, several flow runs at once."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

import anyio

from riverrun import _conformance_jobs as _jobs
from riverrun import flow
from riverrun.testing._asynchrony import on_both_libraries
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.abc import TaskRunner

T = TypeVar("T")

RUNS = 3


def _beside(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread that does not keep Python from ending, as one of a pool does, if it hangs."""
    future: Future[T] = Future()

    def body() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=body, name="riverrun-test-beside", daemon=True).start()
    return future


@limited
class Sharing(Suite):
    """What a runner starts belongs to one flow run."""

    def test_several_threads_run_flows_with_one_runner_object(self, task_runner: TaskRunner) -> None:
        all_are_here = threading.Barrier(RUNS)

        @flow(task_runner=task_runner)
        def counting(start: int) -> list[object]:
            all_are_here.wait()  # so that all the flow runs are under way at once
            futures = [_jobs.add(start, number) for number in range(20)]
            all_are_here.wait()
            return [future.result() for future in futures]

        beside = [_beside(functools.partial(counting, 1000 * run)) for run in range(RUNS)]
        results = [future.result() for future in beside]
        assert results == [[1000 * run + number for number in range(20)] for run in range(RUNS)], "each has its own"

    def test_a_flow_run_that_ends_stops_no_other_with_the_same_runner_object(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def short() -> object:
            return _jobs.add(1, 2)

        @flow(task_runner=task_runner)
        def long() -> list[object]:
            first = _jobs.add(3, 4).result()
            other = _beside(short).result()
            return [first, other, _jobs.add(5, 6).result(), _jobs.add_async(7, 8).result()]

        assert long() == [7, 3, 11, 15], "stopping one executor leaves the others of the same runner alone"

    @on_both_libraries
    def test_several_async_flow_runs_share_one_loop_and_one_runner_object(
        self, task_runner: TaskRunner, library: str
    ) -> None:
        results: dict[int, list[object]] = {}

        @flow(task_runner=task_runner)
        async def counting(start: int) -> list[object]:
            futures = [(_jobs.add if number % 2 else _jobs.add_async)(start, number) for number in range(20)]
            return [await future for future in futures]

        async def run(start: int) -> None:
            results[start] = await counting(start)

        async def run_all() -> None:
            async with anyio.create_task_group() as group:
                for number in range(RUNS):
                    group.start_soon(run, 1000 * number)

        if library == "trio":
            import pytest

            pytest.importorskip("trio")
        anyio.run(run_all, backend=library)
        assert results == {1000 * run: [1000 * run + number for number in range(20)] for run in range(RUNS)}

    def test_a_subflow_beside_its_flow_uses_the_same_runner_object(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def inner(start: int) -> list[object]:
            return [_jobs.add(start, number).result() for number in range(5)]

        @flow(task_runner=task_runner)
        def outer() -> list[object]:
            beside = [inner.submit(1000 * run) for run in range(RUNS)]
            return [future.result() for future in beside]

        assert outer() == [[1000 * run + number for number in range(5)] for run in range(RUNS)]
