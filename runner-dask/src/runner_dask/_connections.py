"""The client of one flow run: connected to a scheduler, with a first worker there, within `start_timeout`."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerStartError
from riverrun.workers import Call, Overdue

from runner_dask._handles import ClusterHandle
from runner_dask._quiet import quiet_loop, versions_told_by_us
from runner_dask._reports import performance_reported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.workers import Deadline

    from runner_dask._runner import DaskTaskRunner

_CLOSE_WITHIN = 5.0  # seconds; a client whose scheduler is stopped or gone is not waited for
logger = logging.getLogger("riverrun.task_runners.dask")


@contextmanager
def connected(runner: DaskTaskRunner, cluster: Any, deadline: Deadline, *, house: Any, waits: bool) -> Iterator[Any]:
    """Connect to a cluster, and close the connection at the end.

    Args:
        runner: the options.
        cluster: a cluster object; None for the one at the runner's address.
        deadline: until when the connection, and a worker, have to be there.
        house: the house of a temporary local cluster, or None.
        waits: whether a worker has to be there.

    Yields:
        A `distributed.Client`.

    Raises:
        TaskRunnerStartError: there was no connection, or no worker, by then.
    """
    _refuse_own_loop(cluster)
    client = _connect(runner, cluster, deadline)
    try:
        if waits:
            wait_for_worker(client, deadline)
        _say_dashboard(client, house, deadline)
        with performance_reported(runner.performance_report_path, client, local=house is not None):
            yield client
    finally:
        _close(client)


def _connect(runner: DaskTaskRunner, cluster: Any, deadline: Deadline) -> Any:
    kwargs = dict(runner.client_kwargs or {})
    kwargs.setdefault("name", "riverrun")
    target: Any = runner.address if cluster is None else cluster
    if isinstance(runner.cluster, ClusterHandle):
        target = runner.cluster.scheduler_address
        kwargs.setdefault("security", runner.cluster.security)
    # Dask has its own time limit, and says more when it is over: let it come first.
    within = 0.9 * deadline.left
    call = Call(lambda: _client(target, within, kwargs), name="dask-connect", unwanted=_close)
    where = target if isinstance(target, str) else target.scheduler_address
    try:
        return call.result(deadline.left)
    except Overdue:
        raise TaskRunnerStartError(_no_connection(where, deadline, "it does not answer")) from None
    except Exception as error:
        raise TaskRunnerStartError(_no_connection(where, deadline, _reason(error))) from error


def _client(target: Any, timeout: float, kwargs: dict[str, Any]) -> Any:
    from distributed import Client

    client: Any = Client.__new__(Client)
    try:
        with versions_told_by_us():
            client.__init__(target, timeout=max(timeout, 0.1), set_as_default=False, **kwargs)
    except BaseException:
        # A client that cannot connect leaves the thread of its event loop running, and nobody has the object.
        with suppress(Exception):
            client.close(timeout=1)
        with suppress(Exception):
            client._loop_runner.stop()  # noqa: SLF001
        raise
    return client


def _refuse_own_loop(cluster: Any) -> None:
    """Refuse a cluster that lives on the event loop which the caller holds up: nothing would ever move."""
    import asyncio

    loop = getattr(getattr(cluster, "loop", None), "asyncio_loop", None)
    with suppress(RuntimeError):
        if loop is not None and loop is asyncio.get_running_loop():
            raise TaskRunnerStartError(
                f"The Dask cluster at {cluster.scheduler_address} was made with `asynchronous=True` on the event loop "
                "of this thread, which waits for the flow. Make the cluster without `asynchronous=True`, or write the "
                "flow as `async def` and await it."
            )


def _no_connection(where: str, deadline: Deadline, reason: str) -> str:
    hints = [
        f"Is a scheduler running there (`dask scheduler` prints its address)? Start timeout: {deadline.seconds:g} s."
    ]
    if where.startswith("tls://"):
        hints.append(
            "For TLS, give client_kwargs={'security': distributed.Security(...)} with the cluster's certificates."
        )
    elif "://" not in where or where.startswith("tcp://"):
        hints.append("If the scheduler uses TLS, its address begins with tls://, and client_kwargs needs 'security'.")
    return f"No connection to a Dask scheduler at {where!r}: {reason}. {' '.join(hints)}"


def _reason(error: BaseException) -> str:
    """Give the text of an error, with that of the error behind it if it says more."""
    texts = [f"{type(error).__name__}: {error}".rstrip(": ")]
    if (cause := error.__cause__) is not None and str(cause) and str(cause) not in texts[0]:
        texts.append(f"{type(cause).__name__}: {cause}")
    return "; ".join(text.rstrip(".") for text in texts)


def wait_for_worker(client: Any, deadline: Deadline) -> None:
    """Wait until a worker is there.

    Args:
        client: of the cluster.
        deadline: until when.

    Raises:
        TaskRunnerStartError: there is none by then.
    """
    address = client.scheduler.address
    call = Call(lambda: client.wait_for_workers(1, timeout=max(deadline.left, 0.01)), name="dask-first-worker")
    try:
        call.result(deadline.left)
    except (Overdue, TimeoutError):
        raise TaskRunnerStartError(
            f"The Dask cluster at {address} has a scheduler and no worker: none came within {deadline.seconds:g} s. "
            f"Start one (`dask worker {address}`), look at why its workers do not start (their logs), or allow more "
            "time with start_timeout=SECONDS."
        ) from None


def _say_dashboard(client: Any, house: Any, deadline: Deadline) -> None:
    def find() -> str | None:
        link: str | None = client.dashboard_link if house is None else house.dashboard_link()
        return link

    with suppress(Exception):  # it is but a hint: formatting it may fail for settings of the user's
        if link := Call(find, name="dask-dashboard").result(max(deadline.left, 1)):
            logger.info("The Dask dashboard is available at %s", link)


def _close(client: Any) -> None:
    """Close the client; if its scheduler does not answer, leave it to itself."""
    with quiet_loop(client.loop):
        call = Call(lambda: client.close(timeout=_CLOSE_WITHIN), name="dask-disconnect")
        with suppress(Overdue, Exception):
            call.result(_CLOSE_WITHIN + 1)
