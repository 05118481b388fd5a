"""What Dask's annotations do to tasks: which go first, and how many at a time."""

from __future__ import annotations

import time
from itertools import pairwise

import dask
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner


@task
def open_doors(seconds: float) -> float:
    """Let them wait until all are there; say when the first was let in."""
    time.sleep(seconds)
    return time.monotonic()


@task
def treat(patient: str, opened: float) -> tuple[float, str]:
    """Treat one patient; say after how long, and whom."""
    return time.monotonic() - opened, patient


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}))
def emergency_room() -> None:
    """Treat patients by priority, not as they came: the larger number goes first."""
    opened = open_doors(1)
    treated = []
    for patient, priority in [("a cough", 0), ("a sprain", 10), ("a heart attack", 100), ("a broken arm", 20)]:
        with dask.annotate(priority=priority):
            treated.append(treat(patient, opened))
    for number, (_, patient) in enumerate(sorted(future.result() for future in treated), start=1):
        print(f"{number}. {patient}")


@task
def hold(seconds: float) -> tuple[float, float]:
    """Use something that there is one of; say from when to when."""
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


# One worker with three threads; it declares that it has one `process`.
@flow(
    task_runner=DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 3, "resources": {"process": 1}},
    )
)
def one_process() -> None:
    """Run three tasks that need a `process` each: there are threads for all of them, and one process."""
    free = hold.map([0.5] * 3)
    print(f"Without resources, {together(free.result())} of 3 ran at the same time.")
    with dask.annotate(resources={"process": 1}):
        bound = hold.map([0.5] * 3)
    print(f"With one process for all, {together(bound.result())} of 3 ran at the same time.")


def together(spans: list[tuple[float, float]]) -> int:
    """Say how many overlapped with the one that began next; all of the same length, so that is enough."""
    spans = sorted(spans)
    return 1 + sum(following[0] < before[1] for before, following in pairwise(spans))


if __name__ == "__main__":
    emergency_room()
    one_process()
