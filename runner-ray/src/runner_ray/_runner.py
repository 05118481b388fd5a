"""The options of `RayTaskRunner`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from riverrun.abc import Concurrency, TaskRunner
from riverrun.exceptions import TaskRunnerOptionError

from runner_ray._addresses import MAX_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner_ray._executor import RayTaskExecutor

FORMS = "'auto', 'host:port' or 'ray://host:port'"


class RayTaskRunner(TaskRunner):
    """Runs tasks on Ray: on a temporary instance for each flow run, or on a cluster that is there already.

    Without `address`, each flow run starts an instance of its own on this machine and shuts it down at its end. Flow
    runs of one process that overlap share it, for Ray has one session per process. A session that you have opened
    yourself with `ray.init()` is used where it is what the options ask for, and is left open.

    Args:
        address: a running cluster: `"auto"` (the one on this machine, or that of `RAY_ADDRESS`), `"host:port"`, or
            `"ray://host:port"` for Ray Client.
        init_kwargs: what `ray.init` is called with, such as `{"num_cpus": 4}`. They win over every default of the
            runner.
        start_timeout: seconds until the cluster is there and has a CPU; after them the flow run fails.
        ship: modules and paths that are sent to the workers.
        max_worker_losses: how often a task run may be lost with its worker, and be run again, before it is Crashed.
        stall_after: seconds for which task runs wait while a cluster that may grow has no CPU, until a warning says so.

    Example:
        >>> from riverrun.task_runners import RayTaskRunner
        >>> RayTaskRunner(init_kwargs={"num_cpus": 2}).with_options(start_timeout=90)
        RayTaskRunner(init_kwargs={'num_cpus': 2}, start_timeout=90.0)
    """

    address: str | None = None
    init_kwargs: dict[str, Any] | None = None
    start_timeout: float = 60
    ship: Any = ()
    max_worker_losses: int = 2
    stall_after: float = 30

    concurrency: ClassVar[Concurrency] = Concurrency.PARALLEL
    api_version: ClassVar[int] = 1

    def __repr__(self) -> str:
        """Show the options, but of `init_kwargs` the names and numbers only: there may be keys of services in there."""
        shown = ", ".join(
            f"{name!r}: {value if isinstance(value, (int, float)) else '...'}"
            for name, value in (self.init_kwargs or {}).items()
        )
        return super().__repr__().replace(f"init_kwargs={self.init_kwargs!r}", f"init_kwargs={{{shown}}}", 1)

    def validate(self) -> None:
        """Refuse options that contradict each other, or that cannot work."""
        if self.address is not None:
            self._check_address(self.address.strip())
        for keyword, why in RESERVED.items():
            if keyword in (self.init_kwargs or {}):
                raise TaskRunnerOptionError(f"RayTaskRunner: leave {keyword!r} out of init_kwargs: {why}.")
        for keyword in sorted(ONLY_FOR_AN_INSTANCE & (self.init_kwargs or {}).keys()):
            if self.address is not None:
                raise TaskRunnerOptionError(
                    f"RayTaskRunner takes address or init_kwargs[{keyword!r}], not both: {keyword} is for an instance "
                    "that the runner starts, and address names a cluster that is running."
                )
        if not 0 < self.start_timeout < float("inf"):
            raise TaskRunnerOptionError(
                f"RayTaskRunner: start_timeout is a number of seconds above 0, not {self.start_timeout}."
            )
        if not self.stall_after > 0:
            raise TaskRunnerOptionError(
                f"RayTaskRunner: stall_after is a number of seconds above 0, not {self.stall_after}."
            )
        if self.ship != ():
            from riverrun.workers import checked_ship

            object.__setattr__(self, "ship", checked_ship(self.ship, "RayTaskRunner"))
        if self.max_worker_losses < 0:
            raise TaskRunnerOptionError(
                f"RayTaskRunner: max_worker_losses must be 0 or more, not {self.max_worker_losses}."
            )

    def _check_address(self, address: str) -> None:
        if not address:  # an empty environment variable, perhaps
            raise TaskRunnerOptionError("RayTaskRunner: address is empty. Leave it out for a temporary instance.")
        if address == "local":
            raise TaskRunnerOptionError(
                "RayTaskRunner: leave address out for a temporary instance, instead of address='local'."
            )
        place = address.removeprefix("ray://")
        host, _, port = place.rpartition(":")
        if address != "auto" and ("://" in place or not host or not port.isdigit() or int(port) > MAX_PORT):
            raise TaskRunnerOptionError(f"RayTaskRunner: address is {FORMS}, not {self.address!r}.")

    @contextmanager
    def start(self) -> Iterator[RayTaskExecutor]:
        """Start or find the cluster, and connect to it; what was started is shut down when the context is left."""
        from runner_ray._executor import executor
        from runner_ray._sessions import opened

        with opened(self) as session, executor(self, session) as ray_executor:
            yield ray_executor


RESERVED = {
    "address": "the option `address` of the runner says it",
    "ignore_reinit_error": "the runner itself looks whether a session of Ray is open in this process",
    "allow_multiple": "the runner uses one session of Ray per process, as Ray itself does",
    "local_mode": "Ray has no local mode any more; use the `sequential` task runner to debug a flow",
}
"""What `init_kwargs` may not have, with the reason."""

ONLY_FOR_AN_INSTANCE = {
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "_system_config",
    "_node_name",
    "include_dashboard",
}
"""What `ray.init` takes only where it starts an instance itself."""
