"""Running a program as a flow, and keeping what can be seen of it from outside."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from riverrun import allow_failure, flow
from riverrun.testing._simulation._bodies import Body, Box, SlowArgument, echo, perform, perform_async
from riverrun.testing._simulation._programs import Call, Cancel, Map, Program, Ref, Sleep, Subflow, Wait
from riverrun.testing._simulation._world import here

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE_ARGUMENT = b"." * 1_000_001
"""Larger than what travels with a call."""
_unique = itertools.count()


@dataclass(eq=False)
class Run:
    """What is known of one task run of a program.

    Attributes:
        call: the step that says what it does.
        future: its future.
        arguments: what it was given; `Run`s and lists of them stand for futures.
        allowed: those of them that may fail.
        awaited: what it waits for besides.
        cancelled: what `cancel()` answered, each time.
        callbacks: what its done callback got, each time that it was called.
        hooks: the same for its hooks.
        results: what `result()` gave or raised, in the flow.
    """

    body: Body
    call: Call
    future: Any = None
    arguments: tuple[Any, ...] = ()
    awaited: list[Run] = field(default_factory=list)
    cancelled: list[bool] = field(default_factory=list)
    callbacks: list[Any] = field(default_factory=list)
    hooks: list[Any] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Maybe:
    """A run among the arguments that may fail."""

    run: Any


class Record:
    """What can be seen of a program that has run."""

    def __init__(self, program: Program, runner: Any, prefix: str = "", folder: str = "") -> None:
        self.program = program
        self.runner = runner
        self.prefix = prefix
        self.folder = folder
        self.made: list[Any] = [None] * len(program.steps)
        """For each step: a `Run`, a list of them (a map), a `Record` (a subflow), or an exception."""
        self.others: list[Any] = []
        """Futures of tasks that hooks and callbacks called."""
        self.subflows: dict[int, Any] = {}
        """Futures and final states of subflows, by step."""
        self.state: Any = None
        self.raised: BaseException | None = None
        self.has_ended = False

    def runs(self) -> list[Run]:
        """Give all runs of its own steps."""
        found: list[Run] = []
        for made in self.made:
            if isinstance(made, Run):
                found.append(made)
            elif isinstance(made, list):
                found.extend(made)
        return found

    def inside(self) -> list[Record]:
        """Give itself and the records of all subflows that have begun."""
        return [self, *(record for made in self.made if isinstance(made, Record) for record in made.inside())]

    # -- the flow's function

    def body(self) -> Any:
        """Do one step after the other."""
        for index, step in enumerate(self.program.steps):
            self.do(index, step)
        if self.program.returns == "all":
            return [run.future for run in self.runs()]
        if self.program.returns == "raises":
            raise ZeroDivisionError("the flow raises")
        if self.program.returns == "interrupt":
            raise KeyboardInterrupt
        return None

    def do(self, index: int, step: Any) -> None:
        """Do a step."""
        if isinstance(step, Call):
            self.made[index] = self._call(index, step)
        elif isinstance(step, Map):
            self._map(index, step)
        elif isinstance(step, Subflow):
            self._subflow(index, step)
        elif isinstance(step, Cancel):
            for run in self._runs_of(step.step):
                run.cancelled.append(run.future.cancel())
        elif isinstance(step, Wait):
            for run in self._runs_of(step.step):
                run.results.append(_result(run.future) if step.how == "result" else run.future.wait())
        elif isinstance(step, Sleep):
            world = here()
            if world is not None:
                world.sleep(step.seconds)

    def _runs_of(self, step: int) -> list[Run]:
        made = self.made[step]
        return [made] if isinstance(made, Run) else made if isinstance(made, list) else []

    def _body_of(self, index: int, call: Call) -> Body:
        label = f"s{self.prefix}{index}"
        return Body(label, call.fails, call.takes, call.ends, call.length, call.large, call.nested, self.folder)

    def _task(self, body: Body, call: Call, run_of: Callable[[Any], Run]) -> Any:
        options: dict[str, Any] = {"name": body.label, "retries": call.retries}
        if call.delay:
            options["retry_delay_seconds"] = call.delay
        if call.limit is not None:
            options["timeout_seconds"] = call.limit
        if call.option == "named":
            options["task_run_name"] = f"{body.label}-named"
        elif call.option == "cached":
            key = f"simulated-{next(_unique)}"
            options["cache_key_fn"] = lambda *_: key
        if call.hook:

            def hook(_: Any, task_run: Any, state: Any) -> None:
                run_of(task_run).hooks.append(self._got(call.hook, body.label) or state.name)

            options["on_completion"] = options["on_failure"] = [hook]
        return (perform_async if call.asynchronous else perform).with_options(**options)

    def _got(self, kind: str, label: str) -> Any:
        """Give what a hook or callback gets, if it calls a task and waits for it."""
        if kind != "calls":
            return None
        try:
            future = echo(label)
        except BaseException as error:  # noqa: BLE001 - looked at by the check
            return error
        self.others.append(future)
        return _result(future)

    def _call(self, index: int, call: Call) -> Any:
        body = self._body_of(index, call)
        run = Run(body, call)
        given, values, named = [], [], {}
        for ref in call.refs:
            value, stands_for = self._argument(ref)
            given.append(stands_for)
            if ref.shape == "named":
                named[f"value{len(given)}"] = value
            else:
                values.append(value)
        run.arguments = tuple(
            [g for g, ref in zip(given, call.refs, strict=True) if ref.shape != "named"]
            + [g for g, ref in zip(given, call.refs, strict=True) if ref.shape == "named"]
        )
        if call.large_argument:
            values.insert(0, LARGE_ARGUMENT)  # before the others: while it travels, much may happen to them
            run.arguments = (LARGE_ARGUMENT, *run.arguments)
        if call.slow_argument:
            values.insert(0, slow := SlowArgument())
            run.arguments = (slow, *run.arguments)
        wait_for = self._wait_for(run, call)
        run.future = self._task(body, call, lambda _: run)(body.packed(), *values, **named, **wait_for)
        self._add_callback(run)
        return run

    def _wait_for(self, run: Run, call: Call) -> dict[str, Any]:
        if not call.wait_for:
            return {}
        run.awaited = [one for step in call.wait_for for one in self._runs_of(step)]
        return {"wait_for": [one.future for one in run.awaited]}

    def _add_callback(self, run: Run) -> None:
        if run.call.callback:

            def callback(future: Any) -> None:
                if run.call.callback == "asks":
                    run.results.append(_result(future))
                run.callbacks.append(self._got(run.call.callback, run.body.label) or future.state.name)

            run.future.add_done_callback(callback)

    def _argument(self, ref: Ref) -> tuple[Any, Any]:
        """Give what is passed, and what stands for it in the record."""
        made = self.made[ref.step]
        if isinstance(made, Run):
            value: Any = made.future
            stands_for: Any = made
        elif isinstance(made, list):
            value, stands_for = self.subflows[ref.step], list(made)
        else:
            value = stands_for = "none"
        if ref.allow:
            value, stands_for = allow_failure(value), Maybe(stands_for)
        if ref.shape == "list":
            return [value], [stands_for]
        if ref.shape == "tuple":
            return (value, "x"), (stands_for, "x")
        if ref.shape == "dict":
            return {"a": value}, {"a": stands_for}
        if ref.shape == "box":
            return Box([value]), Box([stands_for])
        return value, stands_for

    def _map(self, index: int, step: Map) -> None:
        call = step.call
        body = self._body_of(index, call)
        runs: dict[str, Run] = {}

        def run_named(name: str) -> Run:  # its hooks may be called before the map is complete
            return runs.setdefault(name, Run(body, call))

        mapped = self._task(body, call, lambda task_run: run_named(task_run.name))
        shared = Run(body, call)
        wait_for = self._wait_for(shared, call)
        try:
            elements, stand_for = self._elements(step)
            futures = mapped.map(body.packed(), elements, **wait_for)
        except Exception as error:  # noqa: BLE001 - what is mapped over has failed
            self.made[index] = error
            return
        self.made[index] = made = []
        for place, future in enumerate(futures):
            run = run_named(future.name)
            run.future, run.arguments, run.awaited = future, (stand_for(place),), shared.awaited
            made.append(run)
            self._add_callback(run)
        self.subflows[index] = futures

    def _elements(self, step: Map) -> tuple[Any, Callable[[int], Any]]:
        if step.over is None:
            texts = [f"e{number}" for number in range(step.length)]
            return texts, lambda place: texts[place]
        made = self.made[step.over]
        if isinstance(made, Run):
            return made.future, lambda place: Element(made, place)
        if isinstance(made, list):
            return self.subflows[step.over], lambda place: made[place]
        return [], lambda _: None

    def _subflow(self, index: int, step: Subflow) -> None:
        inner = Record(Program(step.steps), self.runner, f"{self.prefix}{index}-", self.folder)
        self.made[index] = inner
        nested = flow_of(inner)
        if step.beside:
            self.subflows[index] = nested.submit()
        else:
            inner.state = nested(return_state=True)


@dataclass(frozen=True)
class Element:
    """One element of the list that a run gives."""

    run: Run
    place: int


def _result(future: Any) -> Any:
    try:
        return future.result()
    except BaseException as error:  # noqa: BLE001 - looked at by the check
        return error


def flow_of(record: Record) -> Any:
    """Make the flow of a program."""
    made: Any = flow(name="simulated", task_runner=record.runner)

    def simulated() -> Any:
        try:
            return record.body()
        finally:
            record.has_ended = True

    return made(simulated)
