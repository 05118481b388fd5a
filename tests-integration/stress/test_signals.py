"""SIGINT and SIGTERM at any moment in the life of a process that runs a flow: it ends, says why, and leaves nothing."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import random

pytestmark = [
    pytest.mark.stress,
    pytest.mark.timeout(1800),  # an undisturbed run and a disturbed one, each with limits of its own
    pytest.mark.skipif(sys.platform == "win32", reason="there it has neither process groups nor these signals"),
]

RUNNERS = ["sequential", "concurrent", "dask-processes", "dask-threads", "ray"]
PHASES = [None, "began", "calling", "body", "body-over", "returned", "ended"]
"""The marks that the program leaves, in their order; what comes before the first is Python's own start."""
ALLOWED = ("KeyboardInterrupt", "__main__.Planned", "Planned")
"""What a traceback on stderr may end with: the interrupt, and what the program's own tasks raise."""


class Moment(NamedTuple):
    """A moment of a program: after so much of a phase, in seconds as measured in an undisturbed run."""

    mark: str | None
    seconds: float


def drawn_moment(rng: random.Random, times: dict[str, float]) -> Moment:
    """Draw a moment: of every second one, uniformly over the life of the process; else, each phase is as likely.

    It is counted from the last mark before it, so that a process that takes longer to start is met at the same point.
    """
    begins = [0.0, *(times[mark] for mark in PHASES[1:]), times["end"]]
    if rng.random() < 0.5:
        at = rng.uniform(0, times["end"])
        phase = max(number for number in range(len(PHASES)) if begins[number] <= at)
        return Moment(PHASES[phase], at - begins[phase])
    phase = rng.randrange(len(PHASES))
    return Moment(PHASES[phase], rng.uniform(0, begins[phase + 1] - begins[phase]))


class Sent(NamedTuple):
    """A signal, and how far the program had come before it was sent and after."""

    number: signal.Signals
    times: int
    before: set[str]
    after: set[str]


def last_words(err: str) -> list[str]:
    """Give the last line of each traceback; of those that belong together, of the last one."""
    words = []
    lines = err.splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "Traceback (most recent call last):":
            rest = lines[number + 1 :]
            end = next((at for at, each in enumerate(rest) if each and not each.startswith((" ", "|"))), None)
            follows = "" if end is None else "\n".join(rest[end + 1 : end + 5])
            if "another exception occurred:" in follows or "direct cause of the following" in follows:
                continue
            words.append("nothing" if end is None else rest[end])
    return words


def expected_statuses(sent: Sent, natural: int | None) -> set[int]:
    """Say with which statuses a process may end, for how far it had come when the signal was sent."""
    statuses = {128 + sent.number, -sent.number}
    if sent.number == signal.SIGTERM and "body" in sent.before and "body-over" not in sent.after:
        statuses = {143}  # in a flow, it is Riverrun that hears it
    if "began" not in sent.after and sent.number == signal.SIGINT:
        statuses.add(1)  # while Python imports what it starts with, it takes an interrupt for a failure
    if "returned" in sent.after and natural is not None:
        statuses.add(natural)  # the flow had ended by itself
    return statuses


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_signal_at_any_moment_ends_the_process_with_its_status_and_nothing_left(
    start_program: Any, undisturbed: Any, rng: random.Random, seed: int, runner: str
):
    moment = drawn_moment(rng, undisturbed("signalled", runner))
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    to_group = number == signal.SIGINT and rng.random() < 0.4
    again_after = 10 ** rng.uniform(-4, 0.3) if rng.random() < 0.3 else None

    program = start_program("signalled", runner, seed)
    program.signals.append(f"planned: {number.name}, {moment}, {to_group=}, {again_after=}")
    program.wait_for(*moment)
    before = program.marks()
    program.send(number, to_group=to_group)
    after = program.marks()
    if again_after is not None and program.wait_for(None, again_after):
        program.send(number, to_group=to_group)
    status = program.end()
    left = program.left()

    sent = Sent(number, 1 + (again_after is not None), before, after)
    if runner == "ray" and rays_own(sent, status, program.err):
        return
    plan = program.wrote("plan")
    statuses = expected_statuses(sent, plan and plan["status"])
    program.check(status in statuses, f"status {status}, not one of {sorted(statuses)}")
    program.check(not left, f"left behind: {left}")
    strange = [words for words in last_words(program.err) if not words.startswith(ALLOWED)]
    program.check(not strange, f"on stderr there are tracebacks of something else: {strange}")


# -- what Ray does, and Riverrun cannot keep it from


def rays_own(sent: Sent, status: int, err: str) -> bool:
    """Say whether a process ended as Ray can let one end, by the signature of that."""
    opening = "calling" in sent.after and "body" not in sent.before
    closing = "body-over" in sent.after
    if sent.number == signal.SIGTERM:
        # Ray takes its handler of SIGTERM away when a session is shut down, and none is left for milliseconds, until
        # Riverrun has put its own back: the process ends at once.
        if status == -signal.SIGTERM and (opening or closing):
            return True
        # In the middle of `ray.init` Ray lets no other thread run, and its handler stays for up to a second: that
        # prints a stack trace, and aborts the process 3 seconds later.
        return opening and status == -signal.SIGABRT and "SIGTERM received at time=" in err
    # Ray imports and asks things as the interpreter exits: a Ctrl-C there is forgotten as the reason for the end.
    return (
        closing and status == 1 and re.search(r"^Exception ignored in.*ray|ray/_private", err, re.MULTILINE) is not None
    )
