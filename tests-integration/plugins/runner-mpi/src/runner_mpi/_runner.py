"""The task runner: its options, and the job that they describe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from riverrun.abc import Concurrency, ExecutorTaskRunner
from riverrun.exceptions import TaskRunnerOptionError, TaskRunnerStartError

from runner_mpi._job import Job

ON_ONE_MACHINE = ("mpiexec.gforker", "mpiexec", "mpirun")
"""The commands that are looked for, the best one first: MPICH's gforker needs no sockets to start processes."""


class MPITaskRunner(ExecutorTaskRunner):
    """Runs tasks on the ranks of an MPI job, which is started for the flow run.

    A rank that dies ends the whole job, as MPI has it, with all the runs that were on it; the next job takes its place.

    Args:
        workers: how many tasks run at once, each on a rank of its own; by default, as many as there are cores. The job
            has one rank more, which hands the tasks out.
        launcher: the command that starts MPI programs, as in `("srun", "--mpi=pmix")`; it has to take `-n`. By default,
            one that is found in this environment or on the path.
        start_timeout: how many seconds the job may take to start.
    """

    workers: int | None = None
    launcher: tuple[str, ...] = ()
    start_timeout: float = 60

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    api_version: ClassVar[int] = 1

    def validate(self) -> None:
        """Refuse a job without workers."""
        if self.workers is not None and self.workers < 1:
            raise TaskRunnerOptionError(f"MPITaskRunner: workers must be 1 or more, not {self.workers}.")

    def executor(self) -> Job:
        """Make a job; it starts when it is entered."""
        return Job(self.launcher or (_found(),), self.workers or os.cpu_count() or 1, self.start_timeout)


def _found() -> str:
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for name in ON_ONE_MACHINE:
        if command := shutil.which(name, path=beside_python):
            return command
    raise TaskRunnerStartError(
        f"MPITaskRunner: found none of {', '.join(ON_ONE_MACHINE)}. Install an MPI (pip install 'runner-mpi[mpich]'), "
        "load its module, or name the command: MPITaskRunner(launcher=('srun',))."
    )
