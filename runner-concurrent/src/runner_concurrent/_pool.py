"""A bounded pool of threads for jobs that report on their own.

::

    spawn(job) --> queue --> a worker takes a token (a slot), runs jobs until the queue is empty, gives it back
    help(job)  --> the calling thread takes a token, if one is free, and runs the job itself

There are as many tokens as slots, so the bound holds for workers and helpers together. A worker that hands over to
another job at its end (the last upstream of a task, say) runs that job next, without a trip through the queue.
"""

from __future__ import annotations

import logging
import threading
from _queue import Empty, SimpleQueue  # noqa: PLC2701 - `queue` itself imports more
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[], object]


_logger = logging.getLogger("riverrun.task_runners")


class _Worker(threading.local):
    """What a thread knows of itself, if it is a worker."""

    pool: ThreadPool | None = None
    next: Job | None = None


_this_thread = _Worker()


class ThreadPool:
    """Runs jobs on at most so many threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._tokens.put(None)
        self._lock = threading.Lock()
        self._running: set[threading.Thread] = set()
        """The workers that are counted on."""
        self._jobs: dict[Job, threading.Thread] = {}
        """What they are at, for as long as it can be given up."""
        self._idle: list[None] = []
        """One entry for each worker that waits for a job. (Appending and popping are atomic; counting is not.)"""

    def spawn(self, job: Job) -> None:
        """Run a job soon."""
        if _this_thread.pool is self and _this_thread.next is None:
            _this_thread.next = job
            return
        self._queue.put(job)
        if not self._idle and len(self._running) < self._size:
            self._start_worker()

    def _start_worker(self) -> None:
        with self._lock:
            if len(self._running) >= self._size:
                return
            worker = threading.Thread(target=self._work, name="riverrun-worker", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # the system has no thread left: those that run do the work, if there are any
                if not self._running:
                    raise
                return
            self._running.add(worker)

    def _work(self) -> None:
        me = threading.current_thread()
        _this_thread.pool = self
        with self._lock:  # until who started this thread has written it down
            pass
        queue, running = self._queue, self._running
        while True:
            self._idle.append(None)
            job = queue.get()
            self._idle.pop()
            if job is None:
                break
            # Whoever put the next job may have seen this worker idle a moment ago, and have started no other for it.
            if not self._idle and len(running) < self._size and not queue.empty():
                self._start_worker()
            self._tokens.get()
            if not self._run_on(me, job):
                return
            self._tokens.put(None)
        queue.put(None)  # one None ends them all: each passes it on

    def _run_on(self, me: threading.Thread, job: Job | None) -> bool:
        """Run one job after the other until there is none; false if this worker was given up meanwhile."""
        here, queue, jobs = _this_thread, self._queue, self._jobs
        while job is not None:
            jobs[job] = me
            try:
                job()
            except BaseException:
                _logger.exception("A job of the concurrent task runner raised, which jobs never do. Please report it.")
            if not self._is_still(me, job):  # another thread has this slot, and its token
                here.pool = None
                if here.next is not None:
                    self.spawn(here.next)
                return False
            job = here.next
            here.next = None
            if job is None:
                try:
                    job = queue.get_nowait()
                except Empty:
                    break
        else:
            queue.put(None)  # the pool stops: `_work` is to see that
        return True

    def _is_still(self, me: threading.Thread, job: Job) -> bool:
        """Say whether this worker is counted on after a job; from here on nobody can give it up for that job."""
        worker = self._jobs.pop(job, None)
        if worker is not None and worker is not me:  # the job was given up here, and is running again elsewhere
            self._jobs[job] = worker
        return worker is me

    def help(self, job: Job) -> bool:
        """Run a job in the calling thread, if a slot is free; a worker has one, and hands on what was to be next."""
        here = _this_thread
        if here.pool is self:
            if here.next is not None:
                following, here.next = here.next, None
                self._queue.put(following)
                if not self._idle and len(self._running) < self._size:
                    self._start_worker()
            job()
            return True
        try:
            self._tokens.get_nowait()
        except Empty:
            return False
        try:
            job()
        finally:
            self._tokens.put(None)
        return True

    def abandon(self, job: Job) -> None:
        """Give the slot of a job that is running to others."""
        worker = self._jobs.pop(job, None)  # who pops it decides: this, or the worker at the end of the job
        if worker is None:
            return
        with self._lock:
            self._running.discard(worker)
        self._tokens.put(None)
        if not self._queue.empty():
            self._start_worker()

    def stop(self) -> None:
        """End the workers; those that were given up are not waited for."""
        with self._lock:
            workers = list(self._running)
            self._size = 0  # no more of them are started
        self._queue.put(None)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join()
