"""What becomes of calls that Ray gives up: who had them is asked for what is known, and the engine told."""

from __future__ import annotations

import logging
import pickle
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import CrashedRun, WorkerLost

from runner_ray._loss import Loss, full, is_full

if TYPE_CHECKING:
    from runner_ray._guests import Guests
    from runner_ray._open import OpenCalls
    from runner_ray._sending import Sending

logger = logging.getLogger("riverrun.task_runners.ray")


class Losses:
    """Takes the exceptions that came in place of outcomes.

    Args:
        guests: the nodes.
        sendings: the calls that have not ended; what is lost is taken out of them.
    """

    def __init__(self, guests: Guests, sendings: OpenCalls) -> None:
        self._guests = guests
        self._open = sendings
        self._lock = threading.Lock()
        """Held while it is settled who tells of a call that Ray was asked to withdraw."""
        self._questions: SimpleQueue[tuple[Sending, Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, sending: Sending, error: Any) -> None:
        """Take what came in place of an outcome."""
        from ray import exceptions

        from runner_ray._worker import Reported

        cause = getattr(error, "cause", None) if isinstance(error, exceptions.RayTaskError) else None
        if isinstance(cause, Reported):
            self._reported(sending, cause)
        elif isinstance(error, exceptions.TaskCancelledError):
            self._cancelled(sending, error)
        elif is_full(error) or is_full(cause):
            text = f"Task run {sending.name!r}: {full(error if is_full(error) else cause)}"
            self._open.lose(sending, CrashedRun(text), final=True)
        elif isinstance(cause, exceptions.RayError):
            self._upstream_lost(sending, cause)
        elif isinstance(error, exceptions.RayTaskError):
            text = f"Task run {sending.name!r} could not be run by Ray: {cause!r}"
            self._open.lose(sending, CrashedRun(text), final=True)
        elif isinstance(error, (exceptions.RuntimeEnvSetupError, exceptions.TaskUnschedulableError)):
            text = f"Task run {sending.name!r} could not be run by Ray: {error}"
            self._open.lose(sending, CrashedRun(text), final=True)
        elif isinstance(error, exceptions.ObjectLostError) and _is_of_upstream(sending, error):
            self._upstream_lost(sending, error)
        else:
            self._explain(sending, error)

    def _reported(self, sending: Sending, cause: Any) -> None:
        """Take that there is no value: of the call, or of an upstream."""
        if cause.key != sending.key:  # of which the engine knows
            with self._lock:
                sending.value.is_void = True
                refused = sending.begun and not sending.asking
            if refused:  # that it could not be withdrawn was said before this was known: then there must be news of it
                self._never_began(sending, "something that it takes has no value")
            else:
                self._open.take(sending)
            return
        sending.value.failed = True
        outcome = pickle.loads(cause.outcome)  # noqa: S301 - from a task
        if self._open.take(sending):
            sending.report.ended(outcome, sending.value)

    def _cancelled(self, sending: Sending, error: Any) -> None:
        """Take that Ray has cancelled a call; where a thread waits for that, it tells what it means."""
        with self._lock:
            if sending.asking:
                sending.answer = error
                return
        self._explain(sending, error)

    def ask(self, sending: Sending) -> None:
        """Note that a thread is about to ask Ray to withdraw a call."""
        with self._lock:
            sending.withdrawn = True
            sending.asking += 1

    def asked(self, sending: Sending, *, is_certain: bool) -> bool:
        """Settle what has come of that.

        Args:
            sending: the call.
            is_certain: whether it is certain that it has not begun, and will not.

        Returns:
            Whether it is withdrawn: then nothing is told of it.
        """
        with self._lock:
            sending.asking -= 1
            never_begins = sending.value.is_void
            if (never_begins or is_certain) and self._open.take(sending):
                return True
            if never_begins:  # it is taken out already
                return True
            sending.begun = True  # whatever is found out later: it was not withdrawn
            answer = None if sending.asking else sending.answer
        if answer is not None:
            self._explain(sending, answer)
        return False

    def _upstream_lost(self, sending: Sending, error: Any) -> None:
        """Note that something it takes is gone; it has not begun."""
        hexadecimal = getattr(error, "object_ref_hex", "")
        for upstream in sending.upstreams:
            if hexadecimal and upstream.is_behind(hexadecimal):
                upstream.lost = True
        self._never_began(sending, "something that it takes was lost")

    def _never_began(self, sending: Sending, why: str) -> None:
        """Tell that a call was dropped, of which it is certain that it has not begun, whatever was said before."""
        sending.begun = False
        self._open.lose(sending, WorkerLost(f"Task run {sending.name!r} was dropped: {why}."), begun=False)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._questions.put(None)

    def _explain(self, sending: Sending, error: Any) -> None:
        """Find out more, on a thread of its own: that may take seconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._explain_all, name="riverrun-ray-losses", daemon=True)
            self._thread.start()
        self._questions.put((sending, error))

    def _explain_all(self) -> None:
        while (question := self._questions.get()) is not None:
            sending, error = question
            try:
                witness, is_certain = self._guests.witness(sending.key)
                loss = Loss(error, witness, is_certain=is_certain)
                text, begun = loss.text(sending.name, sending.report.attempt), loss.begun
            except Exception as failure:  # noqa: BLE001 - the run has to be told all the same
                text, begun = f"Task run {sending.name!r} was lost with its Ray worker: {error} ({failure!r}).", True
            self._open.lose(sending, WorkerLost(text), begun=begun)


def takes_what_is_gone(sending: Sending, error: Any) -> bool:
    """Say whether a call has ended because something that it takes has no value: then it has not begun."""
    from ray import exceptions

    from runner_ray._worker import Reported

    if isinstance(error, exceptions.ObjectLostError):
        return _is_of_upstream(sending, error)
    cause = getattr(error, "cause", None) if isinstance(error, exceptions.RayTaskError) else None
    return isinstance(cause, exceptions.RayError) or (isinstance(cause, Reported) and cause.key != sending.key)


def _is_of_upstream(sending: Sending, error: Any) -> bool:
    """Say whether an object that is lost is one that the call takes, and not what it has made."""
    return any(upstream.is_behind(getattr(error, "object_ref_hex", "")) for upstream in sending.upstreams)
