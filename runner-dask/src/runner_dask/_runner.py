"""The options of `DaskTaskRunner`."""

from __future__ import annotations

import os  # noqa: TC003 - a name in an annotation of an option, which is evaluated
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import TaskRunnerOptionError

from runner_dask._handles import ClusterHandle, identity_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner_dask._executor import DaskTaskExecutor


class DaskTaskRunner(TaskRunner):
    """Runs tasks on a Dask cluster: a temporary one for each flow run, or one that is there already.

    Without `address` and `cluster`, each flow run starts a cluster of its own and closes it at its end.

    Args:
        address: the scheduler of a running cluster, such as `"tcp://10.0.0.5:8786"`.
        cluster: a running cluster, as an object. It is left as it was found, but for `adapt_kwargs`. In a pickle of
            the runner it is replaced by the address of its scheduler.
        cluster_class: what makes the temporary cluster: a class, a function, or its dotted path such as
            `"dask_jobqueue.SLURMCluster"`. By default `distributed.LocalCluster`.
        cluster_kwargs: what `cluster_class` is called with, such as `{"n_workers": 4, "threads_per_worker": 1}`.
            They win over every default of the runner.
        adapt_kwargs: let the cluster grow and shrink with the work: what `cluster.adapt()` is called with, such as
            `{"minimum": 0, "maximum": 4}`. A `cluster` stays adaptive after the flow run.
        client_kwargs: what `distributed.Client` is called with, such as `{"security": ...}` for TLS.
        performance_report_path: where to write Dask's performance report of the flow run, an HTML file. It needs
            `pip install "runner-dask[dashboard]"`.
        start_timeout: seconds until the first worker is there, and those that are have answered; after them the
            flow run fails. Of an adaptive cluster that may have no worker at all, no worker is waited for.
        ship: modules and paths that are sent to the workers.
        max_worker_losses: how often a task run may be lost with its worker, and be run again, before it is Crashed.
        stall_after: seconds for which task runs wait while the cluster has no worker, until a warning says so.

    Example:
        >>> from riverrun.task_runners import DaskTaskRunner
        >>> DaskTaskRunner(cluster_kwargs={"n_workers": 2}).with_options(start_timeout=60)
        DaskTaskRunner(cluster_kwargs={'n_workers': 2}, start_timeout=60.0)
    """

    address: str | None = None
    cluster: Any = None
    cluster_class: Any = None
    cluster_kwargs: dict[str, Any] | None = None
    adapt_kwargs: dict[str, Any] | None = None
    client_kwargs: dict[str, Any] | None = None
    performance_report_path: str | os.PathLike[str] | None = None
    start_timeout: float = 30
    ship: Any = ()
    max_worker_losses: int = 2
    stall_after: float = 30

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    api_version: ClassVar[int] = 1
    replaces_lost_workers: ClassVar[bool] = True
    survives_lost_workers: ClassVar[bool] = True

    def validate(self) -> None:
        """Refuse options that contradict each other, or that cannot work."""
        self._refuse_contradictions()
        self._refuse_reserved_keywords()
        if self.address is not None and not self.address.strip():  # an empty environment variable, perhaps
            raise TaskRunnerOptionError("DaskTaskRunner: address is empty. Leave it out for a temporary cluster.")
        if self.cluster_class is not None and not (isinstance(self.cluster_class, str) or callable(self.cluster_class)):
            raise TaskRunnerOptionError(
                "DaskTaskRunner: cluster_class is a class, a function, or the dotted path of one, such as "
                f"'distributed.LocalCluster', not {self.cluster_class!r}."
            )
        if isinstance(self.cluster_class, str):
            refuse_malformed_path(self.cluster_class)
        if self.cluster is not None and not isinstance(getattr(self.cluster, "scheduler_address", None), str):
            raise TaskRunnerOptionError(
                "DaskTaskRunner: cluster is a running cluster, an object with a `scheduler_address`, not "
                f"{self.cluster!r}. A class goes in cluster_class, an address in address."
            )
        if not 0 < self.start_timeout < float("inf"):
            raise TaskRunnerOptionError(
                f"DaskTaskRunner: start_timeout is a number of seconds above 0, not {self.start_timeout}."
            )
        if not self.stall_after > 0:
            raise TaskRunnerOptionError(
                f"DaskTaskRunner: stall_after is a number of seconds above 0, not {self.stall_after}."
            )
        if self.ship != ():
            from riverrun.workers import checked_ship

            object.__setattr__(self, "ship", checked_ship(self.ship, "DaskTaskRunner"))
        if self.max_worker_losses < 0:
            raise TaskRunnerOptionError(
                f"DaskTaskRunner: max_worker_losses must be 0 or more, not {self.max_worker_losses}."
            )

    def _refuse_contradictions(self) -> None:
        """Refuse options of a cluster to be started beside those of one that is there."""
        for running in ("address", "cluster"):
            for other in ("address", "cluster", "cluster_class", "cluster_kwargs", "adapt_kwargs"):
                if other == running or getattr(self, running) is None or getattr(self, other) is None:
                    continue
                if (running, other) == ("cluster", "adapt_kwargs"):
                    continue
                if other in ("address", "cluster"):
                    why = "both say which running cluster to use; give one of them"
                else:
                    why = f"{other} is for a cluster that the runner starts, and {running} names one that is running"
                raise TaskRunnerOptionError(f"DaskTaskRunner takes {running} or {other}, not both: {why}.")

    def _refuse_reserved_keywords(self) -> None:
        """Refuse keywords that the runner decides about."""
        for option in ("cluster_kwargs", "adapt_kwargs", "client_kwargs"):
            for keyword, why in RESERVED[option].items():
                if keyword in (getattr(self, option) or {}):
                    raise TaskRunnerOptionError(f"DaskTaskRunner: leave {keyword!r} out of {option}: {why}.")

    @contextmanager
    def start(self) -> Iterator[DaskTaskExecutor]:
        """Start or find the cluster, and connect to it; what was started is closed when the context is left."""
        from runner_dask._clusters import opened
        from runner_dask._executor import executor

        with opened(self) as cluster, executor(self, cluster) as dask_executor:
            yield dask_executor

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, DaskTaskRunner):
            return NotImplemented
        # A cluster and the handle that stands for it in a pickle are one and the same.
        mine, theirs = identity_of(self.cluster), identity_of(other.cluster)
        return mine == theirs and TaskRunner.__eq__(_bare(self), _bare(other)) is True

    def __hash__(self) -> int:
        return TaskRunner.__hash__(_bare(self))

    def __copy__(self) -> DaskTaskRunner:
        return self.with_options()

    def __deepcopy__(self, memo: dict[int, Any]) -> DaskTaskRunner:
        return self.with_options()  # it copies the containers; a running cluster has no copy

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if self.cluster is not None:
            state["cluster"] = ClusterHandle.of(self.cluster)
        return state


