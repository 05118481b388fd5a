"""Dask's own client, for code in flows and tasks that has use for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from riverrun.abc import current_executor
from riverrun.exceptions import MissingContextError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def get_dask_client() -> Iterator[Any]:
    """Give a `distributed.Client` of the cluster that the present flow or task runs on.

    In a task it leaves the worker's thread to other tasks meanwhile (it secedes), so that what is computed with the
    client has a place to run, also on a worker with one thread. In a flow it is the client of the flow run.

    Returns:
        A context manager whose value is the client.

    Raises:
        MissingContextError: the code runs neither in a flow with a `DaskTaskRunner` nor on a Dask worker.

    Example:
        >>> from riverrun import flow, task
        >>> from runner_dask import get_dask_client
        >>> @task
        ... def total(numbers):
        ...     with get_dask_client() as client:
        ...         return client.submit(sum, numbers).result()
        >>> @flow(task_runner="dask")
        ... def totals():
        ...     return total([1, 2, 3]).result()
        >>> totals()  # doctest: +SKIP
        6
    """
    client = getattr(current_executor(), "client", None)
    if client is not None:
        with client.as_current():
            yield client
        return
    from distributed import get_client, get_worker, worker_client
    from distributed.worker import thread_state

    try:
        get_worker()
    except ValueError:
        msg = (
            "get_dask_client() was called where no Dask cluster is at hand. Call it inside a flow with "
            '`task_runner="dask"`, or inside one of its tasks.'
        )
        raise MissingContextError(msg) from None

    from runner_dask._seceding import given_up

    if hasattr(thread_state, "execution_state"):
        with worker_client() as client:
            yield client
    else:  # a task with a time limit runs in a thread of its own, for which one of the worker's pool waits
        with given_up():
            yield get_client()
