"""Large values stay in the object store: a chain over 100 MB each, of which the flow's process sees a few bytes."""

from __future__ import annotations

import hashlib
import resource

from riverrun import flow, task
from riverrun.task_runners import RayTaskRunner

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


def memory() -> int:
    """Give the most memory that this process has had; Linux counts in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 1}))
def large_values(size: int = SIZE) -> None:
    """Hand on large values from task to task."""
    before = memory()
    data = make(size)
    for step in range(1, STEPS):
        data = turn(data, step)  # a future: the value is, and stays, in the object store
    text = digest(data).result()
    grown = memory() - before
    print(f"{STEPS} values of {size:,} bytes; the digest of the last one is {text}.")
    print(f"The flow's process has grown by less than {-(-max(grown, 1) // size)} of them.")
    print(f"Asked for, the value comes: {len(data.result()):,} bytes.")


if __name__ == "__main__":
    large_values()
