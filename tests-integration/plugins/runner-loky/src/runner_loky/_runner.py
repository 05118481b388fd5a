"""The task runner: its options, and the executor that loky makes of them."""

from __future__ import annotations

from typing import ClassVar

from loky import ProcessPoolExecutor
from riverrun.abc import Concurrency, ExecutorTaskRunner


class LokyTaskRunner(ExecutorTaskRunner):
    """Runs tasks in processes that loky keeps.

    A worker that is killed breaks loky's executor, with all the runs that it had; the next one takes its place.

    Args:
        max_workers: how many tasks run at once; by default, as many as there are cores.
        idle_timeout: after how many seconds without work a process ends; it is started again when there is some.
    """

    max_workers: int | None = None
    idle_timeout: float | None = None

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    api_version: ClassVar[int] = 1

    def executor(self) -> ProcessPoolExecutor:
        """Make an executor."""
        return ProcessPoolExecutor(self.max_workers, timeout=self.idle_timeout)