_LOOP = "tasks wait for it in other threads, so the runner uses Dask's blocking interface"

RESERVED: dict[str, dict[str, str]] = {
    "cluster_kwargs": {"asynchronous": _LOOP, "loop": _LOOP},
    "adapt_kwargs": {"asynchronous": _LOOP},
    "client_kwargs": {
        "asynchronous": _LOOP,
        "loop": _LOOP,
        "set_as_default": "the runner's client never becomes the default client of your process",
        "address": "the option `address` of the runner says it",
        "scheduler_file": "give the address in it to the option `address` of the runner",
        "timeout": "the option `start_timeout` of the runner says it",
    },
}
"""What the kwargs may not have, by option, with the reason."""


def refuse_malformed_path(path: str) -> None:
    """Refuse a dotted path that can name nothing.

    Args:
        path: what was given as `cluster_class`.

    Raises:
        TaskRunnerOptionError: it has not the form of a dotted path.
    """
    module, _, name = path.rpartition(":" if ":" in path else ".")
    if not module or not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise TaskRunnerOptionError(
            "DaskTaskRunner: cluster_class as a text is the dotted path of a class or function, such as "
            f"'distributed.LocalCluster', not {path!r}."
        )


def _bare(runner: DaskTaskRunner) -> DaskTaskRunner:
    """Give the same options without the cluster."""
    if runner.cluster is None:
        return runner
    bare: DaskTaskRunner = object.__new__(type(runner))
    vars(bare).update(vars(runner), cluster=None)
    return bare
