"""Calls on their way to the scheduler: all that has gathered goes as one graph, which costs less than one by one."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import CrashedRun, WorkerLost
from riverrun.workers import Carried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun.abc import TaskReport

    from runner_dask._open import OpenCalls

logger = logging.getLogger("riverrun.task_runners.dask")

MOST = 250
"""How many calls go in one graph: the first of them are to run before the last are sent."""
MOST_BYTES = 4_000_000
"""How large their pickles may be together: of graphs above 10 MB Dask warns."""


class Value:
    """The handle of a value: on the cluster, or on its way there. It lives there as long as this object does here.

    Args:
        key: the Dask key.
        future: the Dask future, if there is one already.
        forget: called with the key when nobody has this object any more.
    """

    __slots__ = ("__weakref__", "_forget", "_lost", "future", "key")

    def __init__(self, key: str, future: Any = None, *, forget: Callable[[str], object] | None = None) -> None:
        self.key = key
        self.future = future
        self._lost = False
        self._forget = forget

    def __del__(self) -> None:
        if self._forget is not None:
            self._forget(self.key)

    @property
    def lost(self) -> bool:
        """Whether the value is known to be gone: we were told, or Dask itself has given it up."""
        return self._lost or getattr(self.future, "status", "") in {"cancelled", "lost"}

    @lost.setter
    def lost(self, lost: bool) -> None:
        self._lost = lost

    def wait_until_sent(self) -> Any:
        """Give the Dask future; the event that its task has ended may be a moment quicker than the one who sent it."""
        while self.future is None and not self.lost:
            time.sleep(0.001)
        return self.future


class Sending:
    """A call, from `send()` until it has ended.

    Args:
        value: its handle.
        name: of the task run.
        payload: the pickled call.
        upstreams: the handles of what it takes.
        annotations: as for `dask.annotate`.
        report: to be told what becomes of it.
    """

    __slots__ = (
        "_value",
        "annotations",
        "begun",
        "in_question",
        "is_taken",
        "key",
        "left_to",
        "name",
        "payload",
        "report",
        "until_sent",
        "upstreams",
    )

    def __init__(
        self,
        value: Value,
        name: str,
        payload: bytes,
        *,
        upstreams: tuple[Value, ...],
        annotations: Any,
        report: TaskReport,
    ) -> None:
        self.key = value.key
        self._value = weakref.ref(value)
        self.until_sent: Value | None = value
        self.name = name
        self.payload: bytes | None = payload
        self.upstreams = upstreams
        self.annotations = annotations
        self.report = report
        self.begun = False
        """Whether it has begun, or counts so."""
        self.is_taken = False
        """Whether it is not in the outbox any more: it is being submitted, or it was withdrawn."""
        self.left_to = ""
        """The address of a worker that is to tell its end, because Dask is not: it leaves the cluster, say."""
        self.in_question = False
        """Whether it is being found out what has become of it."""

    @property
    def value(self) -> Value | None:
        """The handle; None if nobody has it any more."""
        return self._value()


class Sender:
    """A thread that submits what has gathered.

    Args:
        client: the flow run's.
        topic: where it listens.
        sendings: the calls that have not ended.
        dropped: called after Dask has cancelled calls that were submitted just now.
    """

    def __init__(self, client: Any, topic: str, sendings: OpenCalls, dropped: Callable[[], object]) -> None:
        self._client = client
        self._topic = topic
        self._open = sendings
        self._dropped = dropped
        self._lock = threading.Lock()
        """Held while a call leaves the outbox, one way or the other."""
        self._outbox: deque[Sending] = deque()
        self._stopped = False
        self._something = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="riverrun-dask-sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is in the outbox is not sent."""
        self._stopped = True
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def put(self, sending: Sending) -> None:
        """Take a call to be sent soon."""
        self._outbox.append(sending)
        if not self._something.is_set():
            self._something.set()

    def take_out(self, sending: Sending) -> bool:
        """Take a call out of the outbox: to submit it, or to withdraw it. True for the first who does."""
        with self._lock:
            was_there = not sending.is_taken
            sending.is_taken = True
        return was_there

    def _send_all(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()  # before the look, so that what comes later is seen the next time
            while batch := self._gathered():
                for group in _alike(batch):
                    try:
                        self._submit(group)
                    except Exception:
                        logger.exception("Calls could not be sent to the Dask cluster.")
            if self._stopped:
                return

    def _gathered(self) -> list[Sending]:
        batch: list[Sending] = []
        with contextlib.suppress(IndexError):  # it is empty
            size = 0
            while len(batch) < MOST and size < MOST_BYTES and not self._stopped:
                batch.append(self._outbox.popleft())
                size += len(batch[-1].payload or b"")
        return batch

    def _submit(self, group: list[Sending]) -> None:
        """Submit calls with the same annotations, which all have upstreams, or none has."""
        import dask

        sound = []
        for sending in group:
            if not self.take_out(sending):
                continue  # it was withdrawn
            if any(upstream.lost for upstream in sending.upstreams):
                self._open.lose(sending, WorkerLost("An upstream's value was lost."), begun=False)
            else:
                sound.append(sending)
        if not sound:
            return
        try:
            with dask.annotate(**sound[0].annotations):
                futures = self._dependent(sound) if sound[0].upstreams else self._independent(sound)
        except Exception as error:  # noqa: BLE001 - the client is closed, or an annotation is impossible
            for sending in sound:
                failure = CrashedRun(f"Task run {sending.name!r} could not be sent to the Dask cluster: {error!r}")
                self._open.lose(sending, failure, begun=False, final=True)
            return
        self._keep(sound, futures)

    def _keep(self, sent: list[Sending], futures: list[Any]) -> None:
        """Give the handles their futures."""
        by_key = {future.key: future for future in futures}
        for sending in sent:
            sending.payload = None
            value, sending.until_sent = sending.until_sent, None
            if value is not None:
                value.future = by_key[sending.key]
        if any(future.status == "cancelled" for future in futures):  # who was told of it had not seen the futures
            self._dropped()

    def _independent(self, group: list[Sending]) -> list[Any]:
        from runner_dask._worker import run

        keys, payloads = [sending.key for sending in group], [sending.payload for sending in group]
        # Unlike `get`, `map` keeps the order: who was submitted first runs first.
        futures: list[Any] = self._client.map(
            run, [self._topic] * len(group), payloads, key=keys, pure=False, fifo_timeout=0
        )
        return futures

    def _dependent(self, group: list[Sending]) -> list[Any]:
        # What `Client.submit` makes, too; made here so that many go at once.
        from dask._task_spec import Task, TaskRef  # noqa: PLC2701

        from runner_dask._worker import run

        graph: dict[str, Any] = {}
        for sending in group:
            values = [TaskRef(upstream.key) for upstream in sending.upstreams]
            graph[sending.key] = Task(sending.key, run, self._topic, sending.payload, *values)
        futures: list[Any] = self._client.get(graph, list(graph), sync=False, fifo_timeout=0)
        return futures

    def scatter(self, value: object) -> Value:
        """Bring a value to the cluster."""
        stays = self._client.scheduler.address.startswith("inproc://")
        (future,) = self._client.scatter([Carried.of(value, stays=stays)], hash=False)
        return Value(future.key, future)


def _alike(batch: list[Sending]) -> Iterator[list[Sending]]:
    """Cut a batch where the annotations change, or whether there are upstreams."""
    group: list[Sending] = []
    for sending in batch:
        if group and (
            sending.annotations != group[0].annotations or bool(sending.upstreams) != bool(group[0].upstreams)
        ):
            yield group
            group = []
        group.append(sending)
    if group:
        yield group
