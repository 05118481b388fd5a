"""For task runners whose workers are processes on other machines: what they all have to do.

The **handshake**: `environment()` runs on each worker, `check_environments()` compares the answers with this process.
**Shipping**: `checked_ship()` checks the option `ship=`, `pack()` makes parcels of it in the flow's process, `unpack()`
makes them importable on a worker.

The **journal**: each worker process writes a `JournalFile`; `read_journal()` tells what it did before it was killed.
**Limits**: a `Call` is given up after a time, whatever a back-end does in it; a `Deadline` says how much time is left.
**Values**: one that travels as `Carried` is packed once, and opened by each call that takes it.

What a parcel brings travels by name from then on: a worker imports it as it imports what is installed.
"""

from __future__ import annotations

from riverrun._carried import Carried
from riverrun._environments import Difference, Differences, Environment, differences, environment
from riverrun._handshake import check_environments
from riverrun._journal import PREFIX as JOURNAL_PREFIX
from riverrun._journal import Journal, JournalFile
from riverrun._journal import read as read_journal
from riverrun._journal import sweep as sweep_journals
from riverrun._limits import Call, Deadline, Overdue
from riverrun._parcels import Parcel, checked_ship, pack
from riverrun._unpacking import unpack

__all__ = [
    "JOURNAL_PREFIX",
    "Call",
    "Carried",
    "Deadline",
    "Difference",
    "Differences",
    "Environment",
    "Journal",
    "JournalFile",
    "Overdue",
    "Parcel",
    "check_environments",
    "checked_ship",
    "differences",
    "environment",
    "pack",
    "read_journal",
    "sweep_journals",
    "unpack",
]
