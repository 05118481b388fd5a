"""Modules whose functions and classes travel to workers with their code, because no worker can import them by name."""

from __future__ import annotations

import io
import sys
from functools import cache
from typing import Any

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


def pickled(value: Any) -> bytes:
    """Pickle something for a worker; code that travels keeps the name of its file, for tracebacks.

    cloudpickle itself puts "<dynamic-code>" in its place, from version 3.1.3 on.
    """
    file = io.BytesIO()
    _pickler()(file, protocol=5).dump(value)
    return file.getvalue()


@cache
def _pickler() -> Any:
    from collections import ChainMap
    from types import CodeType

    import cloudpickle

    theirs = cloudpickle.Pickler.dispatch_table

    def code_with_its_file(code: CodeType) -> Any:
        make, arguments = theirs[CodeType](code)[:2]
        return make, tuple([code.co_filename if each == "<dynamic-code>" else each for each in arguments])

    # Made by a call, for cloudpickle has no types.
    table = ChainMap({CodeType: code_with_its_file}, theirs)
    return type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
