"""What is known about a worker that is gone, and the sentences for people."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN_SIGNALS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT"})  # what a process does to itself


@dataclass(frozen=True)
class Joined:
    """A worker, as it introduced itself.

    Args:
        worker: its address.
        host: the name of its machine.
        pid: its process there.
        nanny: the address of the nanny that watches over it; empty if none does.
        memory_limit: bytes; 0 for none.
        journal: the path of its journal, there.
    """

    worker: str
    host: str = ""
    pid: int = 0
    nanny: str = ""
    memory_limit: int = 0
    journal: str = ""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Joined:
        """Make one of the event in which it introduced itself."""
        return cls(**{name: event[name] for name in cls.__dataclass_fields__ if name in event})


@dataclass(frozen=True)
class Loss:
    """What is known about the end of a worker.

    Args:
        worker: who it was.
        key: the Dask key of the call that was lost with it.
        started: whether the call had begun; None if nobody knows.
        status: the process's exit status; None if unknown, or if a signal ended it.
        signal: the number of the signal that ended the process; None if unknown, or if there was none.
        over_memory: whether the nanny ended it because it used too much memory.
        peak: the most memory it was seen to use, in bytes; 0 if unknown.
        running: the keys of the calls that ran there in the end; None if nobody knows.
        lines: the last lines that the call logged or printed.
        suspected: how many workers its run was lost with, if no other run was on all of them; else 0.
    """

    worker: Joined
    key: str
    started: bool | None = None
    status: int | None = None
    signal: int | None = None
    over_memory: bool = False
    peak: int = 0
    running: list[str] | None = None
    lines: list[str] = field(default_factory=list)
    suspected: int = 0

    def text(self, name: str, attempt: int, kind: str = "processing") -> str:
        """Say it in a sentence or two.

        Args:
            name: the task run's name.
            attempt: which attempt was lost, from 1.
            kind: the kind of the loss, as the watch reported it.

        Returns:
            A text for an exception or a log, with the call's last lines below it, if there are any.
        """
        worker = self._worker()
        begin = f"Task run '{name}' was lost in attempt {attempt}: "
        if kind == "value":
            return f"{begin}it had finished, and its value was only on {worker}, which is gone."
        if kind == "leaving":
            return f"{begin}{worker} left the cluster before it had ended."
        if self.started is False:
            return f"{begin}it was waiting on {worker} when that {self._end()}. It had not started."
        state = "running" if self.started else "assigned to"
        where = f"on {worker}" if self.started else worker
        sentences = f"{begin}it was {state} {where} when that {self._end()}.{self._advice()}"
        if self.lines:
            sentences += "\nIts last lines:\n" + "\n".join(f"    {row}" for row in self.lines)
        return sentences

    def _worker(self) -> str:
        place = (
            f"pid {self.worker.pid} on host {self.worker.host}" if self.worker.pid else "which never introduced itself"
        )
        return f"Dask worker {self.worker.worker} ({place})"

    def _end(self) -> str:
        if self.over_memory:
            limit = f" of {size(self.worker.memory_limit)}" if self.worker.memory_limit else ""
            peak = f" (peak {size(self.peak)})" if self.peak else ""
            return f"was killed because it exceeded its memory limit{limit}{peak}"
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}"
        if self.status is not None:
            return f"exited with status {self.status}"
        return "disappeared"

    def _advice(self) -> str:
        if self.over_memory:
            return " Give workers more memory (cluster_kwargs={'memory_limit': ...}) or do less at once."
        others = [key for key in self.running or () if key != self.key]
        if self.running is not None and self.started and not others:
            return f" Nothing else ran there{self._culprit()}."
        if self.started and others:
            shown = ", ".join(f"'{key}'" for key in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""  # noqa: PLR2004
            alone = f" No other run was on all {self.suspected} workers that it was lost with{self._culprit()}."
            return f" With it ran {shown}{more}.{alone if self.suspected > 1 else ''}"
        return ""

    def _culprit(self) -> str:
        # A process that nobody else has ended was ended by what ran in it.
        its_own = self.status is not None or (self.signal is not None and _signal_name(self.signal) in _OWN_SIGNALS)
        return ": the task itself ends its worker" if its_own else ""


def size(count: float) -> str:
    """Bytes for people.

    Args:
        count: bytes.

    Returns:
        Such as `1.21 GiB`.
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
