"""Whether a value that stays on its worker could leave it: Dask tries that for ever where it cannot."""

from __future__ import annotations

import pickle
from typing import Any

from riverrun.exceptions import TaskSerializationError


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        return len(data)


def refused(value: Any, name: str) -> TaskSerializationError | None:
    """Pickle a value to nowhere: the buffers of arrays are not read, and no memory is taken.

    Args:
        value: what a call has returned.
        name: of its task run.

    Returns:
        The error of a value that another worker, or the flow's process, could never get; None for all others.
    """
    try:
        pickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception:  # noqa: BLE001 - what pickle does not take, cloudpickle may: a function, say
        import cloudpickle

        try:
            cloudpickle.Pickler(_Nowhere(), protocol=5, buffer_callback=lambda _: None).dump(value)
        except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            return TaskSerializationError(
                f"Task run {name!r}: its result (of type {kind}) cannot be pickled to leave its worker: {error}. "
                "Return what it is made from."
            )
    return None
