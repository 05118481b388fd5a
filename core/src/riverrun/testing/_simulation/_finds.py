"""Exploring seeds; and what is found: made small, and kept in a file that a test runs again."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from riverrun.testing._simulation._check import Result, drawn_program, run_program
from riverrun.testing._simulation._plan import Plan
from riverrun.testing._simulation._programs import Call, Cancel, Map, Program, Subflow, Wait
from riverrun.testing._simulation._world import end_idle_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_TRIES: Final = 800
"""How many smaller programs are tried for one find."""


def explore(seeds: Iterable[int], *, most: int = 3, keep_in: str | None = None) -> list[Result]:
    """Run the program of each seed; give what was found, made small.

    Args:
        seeds: which programs, and what happens in them.
        most: stop after so many finds.
        keep_in: a folder in which each find is left, for `replayed()`.
    """
    found: list[Result] = []
    with on_one_core(), _threads_ended(), _quiet():
        for seed in seeds:
            result = run_program(drawn_program(seed), seed)
            if result.violations:
                found.append(shrunk(result))
                if keep_in is not None:
                    keep(found[-1], f"{keep_in}/seed-{seed}.json")
                if len(found) >= most:
                    break
    return found


def keep(result: Result, path: str) -> None:
    """Write a find into a file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = {
        "seed": result.seed,
        "plan": dataclasses.asdict(result.plan),
        "program": result.program.as_json(),
        "found": result.violations,
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")


def replayed(path: str, others: int = 0) -> Result:
    """Run a find again.

    Args:
        path: its file.
        others: how many other interleavings are tried: where the engine was changed since, the seed means another one.

    Returns:
        The first result with violations, or that of the seed.
    """
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    program, plan = Program.from_json(data["program"]), Plan(**data["plan"])
    results = [run_program(program, seed, plan) for seed in (data["seed"], *range(others))]
    return next((result for result in results if result.violations), results[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing be logged: thousands of programs would."""
    logger = logging.getLogger("riverrun")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _threads_ended() -> Iterator[None]:
    try:
        yield
    finally:
        end_idle_threads()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core: they hand over four times as fast."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# -- making programs small


def shrunk(result: Result, seeds: int = 12) -> Result:
    """Give a smaller program in which the same kind of thing goes wrong, if there is one.

    Args:
        result: a find.
        seeds: how many interleavings of each smaller program are tried, beside that of the find.
    """
    kind, best, tries = _kind(result), result, 0
    smaller = True
    while smaller and tries < MAX_TRIES:
        smaller = False
        for candidate in _smaller(best.program):
            tries += 1
            found = _first(candidate, best, kind, seeds)
            if found is not None:
                best, smaller = found, True
                break
            if tries >= MAX_TRIES:
                break
    return best


def _first(program: Program, like: Result, kind: str, seeds: int) -> Result | None:
    for seed in (like.seed, *range(seeds)):
        found = run_program(program, seed, like.plan)
        if found.violations and _kind(found) == kind:
            return found
    return None


def _kind(result: Result) -> str:
    """Say what goes wrong, without names and numbers."""
    if not result.violations:
        return ""
    words = [word for word in result.violations[0].split()[:9] if word.isalpha()]
    return " ".join(words)


def _smaller(program: Program) -> Iterator[Program]:
    """Give smaller programs, the smallest first."""
    steps = program.steps
    size = len(steps) // 2
    while size:
        for start in range(0, len(steps), size):
            kept = [*range(start), *range(start + size, len(steps))]
            if kept:
                yield dataclasses.replace(program, steps=_only(steps, kept))
        size //= 2
    if program.returns != "none":
        yield dataclasses.replace(program, returns="none")
    for index, step in enumerate(steps):
        for simpler in _simpler(step):
            yield dataclasses.replace(program, steps=(*steps[:index], simpler, *steps[index + 1 :]))


def _only(steps: tuple[Any, ...], kept: list[int]) -> tuple[Any, ...]:
    """Leave out all other steps, and what needs them."""
    place: dict[int, int] = {}
    left: list[Any] = []
    for index in kept:
        step = steps[index]
        if isinstance(step, (Cancel, Wait)):
            if step.step not in place:
                continue
            step = dataclasses.replace(step, step=place[step.step])
        elif isinstance(step, Call):
            step = _call(step, place)
        elif isinstance(step, Map):
            over = place.get(step.over) if step.over is not None else None
            length = step.length or (2 if step.over is not None and over is None else 0)
            step = dataclasses.replace(step, call=_call(step.call, place), over=over, length=length)
        place[index] = len(left)
        left.append(step)
    return tuple(left)


def _call(call: Call, place: dict[int, int]) -> Call:
    refs = tuple(dataclasses.replace(ref, step=place[ref.step]) for ref in call.refs if ref.step in place)
    return dataclasses.replace(call, refs=refs, wait_for=tuple(place[one] for one in call.wait_for if one in place))


def _simpler(step: Any) -> Iterator[Any]:
    if isinstance(step, Map):
        yield from (dataclasses.replace(step, call=call) for call in _simpler(step.call))
        if step.length > 1:
            yield dataclasses.replace(step, length=step.length - 1)
    elif isinstance(step, Subflow):
        for index in range(len(step.steps)):
            kept = [place for place in range(len(step.steps)) if place != index]
            if kept:
                yield dataclasses.replace(step, steps=_only(step.steps, kept))
    elif isinstance(step, Call):
        for field in dataclasses.fields(step):
            if getattr(step, field.name) != field.default and field.name not in {"ends", "length"}:
                simpler: dict[str, Any] = {field.name: field.default}
                yield dataclasses.replace(step, **simpler)
