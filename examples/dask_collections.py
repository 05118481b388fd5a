"""Dask's own collections beside tasks: lazy as arguments and as values, and computed where a task says so."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner
from runner_dask import get_dask_client

if TYPE_CHECKING:
    from dask.bag import Bag

LIBRARY = sysconfig.get_path("stdlib")


@task
def imports_of(files: list[str]) -> Bag:
    """Say what is to be computed; nothing is read yet."""
    import dask.bag

    return dask.bag.from_sequence(files, npartitions=4).map(modules_imported).flatten()


def modules_imported(file: str) -> list[str]:
    """Find the lines `import NAME` of a file."""
    lines = Path(file).read_text("utf-8").splitlines()
    return [line.split()[1].split(".")[0].strip(",") for line in lines if line.startswith("import ")]


@task
def most_frequent(names: Bag, count: int) -> list[tuple[str, int]]:
    """Compute with all workers of the cluster, this one too: meanwhile the task takes none of its threads."""
    with get_dask_client():
        return sorted(names.frequencies().compute(), key=lambda found: (-found[1], found[0]))[:count]


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def favourites(folder: str = f"{LIBRARY}/asyncio", count: int = 5) -> None:
    """List the modules that a package imports most."""
    files = sorted(str(path) for path in Path(folder).glob("*.py"))
    names = imports_of(files)  # a future of a lazy collection
    for name, times in most_frequent(names, count).result():
        print(f"{times:3} {name}")
    with get_dask_client() as client:  # in a flow: the client of the flow run
        print(f"There were {len(client.scheduler_info()['workers'])} workers.")


if __name__ == "__main__":
    favourites()
