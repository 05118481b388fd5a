"""The temporary cluster on this machine: quick to start, and on loopback only."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import dask.config
import distributed.nanny
import distributed.node
import distributed.process
from distributed import LocalCluster, Nanny, Worker
from distributed.core import Status

from runner_dask import _worker_process
from runner_dask._forks import fork_server_exists, native_environment, start_fork_server
from runner_dask._house import House

if TYPE_CHECKING:
    from collections.abc import Iterator

_DASHBOARD_PORT = 8787
_DASHBOARD = f"127.0.0.1:{_DASHBOARD_PORT}"
_ANY_PORT = "127.0.0.1:0"
_METHOD_KEY = "distributed.worker.multiprocessing-method"
_METHOD_VARIABLE = "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"

_lock = threading.Lock()
_dashboard_port_taken = False  # by a cluster of this process
_context: ContextVar[_worker_process.WorkerContext | None] = ContextVar("riverrun_worker_context", default=None)
_port_may_be_taken: ContextVar[bool] = ContextVar("riverrun_dashboard_port_may_be_taken", default=False)


class LocalWorker(Worker):
    """A worker in a process of its own, whose stderr is held back until it has started."""

    async def start_unsafe(self) -> Any:
        """Start."""
        logging.getLogger("distributed.worker").addFilter(self._is_news)
        start: Any = super().start_unsafe  # it has no types
        await start()
        _worker_process.stderr.release()
        return self

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """End; that this cuts calls short, of which Dask would warn, is said by the states of their task runs."""
        logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
        close: Any = super().close  # it has no types
        return await close(*args, **kwargs)

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Drop what Dask says of a heartbeat that this worker's end cuts short, or that comes after its retirement."""
        text = record.getMessage()
        if text.startswith("Failed to communicate with scheduler during heartbeat"):
            return self.status not in (Status.closing, Status.closed)
        return not text.startswith("Scheduler was unaware of this worker")


class ThreadedWorker(Worker):
    """A worker in this process; left to itself, its HTTP server would listen on all interfaces."""

    def __init__(self, *args: Any, dashboard_address: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, dashboard_address=dashboard_address or _ANY_PORT, **kwargs)


class LocalNanny(Nanny):
    """A nanny that starts its worker as `_worker_process` says."""

    def __init__(self, *args: Any, house: House, **kwargs: Any) -> None:
        self.house = house
        kwargs["worker_class"] = LocalWorker  # of the nanny's worker; a cluster's `worker_class` is the nanny's
        super().__init__(*args, **kwargs)
        if house.method == "forkserver":
            # They are in `self.env`, too, and the fork server has them; Dask would set them in this process as well.
            self.pre_spawn_env: dict[str, str] = {}
        house.settle(self)

    async def instantiate(self) -> Any:
        """Start a worker process, the first one or one in place of a lost one."""
        if self.house.closing:
            raise RuntimeError("The cluster is closing.")
        own = self.house.method in _worker_process.METHODS
        token = _context.set(_worker_process.WorkerContext(self.house.method, self.house.folder) if own else None)
        try:
            return await super().instantiate()
        finally:
            _context.reset(token)


