"""The cluster of one flow run: started or found, connected to, and closed or left.

    opened(runner)
      |- address or cluster  ->                                       a client  ->  its first worker
      '- neither             ->  cluster_class(**cluster_kwargs)  ->  a client  ->  its first worker
                                 closed at the end                    closed at the end

What Dask does here may block for any time, so each step is a call in a thread of its own that is given up when
`start_timeout` is over, or when the flow is interrupted.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from riverrun.workers import Deadline

from runner_dask._connections import connected
from runner_dask._handles import ClusterHandle
from runner_dask._temporary import adapted, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner_dask._local_workers import LocalWorkers
    from runner_dask._runner import DaskTaskRunner

logger = logging.getLogger("riverrun.task_runners.dask")


class Opened:
    """A cluster that is ready for one flow run."""

    __slots__ = ("_house", "_workers", "adaptive", "client", "cluster", "deadline", "folder", "temporary")

    def __init__(
        self,
        client: Any,
        cluster: Any,
        house: Any = None,
        workers: LocalWorkers | None = None,
        *,
        deadline: Deadline,
        temporary: bool,
        adaptive: bool,
    ) -> None:
        self.client = client
        """A `distributed.Client` with the blocking interface, which is not the default one of this process."""
        self.cluster = cluster
        """The cluster object; None where there is but an address."""
        self.deadline = deadline
        """Until when the flow run has to be ready for its first task."""
        self.temporary = temporary
        """Whether it was started for this flow run, and is closed at its end."""
        self.adaptive = adaptive
        """Whether it grows and shrinks with the work, as far as can be known."""
        self.folder: str | None = None if house is None else house.folder
        """A folder for files of workers on this machine, removed at the end; None where the workers are not ours."""
        self._house = house
        self._workers = workers

    def worker_errors(self) -> str:
        """Give the last lines that workers on this machine wrote to stderr while they started; "" if unknown."""
        return "" if self._house is None else self._house.stderr_tail()

    def kill_processes(self) -> bool:
        """End the workers of a temporary cluster on this machine that are processes, whatever they are doing.

        Returns:
            Whether no worker of the cluster is left, as far as it is known.
        """
        return self._workers is not None and self._workers.kill_processes()

    def hurry(self) -> None:
        """End all workers of a temporary cluster on this machine at once, whatever they are doing."""
        if self._workers is not None:
            self._workers.kill()


@contextmanager
def opened(runner: DaskTaskRunner) -> Iterator[Opened]:
    """Open the cluster that a runner asks for, for one flow run.

    Args:
        runner: the options.

    Yields:
        The cluster, with a client connected to it, and a worker unless it is adaptive.

    Raises:
        TaskRunnerStartError: that took longer than `start_timeout`, or failed; the text says what to do. All that
            was started is stopped by then.
    """
    deadline = Deadline(runner.start_timeout)
    if runner.address is None and runner.cluster is None:
        with ExitStack() as stack:
            cluster, house = stack.enter_context(started(runner, deadline))
            from runner_dask._local_workers import local_workers  # it imports distributed, which `started` times well

            workers = house or stack.enter_context(local_workers(cluster))
            waits = not _may_be_empty(runner) and house is None  # a LocalCluster has started with its workers
            client = stack.enter_context(connected(runner, cluster, deadline, house=house, waits=waits))
            adaptive = bool(runner.adapt_kwargs)
            found = Opened(client, cluster, house, workers, deadline=deadline, temporary=True, adaptive=adaptive)
            try:
                yield found
            except BaseException:
                found.hurry()  # what still runs there is nobody's
                raise
        return
    logger.info("Connecting to the Dask cluster at `%s`", _address_of(runner))
    cluster = None if isinstance(runner.cluster, ClusterHandle) else runner.cluster
    adaptive = cluster is not None and (adapted(cluster, runner, deadline) or _is_adaptive(cluster))
    with connected(runner, cluster, deadline, house=None, waits=not adaptive) as client:
        yield Opened(client, cluster, deadline=deadline, temporary=False, adaptive=adaptive)


def _address_of(runner: DaskTaskRunner) -> str:
    address: str = runner.address if runner.address is not None else runner.cluster.scheduler_address
    return address


def _may_be_empty(runner: DaskTaskRunner) -> bool:
    return bool(runner.adapt_kwargs) and not (runner.adapt_kwargs or {}).get("minimum")


def _is_adaptive(cluster: Any) -> bool:
    """Tell whether the user has called `cluster.adapt()`: Dask keeps no public record of it."""
    return getattr(getattr(cluster, "_adaptive", None), "periodic_callback", None) is not None
