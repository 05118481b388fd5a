"""The watch on the scheduler: Dask never runs a call of ours a second time, and each call that it drops is reported.

Dask runs tasks again on its own: those of a worker that died, and finished ones whose only value was lost. A call of a
flow may have effects, and its retries are Riverrun's to count. So a plugin on the scheduler marks each task of ours
that Dask is about to schedule anew as one that can no longer be computed, by the mark that Dask itself sets on the
dependents of lost data; Dask then forgets it, and nothing runs. The client is told by one event per key:

    {"op": "lost", "key": key, "kind": kind, "worker": address or "", "text": why, in a few words}

Kinds: `processing` (it was given to a worker that died), `leaving` (to one that left in an orderly way), `value` (it
had finished, and the last worker with its value is gone), `upstream` (something it takes was lost or failed, and that
was no failed call of ours; with a worker, it may have started there, and may be running), `cancelled` (somebody else
cancelled it, or restarted the cluster; where it was, is not known any more), `refused` (its worker has not begun it,
and will not), `erred` (Dask could not run it; `text` is the exception's).
`{"op": "gone", "worker": address}` says that a worker has died, and that the losses which this means were told.
`{"op": "left", "worker": address}` says that of a worker which left in an orderly way nothing more will be heard.
`{"op": "restarted"}` says that somebody restarted the cluster: all data that was sent to it is gone.
`{"op": "unread"}` says that a graph was not taken, because something that one of its calls takes is gone: of the calls
that Dask has cancelled, those of which nothing was told never came to be tasks.

The scheduler may have nothing of Riverrun installed: the plugin travels with its code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from runner_dask._by_value import ByValue
from runner_dask._reasons import WHY, is_release, text_of, why_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable

REPORTED = "Reported"
"""The name of the exception class that a call raises if it has told the client itself how it ended."""
NOT_BEGUN = "NotBegun"
"""That of the exception class that a call raises if it may not begin."""
DROPPED, PLACED, LOST, TOLD = "dropped", "placed", "lost", "told"
"""What is known of a call: no worker can begin it; a worker has it; its worker is gone; more was told already."""
FEW = 1000  # tasks on a scheduler: so long as it has no more, looking for garbage takes it some hundredths of a second
AFTERGLOW = 60.0  # seconds after a flow run's end in which calls that were given up may still report, to nobody


class Watch(ByValue, SchedulerPlugin):
    """Reports each task of one client that Dask drops, and keeps Dask from running it again.

    Args:
        client: the client's id.
        module: tasks whose function was defined in this module (or one below it) are ours; others, such as those of
            a user's Dask collection, are left to Dask.
    """

    def __init__(self, client: str, module: str = "runner_dask") -> None:
        self.client = client
        self.module = module
        self.name = self.topic = f"riverrun-{client}"
        self.keys: set[str] = set()  # tasks of ours that Dask has, and that were not reported
        self.told: dict[str, tuple[str, str]] = {}  # of tasks that were reported: kind and worker, by key
        self.barred: set[str] = set()  # tasks that were withdrawn, and had not arrived by then
        self.gone: dict[str, tuple[str, str]] = {}  # while a worker is removed: kind and worker, by key
        self.streams: dict[str, Any] = {}  # the scheduler's streams to the workers, by address
        self.orderly: set[str] = set()  # workers that said they are leaving
        self.canceller = ""  # the client that cancelled last
        self.died = ""  # the worker that is being removed, if it did not say that it was leaving
        self.waits: set[asyncio.Task[None]] = set()

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return self.client, self.module

    async def start(self, scheduler: Any) -> None:
        """Begin, on the scheduler. What Dask has already (workers that joined before) is taken in."""
        self.scheduler = scheduler
        self.streams.update(scheduler.stream_comms)
        # The client has asked for this itself, on a stream that Dask sends from every 10 ms only: a worker that
        # introduces itself meanwhile, on a fast network, would speak to nobody.
        scheduler.subscribe_topic(topic=self.topic, client=self.client)
        with contextlib.suppress(Exception):
            # Subscribers get every event at once; a scheduler keeps the last of each topic besides, for good.
            # There is no public way to say that nobody will ask for ours.
            topic = scheduler._broker._topics[self.topic]  # noqa: SLF001
            topic.events = type(topic.events)(maxlen=0)

    # Which tasks are ours.

    def update_graph(self, scheduler: Any, *, client: str, tasks: Iterable[str], **_: Any) -> None:
        """Tasks were submitted."""
        if client != self.client:
            return
        for key in tasks:
            function = getattr(scheduler.tasks[key].run_spec, "func", None)
            if not str(getattr(function, "__module__", "")).startswith(self.module):
                continue
            if key in self.barred:
                self.barred.discard(key)
                scheduler.tasks[key].has_lost_dependencies = True  # Dask forgets it, instead of scheduling it
            else:
                self.keys.add(key)

    def _wants(self, task: Any) -> bool:
        return any(client.client_key == self.client for client in task.who_wants or ())

    # What happens to them. `transition` is called for each step of each task of everybody: it returns early.

    def transition(self, key: Any, start: str, finish: str, *_: Any, stimulus_id: str = "", **details: Any) -> None:
        """A task went from one state to another."""
        if finish == "released":
            if start == "processing" or start == "memory":  # noqa: PLR1714 - half the time of a set, on the hot path
                self._released(key, start, stimulus_id)
        elif finish == "forgotten":
            if key in self.keys:
                self._forgotten(key, stimulus_id)
        elif finish == "erred" and key in self.keys:
            self._erred(key, start, details)

    def _released(self, key: str, start: str, stimulus: str) -> None:
        task = self.scheduler.tasks[key]
        if key not in self.keys:
            if start == "memory" and task.run_spec is None and self._wants(task):
                self._lost(key, "value", text="the data is on no worker any more")  # sent data, without a worker's end
        elif stimulus.startswith("steal-") and start == "processing":
            return  # the worker has said that it did not begin it, so it may be given to another
        elif task.who_wants or task.waiters:
            task.has_lost_dependencies = True  # what Dask asks before it schedules a task anew: it forgets it instead
            if start == "memory":
                kind, worker = "value", self.gone.get(key, ("", ""))[1]
            else:
                kind, worker = self.gone.get(key, ("upstream", ""))
            self._lost(key, kind, worker, WHY[kind])
        elif self._is_by_others(stimulus):
            self._lost(key, "cancelled", text=why_cancelled(stimulus))
        else:
            self.keys.discard(key)

    def _forgotten(self, key: str, stimulus: str) -> None:
        if self._is_by_others(stimulus):
            self._lost(key, "cancelled", text=why_cancelled(stimulus))
        elif self.scheduler.tasks[key].has_lost_dependencies and not is_release(stimulus):
            self._lost(key, "upstream", text=WHY["upstream"])
        else:
            self.keys.discard(key)

    def _erred(self, key: str, start: str, details: dict[str, Any]) -> None:
        worker, task = details.get("worker") or "", self.scheduler.tasks[key]
        if start == "processing" and worker and worker not in self.scheduler.workers:
            self._lost(key, "processing", worker, WHY["processing"])  # Dask's KilledWorker
        elif details.get("cause") == key:
            text = details.get("exception_text") or text_of(details.get("exception"))
            if text.startswith(f"{REPORTED}("):
                self.keys.discard(key)
            elif text.startswith(f"{NOT_BEGUN}("):
                self._lost(key, "refused", worker, WHY["refused"])
            else:
                self._lost(key, "erred", worker, text)
        elif (blamed := task.exception_blame) is not None and not self._is_ours(blamed):
            self._lost(key, "upstream", text=blamed.exception_text or text_of(blamed.exception))
        else:
            self.keys.discard(key)  # an upstream of ours failed: that was told

    def _is_ours(self, task: Any) -> bool:
        function = getattr(task.run_spec, "func", None)
        return str(getattr(function, "__module__", "")).startswith(self.module)

    def _is_by_others(self, stimulus: str) -> bool:
        if stimulus.startswith("cancel-key-"):
            return self.canceller != self.client
        return stimulus.startswith("client-restart")

    def _lost(self, key: str, kind: str, worker: str = "", text: str = "") -> None:
        self.keys.discard(key)  # each is reported once
        self.told[key] = kind, worker
        self._tell({"op": "lost", "key": key, "kind": kind, "worker": worker, "text": text})

    def _tell(self, event: dict[str, Any]) -> None:
        self.scheduler.log_event(self.topic, event)

    # Calls that the client withdraws.

    def told_of(self, key: str) -> tuple[str, str] | None:
        """Give what was told of a task already, for one who asks whether it can still begin.

        Args:
            key: the task's.

        Returns:
            What is known, and the address of a worker; None if nothing was told.
        """
        if key not in self.told:
            return None
        kind, worker = self.told[key]
        if kind == "refused" or (kind == "upstream" and not worker):
            return DROPPED, ""
        if kind == "upstream" and worker in self.scheduler.workers:
            return PLACED, worker
        return (LOST, worker) if kind in {"processing", "leaving", "upstream"} else (TOLD, "")

    def drop(self, keys: list[str]) -> None:
        """See that tasks of ours are not run; of them, nothing is told.

        Args:
            keys: those of tasks that no worker can begin; some may still be on their way to the scheduler.
        """
        tasks = self.scheduler.tasks
        self.keys.difference_update(keys)  # of all, before one that is dropped takes those with it that depend on it
        self.barred.update(key for key in keys if key not in tasks and key not in self.told)
        for key in keys:
            task = tasks.get(key)
            if task is None or task.state in {"memory", "erred", "forgotten"}:
                continue
            task.has_lost_dependencies = True  # whoever waits for its value can keep it no more
            finish = "forgotten" if task.state == "released" else "released"
            self.scheduler.transitions({key: finish}, f"withdraw-{key}")

    # What the scheduler says about itself: facts that the transitions lack.

    def log_event(self, topic: str, msg: Any) -> None:
        """An event was logged, by anybody."""
        if topic == self.topic:
            if msg.get("op") == "leaving":
                self.orderly.add(msg["worker"])
        elif topic == "all":
            if isinstance(msg, dict) and msg.get("action") == "remove-worker":
                self._removing(msg)  # the scheduler says so before it touches the worker's tasks
        elif isinstance(msg, dict) and msg.get("action") == "cancel":
            self.canceller = topic
        elif topic == self.client and isinstance(msg, dict) and msg.get("status") == "cancelled":
            self._tell({"op": "unread"})  # Dask has told the client of the keys before

    def _removing(self, msg: dict[str, Any]) -> None:
        worker, tasks = msg["worker"], self.scheduler.tasks
        is_orderly = msg.get("expected") or worker in self.orderly
        kind = "leaving" if is_orderly else "processing"
        self.died = "" if is_orderly else worker
        lost, sent = msg.get("lost-computed-tasks", ()), msg.get("lost-scattered-tasks", ())
        for key in {*lost, *sent}:
            for dependent in tasks[key].dependents:
                if dependent.key in self.keys and dependent.processing_on is not None:
                    self.gone[dependent.key] = ("upstream", dependent.processing_on.address)
        self.gone.update((key, ("value", worker)) for key in lost if key in self.keys)
        self.gone.update((key, (kind, worker)) for key in msg.get("processing-tasks", ()) if key in self.keys)
        for key in sent:
            if self._wants(tasks[key]):
                self._lost(key, "value", worker, WHY["value"])
        if is_orderly:
            wait = asyncio.get_running_loop().create_task(self._ended(worker, self.streams.get(worker)))
            self.waits.add(wait)
            wait.add_done_callback(self.waits.discard)

    async def _ended(self, worker: str, stream: Any) -> None:
        """Wait until a worker that the scheduler has removed has closed its stream: until then its events arrive."""
        comm = getattr(stream, "comm", None)
        for _ in range(600):  # a minute; a worker that stays open longer was not closed by whoever retired it
            if comm is None or comm.closed():
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.05)  # what was read from the stream is handled by now
        self._tell({"op": "left", "worker": worker})

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker joined."""
        self.orderly.discard(worker)
        self.streams[worker] = scheduler.stream_comms.get(worker)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """A worker was removed, and its tasks were dealt with."""
        self.gone.clear()
        if self.died == worker:
            self._tell({"op": "gone", "worker": worker})
        self.streams.pop(worker, None)
        self.orderly.discard(worker)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Adaptive scaling asks which workers may go: none that has a call of ours, as Dask does for long ones."""
        return [worker for worker in workers if not any(task.key in self.keys for task in worker.processing)]

    # The end.

    def restart(self, scheduler: Any) -> None:
        """Somebody restarted the cluster: the scheduler has forgotten everything."""
        for key in list(self.keys):
            self._lost(key, "cancelled", text=why_cancelled("client-restart"))
        self._tell({"op": "restarted"})

    def remove_client(self, scheduler: Any, client: str) -> None:
        """A client is gone; if it is ours (its process may have been killed), so is all that it had here."""
        if client == self.client:
            self.erase()
            self.waits.add(asyncio.get_running_loop().create_task(self._drop_presence()))

    def erase(self) -> None:
        """Take the plugin and its topics off the scheduler."""
        if self.scheduler.plugins.get(self.name) is self:
            self.scheduler.remove_plugin(name=self.name)
        for wait in self.waits:
            wait.cancel()
        self.keys = set()  # a set that was large stays so, and the call below keeps this object for a minute
        self.told, self.barred = {}, set()
        self._drop_topics()
        # Dask remembers what the last 100,000 keys begin with, and so these keys, ours among them. It is only a memory.
        if (clear := getattr(key_split, "cache_clear", None)) is not None:
            clear()
        # The graphs that we sent are in reference cycles of Dask's, and its garbage collector is set to come seldom:
        # those of many flow runs would gather. A scheduler with much else in it is not stopped for that.
        if len(self.scheduler.tasks) < FEW:
            gc.collect()
        # A call that was given up may still report, which makes the topic anew.
        asyncio.get_running_loop().call_later(AFTERGLOW, self._drop_topics)

    def _drop_topics(self) -> None:
        with contextlib.suppress(Exception):
            # Topics have no public end. The client's own, of Dask's events about it, would be emptied in an hour.
            topics = self.scheduler._broker._topics  # noqa: SLF001
            topics.pop(self.topic, None)
            if (own := topics.get(self.client)) is not None:
                own.truncate()

    async def _drop_presence(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.scheduler.unregister_worker_plugin(comm=None, name=self.name), 10)
