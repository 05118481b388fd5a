"""An MPI job, as the process of the flow sees it: an executor.

::

    flow's process                                  mpiexec -n workers+1
    submit(call) -> queue -> _fill() -- calls ---->   rank 0  ----->  rank 1, 2, ...
                 future <--- reader <-- outcomes --           <-----
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Callable

# On one machine MPI needs no network: shared memory will do, and nothing has to listen. The user's settings go first.
NO_NETWORK = {"UCX_TLS": "sm,self", "FI_TCP_IFACE": "lo", "OMPI_MCA_btl": "self,sm"}


class Job:
    """An executor whose calls run on the ranks of an MPI job."""

    def __init__(self, launcher: tuple[str, ...], workers: int, start_timeout: float) -> None:
        self._launcher = launcher
        self._workers = workers
        self._start_timeout = start_timeout
        self._lock = threading.RLock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running: dict[int, Future[Any]] = {}
        self._count = 0
        self._is_gone = False

    def __enter__(self) -> Self:
        folder = tempfile.mkdtemp(prefix="runner-mpi-")  # which nobody else may enter
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                address = str(Path(folder, "job"))
                listener.bind(address)
                listener.listen(1)
                self._process = self._start(address)
                try:
                    self._connection = self._answer(listener)
                except BaseException:
                    self._kill()
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._reader = threading.Thread(target=self._read, name="runner-mpi", daemon=True)
        self._reader.start()
        return self

    def _start(self, address: str) -> subprocess.Popen[bytes]:
        command = [
            *self._launcher,
            "-n",
            str(self._workers + 1),
            sys.executable,
            "-P",
            "-m",
            "runner_mpi._serve",
            address,
        ]
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        try:
            return subprocess.Popen(
                command,
                env={**NO_NETWORK, **os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C at a terminal is for the flow: it tells the job to stop
            )
        except OSError as error:
            raise TaskRunnerStartError(f"MPITaskRunner: `{self._launcher[0]}` cannot be started: {error}.") from error

    def _answer(self, listener: socket.socket) -> Connection:
        """Wait until rank 0 is there."""
        listener.settimeout(0.05)
        deadline = time.monotonic() + self._start_timeout
        while True:
            with suppress(TimeoutError):
                accepted, _ = listener.accept()
                accepted.setblocking(True)
                return Connection(accepted.detach())
            status, command = self._process.poll(), " ".join(self._launcher)
            if status is not None:
                raise TaskRunnerStartError(
                    f"MPITaskRunner: the job of `{command}` ended with status {status} before its first rank answered. "
                    "What it has to say is above. Every rank needs `mpi4py`, for this MPI, and `runner-mpi`."
                )
            if time.monotonic() > deadline:
                raise TaskRunnerStartError(
                    f"MPITaskRunner: the job of `{command}` did not answer in {self._start_timeout:g} seconds. "
                    "Where jobs wait for a place, start the flow inside an allocation, or raise `start_timeout`."
                )

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:
        """Run a call on the first rank that is free."""
        future: Future[Any] = Future()
        with self._lock:
            if self._is_gone:
                raise BrokenExecutor("The MPI job has ended.")
            self._waiting.append((future, call))
            self._fill()
        return future

    def _fill(self) -> None:
        """Send a call to each rank that is free: no more, so that what waits can be cancelled."""
        while self._waiting and len(self._running) < self._workers:
            future, call = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._count += 1
                self._running[self._count] = future
                with suppress(OSError):  # the job is gone: the reader tells those who wait
                    self._connection.send((self._count, call))

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, outcome, error = self._connection.recv()
                with self._lock:
                    future = self._running.pop(number)
                    self._fill()
                if error is None:
                    future.set_result(outcome)
                else:
                    future.set_exception(error)
        with self._lock:
            self._is_gone = True
            begun, waiting = list(self._running.values()), [future for future, _ in self._waiting]
        for future in [*begun, *(one for one in waiting if one.set_running_or_notify_cancel())]:
            future.set_exception(BrokenExecutor("The MPI job has ended: one of its ranks died."))

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        try:
            if error is None or issubclass(error, Exception):
                with suppress(OSError):
                    self._connection.send(None)
                self._process.wait()
        finally:  # also when the flow is interrupted: what still runs is nobody's
            self._kill()
            self._reader.join()
            self._connection.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
