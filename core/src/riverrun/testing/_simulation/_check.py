"""Invariants: what must be true of every program on every executor, whatever happens; and who looks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverrun.exceptions import RunError
from riverrun.states import State
from riverrun.testing._simulation._bodies import PADDING, executions
from riverrun.testing._simulation._flow import Record, Run, flow_of
from riverrun.testing._simulation._plan import Journal, Plan, drawn_plan
from riverrun.testing._simulation._programs import Lots, Map, Program, draw_program, without_time
from riverrun.testing._simulation._reference import Reference, is_completed
from riverrun.testing._simulation._runners import Simulated
from riverrun.testing._simulation._world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun.abc import TaskRunner


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
    plan = plan or drawn_plan(seed)
    world.simulated = simulated = Simulated(world, plan)
    record = Record(program, simulated.runner())
    result = Result(program, seed, plan)
    world.describe = lambda: _not_final(record)
    with world.entered():
        try:
            record.state = flow_of(record)(return_state=True)
        except Violation:
            pass
        except KeyboardInterrupt as error:
            record.raised = error
        except BaseException as error:  # noqa: BLE001 - a flow with `return_state=True` raises nothing
            world.violate(f"the flow raised {error!r}")
        world.quiet = True
        hung = world.failed is not None
        if not hung:
            for text in violations(record, _simulated_truth(simulated)):
                world.violate(text)
    result.violations, result.history, result.steps = list(world.violations), list(world.history), world.steps
    return result


def check_program(
    program: Program, *, task_runner: str | TaskRunner | None = None, seed: int = 0, kills: int = 0, losses: int = 2
) -> Result:
    """Run a program, and compare what came of it with what is right.

    Args:
        program: a flow as data; `drawn_program(seed)` draws one.
        task_runner: where it runs; by default in a simulated world.
        seed: what happens in the simulated world.
        kills: how many workers of a real runner somebody kills meanwhile: then runs may be Crashed.
        losses: the runner's `max_worker_losses`.

    Returns:
        What was found; `violations` is empty if all is right.
    """
    if task_runner is None:
        return run_program(program, seed)
    from tempfile import TemporaryDirectory

    program = without_time(program)
    result = Result(program, seed, Plan(contract="real"))
    with TemporaryDirectory() as folder:
        record = Record(program, task_runner, folder=folder)
        try:
            record.state = flow_of(record)(return_state=True)
        except KeyboardInterrupt as error:
            record.raised = error

        def executed(run: Run, seen: str) -> int:
            return executions(folder, run.body.label, seen)

        known = None if kills else Journal()
        # A worker that is killed between the note that a call begins and the first line of its function ran nothing.
        result.violations = list(violations(record, Truth(known, losses if kills else 0, executed, lambda _: kills)))
    return result


def drawn_program(seed: int) -> Program:
    """Draw the program that belongs to a seed."""
    return draw_program(Lots(random.Random(f"program {seed}")))  # noqa: S311 - it draws lots


def violations(record: Record, truth: Truth) -> Iterator[str]:
    """Give all that is wrong with a program that has run."""
    reference = Reference(truth.journal, truth.max_worker_losses, interrupted=record.raised is not None)
    if (record.program.returns == "interrupt") != (record.raised is not None):
        yield f"the flow raised {record.raised!r}"
    for inner in record.inside():
        if inner is not record and not inner.has_ended and inner.runs():
            yield "a subflow goes on after the end of its parent"
        for run in inner.runs():
            if not run.future.done():
                yield f"{run.body.label} is not final at the end of the flow: {run.future.state!r}"
                return
    for inner in record.inside():
        for run in inner.runs():
            yield from _wrong_state(run, reference)
            yield from _wrong_results(run, reference)
            yield from _wrongly_told(run, interrupted=reference.interrupted)
            yield from _wrongly_executed(run, reference, truth)
        if not all(future.done() for future in inner.others):
            yield "what a hook or callback has called is not final at the end of the flow"
        yield from _wrong_maps(inner, reference)
        yield from _wrong_end(inner, reference)


@dataclass
class Truth:
    """What is known of the executions, apart from what the engine says.

    Attributes:
        journal: which faults there were; None where that is not known.
        executed: how many attempts at a run have begun.
        may_hide: how many attempts may be counted that were not executed.
    """

    journal: Journal | None
    max_worker_losses: int
    executed: Callable[[Run, str], int]
    may_hide: Callable[[Run], int]


def _simulated_truth(simulated: Simulated) -> Truth:
    journal, plan = simulated.journal, simulated.plan

    def may_hide(run: Run) -> int:
        # A future that was lost cannot say whether its call had begun; what is refused has not.
        lost = journal.losses.get(run.future.name, 0) if plan.contract != "remote" else 0
        return lost + journal.refusals.get(run.future.name, 0)

    losses = plan.max_worker_losses if plan.contract == "remote" else 0
    return Truth(journal, losses, lambda run, _: journal.executed(run.future.name), may_hide)


def _not_final(record: Record) -> str:
    runs = [run for inner in record.inside() for run in inner.runs() if run.future is not None]
    left = [f"{run.body.label} ({run.future.state.name})" for run in runs if not run.future.done()]
    return f"not final: {', '.join(left) or 'none'}"


def _wrong_state(run: Run, reference: Reference) -> Iterator[str]:
    name, state, right = run.body.label, run.future.state, reference.right(run)
    if state.name not in right.states:
        yield f"{name} is {state.name}, not one of {sorted(right.states)}: {state.message}"
    if any(run.cancelled) and state.name != "Cancelled":
        yield f"{name} is {state.name}, though cancel() said True"


def _wrong_results(run: Run, reference: Reference) -> Iterator[str]:
    for got in run.results:
        if isinstance(got, BaseException):
            if is_completed(run) and not reference.is_lost(run):
                yield f"result() of {run.body.label}, which has completed, raised {got!r}"
        elif reference.is_cut_off(run):
            continue
        elif not isinstance(got, State) and is_completed(run) and got != reference.value(run):
            yield f"result() of {run.body.label} gave {_short(got)}, not {_short(reference.value(run))}"


def _wrongly_told(run: Run, *, interrupted: bool) -> Iterator[str]:
    name, state = run.body.label, run.future.state
    if run.call.callback and len(run.callbacks) != 1 and not (interrupted and not run.callbacks):
        yield f"the callback of {name} was called {len(run.callbacks)} times"
    hooks = int(state.name in {"Completed", "Failed", "TimedOut", "Crashed"})
    # After an interrupt a flow waits a second for its hooks, and no longer.
    if run.call.hook and len(run.hooks) != hooks and not (interrupted and len(run.hooks) < hooks):
        yield f"the hook of {name} was called {len(run.hooks)} times"
    for kind, gotten in ((run.call.callback, run.callbacks), (run.call.hook, run.hooks)):
        for got in gotten:
            expected = name if kind == "calls" else state.name
            if interrupted and isinstance(got, BaseException):
                continue  # nothing may be called any more
            if got != expected and not (isinstance(got, RunError) or "refused" in str(got)):
                yield f"a hook or callback of {name} got {got!r}, not {expected!r}"


def _wrongly_executed(run: Run, reference: Reference, truth: Truth) -> Iterator[str]:
    name, right = run.body.label, reference.right(run)
    executed, counted = truth.executed(run, reference.seen(run) if right.most else ""), run.future.task_run.run_count
    attempts = truth.journal.attempts.get(run.future.name, ()) if truth.journal is not None else ()
    # An attempt that was given up at an interrupt may have begun, or not. What makes a value again that nobody needs
    # any more may be under way when the flow ends: nobody hears of it.
    unheard = sum(attempt.begun is not None and not attempt.told for attempt in attempts)
    unknown = unheard + int(reference.interrupted)
    if not executed - unknown <= counted <= executed + truth.may_hide(run) + unknown:
        yield f"{name} was executed {executed} times and counted {counted} times"
    if not right.least <= executed <= right.most:
        yield f"{name} was executed {executed} times, not {right.least} to {right.most} times"
    for attempt in attempts:
        for seen in attempt.seen:
            if attempt.begun is None:
                yield f"{name} had an effect in {attempt.label}, which had not begun"
            if reference.is_cut_off(run):
                continue
            if not right.most:
                yield f"{name} was called with {_short(seen)}, though its upstreams do not allow it"
            elif seen != reference.seen(run):
                yield f"{name} was called with {_short(seen)}, not with {_short(reference.seen(run))}"


def _wrong_maps(record: Record, reference: Reference) -> Iterator[str]:
    for step, made in zip(record.program.steps, record.made, strict=True):
        if isinstance(step, Map) and isinstance(made, Exception):
            over = record.made[step.over] if step.over is not None else None
            if not isinstance(over, Run) or (is_completed(over) and not reference.is_lost(over)):
                yield f"a map raised {made!r}"
        elif isinstance(step, Map) and step.over is not None and isinstance(record.made[step.over], Run):
            over = record.made[step.over]
            if is_completed(over) and len(made) != over.call.length:
                yield f"a map over {over.call.length} elements of {over.body.label} has {len(made)} runs"


def _wrong_end(record: Record, reference: Reference) -> Iterator[str]:
    """Look at the state of the flow: the aggregate of its runs, or what it returned."""
    if record.program.returns == "raises" and not record.state.is_failed():
        yield f"the flow raised, and ended in {record.state!r}"
    runs = record.runs()
    subflows = [made for made in record.made if isinstance(made, Record)]
    if (
        record.state is None
        or record.program.returns not in {"none", "all"}
        or record.others
        or subflows
        or any(isinstance(made, Exception) for made in record.made)
    ):
        return
    expected = all(is_completed(run) for run in runs)
    lost = any(reference.is_lost(run) for run in runs)
    if record.state.is_completed() != expected and not (lost and record.program.returns == "all"):
        yield f"the flow ended in {record.state!r}, though its runs {'' if expected else 'did not '}complete"
    if record.state.is_completed() and expected and record.program.returns == "all":
        got = record.state.result()
        if got != [reference.value(run) for run in runs]:
            yield f"the flow returned {_short(got)}, not the values of its runs"


def _short(value: object) -> str:
    return repr(value).replace(PADDING, "~")[:400]
