"""Large arguments on their way to a worker, and there: packed once here, and opened by each call that takes them."""

from __future__ import annotations

import pickle
from typing import Any


class Carried:
    """A value as its pickle.

    Dask would walk through a list and send each of its elements by itself; and every call on a worker would get the
    same object, so that one which changes its argument would change everybody's.

    Args:
        packed: the pickle.
        buffers: those of arrays, which are not in it.
    """

    __slots__ = ("buffers", "packed")

    def __init__(self, packed: bytes, buffers: list[Any]) -> None:
        self.packed = packed
        self.buffers = buffers

    @classmethod
    def of(cls, value: object, *, stays: bool) -> Carried:
        """Pack a value.

        Args:
            value: what to pack.
            stays: whether the worker shares this process's memory: then arrays are copied at once.
        """
        import cloudpickle

        found: list[pickle.PickleBuffer] = []
        packed = cloudpickle.dumps(value, protocol=5, buffer_callback=found.append)
        return cls(packed, [bytes(buffer.raw()) if stays else buffer.raw() for buffer in found])

    def opened(self) -> Any:
        """Give the value, as an object of its own for whoever asks."""
        return pickle.loads(self.packed, buffers=map(bytearray, self.buffers))  # noqa: S301 - from the flow's process

    def __sizeof__(self) -> int:
        return len(self.packed) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.packed, [pickle.PickleBuffer(buffer) for buffer in self.buffers])

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if protocol >= 5:  # noqa: PLR2004 - from which on buffers travel beside the pickle
            return self.__reduce__()
        return type(self), (self.packed, [bytes(buffer) for buffer in self.buffers])
