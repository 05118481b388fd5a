"""From `PATH_OR_MODULE[:FLOW]` to the flow.

::

    flows/census.py:census  --> the file is run as a module `census`, its folder first on `sys.path`
    my_package.flows        --> imported, the working directory first on `sys.path`
                                      |
                            the flow of that name, or the only one there is

What a file defines has no name by which another machine could import it, so it travels with its code, as what
`__main__` defines does. A module of a package travels by name.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, cast

from riverrun import _by_value
from riverrun._flows import Flow
from riverrun._suggestions import did_you_mean

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class TargetError(Exception):
    """There is no such file, module or flow; the text says what to type."""


class TargetImportError(Exception):
    """The user's module raised while it was imported: `__cause__` says what, the text says where."""


def find_flow(target: str) -> Flow[Any, Any]:
    """Import what is named, and find the flow in it.

    Raises:
        TargetError: there is no such file, module or flow.
        TargetImportError: the module raised while it was imported.
    """
    place, name = _split(target)
    module = _load_file(place) if _is_path(place) else _load_module(place)
    return _named(module, place, name) if name else _only(module, place)


def _split(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    # `C:\\flows.py` has a colon, and names no flow.
    if not colon or not place or re.search(r"[\\/]|\.py$", name):
        return target, ""
    return place, name.strip()


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place or os.path.isfile(place)


def _load_file(path: str) -> ModuleType:
    """Run a file as a module."""
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    path = os.path.abspath(_checked_path(path))
    name = _module_name(path)
    loader = SourceFileLoader(name, path)
    module = module_from_spec(cast("ModuleSpec", spec_from_loader(name, loader)))  # a loader always gives one
    sys.path.insert(0, os.path.dirname(path))
    sys.modules[name] = module
    _by_value.add(name)
    try:
        # Compiled here, so that nothing is written beside the file, and no stale byte code is read.
        exec(loader.source_to_code(loader.get_data(path), path), vars(module))  # noqa: S102 - the user's own file
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise TargetImportError(_why(path, error)) from error
    return module


def _checked_path(path: str) -> str:
    if os.path.isdir(path):
        raise TargetError(f"`{path}` is a folder. Name a file in it: riverrun run {os.path.join(path, 'FILE.py')}:FLOW")
    if not os.path.exists(path):
        folder = os.path.dirname(path)
        beside = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        near = did_you_mean(os.path.basename(path), [name for name in beside if name.endswith(".py")])
        raise TargetError(f"There is no file `{path}`{near}")
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise TargetError(f"`{path}` cannot be read: {error.strerror}.") from None


def _module_name(path: str) -> str:
    """Name the module as its file, unless that would hide another module from those who import that one."""
    stem = os.path.basename(path).partition(".")[0]
    name = stem if stem.isidentifier() else re.sub(r"\W", "_", f"_{stem}")
    taken = name in sys.modules or name in sys.stdlib_module_names
    return f"{name}_script" if taken else name


def _load_module(name: str) -> ModuleType:
    """Import a module, as `python -m` would find it."""
    from importlib import import_module

    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"`{name}` is neither a file nor the name of a module. Type: riverrun run FILE.py:FLOW")
    sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise TargetImportError(_why(name, error)) from error
        path = f"{name.replace('.', os.sep)}.py"
        hint = (
            f"; did you mean the file `{path}`?"
            if os.path.isfile(path)
            else ". A file is typed with its ending: riverrun run FILE.py:FLOW"
        )
        raise TargetError(f"There is no module `{name}`{hint}") from None
    except (Exception, SystemExit) as error:
        raise TargetImportError(_why(name, error)) from error


def _why(place: str, error: BaseException) -> str:
    """Say in one line what happened, and what helps where that is known."""
    shown = os.path.basename(place)
    if isinstance(error, SystemExit):
        return (
            f"`{shown}` cannot be imported: it calls `sys.exit()` as it is imported. "
            'Put what is meant for `python FILE.py` below `if __name__ == "__main__":`.'
        )
    text = f"`{shown}` cannot be imported: {type(error).__name__}: {error}".partition("\n")[0]
    if "relative import" in str(error) and os.path.isfile(place):
        package = os.path.basename(os.path.dirname(place))
        module = f"{package}.{os.path.splitext(shown)[0]}"
        text += f". Run it as a module of its package, from the folder above: riverrun run {module}:FLOW"
    return text


def _flows(module: ModuleType) -> dict[str, Flow[Any, Any]]:
    """Give the flows of a module by the names of its variables: its own, or else those that it has imported."""
    found: dict[int, tuple[str, Flow[Any, Any]]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Flow):
            found.setdefault(id(value), (name, value))
    own = {name: flow for name, flow in found.values() if flow.__module__ == module.__name__}
    return own or dict(found.values())


def _only(module: ModuleType, place: str) -> Flow[Any, Any]:
    flows = _flows(module)
    if len(flows) == 1:
        return next(iter(flows.values()))
    if not flows:
        raise TargetError(f"`{place}` has no flow: write `@flow` above a function in it.")
    first = next(iter(flows))
    raise TargetError(f"`{place}` has {len(flows)} flows: {_listed(flows)}. Name one: riverrun run {place}:{first}")


def _named(module: ModuleType, place: str, name: str) -> Flow[Any, Any]:
    flows = _flows(module)
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is None:  # the name that the logs show does as well
        value = next((flow for flow in flows.values() if flow.name == name), None)
    if isinstance(value, Flow):
        return value
    known = f"Its flows: {_listed(flows)}." if flows else "It has no flow: write `@flow` above a function in it."
    if value is None:
        raise TargetError(f"`{place}` has no flow `{name}`{did_you_mean(name, flows)} {known}")
    kind = "task" if type(value).__name__ == "Task" else type(value).__name__
    raise TargetError(f"`{name}` of `{place}` is no flow, it is a {kind}. {known}")


def _listed(flows: dict[str, Flow[Any, Any]]) -> str:
    return ", ".join(f"`{name}`" for name in flows)
