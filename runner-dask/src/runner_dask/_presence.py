"""The plugin on each worker: it tells the client who joins and who leaves, and lets what runs there end before that.

    {"op": "joined", "worker": address, "name": name, "host": host name, "pid": pid, "nanny": address or "",
     "threads": n, "memory_limit": bytes or 0, "resources": {...}, "journal": path or "", "environment": fields of
     `riverrun.workers.Environment`, "error": "" or what the worker lacks}
    {"op": "leaving", "worker": address, "running": (keys, ...)}

A worker closes its stream to the scheduler after its plugins' `teardown`: calls that end until then are heard of,
though Dask no longer takes their values. Nothing begins on a worker after its `leaving`.

The plugin travels with its code, so that a worker without this package tells that, and starts all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import socket
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

from runner_dask._by_value import ByValue

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 25.0  # seconds that a closing worker waits for what runs


class Presence(ByValue, WorkerPlugin):
    """Tells a client about a worker.

    Args:
        client: the client's id.
        parcels: what `riverrun.workers.pack()` made of modules to ship; unpacked in the worker's folder.
        packages: those whose versions the client wants to know, beside those that riverrun names.
        patience: seconds that a closing worker waits for the calls that run on it.
    """

    def __init__(
        self,
        client: str,
        parcels: Any = (),
        packages: Sequence[str] = ("dask", "distributed"),
        patience: float = PATIENCE,
    ) -> None:
        self.name = self.topic = f"riverrun-{client}"
        self.client, self.packages, self.patience = client, tuple(packages), patience
        # Within a pickle of their own: a worker without Riverrun, which cannot read them, can read the plugin.
        self.parcels = parcels if isinstance(parcels, bytes) else pickle.dumps(list(parcels))

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        return self.client, self.parcels, self.packages, self.patience

    def setup(self, worker: Any) -> None:
        """Tell that the worker is there, with what is shipped unpacked."""
        error, journal, environment = "", "", {}
        self.is_open = False
        try:
            from runner_dask import _running

            journal = _running.opened(worker.local_directory)
            self.is_open = True
            environment = self._prepared(worker)
        except Exception as problem:  # noqa: BLE001 - a worker must start, also for those who have no use for us
            error = f"{type(problem).__name__}: {problem}"
        worker.log_event(
            self.topic,
            {
                "op": "joined",
                "worker": worker.address,
                "name": str(worker.name),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "nanny": worker.nanny or "",
                "threads": worker.state.nthreads,
                "memory_limit": worker.memory_manager.memory_limit or 0,
                "resources": dict(worker.state.total_resources),
                "journal": journal,
                "environment": environment,
                "error": error,
            },
        )

    def _prepared(self, worker: Any) -> dict[str, Any]:
        from riverrun import workers

        if parcels := pickle.loads(self.parcels):  # noqa: S301 - from the client, as the plugin itself
            workers.unpack(parcels, worker.local_directory)
        return dataclasses.asdict(workers.environment(self.packages))

    async def teardown(self, worker: Any) -> None:
        """The worker closes in an orderly way, or the flow run has ended."""
        if not self.is_open:
            return
        from distributed.core import Status

        from runner_dask import _running

        try:
            if worker.status == Status.closing:
                await self._leave(worker, _running)
        finally:
            _running.closed()

    async def _leave(self, worker: Any, running: Any) -> None:
        address = worker.address
        still_running = running.leave(address)
        await asyncio.sleep(0)  # what has just ended has left its news to this loop: that is told first
        worker.log_event(self.topic, {"op": "leaving", "worker": address, "running": still_running})
        end = asyncio.get_running_loop().time() + self.patience
        while running.running(address) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # what they logged last is on its way
