"""For task runners whose workers are processes on other machines: what they all have to do.

The **handshake**: `environment()` runs on each worker, `check_environments()` compares the answers with this process.
**Shipping**: `checked_ship()` checks the option `ship=`, `pack()` makes parcels of it in the flow's process, `unpack()`
makes them importable on a worker.

What a parcel brings travels by name from then on: a worker imports it as it imports what is installed.
"""

from __future__ import annotations

from riverrun._environments import Difference, Differences, Environment, differences, environment
from riverrun._handshake import check_environments
from riverrun._parcels import Parcel, checked_ship, pack
from riverrun._unpacking import unpack

__all__ = [
    "Difference",
    "Differences",
    "Environment",
    "Parcel",
    "check_environments",
    "checked_ship",
    "differences",
    "environment",
    "pack",
    "unpack",
]
