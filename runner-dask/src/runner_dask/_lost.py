"""What becomes of calls that the cluster has dropped: who had them is asked for what is known, and the engine told."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import CrashedRun, WorkerLost
from riverrun.workers import read_journal

from runner_dask import _losses

if TYPE_CHECKING:
    from runner_dask._handshake import Guests
    from runner_dask._sending import Sending

logger = logging.getLogger("riverrun.task_runners.dask")

LOOK = 3.0
"""Seconds between two looks for calls of which nothing is heard; after the second, they count as lost."""


class Losses:
    """Takes the events of the watch (`_watch`) and of workers that leave.

    Args:
        client: the flow run's.
        cluster: the cluster object, if there is one.
        guests: the workers.
        sendings: the calls that have not ended, by key; what is lost is taken out of it.
    """

    def __init__(self, client: Any, cluster: Any, guests: Guests, sendings: dict[str, Sending]) -> None:
        self._client = client
        self._cluster = cluster
        self._guests = guests
        self._open = sendings
        self._running_there: dict[str, set[str]] = {}
        """What was running on workers that leave, by address, as they said."""
        self._with: dict[str, tuple[int, set[str]]] = {}
        """Of runs that were lost, by run: how often, and the runs that were there each time."""
        self._questions: SimpleQueue[tuple[Sending, str] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._silent: set[str] = set()
        self._next_look = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event["op"]
        if kind == "lost":
            self._lost(event)
        elif kind == "leaving":
            self._guests.left(event["worker"])
            self._running_there[event["worker"]] = set(event["running"])
            for sending in self._had_by(event["worker"]):
                self._left_behind(sending)
        elif kind == "left":
            for sending in self._had_by(event["worker"]):
                self._explain(sending, event["worker"])
        elif kind == "restarted":
            for sending in list(self._open.values()):
                for upstream in sending.upstreams:
                    upstream.lost = True

    def _had_by(self, worker: str) -> list[Sending]:
        """Give the calls that a worker which leaves had."""
        return [sending for sending in list(self._open.values()) if sending.leaving == worker]

    def look_for_forgotten(self) -> None:
        """Find calls that Dask has dropped, and of which nobody has said a word for a while: no flow waits for ever.

        The scheduler could not read a graph, say; or a worker's plugin was taken away.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        silent = {
            key
            for key, sending in list(self._open.items())
            if getattr(getattr(sending.value, "future", None), "status", "") in {"error", "cancelled", "lost"}
            and not sending.leaving
        }
        for key in silent & self._silent:
            sending = self._open.get(key)
            future = getattr(getattr(sending, "value", None), "future", None)
            if sending is None or future is None:
                continue
            why = "it was cancelled" if future.cancelled() else repr(future.exception(timeout=1))
            begun = sending.begun or not any(upstream.lost for upstream in sending.upstreams)
            self._tell(sending, WorkerLost(f"Task run {sending.name!r} was dropped by Dask: {why}."), begun=begun)
        self._silent = silent

    def stop(self) -> None:
        """Ask for nothing more."""
        self._questions.put(None)

    def _lost(self, event: dict[str, Any]) -> None:
        kind, key, worker = event["kind"], event["key"], event["worker"]
        if kind == "value":
            self._value_lost(key)
            return
        sending = self._open.get(key)
        if sending is None:
            return
        if kind == "processing":
            self._guests.left(worker)
            self._explain(sending, worker)
        elif kind == "leaving":
            sending.leaving = worker
            if worker in self._running_there:
                self._left_behind(sending)
        elif kind == "upstream":
            begun = bool(worker) and self._has_begun(key, worker)
            self._tell(sending, WorkerLost(f"Task run {sending.name!r} was dropped: {event['text']}."), begun=begun)
        elif kind == "cancelled":
            self._tell(sending, WorkerLost(f"Task run {sending.name!r} was dropped by Dask: {event['text']}."))
        else:
            text = f"Task run {sending.name!r} could not be run by Dask worker {worker}: {event['text']}"
            self._tell(sending, CrashedRun(text), final=True)

    def _value_lost(self, key: str) -> None:
        """Note that a value is gone. What was sent to take it, and does not know of that, is dropped without a word."""
        for sending in list(self._open.values()):
            if sending.key == key:  # it is not told as ended yet, but it will not end any more
                self._tell(sending, WorkerLost(f"Task run {sending.name!r} was lost: its value is gone."))
            for upstream in sending.upstreams:
                if upstream.key == key:
                    upstream.lost = True
                    future = getattr(sending.value, "future", None)
                    if future is not None:
                        future.add_done_callback(lambda future, sending=sending: self._dropped(sending, future))

    def _dropped(self, sending: Sending, future: Any) -> None:
        if self._open.get(sending.key) is sending and future.cancelled():
            self._tell(
                sending, WorkerLost(f"Task run {sending.name!r} was dropped: its upstream is lost."), begun=False
            )

    def _left_behind(self, sending: Sending) -> None:
        """Send what had not begun elsewhere; what had is going to end."""
        if sending.key not in self._running_there[sending.leaving]:
            worker = self._guests.known(sending.leaving)
            text = _losses.Loss(worker, sending.key, started=False).text(sending.name, 1, "leaving")
            self._tell(sending, WorkerLost(text), begun=False)

    def _has_begun(self, key: str, worker: str) -> bool:
        journal = read_journal(self._guests.known(worker).journal)
        return journal is None or journal.started(key)

    def _explain(self, sending: Sending, worker: str) -> None:
        """Find out more, on a thread of its own: that may take seconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._explain_all, name="riverrun-dask-losses", daemon=True)
            self._thread.start()
        self._questions.put((sending, worker))

    def _explain_all(self) -> None:
        while (question := self._questions.get()) is not None:
            sending, worker = question
            try:
                loss = _losses.explain(self._client, self._cluster, self._guests.known(worker), sending.key)
                loss = self._compared(loss)
                text = loss.text(sending.name, sending.report.attempt, "leaving" if sending.leaving else "processing")
                begun = loss.started is not False
            except Exception as error:  # noqa: BLE001 - the run has to be told all the same
                text, begun = f"Task run {sending.name!r} was lost with Dask worker {worker} ({error!r}).", True
            self._tell(sending, WorkerLost(text), begun=begun or sending.begun)

    def _compared(self, loss: _losses.Loss) -> _losses.Loss:
        """Compare the loss of a run with those before: what was there each time is under suspicion."""
        if not loss.started:
            return loss
        run = _run_of(loss.key)
        # Where nobody knows what else ran, it might have been all that ran the other times.
        count, common = self._with.get(run, (0, set()))
        others = common if loss.running is None else {_run_of(key) for key in loss.running} - {run}
        common = others if count == 0 else common & others
        self._with[run] = count + 1, common
        return loss if common else replace(loss, suspected=count + 1)

    def _tell(self, sending: Sending, error: CrashedRun, *, begun: bool = True, final: bool = False) -> None:
        if self._open.pop(sending.key, None) is sending:
            sending.report.lost(error, begun=begun, final=final)


def _run_of(key: str) -> str:
    """Give what the keys of all attempts at one task run have in common."""
    return key.rpartition("-")[0]
