"""What Dask's annotations do to tasks: which go first, and how many at a time."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

import dask
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

THREE = 3


@task
def open_doors(all_there: str) -> float:
    """Let them wait until all are there; say when the first was let in."""
    while not Path(all_there).exists():
        time.sleep(0.01)
    return time.monotonic()


@task
def tell(all_there: str) -> None:
    """Say that all are there."""
    Path(all_there).touch()


@task
def treat(patient: str, opened: float) -> tuple[float, str]:
    """Treat one patient; say after how long, and whom."""
    return time.monotonic() - opened, patient


@flow(
    task_runner=DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 2, "resources": {"doctor": 1}},
    )
)
def emergency_room() -> None:
    """Treat patients by priority, not as they came: the larger number goes first."""
    with tempfile.TemporaryDirectory() as folder:
        all_there = str(Path(folder, "all there"))
        with dask.annotate(resources={"doctor": 1}):
            opened = open_doors(all_there)
            treated = []
            for patient, priority in [("a cough", 0), ("a sprain", 10), ("a heart attack", 100), ("a broken arm", 20)]:
                with dask.annotate(priority=priority):
                    treated.append(treat(patient, opened))
        tell(all_there)  # needs no doctor; it gets to the cluster after the calls before it, so all of these are there
        for number, (_, patient) in enumerate(sorted(future.result() for future in treated), start=1):
            print(f"{number}. {patient}")


@task
def hold(folder: str, seconds: float) -> tuple[float, float]:
    """Use something until three have used it, or for so long; say from when to when."""
    began = time.monotonic()
    tempfile.mkdtemp(dir=folder)
    while len([*Path(folder).iterdir()]) < THREE and time.monotonic() < began + seconds:
        time.sleep(0.01)
    return began, time.monotonic()


# One worker with three threads; it declares that it has one `process`.
@flow(
    task_runner=DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 3, "resources": {"process": 1}},
    )
)
def one_process() -> None:
    """Run three tasks that need a `process` each: there are threads for all of them, and one process."""
    with tempfile.TemporaryDirectory() as folder:
        free = hold.map([folder] * THREE, seconds=60)
        print(f"Without resources, {together(free.result())} of 3 ran at the same time.")
    with tempfile.TemporaryDirectory() as folder:
        with dask.annotate(resources={"process": 1}):
            bound = hold.map([folder] * THREE, seconds=0.5)
        print(f"With one process for all, {together(bound.result())} of 3 ran at the same time.")


def together(spans: list[tuple[float, float]]) -> int:
    """Say how many overlapped with the one that began next; all of the same length, so that is enough."""
    spans = sorted(spans)
    return 1 + sum(following[0] < before[1] for before, following in pairwise(spans))


if __name__ == "__main__":
    emergency_room()
    one_process()
