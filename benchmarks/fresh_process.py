"""Measures the memory of this process, and prints one number; `memory` starts it afresh for every sample.

Memory is the resident set that Linux reports in /proc/self/status: `VmRSS` now, `VmHWM` the highest so far. (Not
`resource.getrusage`: its peak may be that of the process which started this one. Not `tracemalloc`: it is so slow that
a pool of threads would be measured in a state which it is never in.)
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from riverrun import flow, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WARM_UP = 2_000
"""How many tasks run before the first reading; no more than are measured, where these are few."""
BATCH = 1_000
SIZE = 10_000_000


class Future(Protocol):
    """What our future and the standard one have in common."""

    def result(self) -> bytes:
        """Wait for the value."""
        ...


def status(field: str, process: int | str = "self") -> int:
    """Give a field of /proc/self/status, or of another process's, in bytes."""
    source = Path(f"/proc/{process}/status")
    if not source.exists():
        msg = "The figures of memory need Linux: they are read from /proc."
        raise RuntimeError(msg)
    for line in source.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    msg = f"{source} has no {field}."
    raise RuntimeError(msg)


@task
def nothing(_: object = None) -> None:
    """Give the one value that takes no memory."""


def make(number: int) -> bytes:
    """Give a value of 10 MB, written to: pages that are only promised would not count."""
    return bytes([number % 255 + 1]) * SIZE


make_task = task(make)


def run_and_drop(count: int) -> None:
    """Run so many tasks, and keep no future."""
    for _ in range(count // BATCH):
        for future in [nothing() for _ in range(BATCH)]:
            future.wait()


@flow
def kept(count: int) -> float:
    """Measure what one finished task run leaves behind while its flow goes on."""
    run_and_drop(min(WARM_UP, count))
    gc.collect()
    before = status("VmRSS")
    run_and_drop(count)
    gc.collect()
    return (status("VmRSS") - before) / count


@flow(task_runner="concurrent")
def values(count: int, way: str, threads: int) -> float:
    """Measure the peak of the concurrent runner."""
    return peak_of(make_task, count, way, threads)


def raw_values(count: int, way: str, threads: int) -> float:
    """Measure the peak of the standard pool."""
    with ThreadPoolExecutor(threads) as pool:
        return peak_of(lambda number: pool.submit(make, number), count, way, threads)


@contextmanager
def dask_cluster() -> Iterator[Any]:
    """Start a default LocalCluster, with its scheduler in this process, as users have it."""
    from distributed import LocalCluster

    with LocalCluster(dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


def dask_kept(count: int) -> float:
    """Measure what one finished task run on a Dask cluster leaves behind in this process while its flow goes on."""
    from riverrun.task_runners import DaskTaskRunner

    with dask_cluster() as cluster:
        return kept.with_options(task_runner=DaskTaskRunner(cluster=cluster))(count)


def raw_dask_kept(count: int) -> float:
    """Measure what the future of one finished task keeps in this process, on a raw client."""
    from distributed import Client, wait

    with dask_cluster() as cluster, Client(cluster) as client:
        wait(client.map(nothing.fn, [None] * min(WARM_UP, count), pure=False))
        gc.collect()
        before = status("VmRSS")
        futures = client.map(nothing.fn, [None] * count, pure=False)
        wait(futures)
        gc.collect()
        return (status("VmRSS") - before) / count


@contextmanager
def ray_instance() -> Iterator[Any]:
    """Start an instance of Ray."""
    import ray

    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def ray_kept(count: int) -> float:
    """Measure what one finished task run on Ray leaves behind in this process while its flow goes on."""
    from riverrun.task_runners import RayTaskRunner

    with ray_instance():
        return kept.with_options(task_runner=RayTaskRunner())(count)


def raw_ray_kept(count: int) -> float:
    """Measure what the reference of one finished task keeps in this process, when it was fetched."""
    with ray_instance() as ray:
        remote = ray.remote(nothing.fn)
        ray.get([remote.remote() for _ in range(min(WARM_UP, count))])
        gc.collect()
        before = status("VmRSS")
        references = []
        for _ in range(count // BATCH):
            batch = [remote.remote() for _ in range(BATCH)]
            ray.get(batch)
            references += batch
        gc.collect()
        return (status("VmRSS") - before) / count


def peak_of(submit: Callable[[int], Future], count: int, way: str, threads: int) -> float:
    """Submit and consume, a few at a time or in turn; give the peak above the start, in MB."""
    gc.collect()
    before = status("VmRSS")
    if way == "window":
        window: deque[Future] = deque()
        for number in range(count):
            if len(window) == threads:
                consume(window.popleft())
            window.append(submit(number))
        while window:
            consume(window.popleft())
    else:
        for number in range(count):
            consume(submit(number))
    return (status("VmHWM") - before) / 1e6


def consume(future: Future) -> None:
    """Look at a value, and let it go."""
    if len(future.result()) != SIZE:
        msg = "not the value that the task made"
        raise RuntimeError(msg)


def main() -> None:
    """Measure what the command line names.

    `kept COUNT RUNNER`, `values COUNT WAY THREADS`, `dask-kept COUNT`, `ray-kept COUNT`; the last three also with
    `raw-` before them.
    """
    what, count, *more = sys.argv[1:]
    if what == "kept":
        print(kept.with_options(task_runner=more[0])(int(count)))
    elif what.endswith("dask-kept"):
        print((raw_dask_kept if what.startswith("raw") else dask_kept)(int(count)))
    elif what.endswith("ray-kept"):
        print((raw_ray_kept if what.startswith("raw") else ray_kept)(int(count)))
    else:
        measure = values if what == "values" else raw_values
        print(measure(int(count), more[0], int(more[1])))


if __name__ == "__main__":
    main()
