"""What a simulated executor may do, and the journal of what it did."""

from __future__ import annotations

import pickle
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from riverrun.testing._simulation._world import World


@dataclass
class Plan:
    """What an executor may do, and how likely; drawn from the seed of a world.

    Attributes:
        contract: `remote`, `submit` (other processes), `threads` (`submit` in this process).
        max_worker_losses: as in `RemoteTaskExecutor`.
        exact: whether `cancel()` says False only of what has begun or is over.
        tells: whether calls are told as lost, too, when an upstream ends without a value.
        reporters: whether reports come from one thread, or each call's from its own.
        faults: how many faults there are, until the second phase.
        loss: how likely a call is lost, when one may be.
        value_loss: how likely a value is lost as soon as it is there.
        fetch_loss: how likely it is lost when it is asked for.
        twice: how likely something is told again, late.
        refusal: how likely a call is refused.
        slow: how likely a call takes its time before it begins.
        whole: how likely a loss is that of a worker, with all that it has, and not of one call.
        slow_answers: how likely the executor itself takes its time, in each of its methods.
    """

    contract: str = "remote"
    workers: int = 2
    max_worker_losses: int = 2
    exact: bool = True
    tells: bool = True
    reporters: str = "many"
    faults: int = 0
    loss: float = 0.0
    value_loss: float = 0.0
    fetch_loss: float = 0.0
    twice: float = 0.0
    refusal: float = 0.0
    slow: float = 0.3
    slow_answers: float = 0.0
    whole: float = 0.5

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: a value is none of those that there are, or no probability; the text says which.
        """
        for name, known in KINDS.items():
            if (given := getattr(self, name)) not in known:
                msg = f"simulated(): {name} must be one of {', '.join(known)}, not {given!r}."
                raise ValueError(msg)
        for name in PROBABILITIES:
            if not 0 <= (given := getattr(self, name)) <= 1:
                msg = f"simulated(): {name} must be a probability, from 0 to 1, not {given!r}."
                raise ValueError(msg)
        for name, least in LEAST.items():
            if (given := getattr(self, name)) < least:
                msg = f"simulated(): {name} must be {least} or more, not {given!r}."
                raise ValueError(msg)


KINDS: Final = {"contract": ("remote", "submit", "threads"), "reporters": ("one", "many")}
PROBABILITIES: Final = ("loss", "value_loss", "fetch_loss", "twice", "refusal", "slow", "slow_answers", "whole")
LEAST: Final = {"workers": 1, "max_worker_losses": 0, "faults": 0}


def drawn_plan(seed: int, contract: str | None = None, *, faults: bool | None = None) -> Plan:
    """Draw what the executors of a world do."""
    draw = random.Random(f"plan {seed}")  # noqa: S311 - it draws lots
    kind = contract or draw.choice(["remote", "remote", "remote", "submit", "threads"])
    wanted = draw.random() < 0.8 if faults is None else faults
    plan = Plan(
        contract=kind,
        workers=draw.randint(1, 3),
        max_worker_losses=draw.choice([0, 1, 1, 2, 5]),
        exact=draw.random() < 0.5,
        tells=draw.random() < 0.5,
        reporters=draw.choice(["one", "many", "many"]),
        slow=draw.choice([0.0, 0.3, 0.8]),
        slow_answers=draw.choice([0.0, 0.0, 0.1, 0.4]),
    )
    if wanted:
        plan.faults = draw.choice([1, 3, 10, 30])
        plan.loss = draw.choice([0.0, 0.1, 0.5, 0.9])
        plan.value_loss = draw.choice([0.0, 0.1, 0.5, 0.9])
        plan.fetch_loss = draw.choice([0.0, 0.0, 0.3])
        plan.twice = draw.choice([0.0, 0.0, 0.3])
        plan.refusal = draw.choice([0.0, 0.0, 0.0, 0.1])
        storm = draw.random()
        if storm < 0.15:
            plan.workers, plan.max_worker_losses, plan.faults, plan.whole = 1, 1, 10, 1.0
            plan.loss, plan.value_loss = 0.3, 0.1
        elif storm < 0.3:
            plan.max_worker_losses, plan.faults, plan.slow_answers = 5, 10, 0.3
            plan.loss, plan.value_loss, plan.fetch_loss = 0.0, 0.1, 0.6
    return plan


@dataclass
class Attempt:
    """What the journal knows of one call that was handed over."""

    name: str
    key: str
    number: int = 0
    """Which call for this task run it is; with the name, the same in each run of a seed."""
    begun: float | None = None
    ended: float | None = None
    killed: bool = False
    told: bool = False
    """Whether anything was told of it: that it has begun, or how it ended."""
    seen: list[Any] = field(default_factory=list)
    """What the body was called with, each time that it was: as it describes it."""

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.name}#{self.number}"

    @property
    def run(self) -> str:
        """What the keys of all attempts at one task run have in common: names are unique in a flow run only."""
        return self.key.partition("-again-")[0].rpartition("-")[0]

    @property
    def is_over(self) -> bool:
        """Say whether nothing of it is being executed any more."""
        return self.begun is None or self.ended is not None or self.killed


class Journal:
    """What was really executed: the truth that the engine's records are compared with."""

    def __init__(self) -> None:
        self.attempts: dict[str, list[Attempt]] = {}
        """By the name of the task run."""
        self.losses: dict[str, int] = {}
        """How often each was lost after it had begun, or its value was lost, by name."""
        self.losses_before: dict[str, int] = {}
        self.refusals: dict[str, int] = {}

    def add(self, attempt: Attempt) -> None:
        """Note a call that was handed over."""
        attempts = self.attempts.setdefault(attempt.name, [])
        attempts.append(attempt)
        attempt.number = len(attempts)

    def executed(self, name: str) -> int:
        """Say how many attempts at a task run have begun."""
        return sum(attempt.begun is not None for attempt in self.attempts.get(name, ()))

    def count(self, counts: dict[str, int], name: str) -> None:
        """Add one."""
        counts[name] = counts.get(name, 0) + 1


class Faults:
    """Draws faults until there were enough: then the second phase begins, without any."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._left = plan.faults

    def happens(self, probability: float) -> bool:
        """Say whether a fault happens now."""
        if not self._left or not probability or not self._world.chance(probability):
            return False
        self._left -= 1
        return True

    def stop(self) -> None:
        """Begin the second phase."""
        self._left = 0


def pause(world: World, plan: Plan, point: str) -> None:
    """Let others go on meanwhile, perhaps for some time."""
    world.reached(point)
    if plan.contract == "threads" or world.quiet or world.failed is not None:
        return  # in this process time limits count meanwhile
    if plan.slow_answers and world.chance(plan.slow_answers):
        world.note(f"takes its time at {point}")
        world.sleep(world.random.choice([0.001, 0.1, 3.0]))


def travelled(call: Any) -> Any:
    """Give the call as it arrives on a worker."""
    upstreams, call.upstreams = call.upstreams, ()
    try:
        return pickle.loads(pickle.dumps(call))  # noqa: S301
    finally:
        call.upstreams = upstreams
