"""Programs that are drawn from seeds, on simulated executors; and that the simulation finds what is broken."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from riverrun import TaskFuture, flow, task
from riverrun.testing import check_program, drawn_program, simulated
from riverrun.testing._simulation._check import run_program
from riverrun.testing._simulation._cluster import SimulatedCluster
from riverrun.testing._simulation._finds import explore, keep, replayed, shrunk
from riverrun.testing._simulation._plan import Plan
from riverrun.testing._simulation._programs import Call, Cancel, Map, Program, Ref, Wait
from riverrun.testing._simulation._world import end_idle_threads

FINDS = Path(__file__).parent / "simulation_finds"
"""Each file is a program that went wrong once, with the seed of the interleaving."""
PROGRAMS = int(os.environ.get("SIMULATED_PROGRAMS", "3000"))
QUIET = Plan(workers=2)
"""No faults, and a contract that is always the same."""


@pytest.fixture(autouse=True)
def _no_logs_and_no_threads():
    logger = logging.getLogger("riverrun")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
    end_idle_threads()


def found_in(seeds: range) -> str:
    """Explore; give what was found, for people. Each find is left behind as a test."""
    return "\n".join(str(result) for result in explore(seeds, keep_in=str(FINDS)))


@pytest.mark.timeout(600)
def test_programs_on_simulated_executors_end_as_the_reference_says(seed: int):
    first = seed * 1_000_000
    assert not (found := found_in(range(first, first + PROGRAMS))), found


@pytest.mark.stress
@pytest.mark.timeout(7200)
def test_many_more_programs_end_as_the_reference_says(seed: int):
    first = seed * 1_000_000 + 500_000
    assert not (found := found_in(range(first, first + 10_000))), found


@pytest.mark.parametrize("path", sorted(FINDS.glob("*.json")), ids=lambda path: path.stem)
def test_what_was_found_once_is_right_now(path: Path):
    result = replayed(str(path), others=100)
    assert not result.violations, str(result)


# -- the simulation itself


def programs(count: int, plan: Plan | None = None) -> list[str]:
    """Run some programs; give all violations."""
    return [violation for seed in range(count) for violation in run_program(drawn_program(seed), seed, plan).violations]


def test_a_seed_is_one_order_of_events():
    histories = [run_program(drawn_program(seed), seed).history for seed in (5, 5, 6)]
    assert len(histories[0]) > 10
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_different_seeds_let_one_program_go_in_different_orders():
    program = Program((Call(takes=0.5), Call(takes=0.5), Call(refs=(Ref(0), Ref(1)))))
    orders = {tuple(run_program(program, seed, QUIET).history) for seed in range(20)}
    assert len(orders) > 5


def test_a_program_that_is_kept_in_a_file_comes_back_the_same(tmp_path: Path):
    for seed in range(50):
        result = run_program(drawn_program(seed), seed)
        keep(result, str(tmp_path / "find.json"))
        again = replayed(str(tmp_path / "find.json"))
        assert (again.program, again.plan, again.history) == (result.program, result.plan, result.history)


def test_generated_programs_have_all_kinds_of_steps_and_up_to_60_of_them():
    drawn = [drawn_program(seed) for seed in range(300)]
    kinds = {type(step).__name__ for program in drawn for step in program.steps}
    assert kinds == {"Call", "Map", "Cancel", "Wait", "Sleep", "Subflow"}
    assert 50 < max(len(program.steps) for program in drawn) <= 60


def test_hypothesis_draws_programs_from_the_same_generator():
    hypothesis = pytest.importorskip("hypothesis")
    from riverrun.testing._simulation._strategies import programs

    def has_a_map(program: Program) -> bool:
        return any(isinstance(step, Map) for step in program.steps)

    settings = hypothesis.settings(database=None, max_examples=1000)
    smallest = hypothesis.find(programs(), has_a_map, settings=settings, random=random.Random(1))
    assert len(smallest.steps) == 1


def test_time_passes_only_in_the_simulation():
    program = Program((Call(takes=3.0), Call(fails=2, retries=2, delay=2.0)))
    last = run_program(program, 1, QUIET).history[-1]
    assert float(last.split()[0]) >= 3.0


# What is broken is found: each of these breaks a promise on purpose.


def test_a_run_that_nobody_is_told_of_is_a_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SimulatedCluster, "_say", lambda *_: None)
    [violation] = run_program(Program((Call(),)), 1, QUIET).violations
    assert violation.startswith("hang: nothing is left to happen; not final: s0 (")
    assert "main: " in violation


def test_a_call_that_is_executed_twice_is_found(monkeypatch: pytest.MonkeyPatch):
    execute = SimulatedCluster._execute

    def twice(cluster: Any, handle: Any) -> None:
        execute(cluster, handle)
        handle.attempt.begun, handle.attempt.ended = 0.0, 0.0
        cluster.journal.attempts[handle.attempt.name].append(handle.attempt)

    monkeypatch.setattr(SimulatedCluster, "_execute", twice)
    found = run_program(Program((Call(),)), 1, QUIET).violations
    assert "s0 was executed 2 times and counted 1 times" in found


def test_a_cancel_that_says_true_and_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TaskFuture, "cancel", lambda _: True)
    found = run_program(Program((Call(), Cancel(0))), 1, QUIET).violations
    assert found == ["s0 is Completed, though cancel() said True"]


def test_a_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch):
    result = TaskFuture.result
    monkeypatch.setattr(TaskFuture, "result", lambda future, *args: str(result(future, *args)).upper())
    [violation] = run_program(Program((Call(), Wait(0))), 1, QUIET).violations
    assert violation.startswith("result() of s0 gave 'S0:")


def test_a_callback_that_is_called_twice_is_found(monkeypatch: pytest.MonkeyPatch):
    add = TaskFuture.add_done_callback

    def add_twice(future: Any, callback: Any) -> None:
        add(future, callback)
        add(future, callback)

    monkeypatch.setattr(TaskFuture, "add_done_callback", add_twice)
    found = run_program(Program((Call(callback="counts"),)), 1, QUIET).violations
    assert found == ["the callback of s0 was called 2 times"]


def test_what_is_found_is_made_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TaskFuture, "cancel", lambda _: True)
    steps = [Call(), Call(refs=(Ref(0),), large=True), Map(Call(), length=3), Call(retries=2), Cancel(3), Wait(1)]
    found = run_program(Program(tuple(steps), "all"), 1, QUIET)
    assert shrunk(found).program == Program((Call(), Cancel(0)))


def test_finds_are_left_behind_as_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(TaskFuture, "cancel", lambda _: True)
    found = explore(range(1000), most=1, keep_in=str(tmp_path))
    [path] = tmp_path.iterdir()
    assert replayed(str(path)).violations == found[0].violations


# Simulations of flows of one's own.


@task
def large() -> str:
    return "." * 1000


@task
def length(text: str) -> int:
    return len(text)


def test_a_value_that_is_lost_is_made_again_in_each_order_of_events():
    @flow
    def lossy(simulation: Any) -> Any:
        first = large()
        first.wait()
        simulation.lose_value(first)
        assert length(first).result() == 1000
        return simulation.executed(first), first.task_run.run_count

    for seed in range(20):
        with simulated(seed) as simulation:
            assert lossy.with_options(task_runner=simulation.task_runner)(simulation) == (2, 2)


@task
def slow(simulation: Any) -> str:
    simulation.sleep(5)
    return "well"


def test_a_worker_that_dies_takes_its_runs_with_it_and_they_are_run_again(simulation: Any):
    @flow(task_runner=simulation.task_runner)
    def lossy() -> Any:
        future = slow(simulation)
        simulation.sleep(4)
        simulation.lose_worker(of=future)
        return future.result(), simulation.executed(future), future.task_run.run_count

    assert lossy() == ("well", 2, 2)


came = threading.Event()


class Stopped(BaseException):
    """What a signal raises in the main thread, as the time limit of a test does."""


@task
def interrupts(simulation: Any) -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    assert came.wait(10)
    simulation.sleep(1)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="only there can a thread be sent a signal")
def test_what_a_signal_raises_ends_a_simulation():
    def stop(*_: Any) -> None:
        came.set()
        raise Stopped

    came.clear()
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises((Stopped, AssertionError)), simulated(1) as simulation:
            flow(task_runner=simulation.task_runner)(lambda: interrupts(simulation).result())()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match=r"has no option \['losses'\]"), simulated(losses=1):
        pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"contract": "remot"}, "simulated(): contract must be one of remote, submit, threads, not 'remot'."),
        ({"reporters": "two"}, "simulated(): reporters must be one of one, many, not 'two'."),
        ({"loss": 3}, "simulated(): loss must be a probability, from 0 to 1, not 3."),
        ({"workers": 0}, "simulated(): workers must be 1 or more, not 0."),
    ],
)
def test_a_value_that_cannot_be_is_refused(options: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"), simulated(**options):
        pass


# The reference, against runners in real life.


@pytest.mark.parametrize("runner", ["sequential", "concurrent"])
def test_the_reference_is_right_of_runners_in_real_life(runner: str, seed: int):
    for number in range(seed, seed + 30):
        result = check_program(drawn_program(number), task_runner=runner)
        assert not result.violations, str(result)


def test_a_program_of_real_life_that_goes_wrong_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TaskFuture, "cancel", lambda _: True)
    result = check_program(Program((Call(), Cancel(0))), task_runner="concurrent")
    assert result.violations == ["s0 is Completed, though cancel() said True"]
