"""The benchmarks by name, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coroutines import sleeping
from crowded import crowded
from dask_clusters import dask_chains, dask_kept, dask_scheduler, dask_starting, dask_tasks
from memory import kept, values
from processes import starting
from ray_instances import ray_chains, ray_kept, ray_starting, ray_tasks
from threads import chain, concurrent, grid, sequential, waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figure, Sizes

BENCHMARKS: dict[str, Callable[[Sizes], list[Figure]]] = {
    "sequential": sequential,
    "concurrent": concurrent,
    "waiting": waiting,
    "chain": chain,
    "grid": grid,
    "sleeping": sleeping,
    "kept": kept,
    "values": values,
    "starting": starting,
    "crowded": crowded,
    "dask-tasks": dask_tasks,
    "dask-chains": dask_chains,
    "dask-kept": dask_kept,
    "dask-scheduler": dask_scheduler,
    "dask-starting": dask_starting,
    "ray-tasks": ray_tasks,
    "ray-chains": ray_chains,
    "ray-kept": ray_kept,
    "ray-starting": ray_starting,
}
