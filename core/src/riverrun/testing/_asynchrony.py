"""Async tasks and async flows, under asyncio and under trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest

from riverrun import Flow, NotReadyError, as_completed, flow, gather
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._patience import DID_NOT_START, expect_all_met, expect_async, limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner

R = TypeVar("R")

on_both_libraries = pytest.mark.parametrize("library", ["asyncio", "trio"])


def run_on(library: str, function: Flow[[], Any]) -> Any:
    """Run an async flow under asyncio or under trio; skip if trio is not installed."""
    if library == "trio":
        pytest.importorskip("trio")
    return anyio.run(function, backend=library)


@limited
class Asynchrony(Suite):
    """Sync and async functions mix, on every runner."""

    def test_async_tasks_run_in_a_sync_flow(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def mixed() -> object:
            return _jobs.add(_jobs.add_async(1, 2), _jobs.add_async(_jobs.add(3, 4), 5)).result()

        assert mixed() == 15

    @on_both_libraries
    def test_sync_and_async_tasks_run_in_an_async_flow(self, task_runner: TaskRunner, library: str) -> None:
        @flow(task_runner=task_runner)
        async def mixed() -> object:
            return await _jobs.add(_jobs.add_async(1, 2), _jobs.add_async(_jobs.add(3, 4), 5))

        assert run_on(library, mixed) == 15

    @on_both_libraries
    def test_an_async_flow_gathers_many_tasks(self, task_runner: TaskRunner, library: str) -> None:
        @flow(task_runner=task_runner)
        async def many() -> object:
            sync = [_jobs.add(number, 1) for number in range(50)]
            return await gather([sync, _jobs.add_async.map(range(50), 1)])

        assert run_on(library, many) == [list(range(1, 51))] * 2

    @on_both_libraries
    def test_an_async_flow_takes_futures_as_they_complete(self, task_runner: TaskRunner, library: str) -> None:
        @flow(task_runner=task_runner)
        async def many() -> list[int]:
            futures = [(_jobs.add if number % 2 else _jobs.add_async)(number, 1) for number in range(20)]
            return sorted([future.result() async for future in as_completed(futures)])

        assert run_on(library, many) == list(range(1, 21))

    @on_both_libraries
    def test_a_failure_in_an_async_flow_is_the_tasks_own_exception(self, task_runner: TaskRunner, library: str) -> None:
        @flow(task_runner=task_runner)
        async def failing() -> None:
            dependent = _jobs.add(_jobs.fail_async("no disk"), 1)
            with pytest.raises(NotReadyError):
                await dependent
            with pytest.raises(ValueError, match="no lamp"):
                await _jobs.fail("no lamp")

        with pytest.raises(ValueError, match="no disk"):
            run_on(library, failing)

    @on_both_libraries
    def test_an_async_flow_waits_for_futures_that_nobody_kept(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "notes"

        @flow(task_runner=task_runner)
        async def careless() -> None:
            for _ in range(10):
                _jobs.note(file, "sync")
                _jobs.note_async(file, "async")

        run_on(library, careless)
        assert sorted(file.read_text().split()) == ["async"] * 10 + ["sync"] * 10

    @on_both_libraries
    def test_an_async_flow_fails_if_a_future_that_nobody_kept_failed(
        self, task_runner: TaskRunner, library: str
    ) -> None:
        @flow(task_runner=task_runner)
        async def careless() -> None:
            _jobs.fail_async("nobody looks")

        with pytest.raises(ValueError, match="nobody looks"):
            run_on(library, careless)

    @on_both_libraries
    def test_async_tasks_of_an_async_flow_overlap(self, task_runner: TaskRunner, library: str, tmp_path: Path) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one task at a time")

        @flow(task_runner=task_runner)
        async def meeting() -> object:
            names = [str(number) for number in range(self.workers)]
            return [_jobs.meet_async(tmp_path, name, self.workers, self.patience) for name in names]

        expect_all_met(run_on(library, meeting), f"{self.workers} async tasks run at the same time")

    @on_both_libraries
    def test_a_sequential_async_flow_keeps_the_order_of_the_calls(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        if not is_sequential(task_runner):
            leave_out("it is not sequential")
        file = tmp_path / "order"

        @flow(task_runner=task_runner)
        async def counting() -> None:
            for number in range(20):
                (_jobs.note_async if number % 3 else _jobs.note)(file, str(number))

        run_on(library, counting)
        assert file.read_text().split() == [str(number) for number in range(20)], (
            "sequential: in the order of the calls"
        )

    @on_both_libraries
    def test_an_async_flow_goes_on_while_a_task_runs(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner):
            leave_out("a sync task of a sequential runner has the flow's own thread")
        started, release = tmp_path / "started", tmp_path / "release"

        @flow(task_runner=task_runner)
        async def busy() -> object:
            future = _jobs.hold(started, release)
            await expect_async(started.exists, DID_NOT_START, self.patience, else_make=release)
            release.touch()
            return await future

        assert run_on(library, busy) == "released", "a sync task does not block the loop of an async flow"
