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
from runner_dask._open import OpenCalls
from runner_dask._sending import Sender, Sending, Value
from runner_dask._stall import Stall
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

    cancel_is_exact = True
    """A call that `cancel` does not withdraw has begun, or has ended: news of it has come, or will come."""

    def __init__(self, runner: DaskTaskRunner, opened: Opened) -> None:
        self.max_worker_losses = runner.max_worker_losses
        self.client = opened.client
        self.topic = f"riverrun-{self.client.id}"
        self._opened = opened
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._open = OpenCalls()
        self._disconnected: str | None = None
        self._guests = Guests(runner, opened)
        self._sender = Sender(self.client, self.topic, self._open, self._look_for_dropped)
        self._losses = Losses(self.client, opened.cluster, self._guests, self._open, self._look_for_dropped)
        self._stall = Stall(runner.stall_after, self.client.scheduler.address, self._guests, self._open)
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
        self._refuse_disconnected(call.name)
        asked = wanted(call, self._offers(), may_grow=self._opened.adaptive)
        if asked.retries:
            report.retries(asked.retries)
        value = Value(call.key, forget=self._open.forget)
        upstreams, call.upstreams = call.upstreams, ()
        payload = pickle.dumps(call, protocol=5)
        call.upstreams = upstreams
        sending = Sending(value, call.name, payload, upstreams=upstreams, annotations=asked.annotations, report=report)
        self._open.add(sending)
        try:
            self._refuse_disconnected(call.name)  # the listener looks at what is open once
        except CrashedRun:
            if self._open.take(sending):
                raise
        else:
            self._sender.put(sending)
        return value

    def _refuse_disconnected(self, name: str) -> None:
        if self._disconnected is not None:
            raise CrashedRun(f"Task run {name!r} was not sent: {self._disconnected}")

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
        withdrawn: list[tuple[Value, Sending]] = []
        asked: dict[str, tuple[Value, Sending]] = {}
        for handle in handles:
            sending = self._open.get(handle.key)
            if sending is None or sending.begun:
                continue
            if self._sender.take_out(sending):
                withdrawn.append((handle, sending))
            else:
                asked[handle.key] = handle, sending
        certain = withdraw(self.client, [*asked], self._losses.never_began)
        for key, (handle, sending) in asked.items():
            if key in certain:
                withdrawn.append((handle, sending))
            else:
                sending.begun = True  # whatever is found out later: it was not withdrawn
        return [handle for handle, sending in withdrawn if self._is_withdrawn(handle, sending)]

    def _is_withdrawn(self, handle: Value, sending: Sending) -> bool:
        if not self._open.take(sending):
            return False  # it was told as lost just now
        handle.lost, handle.future = True, None
        return True

    # -- what the cluster tells

    def _listen(self) -> None:
        while (event := self._next_event()) is not None:
            try:
                if event:
                    self._take(event[1])
                else:
                    self._look_around()
            except Exception:  # whatever it is, this thread is all that the flow run hears with
                logger.exception("News of the Dask cluster could not be taken: %r", event)

    def _next_event(self) -> Any:
        try:
            return self._events.get(timeout=BEAT)
        except Empty:
            return ()

    def _look_around(self) -> None:
        """Look for what nobody tells."""
        self._check_connection()
        self._stall.look()
        self._losses.look_for_forgotten()

    def _look_for_dropped(self) -> None:
        """Have the listener look for calls that Dask has cancelled, when it has taken what was told by now."""
        # News and cancellations come by one stream, and are taken in order on the client's event loop.
        self.client.loop.add_callback(self._events.put, (0.0, {"op": "unread"}))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["op"]
        sending = self._open.get(event.get("key", ""))
        if kind == "ended":
            if sending is not None:
                self._ended(sending, event["body"])
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
            self._stall.look()
        else:
            self._losses.take(event)

    def _ended(self, sending: Sending, body: bytes) -> None:
        try:
            outcome = pickle.loads(body)  # noqa: S301 - from a worker of ours
        except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises; the run has to be told
            text = f"Task run {sending.name!r}: what its worker sent cannot be read: {error!r}"
            self._open.lose(sending, CrashedRun(text), final=True)
            return
        if self._open.take(sending):
            sending.report.ended(outcome, sending.value)

    def _check_connection(self) -> None:
        """Notice that the scheduler is gone: Dask itself would go on trying."""
        status = self.client.status
        if self._disconnected is not None or status in {"running", "newly-created"}:
            return
        address = getattr(self.client.scheduler, "address", "?")
        self._disconnected = f"lost connection to scheduler {address}"
        for sending in self._open.all():
            text = f"Task run {sending.name!r} crashed: {self._disconnected}."
            self._open.lose(sending, CrashedRun(text), final=True)
