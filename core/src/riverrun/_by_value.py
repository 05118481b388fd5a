"""Modules whose functions and classes travel to workers with their code, because no worker can import them by name."""

from __future__ import annotations

import sys

_names: set[str] = {"__main__"}


def add(module: str) -> None:
    """Let what a module defines travel with its code; the module is in `sys.modules` under this name."""
    _names.add(module)


def travels_by_value(module: str) -> bool:
    """Say whether what a module defines travels with its code.

    Example:
        >>> from riverrun._by_value import travels_by_value
        >>> travels_by_value("__main__"), travels_by_value("json")
        (True, False)
    """
    return module in _names


def tell_cloudpickle() -> None:
    """See that cloudpickle knows the modules; called before something is pickled for a worker.

    Not done in `add()`: importing cloudpickle takes longer than many a flow that pickles nothing.
    """
    import cloudpickle

    for name in _names:
        if name in sys.modules and name != "__main__":  # of `__main__` it knows
            cloudpickle.register_pickle_by_value(sys.modules[name])
