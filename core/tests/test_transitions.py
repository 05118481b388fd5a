"""The machine of a task run: each event in each phase, beside the table in `docs/transitions.md`."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from riverrun import task
from riverrun._futures import TaskRun
from riverrun._outcomes import Outcome
from riverrun._pending_run import TOO_LATE, Do, Doubt, PendingRun, Phase, RemoteState
from riverrun.states import COMPLETED, Crashed, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "transitions.md"
ATTEMPT = 3
"""The number of the present attempt of each run that a test looks at."""


@task
def work() -> None:
    """Do nothing."""


class Handle:
    """What stops an attempt; nobody asks it here."""

    withdraws = True

    def cancel(self) -> bool:
        raise AssertionError("the machine calls nothing")

    def is_running(self) -> bool:
        return False


def run_in(phase: Phase, *, missing: int = 0, doubt: Doubt = Doubt.NONE, **fields: Any) -> PendingRun:
    """Make a run in a phase, in its third attempt."""
    home: Any = SimpleNamespace(
        is_watched=False, observed=None, events=None, dispatch=SimpleNamespace(in_place=False), live={}
    )
    run = PendingRun(home, work, TaskRun(home, work, 1, 0), (), {}, phase)
    run.remote = RemoteState()
    run.remote.doubt = doubt
    run.attempt, run.missing = ATTEMPT, missing
    if phase in {Phase.SENT, Phase.RUNNING} or doubt is not Doubt.NONE:
        run.handle = Handle()
    run.run.run_count = int(phase is Phase.RUNNING)
    for name, value in fields.items():
        setattr(run, name, value)
    if phase is Phase.FINAL:
        run.run.final = COMPLETED
    return run


SITUATIONS: dict[str, Callable[[], PendingRun]] = {
    "WAITING": lambda: run_in(Phase.WAITING, missing=1),
    "WAITING, called back, asked": lambda: run_in(Phase.WAITING, missing=1, doubt=Doubt.ASKED),
    "WAITING, called back, has begun": lambda: run_in(Phase.WAITING, missing=1, doubt=Doubt.BEGUN),
    "WAITING, called back, unknown": lambda: run_in(Phase.WAITING, missing=1, doubt=Doubt.OPEN),
    "READY": lambda: run_in(Phase.READY),
    "QUEUED": lambda: run_in(Phase.QUEUED),
    "PACKING": lambda: run_in(Phase.PACKING),
    "PACKING, early": lambda: run_in(Phase.PACKING, missing=1),
    "SENT": lambda: run_in(Phase.SENT),
    "SENT, early": lambda: run_in(Phase.SENT, missing=1),
    "RUNNING": lambda: run_in(Phase.RUNNING),
    "RUNNING, early": lambda: run_in(Phase.RUNNING, missing=1),
    "WAITING, asked to stop": lambda: run_in(Phase.WAITING, missing=1, doubt=Doubt.ASKED, stopping=1),
    "SENT, asked to stop": lambda: run_in(Phase.SENT, stopping=1),
    "RUNNING, asked to stop": lambda: run_in(Phase.RUNNING, stopping=1),
    "ENDING": lambda: run_in(Phase.ENDING),
    "ENDING, parked": lambda: run_in(Phase.ENDING, stopping=1, parked=(Do.DECIDE, FAILED)),
    "ENDING, parked, not begun": lambda: run_in(Phase.ENDING, stopping=1, parked=(Do.RESEND, FAILED)),
    "DELAYED": lambda: run_in(Phase.DELAYED),
    "DELAYED, early": lambda: run_in(Phase.DELAYED, missing=1),
    "FINAL": lambda: run_in(Phase.FINAL),
}
FAILED = Outcome(None, ValueError("no"))


def _stopped(answer: Any) -> Do:
    return Do.LATE if answer is TOO_LATE else Do.TELL


def _asked(run: PendingRun, *, stopped: bool) -> Do:
    return run.stop_answered(stopped=stopped)[0] if run.stopping else Do.LATE


EVENTS: dict[str, Callable[[PendingRun], Any]] = {
    "the last upstream has ended": lambda run: run.upstream_ended() if run.missing else Do.LATE,
    "an upstream has no value": lambda run: run.upstream_ended(with_value=False) if run.missing else Do.LATE,
    "it is to be sent early": lambda run: run.presubmit(),
    "it is not sent early after all": lambda run: run.not_presubmitted(ATTEMPT),
    "it is dispatched": lambda run: run.queued(),
    "somebody starts it here": lambda run: run.try_start(),
    "somebody packs a call": lambda run: run.try_pack(),
    "the call is packed": lambda run: run.packed(ATTEMPT),
    "the executor has taken the call": lambda run: run.sent(ATTEMPT, Handle()),
    "the function has begun": lambda run: run.begun(ATTEMPT, 1.0),
    "the function has returned": lambda run: _stopped(run.set_final(COMPLETED, 5, ATTEMPT)),
    "the attempt has failed": lambda run: run.attempt_failed(ATTEMPT, FAILED),
    "the call could not be sent": lambda run: run.attempt_failed(ATTEMPT, FAILED, begun=False),
    "the call was lost, begun": lambda run: run.lost(ATTEMPT, FAILED, begun=True, most=1),
    "the call was lost, begun, once too often": lambda run: run.lost(ATTEMPT, FAILED, begun=True, most=0),
    "the call was lost, not begun": lambda run: run.lost(ATTEMPT, FAILED, begun=False, most=1),
    "its time limit is over": lambda run: run.deadline(ATTEMPT, FAILED)[0],
    "it is tried again": lambda run: run.retry(Failed(), in_place=False),
    "it is tried again, in place": lambda run: run.retry(Failed(), in_place=True),
    "the delay is over": lambda run: run.retry_due(),
    "it is sent again": lambda run: run.resend(),
    "it is not tried again": lambda run: _stopped(run.decided(Failed())),
    "an upstream is run again": lambda run: run.recall()[0],
    "the call is withdrawn": lambda run: run.recall_answered(ATTEMPT, certain=True, exact=True),
    "the call has begun, news will come": lambda run: run.recall_answered(ATTEMPT, certain=False, exact=True),
    "whether the call has begun is unknown": lambda run: run.recall_answered(ATTEMPT, certain=False, exact=False),
    "somebody cancels it": lambda run: run.cancel()[0],
    "what was asked has stopped": lambda run: _asked(run, stopped=True),
    "what was asked does not stop": lambda run: _asked(run, stopped=False),
    "it cannot run": lambda run: _stopped(run.set_final(Failed())),
    "the flow run ends": lambda run: _stopped(run.abort(Crashed())[0]),
}
OF_AN_ATTEMPT = {
    "the function has begun": lambda run: run.begun(ATTEMPT - 1, 1.0),
    "the function has returned": lambda run: _stopped(run.set_final(COMPLETED, 5, ATTEMPT - 1)),
    "the attempt has failed": lambda run: run.attempt_failed(ATTEMPT - 1, FAILED),
    "the call was lost": lambda run: run.lost(ATTEMPT - 1, FAILED, begun=True, most=1),
    "the call was lost, not begun": lambda run: run.lost(ATTEMPT - 1, FAILED, begun=False, most=1),
    "its time limit is over": lambda run: run.deadline(ATTEMPT - 1, FAILED)[0],
    "the call is packed": lambda run: run.packed(ATTEMPT - 1),
    "the executor has taken the call": lambda run: run.sent(ATTEMPT - 1, Handle()),
    "the call is withdrawn": lambda run: run.recall_answered(ATTEMPT - 1, certain=True, exact=True),
}


def after(run: PendingRun) -> str:
    """Say where a run is."""
    doubt = run.remote.doubt if run.remote else Doubt.NONE
    more = {Doubt.ASKED: ", asked", Doubt.BEGUN: ", has begun", Doubt.OPEN: ", unknown"}.get(doubt)
    if run.phase is Phase.WAITING and more:
        return f"WAITING, called back{more}"
    return run.phase.name


def snapshot(run: PendingRun) -> tuple[Any, ...]:
    """Give all that a transition may change."""
    remote = run.remote
    assert remote is not None
    return (run.phase, run.attempt, run.handle, run.run.run_count, run.run.final, run.failures, run.stopping,
            run.cancelled, run.parked, run.state, remote.doubt, remote.losses)  # fmt: skip


def rows() -> list[tuple[str, str, str, str]]:
    """Give each transition: situation, event, where it leads, what is to be done."""
    found = []
    for (situation, make), (event, bring) in itertools.product(SITUATIONS.items(), EVENTS.items()):
        run = make()
        before = snapshot(run)
        answer = bring(run)
        if snapshot(run) != before or answer in {Do.PREPARE, Do.STOP, Do.WITHDRAW, Do.RESEND}:
            to_do = answer.value if isinstance(answer, Do) else "-"
            found.append((situation, event, after(run), to_do))
        else:
            assert answer in {Do.LATE, Do.NOTHING, None, 0}, (situation, event, answer)
    return found


def test_the_table_in_the_docs_has_each_transition():
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    told = [tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|")) for line in lines]
    table = [row for row in told if len(row) == 4 and row[0] in SITUATIONS]
    assert table == rows(), "\n" + "\n".join("| {} | {} | {} | {} |".format(*row) for row in rows())


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("event", OF_AN_ATTEMPT)
def test_what_comes_with_the_number_of_an_earlier_attempt_changes_nothing(situation, event):
    run = SITUATIONS[situation]()
    before = snapshot(run)
    assert OF_AN_ATTEMPT[event](run) is Do.LATE
    assert snapshot(run) == before


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("event", EVENTS)
def test_nothing_changes_a_final_state(situation, event):
    run = SITUATIONS[situation]()
    run.set_final(Failed("it is over"))
    state = run.run.final
    EVENTS[event](run)
    assert run.phase is Phase.FINAL
    assert run.run.final is state


def test_an_attempt_that_was_replaced_and_turns_out_to_have_been_executed_is_counted_once():
    run = SITUATIONS["WAITING, called back, unknown"]()
    assert run.upstream_ended() is Do.PREPARE
    assert run.queued()
    assert run.try_pack() == ATTEMPT + 1
    assert run.run.run_count == 0
    assert run.begun(ATTEMPT, 1.0) is Do.LATE
    assert run.attempt_failed(ATTEMPT, FAILED) is Do.LATE
    assert run.run.run_count == 1
    assert run.phase is Phase.PACKING


def test_a_call_that_was_called_back_and_has_begun_comes_to_life_again():
    run = SITUATIONS["WAITING, called back, has begun"]()
    assert run.upstream_ended() is Do.NOTHING  # the attempt that has begun goes first
    assert run.begun(ATTEMPT, 1.0) is Do.NOTHING
    assert run.phase is Phase.RUNNING
    assert run.set_final(COMPLETED, 5, ATTEMPT) is not TOO_LATE
    assert run.run.run_count == 1


def test_an_attempt_is_counted_when_it_has_begun_and_not_when_it_is_sent():
    run = run_in(Phase.QUEUED)
    attempt = run.try_pack()
    assert run.packed(attempt) is Do.SEND
    assert run.sent(attempt, Handle()) is Do.NOTHING
    assert run.run.run_count == 0
    run.begun(attempt, 7.0)
    run.begun(attempt, 8.0)
    assert (run.run.run_count, run.run.start_time) == (1, 7.0)


def test_nobody_is_sent_with_the_handle_of_an_attempt_that_was_called_back():
    run = SITUATIONS["WAITING, called back, unknown"]()
    assert run.upstream_ended() is Do.PREPARE
    assert run.queued()
    attempt = run.try_pack()
    assert run.packed(attempt) is Do.SEND
    assert run.lend(SITUATIONS["PACKING, early"]()) is None  # until the executor has taken the new call
