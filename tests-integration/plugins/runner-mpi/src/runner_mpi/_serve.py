"""What runs on each rank of the job: rank 0 talks to the process of the flow, the others work."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Client
from typing import TYPE_CHECKING, Any

from mpi4py import MPI
from mpi4py.futures import MPICommExecutor

if TYPE_CHECKING:
    from concurrent.futures import Future


def serve(address: str, pool: Any) -> None:
    """Hand calls out until there are no more; end the job if nobody is left to send any."""
    sending = threading.Lock()
    with Client(address, "AF_UNIX") as flow:

        def report(number: int, done: Future[Any]) -> None:
            error = done.exception()
            with sending, suppress(OSError):
                flow.send((number, None if error else done.result(), error))

        try:
            while message := flow.recv():
                number, call = message
                pool.submit(call).add_done_callback(partial(report, number))
        except (EOFError, OSError):  # the process of the flow is gone: nobody waits for what still runs
            MPI.COMM_WORLD.Abort(1)
        pool.shutdown()  # waits for the last outcomes


def main() -> None:
    """Serve, on rank 0; work, on the others, until rank 0 has ended."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # launchers end a job of which a rank died by it: no need for a traceback
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
        if pool is not None:
            serve(sys.argv[1], pool)


if __name__ == "__main__":
    main()
