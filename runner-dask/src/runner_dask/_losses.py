"""Finding out why a worker is gone.

Not on the hot path. `explain` asks nannies and the scheduler: call it from any thread but the client's event loop's.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from riverrun.workers import read_journal

from runner_dask._loss import Joined, Loss, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riverrun.workers import Journal

__all__ = ["Joined", "Loss", "explain", "size"]

LIMIT = 2.0  # seconds for one explanation, at most
GRACE = 0.6  # of which: until the nanny has noticed the end of its process
ENDED = frozenset({"zombie", "dead"})  # what psutil says of processes that run no more


def explain(client: Any, cluster: Any, worker: Joined, key: str) -> Loss:
    """Find out how a worker ended, and what of a call was seen there. Takes 2 seconds at most, and never raises.

    Args:
        client: the flow run's client.
        cluster: the cluster object, if this process made it; its nannies are asked without a detour.
        worker: as it introduced itself.
        key: the Dask key of the call that was lost.

    Returns:
        What is known.
    """
    found: list[Loss] = []
    thread = threading.Thread(
        target=lambda: found.append(_explained(client, cluster, worker, key)), name="riverrun-loss", daemon=True
    )
    thread.start()
    thread.join(LIMIT)
    return found[0] if found else _seen(worker, key)


def wait_until_over(worker: Joined) -> None:
    """Wait until the process of a worker that is gone has ended; not for long.

    Args:
        worker: as it introduced itself.
    """
    end = time.monotonic() + GRACE
    while _is_here(worker) and not _is_over(worker) and time.monotonic() < end:
        time.sleep(0.02)


def never_began(worker: Joined, key: str) -> bool:
    """Say whether it is certain that a call has not begun on a worker that is gone.

    Args:
        worker: as it introduced itself.
        key: the Dask key of the call.
    """
    return _seen(worker, key).started is False


def _seen(worker: Joined, key: str) -> Loss:
    """Give what its journal says of a call. What has not begun may begin as long as the process is there."""
    is_over = _is_over(worker)  # asked before the journal is read
    loss = _with_journal(Loss(worker, key), _read(worker))
    return loss if is_over or loss.started else replace(loss, started=None)


def _is_over(worker: Joined) -> bool:
    """Say whether the process of a worker on this machine has ended."""
    import psutil

    try:
        return bool(_is_here(worker) and psutil.Process(worker.pid).status() in ENDED)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _explained(client: Any, cluster: Any, worker: Joined, key: str) -> Loss:
    over_memory, peak = _memory_kill(client, worker)
    end = time.monotonic() + GRACE
    while True:
        status, ended_by, was_over = _ended(_nanny_lines(client, cluster, worker), worker.pid)
        is_known = status is not None or ended_by is not None or not worker.nanny
        loss = _seen(worker, key)
        if (is_known and (loss.started is not None or not _is_here(worker))) or time.monotonic() > end:
            break
        time.sleep(0.05)
    return Loss(
        worker,
        key,
        started=loss.started,
        status=status,
        signal=ended_by,
        over_memory=over_memory or was_over,
        peak=max(peak, loss.peak),
        running=loss.running,
        lines=loss.lines,
    )


def _is_here(worker: Joined) -> bool:
    return bool(worker.pid) and worker.host == socket.gethostname()


def _read(worker: Joined) -> Journal | None:
    # Another machine may have a file of that name, too; what it says would be about somebody else.
    if not _is_here(worker):
        return None
    with contextlib.suppress(Exception):
        return read_journal(worker.journal)
    return None


def _with_journal(loss: Loss, journal: Journal | None) -> Loss:
    if journal is None:
        return loss
    return Loss(
        loss.worker,
        loss.key,
        started=journal.started(loss.key),
        peak=journal.peak_rss,
        running=journal.running(),
        lines=journal.lines(loss.key),
    )


def _memory_kill(client: Any, worker: Joined) -> tuple[bool, int]:
    """Whether a nanny told the scheduler that it ended this process for its memory, and how much that had."""
    if worker.nanny:
        with contextlib.suppress(Exception):
            for _, event in client.get_events("worker-restart-memory"):
                if event["worker"] == worker.worker and event["pid"] == worker.pid:
                    return True, int(event["rss"])
    return False, 0


def _nanny_lines(client: Any, cluster: Any, worker: Joined) -> list[str]:
    """The log of the worker's nanny, newest first."""
    if not worker.nanny:
        return []
    with contextlib.suppress(Exception):
        for nanny in list(getattr(cluster, "workers", {}).values()):
            if getattr(nanny, "address_safe", "") == worker.nanny:
                return [text for _, text in nanny.get_logs()]
        logs = client.sync(_logs_of, client, worker.nanny, asynchronous=False, callback_timeout=LIMIT / 2)
        return [text for _, text in logs]
    return []


async def _logs_of(client: Any, nanny: str) -> Iterable[tuple[str, str]]:
    logs: Iterable[tuple[str, str]] = await client.rpc(nanny).get_logs(n=200)
    return logs


def _ended(lines: Iterable[str], pid: int) -> tuple[int | None, int | None, bool]:
    """Exit status, signal, and whether it was for its memory, from a nanny's log."""
    status = ended_by = None
    over_memory = False
    for text in lines:
        if status is None and (found := re.search(rf"process {pid} exited with status (\d+)", text)):
            status = int(found[1])
        if ended_by is None and (found := re.search(rf"process {pid} was killed by signal (\d+)", text)):
            ended_by = int(found[1])
        over_memory = over_memory or (f"(pid={pid}) exceeded" in text and "memory budget" in text)
    return status, ended_by, over_memory
