"""Values in Ray's object store."""

from __future__ import annotations

import pickle
from typing import Any

from riverrun.workers import Carried


class Shared(Carried):
    """A value as its pickle: arrays are beside it, so that they are read where they lie in the object store.

    As with everything in Ray's object store, these arrays are read-only: who wants to change one makes a copy.
    """

    __slots__ = ()

    @classmethod
    def of(cls, value: object, *, stays: bool = False) -> Shared:
        """Pack a value; its arrays are not copied for that."""
        packed = Carried.of(value, stays=stays)
        return cls(packed.packed, packed.buffers)

    def opened(self) -> Any:
        """Give the value; what is not an array is an object of its own for whoever asks."""
        return pickle.loads(self.packed, buffers=self.buffers)  # noqa: S301 - from a task, or the flow's process


def opened(value: Any) -> Any:
    """Give a value as a task takes it.

    Args:
        value: what was in the object store: a pickle, in one form or the other.
    """
    return (value if isinstance(value, Shared) else Shared(value, [])).opened()
