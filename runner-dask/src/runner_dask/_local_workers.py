"""How the workers of a cluster on this machine are ended at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster, Worker
from distributed.core import Status

from runner_dask._quiet import quiet_loop

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalWorkers:
    """The workers of a `LocalCluster`.

    Args:
        cluster: the cluster; None if it has not started.
    """

    def __init__(self, cluster: Any = None) -> None:
        self.cluster = cluster
        """The cluster, as soon as it has started."""
        self.nannies: list[Any] = []
        """The nannies that this package has made: they are here before the cluster has started."""
        self._lock = threading.Lock()
        self._closing = False
        self._silence = ExitStack()

    @property
    def closing(self) -> bool:
        """Whether no worker is to be started any more."""
        return self._closing

    def born(self, pid: int) -> None:
        """Take in a worker process that has just begun.

        Args:
            pid: its id.
        """
        with self._lock:
            if self._closing:  # it was being started when all others were killed
                _kill(pid)

    def kill(self) -> None:
        """End all workers at once, whatever they are doing, and start no more.

        Those that are threads of this process are closed without waiting for what runs there. Dask closes a worker
        once, in one way, and our plugin on it does wait: it has to be gone by then.
        """
        self.kill_processes()
        for each in self._workers():
            if isinstance(each, Worker):  # a thread cannot be killed; it ends with this process at the latest
                self.cluster.loop.add_callback(each.close, timeout=1, executor_wait=False, nanny=False)

    def kill_processes(self) -> bool:
        """End those workers that are processes, and start no more.

        Returns:
            Whether no worker is left.
        """
        with self._lock:
            if not self._closing:  # Dask would log what that makes of its own work
                self._silence.enter_context(quiet_loop(getattr(self.cluster, "loop", None)))
            self._closing = True
        workers = self._workers()
        for each in workers:
            if isinstance(each, Worker):
                continue
            if each.status == Status.running:
                each.status = Status.closing_gracefully  # a nanny of that status does not start its worker again
            if (process := getattr(each, "process", None)) is not None and (pid := process.pid) is not None:
                _kill(pid)
        return not any(isinstance(each, Worker) for each in workers)

    def _workers(self) -> set[Any]:
        """The nannies, also those that have not started; or the workers themselves where those are threads."""
        return {*self.nannies, *getattr(self.cluster, "workers", {}).values()}

    def speak(self) -> None:
        """Let Dask log again."""
        self._silence.close()


@contextmanager
def local_workers(cluster: Any) -> Iterator[LocalWorkers | None]:
    """Give the workers of a cluster that somebody else's function has made.

    Args:
        cluster: a cluster object.

    Yields:
        Its workers; None if it is not a `LocalCluster`, whose workers are on this machine.
    """
    workers = LocalWorkers(cluster) if isinstance(cluster, LocalCluster) else None
    try:
        yield workers
    finally:
        if workers is not None:
            workers.speak()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
