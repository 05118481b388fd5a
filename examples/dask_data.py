"""Large values stay on the cluster: a chain over 100 MB each, of which the flow's process sees a few bytes."""

from __future__ import annotations

import hashlib

import psutil  # distributed needs it, so it is there
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

SIZE = 100_000_000
STEPS = 5


@task
def make(size: int) -> bytes:
    """Make the data where it is used."""
    return bytes(range(250)) * (size // 250)


@task
def turn(data: bytes, step: int) -> bytes:
    """Give other data of the same size."""
    return data.translate(bytes((value + step) % 256 for value in range(256)))


@task
def digest(data: bytes) -> str:
    """Give what the flow needs to know."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
def large_values(size: int = SIZE) -> None:
    """Hand on large values from task to task."""
    before = psutil.Process().memory_info().rss
    data = make(size)
    for step in range(1, STEPS):
        data = turn(data, step)  # a future: the value is, and stays, on a worker
    text = digest(data).result()
    grown = psutil.Process().memory_info().rss - before
    print(f"{STEPS} values of {size:,} bytes; the digest of the last one is {text}.")
    print(f"The flow's process has grown by less than {-(-max(grown, 1) // size)} of them.")
    print(f"Asked for, the value comes: {len(data.result()):,} bytes.")


if __name__ == "__main__":
    large_values()
