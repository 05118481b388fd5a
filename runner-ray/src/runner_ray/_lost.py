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
    from runner_ray._sending import Sending

logger = logging.getLogger("riverrun.task_runners.ray")


class Losses:
    """Takes the exceptions that came in place of outcomes.

    Args:
        guests: the nodes.
        sendings: the calls that have not ended, by key; what is lost is taken out of it.
    """

    def __init__(self, guests: Guests, sendings: dict[str, Sending]) -> None:
        self._guests = guests
        self._open = sendings
        self._questions: SimpleQueue[tuple[Sending, Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, sending: Sending, error: Any) -> None:
        """Take what came in place of an outcome."""
        from ray import exceptions

        from runner_ray._worker import Reported

        cause = getattr(error, "cause", None) if isinstance(error, exceptions.RayTaskError) else None
        if isinstance(cause, Reported):
            self._open.pop(sending.key, None)
            if cause.key == sending.key:
                sending.report.ended(pickle.loads(cause.outcome), sending.value)  # noqa: S301 - from a task
            # else an upstream has no value, of which the engine knows
        elif isinstance(error, exceptions.TaskCancelledError) or isinstance(cause, exceptions.TaskCancelledError):
            self._cancelled(sending)
        elif is_full(error) or is_full(cause):
            text = f"Task run {sending.name!r}: {full(error if is_full(error) else cause)}"
            self._tell(sending, CrashedRun(text), final=True)
        elif isinstance(cause, exceptions.RayError):
            self._upstream_lost(sending, cause)
        elif isinstance(error, exceptions.RayTaskError):
            text = f"Task run {sending.name!r} could not be run by Ray: {cause!r}"
            self._tell(sending, CrashedRun(text), final=True)
        elif isinstance(error, (exceptions.RuntimeEnvSetupError, exceptions.TaskUnschedulableError)):
            text = f"Task run {sending.name!r} could not be run by Ray: {error}"
            self._tell(sending, CrashedRun(text), final=True)
        elif isinstance(error, exceptions.ObjectLostError) and sending.upstreams:
            self._upstream_lost(sending, error)
        else:
            self._explain(sending, error)

    def _cancelled(self, sending: Sending) -> None:
        from asyncio import CancelledError

        from riverrun.abc import Outcome

        if self._open.pop(sending.key, None) is None:
            return
        if sending.withdrawn:
            sending.report.ended(Outcome(None, CancelledError()), sending.value)
        else:
            text = f"Task run {sending.name!r} was cancelled in Ray, and not by Riverrun."
            sending.report.lost(WorkerLost(text), begun=True)

    def _upstream_lost(self, sending: Sending, error: Any) -> None:
        """Note that something it takes is gone; it has not begun."""
        hexadecimal = getattr(error, "object_ref_hex", "")
        for upstream in sending.upstreams:
            if hexadecimal and upstream.is_behind(hexadecimal):
                upstream.lost = True
        text = f"Task run {sending.name!r} was dropped: something that it takes was lost."
        self._tell(sending, WorkerLost(text), begun=False)

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
                loss = Loss(error, self._guests.witness(sending.key))
                text, begun = loss.text(sending.name, sending.report.attempt), loss.begun
            except Exception as failure:  # noqa: BLE001 - the run has to be told all the same
                text, begun = f"Task run {sending.name!r} was lost with its Ray worker: {error} ({failure!r}).", True
            self._tell(sending, WorkerLost(text), begun=begun)

    def _tell(self, sending: Sending, error: CrashedRun, *, begun: bool = True, final: bool = False) -> None:
        if self._open.pop(sending.key, None) is sending:
            sending.report.lost(error, begun=begun, final=final)
