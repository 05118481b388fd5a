"""What a task tells to the outside, and what it sees of it: log records, prints, context variables."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel
import pytest

from riverrun import _conformance_jobs as _jobs
from riverrun import flow, task
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite, crosses_processes, leave_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskRunner


class Collector(logging.Handler):
    """Keeps the records it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, text: str) -> logging.LogRecord:
        """Give the one record that has a text in it."""
        found = [record for record in self.records if text in record.getMessage()]
        assert len(found) == 1, f"one record with {text!r} comes out in the process of the flow, not {len(found)}"
        return found[0]

    def texts_of(self, error: type[BaseException]) -> list[str]:
        """Give the texts of the exceptions of a class that were logged."""
        logged = [record.exc_info[1] for record in self.records if record.exc_info]
        return sorted([str(raised) for raised in logged if isinstance(raised, error)])


@contextmanager
def collected() -> Iterator[Collector]:
    """Collect what comes out below `riverrun` in this process, from level DEBUG on."""
    logger, collector = logging.getLogger("riverrun"), Collector()
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    try:
        yield collector
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)


@limited
class Observation(Suite):
    """Logs and prints reach the process of the flow; the context of a call reaches the task."""

    @pytest.mark.parametrize("end", ["completes", "fails"])
    def test_log_records_reach_the_process_of_the_flow_from_a_task_that(
        self, task_runner: TaskRunner, end: str
    ) -> None:
        names: list[str] = []

        @flow(task_runner=task_runner, name="logging-flow")
        def logging_flow() -> None:
            future = (_jobs.log if end == "completes" else _jobs.log_and_fail)("low on paper")
            future.wait()
            names.append(future.name)

        with collected() as collector:
            logging_flow(return_state=True)
        record = collector.of("low on paper")
        assert record.levelname == "WARNING", "a record keeps its level"
        assert record.task_run_name == names[0], "a record is tagged with the name of its task run"  # type: ignore[attr-defined]
        assert record.flow_name == "logging-flow", "a record is tagged with the name of its flow"  # type: ignore[attr-defined]

    def test_prints_of_a_task_with_log_prints_come_out_as_log_records(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def talking() -> str:
            future = _jobs.say.with_options(log_prints=True)("out of paper")
            future.wait()
            return future.name

        with collected() as collector:
            name = talking()
        record = collector.of("out of paper")
        assert (record.levelname, record.task_run_name) == ("INFO", name)  # type: ignore[attr-defined]

    def test_every_line_of_many_tasks_comes_out_once_and_under_its_own_name(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def talking() -> dict[str, str]:
            futures = {f"line {number} of many": _jobs.log(f"line {number} of many") for number in range(30)}
            for future in futures.values():
                future.wait()
            return {text: future.name for text, future in futures.items()}

        with collected() as collector:
            names = talking()
        for text, name in names.items():
            assert collector.of(text).task_run_name == name  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_the_context_variables_of_the_caller_are_visible_in_a_task(
        self, task_runner: TaskRunner, kind: str
    ) -> None:
        if crosses_processes(task_runner):
            leave_out("context variables do not travel to other processes")
        taste = _jobs.taste if kind == "sync" else _jobs.taste_async

        @flow(task_runner=task_runner)
        def tasting() -> tuple[list[object], str]:
            found = []
            for flavour in ("sweet", "sour"):
                _jobs.flavour.set(flavour)
                found.append(taste())
            return [future.result() for future in found], _jobs.flavour.get()

        assert tasting() == (["sweet", "sour"], "sour"), "a task sees the context of its call, in a copy of its own"

    @on_both_libraries
    def test_the_context_variables_of_the_caller_are_visible_in_a_task_of_an_async_flow(
        self, task_runner: TaskRunner, library: str
    ) -> None:
        if crosses_processes(task_runner):
            leave_out("context variables do not travel to other processes")

        @flow(task_runner=task_runner)
        async def tasting() -> tuple[list[object], str]:
            found = []
            for flavour in ("sweet", "sour"):
                _jobs.flavour.set(flavour)
                found += [_jobs.taste(), _jobs.taste_async()]
            return [await future for future in found], _jobs.flavour.get()

        assert run_on(library, tasting) == (["sweet", "sweet", "sour", "sour"], "sour")

    def test_a_closure_can_be_a_task(self, task_runner: TaskRunner) -> None:
        offset = 10

        @task
        def moved(number: int) -> int:
            return number + offset

        @task
        async def moved_async(number: int) -> int:
            await anyio.lowlevel.checkpoint()
            return number + offset

        @flow(task_runner=task_runner)
        def moving() -> list[object]:
            return [moved(1), moved_async(2)]

        assert moving() == [11, 12], "a function inside a function is a task like others"
