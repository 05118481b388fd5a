"""Invariants: what must be true of every program on every executor, whatever happens; and who looks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import RunError
from riverrun.testing._simulation._cluster import Plan, Simulated, drawn_plan
from riverrun.testing._simulation._flow import Record, Run, flow_of
from riverrun.testing._simulation._programs import Lots, Program, draw_program
from riverrun.testing._simulation._reference import Reference, is_completed
from riverrun.testing._simulation._world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.testing._simulation._cluster import Journal


@dataclass
class Result:
    """What came of one program in one world.

    Attributes:
        violations: what must not have happened, as texts.
        history: what happened, the last 1,000 lines.
    """

    program: Program
    seed: int
    plan: Plan
    violations: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    steps: int = 0

    def __str__(self) -> str:
        found = "\n".join(f"  {violation}" for violation in self.violations) or "  nothing"
        return f"seed {self.seed}, {self.plan}\n{self.program}\nfound:\n{found}"


def run_program(program: Program, seed: int, plan: Plan | None = None) -> Result:
    """Run a program in a simulated world, and look at it.

    Args:
        program: the program.
        seed: decides all that happens.
        plan: what the executor may do; drawn from the seed by default.
    """
    world = World(seed)
    plan = plan or drawn_plan(world)
    world.simulated = simulated = Simulated(world, plan)
    record = Record(program, simulated.runner())
    result = Result(program, seed, plan)
    with world.entered():
        try:
            record.state = flow_of(record)(return_state=True)
        except Violation:
            pass
        except BaseException as error:  # noqa: BLE001 - a flow with `return_state=True` raises nothing
            world.violate(f"the flow raised {error!r}")
        world.quiet = True
        hung = world.failed is not None
        if not hung:
            losses = plan.max_worker_losses if plan.contract == "remote" else 0
            for text in violations(record, simulated.journal, losses, plan.contract):
                world.violate(text)
    result.violations, result.history, result.steps = list(world.violations), list(world.history), world.steps
    return result


def drawn_program(seed: int) -> Program:
    """Draw the program that belongs to a seed."""
    return draw_program(Lots(random.Random(f"program {seed}")))  # noqa: S311 - it draws lots


def violations(record: Record, journal: Journal | None, max_worker_losses: int, contract: str) -> Iterator[str]:
    """Give all that is wrong with a program that has run."""
    reference = Reference(journal, max_worker_losses)
    for inner in record.inside():
        if inner is not record and not inner.has_ended and inner.runs():
            yield "a subflow goes on after the end of its parent"
        for run in inner.runs():
            if not run.future.done():
                yield f"{run.body.label} is not final at the end of the flow: {run.future.state!r}"
                return
    for inner in record.inside():
        for run in inner.runs():
            yield from _wrong(run, reference)
            if journal is not None:
                yield from _wrongly_executed(run, reference, journal, contract)
        for future in inner.others:
            if not future.done():
                yield "what a hook or callback has called is not final at the end of the flow"
    if journal is None or not (journal.losses or journal.refusals or journal.losses_before):
        yield from _wrongly_ended(record, reference)


def _wrong(run: Run, reference: Reference) -> Iterator[str]:
    name, state, right = run.body.label, run.future.state, reference.right(run)
    if state.name not in right.states:
        yield f"{name} is {state.name}, not one of {sorted(right.states)}: {state.message}"
    if any(run.cancelled) and state.name != "Cancelled":
        yield f"{name} is {state.name}, though cancel() said True"
    for got in run.results:
        if isinstance(got, str) and got != reference.value(run):
            yield f"result() of {name} gave {got[:60]!r}, not {reference.value(run)[:60]!r}"
        if isinstance(got, BaseException) and is_completed(run) and "Crashed" not in right.states:
            if not reference._lost_too_often(run) and not reference._takes_what_was_lost_too_often(run):
                yield f"result() of {name}, which has completed, raised {got!r}"
    yield from _wrongly_told(run)


def _wrongly_told(run: Run) -> Iterator[str]:
    name, state = run.body.label, run.future.state
    if run.call.callback and len(run.callbacks) != 1:
        yield f"the callback of {name} was called {len(run.callbacks)} times"
    if run.call.hook and state.name in {"Completed", "Failed", "TimedOut", "Crashed"} and len(run.hooks) != 1:
        yield f"the hook of {name} was called {len(run.hooks)} times"
    for got in [*run.callbacks, *run.hooks]:
        if isinstance(got, BaseException) and not isinstance(got, RunError) and "refused" not in str(got):
            yield f"a hook or callback of {name}, which calls a task, got {got!r}"


def _wrongly_executed(run: Run, reference: Reference, journal: Journal, contract: str) -> Iterator[str]:
    name, right = run.body.label, reference.right(run)
    executed, counted = journal.executed(run.future.name), run.future.task_run.run_count
    refused, lost = journal.refusals.get(run.future.name, 0), journal.losses.get(run.future.name, 0)
    more = refused + (lost if contract != "remote" else 0)
    if not executed <= counted <= executed + more:
        yield f"{name} was executed {executed} times and counted {counted} times"
    if not right.least <= executed <= right.most:
        yield f"{name} was executed {executed} times, not {right.least} to {right.most} times"
    expected = reference.seen(run) if executed else ""
    for attempt in journal.attempts.get(run.future.name, ()):
        for seen in attempt.seen:
            if attempt.begun is None:
                yield f"{name} had an effect in {attempt.key}, which had not begun"
            if seen != expected:
                yield f"{name} was called with {seen[:200]}, not with {expected[:200]}"


def _wrongly_ended(record: Record, reference: Reference) -> Iterator[str]:
    """Look at the state of the flow: what it returned, or the aggregate of its runs."""
    del reference
    runs = record.runs()
    subflows = [made for made in record.made if isinstance(made, Record)]
    if record.program.returns == "none" and not subflows and not record.others and record.state is not None:
        expected = all(is_completed(run) for run in runs)
        if record.state.is_completed() != expected:
            yield f"the flow ended in {record.state!r}, though its runs {'' if expected else 'did not '}complete"
