"""What belongs to one temporary cluster on this machine that was made here."""

from __future__ import annotations

import atexit
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from runner_dask import _worker_process
from runner_dask._local_workers import LocalWorkers
from runner_dask._quiet import quiet_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAIL_LINES = 30


class House(LocalWorkers):
    """A folder, nannies, and their worker processes; or workers that are threads of this process."""

    def __init__(self, folder: str, method: str) -> None:
        super().__init__()
        self.folder = folder
        self.method = method
        """How `multiprocessing` starts the workers."""
        self.has_dashboard = True
        self._quiet: ExitStack | None = None
        _worker_process.born[folder] = self.born
        atexit.register(self.remove)  # for a flow in a daemon thread, whose end nobody waits for

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
        self.speak()
        _worker_process.born.pop(self.folder, None)
        shutil.rmtree(self.folder, ignore_errors=True)
