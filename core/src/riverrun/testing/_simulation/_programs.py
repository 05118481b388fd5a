"""Programs: flows as data, a generator of them, and what runs one.

A program is a list of steps; a step names others by their place in the list. `draw_program` draws one from anything
that has `integer(a, b)` and `chance(p)`: from a seed, which is fast, or from hypothesis.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Ref:
    """The value of a step as an argument: by itself or in a container, and perhaps `allow_failure`."""

    step: int
    shape: str = "plain"
    allow: bool = False


@dataclass(frozen=True)
class Call:
    """A call of a task."""

    refs: tuple[Ref, ...] = ()
    wait_for: tuple[int, ...] = ()
    fails: int = 0
    retries: int = 0
    delay: float = 0.0
    limit: float | None = None
    takes: float = 0.0
    ends: str = "value"
    length: int = 0
    large: bool = False
    large_argument: bool = False
    slow_argument: bool = False
    nested: bool = False
    asynchronous: bool = False
    option: str = ""
    """`named` (with `task_run_name`) or `cached` (with `cache_key_fn`), or nothing."""
    callback: str = ""
    """A done callback: `counts`, `asks` for the result, or `calls` a task and waits for it; or none."""
    hook: str = ""
    """A hook: `counts`, or `calls` a task and waits for it; or none."""


@dataclass(frozen=True)
class Map:
    """A map over texts, or over the value of a step: a list, or another map."""

    call: Call = field(default_factory=Call)
    over: int | None = None
    length: int = 0


@dataclass(frozen=True)
class Cancel:
    """Cancel what a step has called."""

    step: int


@dataclass(frozen=True)
class Wait:
    """Wait for a step, in the middle of the flow: `result` or `wait`."""

    step: int
    how: str = "result"


@dataclass(frozen=True)
class Sleep:
    """Let time pass in the flow's function."""

    seconds: float


@dataclass(frozen=True)
class Subflow:
    """A flow inside: called, or submitted to run beside."""

    steps: tuple[Step, ...]
    beside: bool = False


Step = Call | Map | Cancel | Wait | Sleep | Subflow
KINDS: Final = {kind.__name__: kind for kind in (Ref, Call, Map, Cancel, Wait, Sleep, Subflow)}


