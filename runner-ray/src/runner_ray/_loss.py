"""What is known about a worker that is gone, and the sentences for people."""

from __future__ import annotations

import re
from typing import Any


def is_full(error: Any) -> bool:
    """Say whether Ray had no place for a value."""
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    return isinstance(error, (ObjectStoreFullError, OutOfDiskError))


def full(error: Any) -> str:
    """Say that Ray had no place for a value, and what helps.

    Args:
        error: what Ray says.
    """
    from ray.exceptions import ObjectStoreFullError

    error = getattr(error, "cause", None) or error  # what was raised on a worker has a traceback before it
    what = "the object store" if isinstance(error, ObjectStoreFullError) else "the disk behind the object store"
    return (
        f"{what} of its Ray node is full. Free space there (`df` and `ray memory` show what takes it), or give the "
        "object store more memory: RayTaskRunner(init_kwargs={'object_store_memory': BYTES}), on a cluster `ray start "
        f"--object-store-memory=BYTES`. Ray says: {_first_line(error)}"
    )


JOURNAL_TELLS = frozenset({"WorkerCrashedError", "OutOfMemoryError", "TaskCancelledError"})
"""What Ray raises where the journal of the worker outlives it."""


class Loss:
    """A call that was lost.

    Args:
        error: what Ray says.
        witness: what the journal of its worker says, as `_notes.find` gives it; None if no worker has begun it.
        is_certain: whether all were asked that may have one.
    """

    def __init__(self, error: Any, witness: dict[str, Any] | None, *, is_certain: bool = True) -> None:
        self._error = error
        self._witness = witness
        self._is_certain = is_certain
        self._kind = type(error).__name__

    @property
    def begun(self) -> bool:
        """Whether the call has begun; where its node is gone, nobody knows, and it counts as begun."""
        return self._witness is not None or not self._is_certain or self._kind not in JOURNAL_TELLS

    def text(self, name: str, attempt: int) -> str:
        """Say it in a sentence or two.

        Args:
            name: the task run's name.
            attempt: which attempt was lost, from 1.

        Returns:
            A text for an exception or a log, with the call's last lines below it, if there are any.
        """
        text = f"Task run {name!r} was lost in attempt {attempt}: {self._what()}"
        lines = (self._witness or {}).get("lines") or []
        if lines:
            text += "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines)
        return text

    def _what(self) -> str:
        if self._kind == "OutOfMemoryError":
            return (
                f"{self._worker()} was killed by Ray because its node ran out of memory{self._peak()}. Give the node "
                f"more memory, ask for it with @task(resources={{'memory': ...}}), or do less at once. Ray says: "
                f"{_first_line(self._error)}"
            )
        if self._kind == "NodeDiedError":
            found = re.search(r"Node IP: (\S+?), node ID: ([0-9a-f]+)", str(self._error))
            node = f"the Ray node {found[1]} ({found[2][:12]})" if found else "its Ray node"
            return f"{node} is gone. What ran there is lost with it."
        if self._kind in {"LocalRayletDiedError", "OwnerDiedError"}:
            return f"its Ray node is gone ({_first_line(self._error)})."
        if self._kind == "TaskCancelledError" and self._witness is None:
            return "Ray has cancelled it."
        if self._kind not in JOURNAL_TELLS:
            return f"Ray says: {self._kind}: {_first_line(self._error)}"
        if self._witness is None:
            return "its Ray worker died before the task began."
        status = self._witness["status"]
        if status is not None:
            return f"{self._worker()} exited with status {status}: the task itself ended its worker."
        return (
            f"{self._worker()} was killed, by a signal such as SIGKILL or because it crashed{self._peak()}. If the "
            "machine ran out of memory, do less at once."
        )

    def _worker(self) -> str:
        seen = self._witness
        return "its Ray worker" if seen is None else f"Ray worker {seen['host']}:{seen['pid']}"

    def _peak(self) -> str:
        peak = (self._witness or {}).get("peak") or 0
        return f" (it had used {peak / 2**20:.0f} MiB at most)" if peak else ""


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0]
