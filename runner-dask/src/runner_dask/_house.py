"""What belongs to one temporary cluster on this machine, and how it is ended at once."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import Worker
from distributed.core import Status

from runner_dask import _worker_process
from runner_dask._quiet import quiet_loop, quiet_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAIL_LINES = 30


class House:
    """A folder, nannies, and their worker processes; or workers that are threads of this process."""

    def __init__(self, folder: str, method: str) -> None:
        self.folder = folder
        self.method = method
        """How `multiprocessing` starts the workers."""
        self.cluster: Any = None
        """The cluster, as soon as it has started."""
        self.nannies: list[Any] = []
        """The nannies that this package has made: they are here before the cluster has started."""
        self.has_dashboard = True
        self._lock = threading.Lock()
        self._closing = False
        self._quiet: ExitStack | None = None
        self._silence = ExitStack()
        _worker_process.born[folder] = self._born
        atexit.register(self.remove)  # for a flow in a daemon thread, whose end nobody waits for

    @property
    def closing(self) -> bool:
        """Whether no worker is to be started any more."""
        return self._closing

    @property
    def began(self) -> int:
        """How many workers have started."""
        return sum(nanny.status == Status.running for nanny in self.nannies)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Drop what Dask logs about the start: a start that fails is told by an exception."""
        with ExitStack() as stack:
            stack.enter_context(quiet_thread(None))
            self._quiet = stack
            try:
                yield
            finally:
                self._quiet = None

    def dashboard_link(self) -> str | None:
        """Give the address of the dashboard; None if there is none."""
        if not self.has_dashboard:
            return None
        if self.cluster.scheduler_address.startswith("inproc://"):  # where the host is that of some interface
            from distributed import utils

            format_link: Any = utils.format_dashboard_link  # it has no types
            server = self.cluster.scheduler.http_server
            return str(format_link(server.address, server.port))
        return str(self.cluster.dashboard_link)

    def settle(self, nanny: Any) -> None:
        """Take in a nanny; it is made on the event loop of the cluster."""
        self.nannies.append(nanny)
        if len(self.nannies) == 1 and self._quiet is not None:
            self._quiet.enter_context(quiet_thread(threading.get_ident()))

    def _born(self, pid: int) -> None:
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

    def stderr_tail(self) -> str:
        """Give the last lines that workers wrote to stderr before they had started."""
        lines: list[str] = []
        with suppress(OSError):
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(_worker_process.STDERR):
                    with open(os.path.join(self.folder, name), errors="replace") as file:
                        lines += file.read().splitlines()[-_TAIL_LINES:]
        return "\n".join(lines[-_TAIL_LINES:])

    def remove(self) -> None:
        """Remove the folder."""
        atexit.unregister(self.remove)
        self._silence.close()
        _worker_process.born.pop(self.folder, None)
        shutil.rmtree(self.folder, ignore_errors=True)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
