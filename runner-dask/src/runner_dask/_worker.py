"""What runs on a worker: one call of a task, and what is told about it while it runs.

A call that has ended tells so itself, with an event on the topic of its flow run. Calls that take longer are told of
by one thread for the whole process: that they have begun, and what they have logged so far.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.core import Status

from runner_dask import _running
from runner_dask._seceding import here
from runner_dask._sendable import refused

if TYPE_CHECKING:
    from logging import LogRecord

    from riverrun.abc import TaskCall

INLINE = 10_000
"""Up to this size, in bytes, the pickle of a value travels to the flow's process at once."""
STAYING = frozenset({Status.running, Status.paused})
"""What a worker says of itself that does not leave: it is told that it is retired before Dask moves its values away."""
PULSE = 0.1
"""Seconds between two looks at the calls that are running."""


class Reported(Exception):
    """The call has no value, and has told the flow's process why: those who take its value must not run."""


class NotBegun(Exception):
    """The call was not to begin here any more: nothing of it was done."""


def run(topic: str, payload: bytes, *values: Any) -> Any:
    """Run one call; give its value to Dask, and its outcome to the flow's process.

    Args:
        topic: where the flow's process listens.
        payload: the pickled call.
        values: those of the upstreams.

    Raises:
        Reported: there is no value.
        NotBegun: the worker is leaving, or the call was withdrawn.
    """
    worker = get_worker()
    key = str(worker.get_current_task())
    if not _running.begin(key, worker.address):
        msg = f"{key} did not begin: its worker leaves the cluster, or it was withdrawn"
        raise NotBegun(msg)
    records = Records(key)
    running = Running(worker, topic, key, records)
    _pulse.add(running)
    place = here()
    try:
        call: TaskCall = pickle.loads(payload)  # noqa: S301 - the flow's process is trusted: it sends code
        outcome, value = call.run_keeping(values, INLINE, records)
        if outcome.kept and not worker.address.startswith("inproc:"):  # workers that are threads of one process share
            outcome.error = refused(value, call.name)
            outcome.kept = outcome.error is None
        if outcome.kept and not _keeps(worker, key):
            import cloudpickle

            outcome.packed, outcome.kept = cloudpickle.dumps(value), False
    finally:
        place.leave()
        _pulse.remove(running)
    outcome.records = [*records] or None
    running.tell("ended", pickle.dumps(outcome, protocol=5))
    _running.end(key)
    if outcome.error is not None or outcome.void:
        msg = f"{call.name} did not complete"
        raise Reported(msg)
    return value


def _keeps(worker: Any, key: str) -> bool:
    """Say whether Dask is going to keep the value of a call that runs."""
    if worker.status not in STAYING:
        return False  # it may move no value away from it any more
    task = worker.state.tasks.get(key)
    return task is None or task.state != "cancelled"  # Dask has dropped it meanwhile: something that it took was lost


class Records(list["LogRecord"]):
    """The log records of one call; each is also noted in a file that outlives the process."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def append(self, record: LogRecord) -> None:
        """Keep a record."""
        super().append(record)
        _running.line(self._key, record.getMessage())


class Running:
    """A call that is running."""

    __slots__ = ("_key", "_records", "_since", "_told", "_topic", "_worker")

    def __init__(self, worker: Any, topic: str, key: str, records: Records) -> None:
        self._worker = worker
        self._topic = topic
        self._key = key
        self._records = records
        self._since = time.time()
        self._told = False

    def tell(self, op: str, body: bytes = b"", **more: Any) -> None:
        """Send an event to the flow's process."""
        self._worker.log_event(self._topic, {"op": op, "key": self._key, "body": body, **more})

    def tell_news(self) -> None:
        """Say that it has begun, once, and what it has logged since the last time."""
        if not self._told:
            self._told = True
            self.tell("begun", since=self._since)
        count = len(self._records)
        if count:
            news = self._records[:count]
            del self._records[:count]
            self.tell("logged", pickle.dumps(news, protocol=5))


class _Pulse:
    """One thread that looks at the running calls now and then; it sleeps where there are none."""

    def __init__(self) -> None:
        self._running: set[Running] = set()
        self._something = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, running: Running) -> None:
        with self._lock:
            self._running.add(running)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="riverrun-pulse", daemon=True)
                self._thread.start()
        self._something.set()

    def remove(self, running: Running) -> None:
        with self._lock:  # so that what it has logged is told in order: by the thread, or after it
            self._running.discard(running)
            if not self._running:
                self._something.clear()

    def _beat(self) -> None:
        while True:
            self._something.wait()
            time.sleep(PULSE)
            with self._lock:
                for running in self._running:
                    try:
                        running.tell_news()
                    except Exception:  # a record that cannot be pickled, a worker that closes
                        logging.getLogger("riverrun.task_runs").exception("What a call has logged could not be sent.")


_pulse = _Pulse()


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what Dask logs of a call that has told all itself."""
    text = record.getMessage() if record.levelno == logging.ERROR else ""
    is_told = any(f"{kind.__name__}(" in text for kind in (Reported, NotBegun))
    return not (text.startswith("Compute Failed") and is_told)


logging.getLogger("distributed.worker").addFilter(_is_news)


def give(value: Any) -> Any:
    """Give back an argument: a task that stands for a value which was sent to the cluster."""
    return value