class _Warnings:
    """What `distributed.node` takes for the module `warnings`: it drops the one about a port that was ours to choose.

    The filters of `warnings` belong to all threads. That the port is free has been looked at, but another process may
    take it before Dask does.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, source: Any = None) -> None:
        if not (_port_may_be_taken.get() and "is already in use" in str(message)):
            self._original.warn(message, category, stacklevel + 1, source)


def _take_our_part_in_dask() -> None:
    """Let our nannies, and no others, have a context of `multiprocessing` of their own; quieten our dashboards.

    Dask offers one setting, for the whole process, which names a method of `multiprocessing`; the nannies of other
    clusters in this process would see it as well, and two flow runs that set and restore it would disturb each other.
    """
    if isinstance(vars(distributed.node)["warnings"], _Warnings):
        return
    vars(distributed.node)["warnings"] = _Warnings(vars(distributed.node)["warnings"])
    for module in (distributed.nanny, distributed.process):
        theirs = vars(module)["get_mp_context"]

        def get_mp_context(original: Any = theirs) -> Any:
            return _context.get() or original()

        vars(module)["get_mp_context"] = get_mp_context


def _start_method() -> str:
    """Choose how worker processes are started: as the user has configured Dask, else by a fork server."""
    configured: str = dask.config.get(_METHOD_KEY, "spawn")
    if configured != "spawn" or _METHOD_VARIABLE in os.environ or not fork_server_exists():
        return configured
    return "forkserver" if start_fork_server(native_environment()) else "spawn"


@contextmanager
def housed(kwargs: dict[str, Any], *, minimum: int | None) -> Iterator[tuple[House, dict[str, Any]]]:
    """Prepare a temporary `LocalCluster`; its folder is removed at the end.

    Args:
        kwargs: what the user asked for.
        minimum: how many workers an adaptive cluster begins with; None if it is not adaptive.

    Yields:
        The house, and the complete keyword arguments for `LocalCluster`.
    """
    with _lock:
        _take_our_part_in_dask()
        method = _start_method()
    house = House(tempfile.mkdtemp(prefix="riverrun-dask-", dir=dask.config.get("temporary-directory", None)), method)
    try:
        complete = _completed(kwargs, house, minimum)
        with _dashboard_address() as address:  # as late as can be: another process may take the port any time
            yield house, {"dashboard_address": address, **complete}
    finally:
        house.remove()


def local_cluster(**kwargs: Any) -> Any:
    """Make a `LocalCluster`.

    Returns:
        The cluster. Where that fails, its event loop is stopped, which Dask forgets if the scheduler does not start.
    """
    token = _port_may_be_taken.set(kwargs["dashboard_address"] == _DASHBOARD)
    cluster: Any = LocalCluster.__new__(LocalCluster)
    try:
        cluster.__init__(**kwargs)
    except BaseException:
        with suppress(Exception):
            cluster._loop_runner.stop()  # noqa: SLF001
        raise
    finally:
        _port_may_be_taken.reset(token)
    return cluster


def _completed(kwargs: dict[str, Any], house: House, minimum: int | None) -> dict[str, Any]:
    """Add our defaults to what the user asked for, but for the address of the dashboard."""
    complete = {"local_directory": house.folder, **kwargs}
    house.has_dashboard = complete.get("dashboard_address", _DASHBOARD) is not None
    if not (house.has_dashboard and _dashboard_can_be_imported()):
        complete["scheduler_kwargs"] = {"dashboard": False, **(complete.get("scheduler_kwargs") or {})}
    if not house.has_dashboard:  # there is an HTTP server all the same
        complete["dashboard_address"] = _ANY_PORT
    if minimum is not None and "n_workers" not in complete:
        from distributed.deploy import utils

        divide: Any = utils.nprocesses_nthreads  # as LocalCluster does it; it has no types
        complete["n_workers"] = minimum
        complete.setdefault("threads_per_worker", divide()[1])
    if complete.get("worker_class") is None:
        if complete.get("processes") in (None, True):
            complete.update(worker_class=LocalNanny, house=house)
        else:
            complete.update(worker_class=ThreadedWorker)
    return complete


def _dashboard_can_be_imported() -> bool:
    """Import Dask's dashboard, which needs bokeh.

    Without bokeh every scheduler would try again, and of those that try at the same time some fail to start.
    """
    with _lock:
        try:
            import distributed.dashboard.scheduler  # noqa: F401
        except ImportError:
            routes = dask.config.get("distributed.scheduler.http.routes")
            page = "distributed.http.scheduler.missing_bokeh"  # it says what to install
            if page not in routes:
                routes.append(page)  # a scheduler does the same
            return False
    return True


@contextmanager
def _dashboard_address() -> Iterator[str]:
    """Choose the address of a dashboard: Dask's usual port if it is free, else any; Dask would warn about that."""
    global _dashboard_port_taken  # noqa: PLW0603 - there is one such port
    with _lock:
        mine = not _dashboard_port_taken and _is_free(_DASHBOARD_PORT)
        _dashboard_port_taken = _dashboard_port_taken or mine
    try:
        yield _DASHBOARD if mine else _ANY_PORT
    finally:
        if mine:
            _dashboard_port_taken = False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere this option means that two may have one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
