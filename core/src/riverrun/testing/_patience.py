"""How long the suite waits, and when it gives a runner up.

A check that waits in vain costs a minute, and on a runner that loses calls nearly all of them do. So the first one that
runs into its limit has all of `time_limit`; from then on there is reason for suspicion, and a quarter of it has to do;
after three of them nothing new is to be learned, and the rest of the class is left out. With the limit that is set if
nobody sets one, that is 60 + 15 + 15 seconds, so that an author knows within two minutes. A runner that is slow and
loses nothing never gets there: as long as no check has run into the whole limit, each of them has all of it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import pytest

from riverrun import _conformance_jobs as _jobs
from riverrun.testing._within import Overdue, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from riverrun.testing._suite import Suite

ENOUGH: Final = 3
"""After so many checks of a class that ran into their limit, the rest of the class is left out."""
SUSPICION: Final = 4
"""The limit is divided by this, once a check has run into it."""

DID_NOT_START: Final = "a task was submitted, and did not start"

overdue: Final[dict[type[Suite], list[str]]] = {}
"""For each class, which of its checks ran into their limit in this process."""


class NotAtOnce(Overdue):
    """Tasks that are to run at the same time did not, though none of them is lost; or a process did not end."""

    riverrun_limit = "waited"


# (A class statement would do, if type checkers knew that this is a class.)
LeftOut: Final[type[BaseException]] = type("LeftOut", (pytest.skip.Exception,), {"riverrun_limit": "left out"})
"""A check was left out, since others ran into their limits."""


def limit_of(suite: type[Suite]) -> float:
    """Say how long the next check of a class may take, in seconds."""
    return suite.time_limit / SUSPICION if overdue.get(suite) else suite.time_limit


def expect(
    condition: Callable[[], bool],
    text: str,
    seconds: float,
    *,
    else_make: Path | None = None,
    error: type[Overdue] = Overdue,
) -> None:
    """Wait for something that makes no event.

    Args:
        condition: whether it has come.
        text: what is wrong if it does not come.
        seconds: how long to wait at most.
        else_make: a file for which tasks wait: it is made if the time is over, so that they end.
        error: what to raise then.

    Raises:
        Overdue: the time is over.
    """
    __tracebackhide__ = True
    if not _jobs.wait_until(condition, seconds):
        _give_up(error(text), else_make)


async def expect_async(
    condition: Callable[[], bool],
    text: str,
    seconds: float,
    *,
    else_make: Path | None = None,
    error: type[Overdue] = Overdue,
) -> None:
    """Do the same on a loop."""
    __tracebackhide__ = True
    if not await _jobs.wait_until_async(condition, seconds):
        _give_up(error(text), else_make)


def expect_all_met(met: Iterable[bool], text: str) -> None:
    """Expect that tasks which waited for each other have met; each says it of itself."""
    __tracebackhide__ = True
    if not all(met):
        raise NotAtOnce(text)


def _give_up(error: Overdue, file: Path | None) -> NoReturn:
    __tracebackhide__ = True
    if file is not None:
        file.touch()
    raise error


def diagnosis(kinds: Iterable[str]) -> str:
    """Say what is the matter with a runner on which so many checks ran into their limit.

    Args:
        kinds: of each of them, its `riverrun_limit`.
    """
    return "this runner loses calls" if Overdue.riverrun_limit in kinds else "this runner keeps checks waiting"


C = TypeVar("C", bound=type)


def limited(suite: C) -> C:
    """Give each test of a class the time limit that the class declares as `time_limit`."""
    for name, test in list(vars(suite).items()):
        if name.startswith("test_"):
            setattr(suite, name, _limited(test))
    return suite


def _limited(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)  # pytest finds the fixtures and marks of the test through this
    def in_time(self: Any, **fixtures: Any) -> None:
        __tracebackhide__ = True
        suite = type(self)
        limit = limit_of(suite)
        before = overdue.get(suite, [])
        if len(before) >= ENOUGH:
            raise LeftOut(
                f"left out: {len(before)} checks of {suite.__name__} ran into their limit, so the runner loses calls, "
                f"or does not end. Look at the first: {', '.join(dict.fromkeys(before))}"
            )
        try:
            within(limit, lambda: test(self, **fixtures))
        except Overdue as error:
            if before:
                error.add_note(f"Its limit was {limit:g} seconds: a check before it ran into {suite.time_limit:g}.")
            overdue.setdefault(suite, []).append(test.__name__)
            raise

    return in_time
