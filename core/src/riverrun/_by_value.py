"""Modules whose functions and classes travel to workers with their code, because no worker can import them by name."""

from __future__ import annotations

import functools
import io
import sys
import threading
from collections import ChainMap
from importlib import import_module
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

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


def tell_cloudpickle() -> bool:
    """See that cloudpickle knows the modules; called before something is pickled for a worker.

    Not done in `add()`: importing cloudpickle takes longer than many a flow that pickles nothing.

    Returns:
        Whether it knows others too, of which the application has told it.
    """
    import cloudpickle

    for name in _names:
        if name in sys.modules and name != "__main__":  # of `__main__` it knows
            cloudpickle.register_pickle_by_value(sys.modules[name])
    return not cloudpickle.list_registry_pickle_by_value() <= _names


class _Loading(threading.local):
    was_packed_here = False


_loading = _Loading()


def loads(packed: bytes, *, was_packed_here: bool) -> Any:
    """Load what `dumps` has made, on a worker; say whether that was in this process."""
    import cloudpickle

    before, _loading.was_packed_here = _loading.was_packed_here, was_packed_here
    try:
        return cloudpickle.loads(packed)
    finally:
        _loading.was_packed_here = before


def module_of(name: str) -> Any:
    """Give a module, for what travelled by name; where another thread is in the middle of importing it, wait for that.

    Not in the process that has sent it: a flow may run while its module is imported, which then waits for the flow.
    """
    there = sys.modules.get(name) if _loading.was_packed_here else None
    return there or import_module(name)


def dumps(value: Any) -> bytes:
    """Pickle something with the code that has to travel with it, and with the names of the files of that code.

    cloudpickle from 3.1.3 on leaves these names out; a traceback without them says nothing to who wrote a script.

    Args:
        value: anything.

    Returns:
        The pickle; reading it takes cloudpickle and this package.

    Raises:
        Exception: it cannot be pickled.
    """
    file = io.BytesIO()
    _pickler()(file).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> Callable[[io.BytesIO], Any]:
    import cloudpickle

    reduced: Any = cloudpickle.Pickler.dispatch_table

    def with_file(code: CodeType) -> tuple[Any, ...]:
        make, arguments = reduced[CodeType](code)
        return _from_file, (code.co_filename, make, arguments)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it ships no types
        dispatch_table: ClassVar[Any] = ChainMap({CodeType: with_file}, reduced)

    return Pickler


def _from_file(name: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=name)
