"""What becomes of calls that the cluster has dropped: who had them is asked for what is known, and the engine told."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import CrashedRun, WorkerLost

from runner_dask import _losses
from runner_dask._withdrawal import LIMIT, ask_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner_dask._handshake import Guests
    from runner_dask._open import OpenCalls
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
        sendings: the calls that have not ended; what is lost is taken out of them.
        look: has this object take an event `unread`, after all that was told by now.
    """

    def __init__(
        self, client: Any, cluster: Any, guests: Guests, sendings: OpenCalls, look: Callable[[], object]
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._guests = guests
        self._open = sendings
        self._look = look
        self._running_there: dict[str, set[str]] = {}
        """What was running on workers that leave, by address, as they said."""
        self._with: dict[str, tuple[int, set[str]]] = {}
        """Of runs that were lost, by run: how often, and the runs that were there each time."""
        self._asked: deque[tuple[Sending, list[str], str]] = deque()
        """Calls that Dask has dropped, the workers that may have begun them, and why."""
        self._questions: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
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
        elif kind in {"left", "gone"}:
            self._guests.left(event["worker"])
            for sending in self._had_by(event["worker"]):
                self._explain(sending, event["worker"], "leaving" if kind == "left" else "processing")
        elif kind == "restarted":
            for sending in self._open.all():
                for upstream in sending.upstreams:
                    upstream.lost = True
        elif kind == "unread":
            self._never_came()

    def _had_by(self, worker: str) -> list[Sending]:
        """Give the calls of which a worker was to tell the end."""
        return [sending for sending in self._open.all() if sending.left_to == worker]

    def look_for_forgotten(self) -> None:
        """Find calls that Dask has dropped, and of which nobody has said a word for a while: no flow waits for ever.

        The scheduler could not read a graph, say; or a worker's plugin was taken away.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        silent = {sending.key for sending in self._open.all() if _status(sending) in {"error", "cancelled", "lost"}}
        for key in silent & self._silent:
            sending = self._open.get(key)
            future = getattr(getattr(sending, "value", None), "future", None)
            if sending is None or future is None:
                continue
            why = "it was cancelled" if future.cancelled() else repr(future.exception(timeout=1))
            self._open.lose(sending, WorkerLost(f"Task run {sending.name!r} was dropped by Dask: {why}."))
        self._silent = silent

    def never_began(self, calls: Mapping[str, str]) -> set[str]:
        """Give those of some calls of which it is certain that they have not begun.

        Args:
            calls: workers that are gone, or leave, by the keys of the calls that were there.
        """
        self._wait_until_over({*calls.values()})
        return {key for key, worker in calls.items() if self._never_began(key, worker)}

    def _wait_until_over(self, workers: set[str]) -> None:
        for worker in workers - self._running_there.keys():
            _losses.wait_until_over(self._guests.known(worker))

    def _never_began(self, key: str, worker: str) -> bool:
        running = self._running_there.get(worker)
        if running is not None:  # it begins nothing any more
            return key not in running
        return _losses.never_began(self._guests.known(worker), key)

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
        why = f"Task run {sending.name!r} was dropped: {event['text']}."
        if kind == "processing":
            self._guests.left(worker)
            self._explain(sending, worker, kind)
        elif kind == "leaving":
            sending.left_to = worker
            if worker in self._running_there:
                self._left_behind(sending)
        elif kind == "upstream" and worker:
            sending.left_to = worker
            self._ask(sending, [worker], why)
        elif kind in {"upstream", "refused"}:
            self._open.lose(sending, WorkerLost(why), begun=False)
        elif kind == "cancelled":
            self._ask(sending, [offer.name for offer in self._guests.offers()], why)
        else:
            text = f"Task run {sending.name!r} could not be run by Dask worker {worker}: {event['text']}"
            self._open.lose(sending, CrashedRun(text), final=True)

    def _value_lost(self, key: str) -> None:
        """Note that a value is gone. What is sent to take it, and does not know of that, Dask drops without a word."""
        for sending in self._open.all():
            if sending.key == key:  # it is not told as ended yet, but it will not end any more
                self._open.lose(sending, WorkerLost(f"Task run {sending.name!r} was lost: its value is gone."))
            for upstream in sending.upstreams:
                if upstream.key == key:
                    upstream.lost = True
                    future = getattr(sending.value, "future", None)
                    if future is not None:
                        future.add_done_callback(lambda _: self._look())

    def _never_came(self) -> None:
        """Find calls that Dask has cancelled, and that were no tasks: of one that was, more had been told by now."""
        for sending in self._open.all():
            if _status(sending) == "cancelled":
                text = f"Task run {sending.name!r} was dropped: its upstream is lost."
                self._open.lose(sending, WorkerLost(text), begun=False)

    def _left_behind(self, sending: Sending) -> None:
        """Send what had not begun elsewhere; what had is going to end."""
        if sending.key not in self._running_there[sending.left_to]:
            worker = self._guests.known(sending.left_to)
            text = _losses.Loss(worker, sending.key, started=False).text(sending.name, 1, "leaving")
            self._open.lose(sending, WorkerLost(text), begun=False)

    # What takes time: on a thread of its own.

    def _later(self, question: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer_all, name="riverrun-dask-losses", daemon=True)
            self._thread.start()
        self._questions.put(question)

    def _answer_all(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                question()
            except Exception:
                logger.exception("What has become of calls on the Dask cluster could not be found out.")

    def _ask(self, sending: Sending, workers: list[str], why: str) -> None:
        """Ask workers whether one has begun a call, and see that none does any more."""
        sending.in_question = True
        self._asked.append((sending, workers, why))
        self._later(self._ask_together)

    def _ask_together(self) -> None:
        batch = [self._asked.popleft() for _ in range(len(self._asked))]
        asked: dict[str, list[str]] = {}
        for sending, workers, _ in batch:
            for worker in workers:
                asked.setdefault(worker, []).append(sending.key)
        answers: dict[str, list[str]] = {}
        with contextlib.suppress(Exception):  # the cluster does not answer: nobody has
            answers = self._client.sync(
                ask_workers, self._client, asked, asynchronous=False, callback_timeout=2 * LIMIT
            )
        self._wait_until_over({*asked} - {*answers})
        for sending, workers, why in batch:
            try:
                self._judge(sending, workers, why, answers)
            except Exception as error:  # noqa: BLE001 - the run has to be told all the same
                self._open.lose(sending, WorkerLost(f"{why} ({error!r})"))

    def _judge(self, sending: Sending, workers: list[str], why: str, answers: dict[str, list[str]]) -> None:
        """Take what workers have answered of a call that Dask has dropped."""
        silent = [worker for worker in workers if worker not in answers]
        begun = [worker for worker in workers if worker in answers and sending.key not in answers[worker]]
        if not begun and silent == [sending.left_to]:
            begun = silent  # it alone knows
        if begun:  # it runs there to its end, or to that of the worker
            sending.left_to = begun[0]
            if not self._guests.has(begun[0]):  # which is gone by now
                self._explain(sending, begun[0], "processing")
            return
        is_certain = all(self._never_began(sending.key, worker) for worker in silent)
        self._open.lose(sending, WorkerLost(why), begun=not is_certain)

    def _explain(self, sending: Sending, worker: str, kind: str) -> None:
        """Find out how a call was lost with its worker."""
        sending.in_question = True
        self._later(partial(self._explained, sending, worker, kind))

    def _explained(self, sending: Sending, worker: str, kind: str) -> None:
        if self._open.get(sending.key) is not sending:
            return
        try:
            loss = _losses.explain(self._client, self._cluster, self._guests.known(worker), sending.key)
            loss = self._compared(loss)
            text = loss.text(sending.name, sending.report.attempt, kind)
            begun = loss.started is not False
        except Exception as error:  # noqa: BLE001 - the run has to be told all the same
            text, begun = f"Task run {sending.name!r} was lost with Dask worker {worker} ({error!r}).", True
        self._open.lose(sending, WorkerLost(text), begun=begun)

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


def _status(sending: Sending) -> str:
    """Give what Dask says of a call; nothing of one whose end is told by others, or is being found out."""
    if sending.left_to or sending.in_question:
        return ""
    return str(getattr(getattr(sending.value, "future", None), "status", ""))


def _run_of(key: str) -> str:
    """Give what the keys of all attempts at one task run have in common."""
    return key.rpartition("-")[0]
