"""What each process does before its first task."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import cloudpickle
from riverrun import task as task  # noqa: PLC0414 - so that the server has what every call needs, and forks it

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def limits(threads: int) -> dict[str, str]:
    """Give the variables that native libraries read, in the process of the flow; the user's own go first."""
    return {name: os.environ.get(name, str(threads)) for name in VARIABLES}


def start(alive: Connection, variables: dict[str, str], initializer: bytes | None) -> None:
    """Limit the threads of native libraries, which read the variables on import; then do what the user wants."""
    os.environ.update(variables)
    threading.Thread(target=_end_with, args=[alive], name="runner-process-watch", daemon=True).start()
    if initializer:
        function, arguments = cloudpickle.loads(initializer)
        function(*arguments)


def _end_with(alive: Connection) -> None:
    """End this process when the other end of a pipe is gone."""
    with suppress(OSError):
        alive.poll(None)  # nothing is ever sent
    os._exit(1)
