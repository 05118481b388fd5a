"""A worker process of a temporary cluster: what it takes with it, and what it writes while it starts."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing import context as contexts
from multiprocessing import process as processes
from typing import TYPE_CHECKING, Any

from runner_dask._forks import main_module_left_alone

if TYPE_CHECKING:
    from collections.abc import Callable

born: dict[str, Callable[[int], None]] = {}
"""By folder: what is told about a process that was started for the cluster with that folder."""


STDERR = ".stderr"
"""How the files end that hold what a worker wrote to stderr while it started."""


class _WorkerProcess(processes.BaseProcess):
    """A process that a nanny starts."""

    def __init__(self, *args: Any, folder: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._folder = folder
        self._environment: dict[str, str] = {}
        number = "-".join(map(str, self._identity))  # of this process, among those that its parent has started
        self._stderr_file = os.path.join(folder, f"worker-{number}{STDERR}")

    def start(self) -> None:
        """Start the process, with the environment that this one has now: a fork server has that of its own start."""
        self._environment = dict(os.environ)
        # A flow inside a task starts workers in a worker, which is "daemonic": it may have no children, for fear that
        # they survive it. These do not: they end when the pipe from their parent breaks.
        this_process: Any = processes.current_process()
        this_process._config.pop("daemon", None)  # noqa: SLF001 - the check is on this entry
        super().start()
        if (tell := born.get(self._folder)) is not None and self.pid is not None:
            tell(self.pid)

    def run(self) -> None:
        """Be the worker; what it writes to stderr before it has started goes to a file."""
        os.environ.clear()
        os.environ.update(self._environment)
        # A Ctrl-C in a terminal reaches all of its processes; the flow's process decides what becomes of the workers.
        # A handler, because a signal that is ignored would be ignored by the programs that tasks start, too.
        signal.signal(signal.SIGINT, lambda *_: None)
        if (random := sys.modules.get("numpy.random")) is not None:
            random.seed()  # the fork server has loaded numpy: all of its forks would draw the same numbers
        stderr.hold(self._stderr_file)
        try:
            super().run()
        finally:
            stderr.flush()


class Stderr:
    """The stderr of a worker: held back in a file until the worker has started."""

    def __init__(self) -> None:
        self._file: str | None = None
        self._real = -1

    def hold(self, file: str) -> None:
        """Write to a file from now on."""
        with suppress(OSError):
            held = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._real = os.dup(2)
            os.dup2(held, 2)
            os.close(held)
            self._file = file

    def flush(self) -> None:
        """Write out what Python has buffered."""
        with suppress(Exception):
            sys.stderr.flush()

    def release(self) -> None:
        """Write to the real stderr from now on, and hand it what was held back."""
        if self._file is None:
            return
        self.flush()
        os.dup2(self._real, 2)
        os.close(self._real)
        with suppress(OSError):
            with open(self._file, "rb") as held:
                text = held.read()
            os.unlink(self._file)
            os.write(2, text)
        self._file = None


stderr = Stderr()


class SpawnedWorker(_WorkerProcess, contexts.SpawnProcess):
    """A worker in a new interpreter."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - the name that `multiprocessing` calls
        with main_module_left_alone():
            return contexts.SpawnProcess._Popen(process)  # noqa: SLF001 - as its base class does


if hasattr(contexts, "ForkServerProcess"):

    class ForkedWorker(_WorkerProcess, contexts.ForkServerProcess):
        """A worker that is forked from the fork server."""

        @staticmethod
        def _Popen(process: Any) -> Any:  # noqa: N802 - the name that `multiprocessing` calls
            with main_module_left_alone():
                return contexts.ForkServerProcess._Popen(process)  # noqa: SLF001 - as its base class does


METHODS = ("forkserver", "spawn")
"""The methods of `multiprocessing` that there is a process class for."""


class WorkerContext:
    """What Dask's nannies take for a context of `multiprocessing`, such as `multiprocessing.get_context("spawn")`."""

    def __init__(self, method: str, folder: str) -> None:
        import multiprocessing

        self._context = multiprocessing.get_context(method)
        self._process = ForkedWorker if method == "forkserver" else SpawnedWorker
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)  # Queue, Pipe

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - the name that it has in `multiprocessing`
        """Make a process that is not started yet."""
        return self._process(*args, folder=self._folder, **kwargs)
