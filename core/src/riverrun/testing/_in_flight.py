"""`max_in_flight`: how many runs of one map the runner has at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun import Task, flow, unmapped
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._patience import NotAtOnce, expect, expect_async, limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from riverrun.abc import TaskRunner

HOLDS: dict[str, Task[..., Any]] = {"sync": _jobs.hold, "async": _jobs.hold_async}
SUMS: dict[str, Task[..., Any]] = {"sync": _jobs.add, "async": _jobs.add_async}

FREE = "a task that is called later finds a worker free: a map has no more of them than its max_in_flight"


@limited
class InFlight(Suite):
    """The core lets so many runs through; a runner runs what it is given, when it is given it, and says when it ends.

    One worker is kept free of the map: what has been let through beyond the window would get it before a task that is
    called later.
    """

    @pytest.mark.parametrize("kind", HOLDS)
    def test_the_runner_has_no_more_runs_of_a_map_than_max_in_flight_and_these_overlap(
        self, task_runner: TaskRunner, tmp_path: Path, kind: str
    ) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one task at a time")
        window, release, held = self.workers - 1, tmp_path / "release", tmp_path / "held"
        held.mkdir()
        files = [held / str(number) for number in range(3 * self.workers)]
        first = [file.name for file in files[:window]]

        @flow(task_runner=task_runner)
        def bounded() -> list[object]:
            futures = HOLDS[kind].with_options(max_in_flight=window).map(files, release)
            text = f"with max_in_flight={window}, so many runs start at once"
            expect(lambda: len(list(held.iterdir())) >= window, text, self.patience, else_make=release, error=NotAtOnce)
            looking = _jobs.look(held)
            expect(looking.done, FREE, self.patience, else_make=release, error=NotAtOnce)
            release.touch()
            assert looking.result() == first, f"with max_in_flight={window}, no more than these run"
            return futures.result()

        assert bounded() == ["released"] * len(files), "one that ends lets the next one through"

    @on_both_libraries
    def test_the_runner_has_no_more_runs_of_a_map_of_an_async_flow_than_max_in_flight_and_these_overlap(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one task at a time")
        window, release, held = self.workers - 1, tmp_path / "release", tmp_path / "held"
        held.mkdir()
        files = [held / str(number) for number in range(3 * self.workers)]
        first = [file.name for file in files[:window]]

        @flow(task_runner=task_runner)
        async def bounded() -> list[str]:
            futures = _jobs.hold_async.with_options(max_in_flight=window).map(files, release)
            text = f"with max_in_flight={window}, so many runs start at once"
            await expect_async(
                lambda: len(list(held.iterdir())) >= window, text, self.patience, else_make=release, error=NotAtOnce
            )
            looking = _jobs.look(held)
            await expect_async(looking.done, FREE, self.patience, else_make=release, error=NotAtOnce)
            release.touch()
            assert looking.result() == first, f"with max_in_flight={window}, no more than these run"
            return await futures

        assert run_on(library, bounded) == ["released"] * len(files), "one that ends lets the next one through"

    @pytest.mark.parametrize("kind", SUMS)
    def test_a_map_with_max_in_flight_reads_a_generator_no_further_than_it_needs(
        self, task_runner: TaskRunner, kind: str
    ) -> None:
        window = 3
        read: list[int] = []

        def numbers() -> Iterator[int]:
            for number in range(30):
                read.append(number)
                yield number

        @flow(task_runner=task_runner)
        def reading() -> tuple[list[int], list[object]]:
            futures = SUMS[kind].with_options(max_in_flight=window).map(numbers(), 1)
            ahead, results = [len(read)], []
            for taken, future in enumerate(futures, 1):
                ahead.append(len(read) - taken)
                results.append(future.result())
            return ahead, results

        ahead, results = reading()
        assert results == list(range(1, 31)), "all that the generator gives is run, in order"
        assert max(ahead) <= window, f"with max_in_flight={window}, it is read so far ahead of what was taken"

    @pytest.mark.parametrize("kind", SUMS)
    def test_a_long_map_with_max_in_flight_completes(self, task_runner: TaskRunner, kind: str) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> list[list[object]]:
            add = SUMS[kind].with_options(max_in_flight=2)
            return [add.map(range(60), 1).result(), add.map(iter(range(60)), 1).result()]

        assert mapped() == [list(range(1, 61))] * 2, "every run that ends lets the next one through"

    @pytest.mark.parametrize("kind", SUMS)
    def test_a_run_of_a_map_with_max_in_flight_that_fails_lets_the_next_one_through(
        self, task_runner: TaskRunner, kind: str
    ) -> None:
        @flow(task_runner=task_runner)
        def mapped() -> list[str]:
            futures = SUMS[kind].with_options(max_in_flight=1).map([0, "one", "two", 3, "four", 5], 1)
            futures.wait()
            return [future.state.name for future in futures]

        assert mapped() == ["Completed", "Failed", "Failed", "Completed", "Failed", "Completed"]

    def test_a_run_of_a_map_with_max_in_flight_that_is_cancelled_lets_the_next_one_through(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner):
            leave_out("in a sync flow of a sequential runner nothing waits")
        release, held, marks = tmp_path / "release", tmp_path / "held", tmp_path / "marks"
        held.mkdir()
        marks.mkdir()
        names = [f"run {number}" for number in range(8)]

        @flow(task_runner=task_runner)
        def changing_its_mind() -> tuple[list[bool], list[str]]:
            for number in range(2 * self.workers):  # so that the first runs of the map wait for a worker
                _jobs.hold(held / str(number), release)
            futures = _jobs.leave_a_mark.with_options(max_in_flight=2).map(unmapped(marks), names)
            # Two that the runner has, and two that wait to be let through.
            cancelled = [number in (0, 1, 4, 5) and futures[number].cancel() for number in range(len(names))]
            release.touch()
            futures.wait()
            return cancelled, [future.state.name for future in futures]

        cancelled, states = changing_its_mind()
        assert states == ["Cancelled" if was else "Completed" for was in cancelled], "one that is cancelled ends there"
        ran = sorted(mark.name.partition("-")[0] for mark in marks.iterdir())
        assert ran == [name for name, was in zip(names, cancelled, strict=True) if not was], "... and the others run"
