"""A sequential flow, one part of which runs on a Dask cluster of its own."""

from __future__ import annotations

from riverrun import flow, task


@task
def hello_local() -> None:
    """Say hello in the flow's own thread."""
    print("Hello!")


@task
def hello_dask() -> None:
    """Say hello on a worker of the cluster."""
    print("Hello from Dask!")


@flow(task_runner="dask")
def dask_subflow() -> None:
    """Start a cluster, use it, close it."""
    hello_dask()


@flow(task_runner="sequential")
def sequential_flow() -> None:
    """Have something done here, there, and here again."""
    hello_local()
    dask_subflow()
    hello_local()


if __name__ == "__main__":
    sequential_flow()
