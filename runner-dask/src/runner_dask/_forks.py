"""How the worker processes of a temporary cluster are started: quickly, and without the user's script.

    flow's process              fork server                       worker
    start the server   ----->   imports distributed, once
    (imports distributed
     meanwhile)
    Process.start()    ----->   forks                  ----->     run(): the flow's environment, and go

A process of `multiprocessing` imports the main module of its parent, so that a script without `if __name__ ==
"__main__":` would start itself again in each worker. Workers have no use for it: what a script defines travels to
them by value.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PRELOADED = ["distributed", "cloudpickle", "riverrun", "runner_dask._worker", "runner_dask._local"]
"""What each worker would import by itself. Nothing of the user's, so that he may edit it between two flow runs."""

_NATIVE = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""What Dask sets before it starts a worker, because native libraries read it when they are loaded."""

_lock = threading.Lock()
_server_environment: dict[str, str] | None = None
_without_main = threading.local()


def fork_server_exists() -> bool:
    """Tell whether this platform has fork servers (Windows has none)."""
    return "forkserver" in multiprocessing.get_all_start_methods()


def start_fork_server(environment: Mapping[str, str]) -> bool:
    """Start the process that worker processes are forked from, unless it runs; do not wait until it is ready.

    It holds no port, uses no time, and ends with this process.

    Args:
        environment: variables that have to be set before a library is loaded.

    Returns:
        False if it runs with other values of these variables: then workers are to be spawned.
    """
    global _server_environment  # noqa: PLW0603 - there is one fork server in a process
    from multiprocessing import forkserver

    with _lock:
        if _server_environment is None:
            _server_environment = dict(environment)
            forkserver.set_forkserver_preload(_PRELOADED)
        if _server_environment != dict(environment):
            return False
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            with main_module_left_alone():
                forkserver.ensure_running()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    return True


def presumed_environment() -> dict[str, str]:
    """Collect the variables of `native_environment()`, before Dask's configuration is at hand, as they mostly are."""
    return _chosen(_NATIVE)


def native_environment() -> dict[str, str]:
    """Collect the variables that have to be set before a worker's libraries are loaded, as a nanny of Dask would."""
    import dask.config

    return _chosen(dask.config.get("distributed.nanny.pre-spawn-environ", _NATIVE))


def _chosen(configured: Mapping[str, Any]) -> dict[str, str]:
    chosen = {name: os.environ.get(name, str(value)) for name, value in configured.items() if value is not None}
    if chosen.get("PYTHONHASHSEED") in (None, "0"):  # workers have to agree on the hash of a text
        chosen["PYTHONHASHSEED"] = "6640"
    return chosen


# -- without the main module


@contextmanager
def main_module_left_alone() -> Iterator[None]:
    """Start processes, in this thread and in the block, that do not import the main module of this one."""
    _wrap_preparation()
    before = getattr(_without_main, "on", False)
    _without_main.on = True
    try:
        yield
    finally:
        _without_main.on = before


def _wrap_preparation() -> None:
    """Let `multiprocessing` leave out the main module where this module says so; nothing else changes for anybody."""
    from multiprocessing import spawn

    original: Callable[[str], dict[str, Any]] = spawn.get_preparation_data
    if getattr(original, "is_riverrun", False):
        return

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        if getattr(_without_main, "on", False):
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    get_preparation_data.is_riverrun = True  # type: ignore[attr-defined]
    spawn.get_preparation_data = get_preparation_data
