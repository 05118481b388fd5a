"""`ExecutorTaskRunner`: any executor is a task runner, and one that breaks is replaced.

The conformance suite is put to one executor in `test_docs_contract.py`, where it is an example of the page; here those
parts of it run by default in which lanes can make a difference.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from riverrun import TaskRunnerStartError, WorkerLost, flow, task
from riverrun._executors import Lanes, Replaced
from riverrun.abc import Concurrency, ExecutorTaskRunner
from riverrun.exceptions import TaskRunnerError
from riverrun.testing import TaskRunnerConformance, within
from riverrun.testing._cancellation import Cancellation
from riverrun.testing._interrupts import Interrupts
from riverrun.testing._life_cycle import LifeCycle
from riverrun.testing._lost_workers import LostWorkers
from riverrun.testing._order import Order
from riverrun.testing._scale import Scale
from riverrun.testing._sharing import Sharing

if TYPE_CHECKING:
    from pathlib import Path

needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no forkserver"
)


class ProcessTaskRunner(ExecutorTaskRunner):
    processes: int = 2

    concurrency = Concurrency.PARALLEL

    def executor(self):
        return ProcessPoolExecutor(self.processes, mp_context=_context())


class LanesTaskRunner(ExecutorTaskRunner):
    processes: int = 2

    concurrency = Concurrency.PARALLEL
    survives_lost_workers = True

    def executor(self):
        return ProcessPoolExecutor(1, mp_context=_context())

    def lanes(self):
        return self.processes


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["riverrun.testing"])
    return context


@needs_forkserver
class TestProcessesInLanes(LifeCycle, Order, Scale, Cancellation, LostWorkers, Sharing, Interrupts):
    @pytest.fixture
    def task_runner(self):
        return LanesTaskRunner()


@needs_forkserver
@pytest.mark.stress  # for values, attempts and logs lanes are processes like others
class TestAllOfTheSuiteInLanes(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self):
        return LanesTaskRunner()


class Breaking:
    """An executor that runs calls at once, until it breaks."""

    def __init__(self, made: list[Breaking], calls: int, *, taken: bool):
        self.events = ["made"]
        self.calls = calls
        self.taken = taken
        made.append(self)

    def __enter__(self):
        self.events.append("entered")
        return self

    def __exit__(self, *error: object):
        self.events.append("stopped" if error == (None, None, None) else repr(error[1]))

    def submit(self, call):
        if not self.calls:
            if not self.taken:
                raise BrokenExecutor("no more")
            future = Future()
            future.set_exception(BrokenExecutor("in the middle of it"))
            return future
        self.calls -= 1
        future = Future()
        future.set_result(call())
        return future


@pytest.mark.parametrize("kind", ["replaced", "lanes"])
def test_an_executor_that_takes_no_more_is_replaced_and_nothing_is_lost(kind: str):
    made: list[Breaking] = []

    def make():
        return Breaking(made, 3, taken=False)

    with Replaced(make) if kind == "replaced" else Lanes(make, 1) as executor:
        futures = [executor.submit(lambda number=number: number) for number in range(10)]
        assert [future.result(30) for future in futures] == list(range(10))
    assert [one.events for one in made] == [["made", "entered", "stopped"]] * 4


def test_in_lanes_the_call_that_broke_an_executor_is_lost_and_the_next_goes_to_another():
    made: list[Breaking] = []
    with Lanes(lambda: Breaking(made, 2, taken=True), 1) as executor:
        futures = [executor.submit(int) for _ in range(6)]
        errors = [future.exception(30) for future in futures]
    assert [str(error) for error in errors] == ["None", "None", "in the middle of it"] * 2
    assert [one.events for one in made] == [["made", "entered", "stopped"]] * 2


@pytest.mark.parametrize("kind", ["replaced", "lanes"])
def test_an_executor_is_told_what_ends_the_flow_run(kind: str):
    made: list[Breaking] = []

    def make():
        return Breaking(made, 1, taken=False)

    def leave():
        with Replaced(make) if kind == "replaced" else Lanes(make, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert [one.events for one in made] == [["made", "entered", "KeyboardInterrupt()"]]


class Endless:
    """An executor whose calls end when it is told that the flow run was interrupted."""

    def __init__(self, started: threading.Event):
        self.started = started
        self.future = Future()

    def __enter__(self):
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: object):
        assert error is KeyboardInterrupt
        self.future.set_exception(BrokenExecutor("interrupted"))

    def submit(self, call):
        self.started.set()
        return self.future


def test_lanes_that_are_left_by_an_interrupt_do_not_wait_for_what_runs():
    started = threading.Event()
    futures: list[Future] = []

    def leave():
        with Lanes(lambda: Endless(started), 1) as executor:
            futures.extend(executor.submit(int) for _ in range(3))
            assert started.wait(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        within(30, leave)
    assert str(futures[0].exception(30)) == "interrupted"
    assert all(future.cancelled() for future in futures[1:]), "what had not begun never does"


@pytest.mark.parametrize("kind", ["replaced", "lanes"])
def test_an_executor_that_is_broken_from_the_start_ends_every_run_and_is_stopped(kind: str):
    made: list[Breaking] = []

    class HopelessTaskRunner(ExecutorTaskRunner):
        concurrency = Concurrency.CONCURRENT

        def executor(self):
            return Breaking(made, 0, taken=False)

        def lanes(self):
            return 2 if kind == "lanes" else None

    @task
    def never():
        pytest.fail("it runs nowhere")

    @flow(task_runner=HopelessTaskRunner())
    def hopeless():
        return [never().wait().name for _ in range(3)]

    assert within(30, hopeless) == ["Crashed"] * 3
    assert [one.events for one in made] == [["made", "entered", "stopped"]] * len(made)
    assert len(made) >= 3


def test_lanes_that_cannot_start_a_new_executor_lose_the_call_and_not_the_flow():
    made: list[Breaking] = []

    def make():
        if made:
            raise OSError("no more processes")
        return Breaking(made, 1, taken=False)

    with Lanes(make, 1) as executor:
        assert executor.submit(lambda: 1).result(30) == 1
        assert str(executor.submit(lambda: 1).exception(30)) == "no more processes"
    assert made[0].events == ["made", "entered", "stopped"]


@pytest.mark.parametrize("lanes", [None, 2])
def test_an_executor_that_does_not_start_fails_the_flow_run_before_its_body(lanes: int | None):
    class UnstartableTaskRunner(ExecutorTaskRunner):
        concurrency = Concurrency.CONCURRENT

        def executor(self):
            raise OSError("no licence")

        def lanes(self):
            return lanes

    @flow(task_runner=UnstartableTaskRunner())
    def never():
        pytest.fail("the body of a flow does not run if its runner did not start")

    with pytest.raises(TaskRunnerStartError, match="no licence"):
        never()


def test_a_subclass_says_its_concurrency_like_every_runner():
    class SilentTaskRunner(ExecutorTaskRunner):
        def executor(self):
            return ThreadPoolExecutor(1)

    with pytest.raises(TaskRunnerError, match="`SilentTaskRunner` lacks it"):
        SilentTaskRunner()


def jobs():
    """Make tasks that travel with their code: the workers cannot import this file by name."""

    @task
    def kill():
        os._exit(9)

    @task
    def kill_once(mark: Path) -> str:
        if mark.exists():
            return "tried again"
        mark.touch()
        os._exit(9)

    @task
    def process() -> int:
        return os.getpid()

    return kill, kill_once, process


kill, kill_once, process = jobs()


@needs_forkserver
@pytest.mark.parametrize("runner", [ProcessTaskRunner(), LanesTaskRunner()])
def test_a_run_that_was_lost_with_its_worker_is_tried_again_on_another_one(runner: ExecutorTaskRunner, tmp_path: Path):
    @flow(task_runner=runner)
    def patient():
        return kill_once.with_options(retries=1)(tmp_path / "mark").result()

    assert within(60, patient) == "tried again"


@needs_forkserver
def test_a_lane_takes_one_run_with_it_of_hundreds_that_wait():
    @flow(task_runner=LanesTaskRunner())
    def deadly():
        futures = [kill() if number == 100 else process() for number in range(300)]
        names = [future.wait().name for future in futures]
        with pytest.raises(WorkerLost, match="was lost in attempt 1: its worker is gone"):
            futures[100].result()
        return names, {future.result() for future in futures if future.state.is_completed()}

    names, processes = within(60, deadly)
    assert [number for number, name in enumerate(names) if name != "Completed"] == [100]
    assert names[100] == "Crashed"
    assert len(processes) in {2, 3}, "two lanes, and the one that was replaced"
    assert not [thread for thread in threading.enumerate() if "lane" in thread.name]