@dataclass(frozen=True)
class Program:
    """A flow as data; it `returns` nothing (`none`), `all` that it called, `raises`, or ends with an `interrupt`."""

    steps: tuple[Step, ...]
    returns: str = "none"

    def as_json(self) -> dict[str, Any]:
        """Give it as data for a file."""
        return {"returns": self.returns, "steps": [_as_json(step) for step in self.steps]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Program:
        """Make it again."""
        return cls(tuple(_from_json(step) for step in data["steps"]), data["returns"])

    def __str__(self) -> str:
        lines = [f"  {number}: {_shown(step)}" for number, step in enumerate(self.steps)]
        return "\n".join([*lines, f"  return {self.returns}"])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({' '.join(_shown(part) for part in value)})"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    changed = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    defaults = {f.name: f.default for f in dataclasses.fields(value)}
    return f"{type(value).__name__}({', '.join(f'{n}={_shown(v)}' for n, v in changed if v != defaults[n])})"


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(part) for part in value]
    if dataclasses.is_dataclass(value):
        return {"kind": type(value).__name__} | {
            f.name: _as_json(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    return value


def _from_json(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_from_json(part) for part in data)
    if isinstance(data, dict):
        values = {name: _from_json(value) for name, value in data.items() if name != "kind"}
        return KINDS[data["kind"]](**values)
    return data


def without_time(program: Program) -> Program:
    """Give the program without time limits, delays and work that takes its time: for runners in real time."""
    return dataclasses.replace(program, steps=tuple(_without_time(step) for step in program.steps))


def _without_time(step: Any) -> Any:
    if isinstance(step, Call):
        return dataclasses.replace(step, limit=None, delay=0.0, takes=0.0)
    if isinstance(step, Map):
        return dataclasses.replace(step, call=_without_time(step.call))
    if isinstance(step, Subflow):
        return dataclasses.replace(step, steps=tuple(_without_time(inner) for inner in step.steps))
    return step


class Draws(Protocol):
    """What programs are drawn from."""

    def integer(self, least: int, most: int) -> int:
        """Draw a number."""
        ...

    def chance(self, probability: float) -> bool:
        """Draw a lot."""
        ...


class Lots:
    """Draws from a source of random numbers."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def integer(self, least: int, most: int) -> int:
        """Draw a number."""
        return least + int(self._source.random() * (most - least + 1))

    def chance(self, probability: float) -> bool:
        """Draw a lot."""
        return self._source.random() < probability


FEATURES: Final = (
    "maps",
    "wait_for",
    "allow_failure",
    "failures",
    "limits",
    "cancels",
    "subflows",
    "asynchronous",
    "nested",
    "states",
    "options",
    "callbacks",
    "hooks",
    "large",
    "large_arguments",
    "slow_arguments",
    "waits",
    "sleeps",
    "containers",
    "fans",
)
"""A program has some of these and not the others: what one hides, another shows."""


def draw_program(draws: Draws, most_steps: int = 60) -> Program:
    """Draw a program of up to so many steps."""
    features = frozenset(feature for feature in FEATURES if draws.chance(0.4))
    if draws.chance(0.4):
        features |= {"large"}
    size = (4, 8, 16, most_steps)[min(draws.integer(0, 9) // 3, 3)]
    steps = _Drawing(draws, features).steps(draws.integer(1, min(size, most_steps)), depth=0)
    ends = ("none", "none", "none", "none", "none", "none", "all", "all", "all", "raises", "interrupt")
    end = ends[draws.integer(0, len(ends) - 1)]
    if end == "interrupt" and any(isinstance(step, Subflow) for step in steps):
        end = "raises"
    return Program(steps, end)


class _Drawing:
    def __init__(self, draws: Draws, features: frozenset[str]) -> None:
        self.draws = draws
        self.features = features
        self.prefers = ("last", "last", "any", "first")[draws.integer(0, 3)]

    def has(self, feature: str, probability: float) -> bool:
        return feature in self.features and self.draws.chance(probability)

    def steps(self, count: int, depth: int) -> tuple[Step, ...]:
        steps: list[Step] = []
        while len(steps) < count:
            if self.has("fans", 0.2) and len(steps) + 2 < count:
                steps.extend(self.fan(len(steps), count - len(steps)))
            else:
                steps.append(self.step(steps, depth))
        return tuple(steps)

    def fan(self, place: int, most: int) -> list[Step]:
        """Draw a large value, and some calls that take their time at once: most of them take the value as well."""
        steps: list[Step] = [Call(large=True)]
        if self.draws.chance(0.5):
            steps.append(Wait(place, "wait"))
        for _ in range(self.draws.integer(2, 6)):
            refs = (Ref(place),) if self.draws.chance(0.6) else ()
            steps.append(Call(refs, takes=0.5 if self.draws.chance(0.5) else 3.0, large=self.draws.chance(0.3)))
        if self.draws.chance(0.5):
            steps.append(Wait(place))
        return steps[:most]

    def step(self, steps: list[Step], depth: int) -> Step:
        made = [index for index, step in enumerate(steps) if isinstance(step, (Call, Map))]
        if made and self.has("cancels", 0.2):
            return Cancel(self.one_of(made))
        if made and self.has("waits", 0.2):
            return Wait(self.one_of(made), "result" if self.draws.chance(0.7) else "wait")
        if self.has("sleeps", 0.1):
            return Sleep((0.01, 1.0, 5.0)[self.draws.integer(0, 2)])
        if depth < 1 and self.has("subflows", 0.1):
            return Subflow(self.steps(self.draws.integer(1, 4), depth + 1), self.draws.chance(0.6))
        if self.has("maps", 0.35):
            return self.map(steps)
        return self.call(made)

    def one_of(self, indexes: list[int]) -> int:
        """Choose a step: in some programs rather one of the last, so that chains are long, in some rather the first."""
        if self.draws.chance(0.6) and self.prefers != "any":
            return indexes[0 if self.prefers == "first" else -1 - self.draws.integer(0, min(1, len(indexes) - 1))]
        return indexes[self.draws.integer(0, len(indexes) - 1)]

    def map(self, steps: list[Step]) -> Map:
        lists = [
            index
            for index, step in enumerate(steps)
            if isinstance(step, Map) or (isinstance(step, Call) and step.ends == "list")
        ]
        call = dataclasses.replace(self.options([]), option="", large_argument=False, slow_argument=False)
        if lists and self.draws.chance(0.6):
            return Map(call, over=self.one_of(lists))
        return Map(call, length=(0, 1, 2, 4)[self.draws.integer(0, 3)])

    def call(self, made: list[int]) -> Call:
        call = self.options(made)
        refs = tuple(self.ref(made) for _ in range((0, 1, 1, 2)[self.draws.integer(0, 3)])) if made else ()
        if "maps" in self.features and call.ends == "value" and self.draws.chance(0.2):
            call = dataclasses.replace(call, ends="list", length=(0, 1, 3)[self.draws.integer(0, 2)])
        return dataclasses.replace(call, refs=refs)

    def ref(self, made: list[int]) -> Ref:
        shapes = ("plain", "list", "tuple", "dict", "box", "named")
        shape = shapes[self.draws.integer(0, 5)] if self.has("containers", 0.5) else "plain"
        return Ref(self.one_of(made), shape, self.has("allow_failure", 0.3))

    def options(self, made: list[int]) -> Call:
        call = self.attempts() | self.value()
        if made and self.has("wait_for", 0.3):
            call["wait_for"] = (self.one_of(made),)
        call["nested"] = self.has("nested", 0.2)
        if self.has("asynchronous", 0.15):
            call |= {"asynchronous": True, "takes": 0.0, "limit": None, "nested": False}
        if self.has("options", 0.3):
            call["option"] = "named" if self.draws.chance(0.5) else "cached"
        if self.has("callbacks", 0.3):
            call["callback"] = ("counts", "calls", "asks", "asks")[self.draws.integer(0, 3)]
        if self.has("hooks", 0.3):
            call["hook"] = "calls" if self.draws.chance(0.5) else "counts"
        return Call(**call)

    def attempts(self) -> dict[str, Any]:
        call: dict[str, Any] = {}
        if self.has("failures", 0.4):
            call["fails"] = (1, 1, 2, 9)[self.draws.integer(0, 3)]
            call["retries"] = self.draws.integer(0, 3)
            call["delay"] = (0.0, 0.0, 0.5, 2.0)[self.draws.integer(0, 3)]
        elif self.draws.chance(0.15):
            call["retries"] = self.draws.integer(1, 2)
        if self.draws.chance(0.6 if self.prefers == "first" else 0.3):
            call["takes"] = (0.01, 0.5, 3.0)[self.draws.integer(0, 2)]
        if self.has("limits", 0.3):
            call["limit"] = 1.0
        return call

    def value(self) -> dict[str, Any]:
        call: dict[str, Any] = {"large": self.has("large", 0.6), "large_argument": self.has("large_arguments", 0.1)}
        call["slow_argument"] = self.has("slow_arguments", 0.25)
        if self.has("states", 0.2):
            call["ends"] = "completed" if self.draws.chance(0.6) else "failed"
            if call["ends"] == "failed":
                call["retries"] = 0
        return call
