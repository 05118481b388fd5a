"""Plugins that travel with their code: the other process may have nothing of Riverrun installed."""

from __future__ import annotations

import sys
import threading
from typing import Any

import cloudpickle

_lock = threading.Lock()


class ByValue:
    """An object that is pickled as its class, by value, and the arguments to make it again."""

    def arguments(self) -> tuple[Any, ...]:
        """What another process needs to make it again."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        from runner_dask._by_value import Made, pack  # as no global of this method: its class travels

        return cloudpickle.loads, (pack(Made(type(self), self.arguments())),)


class Made:
    """Pickled as the call that makes something else."""

    def __init__(self, factory: Any, arguments: tuple[Any, ...]) -> None:
        self.made = factory, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def pack(value: Any) -> bytes:
    """Pickle something with the code that this package defines for it.

    Args:
        value: what to pickle.

    Returns:
        The pickle; reading it takes cloudpickle, and not this package.
    """
    with _lock:  # what is registered is so for the whole process
        mine = [name for name in sys.modules if name.startswith("runner_dask.")]
        before = cloudpickle.list_registry_pickle_by_value()
        added = [sys.modules[name] for name in mine if name not in before]
        try:
            for module in added:
                cloudpickle.register_pickle_by_value(module)
            packed: bytes = cloudpickle.dumps(value)
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)
    return packed
