"""What runs on each rank of the job: rank 0 talks to the process of the flow, the others work."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Client
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mpi4py import MPI
from mpi4py.futures import MPICommExecutor

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.connection import Connection


def serve(address: str, pool: Any) -> None:
    """Hand calls out until there are no more; end the job if nobody is left to send any."""
    outcomes: SimpleQueue[tuple[int, Any, BaseException | None] | None] = SimpleQueue()

    def report(number: int, done: Future[Any]) -> None:
        error = done.exception()
        outcomes.put((number, None if error else done.result(), error))

    with Client(address, "AF_UNIX") as flow:
        # The flow may send while it does not read: so what reads its calls never waits for it to read their outcomes.
        reporting = threading.Thread(target=send, args=(flow, outcomes), daemon=True)
        reporting.start()
        try:
            while message := flow.recv():
                number, call = message
                pool.submit(call).add_done_callback(partial(report, number))
        except (EOFError, OSError):  # the process of the flow is gone: nobody waits for what still runs
            MPI.COMM_WORLD.Abort(1)
        pool.shutdown()  # waits for the last outcomes
        outcomes.put(None)
        reporting.join()


def send(flow: Connection, outcomes: SimpleQueue[Any]) -> None:
    """Send outcomes until there are no more, or nobody who takes them."""
    with suppress(OSError):
        while outcome := outcomes.get():
            flow.send(outcome)


def unlink_segment() -> None:
    """Give the shared memory of the job its end with the last rank, also of a job that is killed.

    MPICH unlinks it as a job ends in good order, and names it after the process id of the launcher: a later launcher
    with the same id would find what a killed job left, and its ranks would wait for each other for ever.
    """
    MPI.COMM_WORLD.Barrier()  # now each rank has it mapped, and nobody needs its name
    with suppress(OSError):  # where there is no /proc
        for line in Path("/proc/self/maps").read_text().splitlines():
            file = Path(line.split(maxsplit=5)[-1])
            if file.name.startswith("mpich_shm_"):
                file.unlink(missing_ok=True)


def main() -> None:
    """Serve, on rank 0; work, on the others, until rank 0 has ended."""
    # Launchers end a job of which a rank died by it: no need for a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    unlink_segment()
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
        if pool is not None:
            serve(sys.argv[1], pool)


if __name__ == "__main__":
    main()
