"""The executor of one flow run: it sends calls to the cluster, and hears what becomes of them.

::

    send(call) -> outbox --- sender thread: all that has gathered, as one graph ---> scheduler -> worker: `_worker.run`
                                                                                         |          |
    report.ended / begun / lost <--- listener thread <--- client's event loop <--- events on the topic of the flow run

No thread per call, no callback per Dask future. What the scheduler does on its own with a call of ours, `_watch` tells.
"""

from __future__ import annotations

import logging
import pickle
import threading
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from riverrun.exceptions import CrashedRun, TaskSerializationError, WorkerLost

from runner_dask._annotations import Offer, wanted
from runner_dask._handshake import Guests
from runner_dask._lost import Losses
from runner_dask._sending import Sender, Sending, Value
from runner_dask._withdrawal import withdraw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskCall, TaskReport

    from runner_dask._clusters import Opened
    from runner_dask._runner import DaskTaskRunner

logger = logging.getLogger("riverrun.task_runners.dask")

BEAT: Final = 0.5
"""Seconds between two looks at the connection to the scheduler, where nothing else happens."""


@contextmanager
def executor(runner: DaskTaskRunner, opened: Opened) -> Iterator[DaskTaskExecutor]:
    """Work with a cluster for one flow run, and leave nothing on it.

    Args:
        runner: the options.
        opened: the cluster.
    """
    made = DaskTaskExecutor(runner, opened)
    try:
        made.begin()
        yield made
    finally:
        made.close()


class DaskTaskExecutor:
    """Runs the calls of one flow run on a Dask cluster (`riverrun.abc.RemoteTaskExecutor`)."""

    def __init__(self, runner: DaskTaskRunner, opened: Opened) -> None:
        self.max_worker_losses = runner.max_worker_losses
        self.client = opened.client
        self.topic = f"riverrun-{self.client.id}"
        self._opened = opened
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._open: dict[str, Sending] = {}
        """The calls that have not ended, by key."""
        self._disconnected: str | None = None
        self._guests = Guests(runner, opened)
        self._sender = Sender(self.client, self.topic)
        self._losses = Losses(self.client, opened.cluster, self._guests, self._open)
        self._listener = threading.Thread(target=self._listen, name="riverrun-dask-listener", daemon=True)

    def begin(self) -> None:
        """Get to know the workers."""
        self.client.subscribe_topic(self.topic, self._events.put)
        self._listener.start()
        self._sender.start()
        self._guests.welcome()

    def close(self) -> None:
        """Leave the cluster as it was found."""
        hurries = bool(self._open)  # the flow was interrupted, or left something behind
        none_left = hurries and self._opened.kill_processes()
        self._sender.stop()
        self._losses.stop()
        self._events.put(None)
        if self._disconnected is None:
            self._guests.goodbye(workers=not none_left)
        if hurries:
            self._opened.hurry()
        if self._listener.is_alive() and self._listener is not threading.current_thread():
            self._listener.join(5)

    # -- what the engine asks for

    def send(self, call: TaskCall, report: TaskReport, /) -> Value:
        """Send a call to a worker; give the handle of its value."""
        if self._disconnected is not None:
            raise CrashedRun(f"Task run {call.name!r} was not sent: {self._disconnected}")
        asked = wanted(call, self._offers(), may_grow=self._opened.adaptive)
        if asked.retries:
            report.retries(asked.retries)
        value = Value(call.key, forget=self._forget)
        upstreams, call.upstreams = call.upstreams, ()
        payload = pickle.dumps(call, protocol=5)
        call.upstreams = upstreams
        sending = Sending(value, call.name, payload, upstreams=upstreams, annotations=asked.annotations, report=report)
        self._open[call.key] = sending
        self._sender.put(sending)
        return value

    def _forget(self, key: str) -> None:
        """Nobody has the handle of a call any more: it was sent early, and its upstream has ended without a value."""
        self._open.pop(key, None)

    def _offers(self) -> Iterator[Offer]:
        return self._guests.offers()

    def fetch(self, handle: Any, /) -> object:
        """Bring a value here."""
        from concurrent.futures import CancelledError

        from distributed.scheduler import KilledWorker

        from runner_dask._fetching import fetched

        future = handle.wait_until_sent()
        try:
            return fetched(future, lambda: handle.lost or self._disconnected is not None)
        except (CancelledError, KilledWorker) as error:
            handle.lost = True
            why = self._disconnected or "the worker that had it is gone"
            msg = f"The value of {handle.key!r} cannot be fetched: {why}."
            raise WorkerLost(msg) from error
        except Exception as error:
            msg = f"The value of {handle.key!r} cannot travel from its worker to the flow's process: {error}"
            raise TaskSerializationError(msg) from error

    def holds(self, handle: Any, /) -> bool:
        """Say whether a value is not known to be lost."""
        return not handle.lost

    def put(self, value: object, /) -> Value:
        """Bring a value of the flow's process to the cluster."""
        if self._disconnected is not None:
            raise CrashedRun(self._disconnected)
        return self._sender.scatter(value)

    def cancel(self, handle: Any, /) -> bool:
        """Withdraw a call, if it is certain that it has not begun."""
        return bool(self.cancel_together([handle]))

    def cancel_together(self, handles: list[Any], /) -> list[Any]:
        """Withdraw many calls at once; give the handles of those of which it is certain that they have not begun."""
        withdrawn, asked = [], {}
        for handle in handles:
            sending = self._open.get(handle.key)
            if sending is None or sending.begun or self._disconnected is not None:
                continue
            if self._sender.take_back(sending):
                withdrawn.append(handle)
            else:
                asked[handle.key] = handle
        withdrawn += [asked[key] for key in withdraw(self.client, list(asked))]
        for handle in withdrawn:
            self._open.pop(handle.key, None)
            handle.future = None
        return withdrawn

    # -- what the cluster tells

    def _listen(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=BEAT)
            except Empty:
                self._check_connection()
                self._losses.look_for_forgotten()
                continue
            if event is None:
                return
            try:
                self._take(event[1])
            except Exception:
                logger.exception("An event of the Dask cluster could not be taken: %r", event)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["op"]
        sending = self._open.get(event.get("key", ""))
        if kind == "ended":
            if sending is not None:
                del self._open[sending.key]
                sending.report.ended(pickle.loads(event["body"]), sending.value)  # noqa: S301 - from a worker of ours
        elif kind == "begun":
            if sending is not None:
                sending.begun = True
                sending.report.begun(event["since"])
        elif kind == "logged":
            if sending is not None:
                sending.begun = True
                sending.report.logged(pickle.loads(event["body"]), event["worker"])  # noqa: S301
        elif kind == "joined":
            self._guests.joined(event)
        else:
            self._losses.take(event)

    def _check_connection(self) -> None:
        """Notice that the scheduler is gone: Dask itself would go on trying."""
        status = self.client.status
        if self._disconnected is not None or status in {"running", "newly-created"}:
            return
        address = getattr(self.client.scheduler, "address", "?")
        self._disconnected = f"lost connection to scheduler {address}"
        for key in list(self._open):
            sending = self._open.pop(key, None)
            if sending is not None:
                text = f"Task run {sending.name!r} crashed: {self._disconnected}."
                sending.report.lost(CrashedRun(text), final=True)
