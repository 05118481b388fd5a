"""The task runner: its options, and the executors that it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable  # noqa: TC003 - options are checked against their annotations, by pydantic
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any, ClassVar

import cloudpickle
from riverrun.abc import Concurrency, ExecutorTaskRunner
from riverrun.exceptions import TaskRunnerOptionError

from runner_process._context import context
from runner_process._start import limits, start


class ProcessTaskRunner(ExecutorTaskRunner):
    """Runs tasks in processes of this machine; one that is killed takes one run with it, and is replaced.

    Args:
        max_workers: how many processes, and so how many tasks at once; by default, as many as there are cores.
        threads_per_worker: how many threads numpy and other libraries of native code may use in each process; by
            default, the cores divided by `max_workers`. Variables such as `OMP_NUM_THREADS`, where set, count for more.
        initializer: a function that each process calls before its first task.
        initargs: its arguments.
        max_tasks_per_child: after how many tasks a process is replaced; by default never. For code that leaks memory.
    """

    max_workers: int | None = None
    threads_per_worker: int | None = None
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    max_tasks_per_child: int | None = None

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    api_version: ClassVar[int] = 1
    survives_lost_workers: ClassVar[bool] = True

    def validate(self) -> None:
        """Refuse counts below 1, and arguments for nothing."""
        for name in ("max_workers", "threads_per_worker", "max_tasks_per_child"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise TaskRunnerOptionError(f"ProcessTaskRunner: {name} must be 1 or more, not {count}.")
        if self.initargs and self.initializer is None:
            raise TaskRunnerOptionError("ProcessTaskRunner: initargs are for the initializer; there is none.")

    def lanes(self) -> int:
        """Give each process an executor of its own, so that they die alone."""
        return self.max_workers or _cores()

    def executor(self) -> ProcessPoolExecutor:
        """Make an executor with one process."""
        threads = self.threads_per_worker or max(1, _cores() // self.lanes())
        # By value: a process does not import the script, so it could not find by name what the script defines.
        initializer = self.initializer and cloudpickle.dumps((self.initializer, self.initargs))
        return _OneProcess(self.max_tasks_per_child, (limits(threads), initializer))


class _OneProcess(ProcessPoolExecutor):
    """An executor with one process, which takes so many calls and no more."""

    def __init__(self, most: int | None, initargs: tuple[dict[str, str], bytes | None]) -> None:
        # The process ends when this end of the pipe is closed: by us, or because the process of the flow is gone.
        self._watched, self._alive = context().Pipe(duplex=False)
        super().__init__(1, mp_context=context(), initializer=start, initargs=(self._watched, *initargs))
        self._left = most

    def submit(self, call: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override] # that is all we are given
        """Run a call. The standard library's own `max_tasks_per_child` hangs now and then (CPython issue 115634)."""
        if self._left == 0:
            raise BrokenExecutor("This process has run as many tasks as it may.")
        if self._left is not None:
            self._left -= 1
        return super().submit(call)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Stop the process; on an interrupt without waiting for what it does."""
        if error is not None and not issubclass(error, Exception):
            self._alive.close()
        super().__exit__(None, None, None)
        self._alive.close()
        self._watched.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
