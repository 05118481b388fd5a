"""The reference: which states, values and attempts are right for each run of a program.

It looks at one run at a time, and takes the final states of its upstreams as they are seen: so by induction all of
them are right. Without faults and cancels there is exactly one right answer. Faults widen it, by as much as they
happened: a run may be Crashed only if it was lost more often than its budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from riverrun.testing._simulation._bodies import Box, described
from riverrun.testing._simulation._flow import Element, Maybe, Run

if TYPE_CHECKING:
    from riverrun.testing._simulation._plan import Journal

LOSSES_BEFORE_IT_BEGINS: Final = 20
"""So often a run may be lost before it begins, at least, and cost nothing."""


@dataclass
class Right:
    """What is right for one run.

    Attributes:
        states: the names of final states.
        least: of its attempts.
        most: of its attempts.
    """

    states: set[str]
    least: int
    most: int


class Reference:
    """Says what is right.

    Args:
        journal: which faults there were; None where that is not known, as where workers are real and die.
        max_worker_losses: the budget of a run.
        interrupted: whether the flow ended with an interrupt: then a run may have been stopped.
    """

    def __init__(self, journal: Journal | None, max_worker_losses: int, *, interrupted: bool = False) -> None:
        self._journal = journal
        self._max_losses = max_worker_losses
        self.interrupted = interrupted
        self._known: dict[int, Right] = {}
        self._described: dict[int, str] = {}

    def right(self, run: Run) -> Right:
        """Say which final states a run may have, and how many attempts may have been executed."""
        if id(run) not in self._known:
            self._known[id(run)] = right = self._right(run)
            if self.interrupted:  # and what has failed is not tried again
                right.states |= {"Cancelled", "Crashed", "Failed"}
                right.least = 0
            if self.is_cut_off(run):
                right = self._known[id(run)] = self._undisturbed(run)
                right.states |= {"NotReady", "Cancelled", "Crashed", "Failed"}
                right.least, right.most = 0, right.most + self._max_losses
        return self._known[id(run)]

    def is_cut_off(self, run: Run) -> bool:
        """Say whether its upstreams ended without the values that it may have had: interrupted, or lost."""
        journal = self._journal
        if journal is None or self._may_run(run):
            return False
        needed = [*(upstream for upstream, may_fail in upstreams_of(run) if not may_fail), *run.awaited]
        return all(
            is_completed(one)
            or (journal.executed(one.future.name) and (self.interrupted or one.call.option == "cached"))
            for one in needed
        )

    def _right(self, run: Run) -> Right:
        cancelled = any(run.cancelled)
        if not self._may_run(run):
            states = {"NotReady"} | ({"Cancelled"} if cancelled else set())
            if self._refusals(run):  # before that was known
                states |= {"Failed", "Crashed"}
            if self._takes_what_was_lost_too_often(run):
                states |= {"Crashed", "Failed"} if self._journal is None or self._journal.refusals else {"Crashed"}
            return Right(states, 0, 0)
        right = self._undisturbed(run)
        losses, refusals = self._losses(run), self._refusals(run)
        if losses or refusals or self._journal is None:
            # A lost attempt is none of those that fail, and what is refused is never executed.
            right.most += self._max_losses if self._journal is None else min(losses, self._max_losses)
            right.least = 0
            if right.states == {"Failed"} and run.call.fails:
                right.states.add("Completed")
            if refusals or (losses > self._max_losses and run.call.fails):  # they have used up its retries
                right.states |= {"Failed", "Crashed"}
        if self.is_lost(run):  # or what was to make a value again was refused
            right.states |= {"Crashed", "Failed"} if self._journal is None or self._journal.refusals else {"Crashed"}
            right.least = 0
        if cancelled:
            right.states.add("Cancelled")
            right.least = 0
        return right

    def _undisturbed(self, run: Run) -> Right:
        """Say what is right where nothing is lost and nothing is cancelled."""
        call = run.call
        if call.limit is not None and call.takes > call.limit:
            return Right({"TimedOut"}, 1 + call.retries, 1 + call.retries)
        attempts = 1 + min(call.fails, call.retries)
        if call.fails > call.retries or call.ends == "failed":
            return Right({"Failed"}, attempts, 1 + call.retries)
        return Right({"Completed"}, attempts, 1 + call.retries if self._has_losses(run) else attempts)

    # -- faults

    def _has_losses(self, run: Run) -> bool:
        return self._journal is None or bool(self._losses(run) or self._refusals(run))

    def _losses(self, run: Run) -> int:
        return 0 if self._journal is None else self._journal.losses.get(run.future.name, 0)

    def _refusals(self, run: Run) -> int:
        return 0 if self._journal is None else self._journal.refusals.get(run.future.name, 0)

    def is_lost(self, run: Run) -> bool:
        """Say whether its value, or one that it takes, may be gone for good."""
        return self.interrupted or self._lost_too_often(run) or self._takes_what_was_lost_too_often(run)

    def _lost_too_often(self, run: Run) -> bool:
        if self._journal is None:
            return True
        return (
            self._losses(run) > self._max_losses
            or self._journal.losses_before.get(run.future.name, 0) >= LOSSES_BEFORE_IT_BEGINS
            or bool(self._refusals(run))
        )

    def _takes_what_was_lost_too_often(self, run: Run) -> bool:
        """Say whether a value that it takes may be gone for good."""
        return any(self.is_lost(upstream) for upstream, _ in upstreams_of(run))

    # -- upstreams

    def _may_run(self, run: Run) -> bool:
        """Say whether its upstreams, as they ended, allow that it runs."""
        needed = [upstream for upstream, may_fail in upstreams_of(run) if not may_fail]
        return all(is_completed(upstream) for upstream in [*needed, *run.awaited])

    def seen(self, run: Run) -> str:
        """Describe the arguments that its function must see."""
        if id(run) not in self._described:
            self._described[id(run)] = described([self._given(argument) for argument in run.arguments])
        return self._described[id(run)]

    def value(self, run: Run) -> Any:
        """Give the value that it must have, if it has completed."""
        return run.body.value(self.seen(run))

    def _given(self, argument: Any) -> Any:
        if isinstance(argument, Maybe):
            return self._given(argument.run)
        if isinstance(argument, Run):
            return self.value(argument) if is_completed(argument) else ValueError()
        if isinstance(argument, Element):
            return self.value(argument.run)[argument.place]
        if isinstance(argument, Box):
            return Box(self._given(argument.content))
        if isinstance(argument, (list, tuple)):
            return type(argument)([self._given(part) for part in argument])
        if isinstance(argument, dict):
            return {key: self._given(part) for key, part in argument.items()}
        return argument


def is_completed(run: Run) -> bool:
    """Say whether a run has completed, as it is seen."""
    return bool(run.future.state.is_completed())


def upstreams_of(run: Run) -> list[tuple[Run, bool]]:
    """Give the runs among the arguments of one, each with "may it fail?"."""
    return [found for argument in run.arguments for found in _upstreams(argument, may_fail=False)]


def _upstreams(argument: Any, *, may_fail: bool) -> list[tuple[Run, bool]]:
    if isinstance(argument, Maybe):
        return _upstreams(argument.run, may_fail=True)
    if isinstance(argument, Run):
        return [(argument, may_fail)]
    if isinstance(argument, Box):
        return _upstreams(argument.content, may_fail=may_fail)
    if isinstance(argument, dict):
        argument = list(argument.values())
    if isinstance(argument, (list, tuple)):
        return [found for part in argument for found in _upstreams(part, may_fail=may_fail)]
    return []
