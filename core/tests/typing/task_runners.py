"""What type checkers know of task runners. Nothing here runs: mypy and pyright read it, as strict as they can be."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, assert_type

import riverrun
from riverrun import Concurrency, TaskRunner, flow, task_runners
from riverrun.task_runners import ConcurrentTaskRunner, SequentialTaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Executor


def the_options_of_a_runner_are_known() -> None:
    assert_type(SequentialTaskRunner(), SequentialTaskRunner)
    assert_type(ConcurrentTaskRunner(), ConcurrentTaskRunner)
    assert_type(ConcurrentTaskRunner(max_workers=4), ConcurrentTaskRunner)
    assert_type(ConcurrentTaskRunner(max_workers=None).max_workers, int | None)
    assert_type(riverrun.task_runners.ConcurrentTaskRunner(4), ConcurrentTaskRunner)
    assert_type(ConcurrentTaskRunner().with_options(max_workers=4), ConcurrentTaskRunner)


def wrong_options_are_errors() -> None:
    SequentialTaskRunner(max_workers=4)  # type: ignore[call-arg]
    ConcurrentTaskRunner(workers=4)  # type: ignore[call-arg]
    ConcurrentTaskRunner(max_workers="4")  # type: ignore[arg-type]


def options_are_not_set_later() -> None:
    ConcurrentTaskRunner().max_workers = 4  # type: ignore[misc]


def a_runner_is_found_by_name() -> None:
    assert_type(task_runners.get("concurrent", max_workers=4), TaskRunner)
    assert_type(task_runners.get("sequential").concurrency, Concurrency)
    assert_type(task_runners.names(), list[str])


def a_flow_takes_a_name_a_class_or_an_instance(body: Callable[[], int]) -> None:
    assert_type(flow(task_runner="sequential")(body)(), int)
    assert_type(flow(task_runner=SequentialTaskRunner)(body)(), int)
    assert_type(flow(task_runner=ConcurrentTaskRunner(max_workers=4))(body)(), int)
    assert_type(flow(task_runner=OwnTaskRunner(processes=2))(body)(), int)


class OwnTaskRunner(TaskRunner):
    """Ten lines, as in the documentation."""

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    processes: int = 2
    name: str | None = None

    @contextmanager
    def start(self) -> Generator[Executor]:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(self.processes) as executor:
            yield executor


def the_options_of_an_own_runner_are_known_too() -> None:
    assert_type(OwnTaskRunner(4, name="mine").processes, int)
    OwnTaskRunner(threads=4)  # type: ignore[call-arg]
