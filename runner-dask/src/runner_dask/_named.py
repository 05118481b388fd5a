"""What makes a cluster, found by its dotted path."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from riverrun.exceptions import TaskRunnerStartError


def name_of(make: Any) -> str:
    """Give the dotted path of a class or function."""
    name = getattr(make, "__qualname__", None) or type(make).__qualname__
    return f"{getattr(make, '__module__', None) or type(make).__module__}.{name}"


def named(make: Any) -> Any:
    """Find what a `cluster_class` means.

    Args:
        make: a class, a function, or a dotted path.

    Returns:
        The class or function.

    Raises:
        TaskRunnerStartError: the path leads nowhere; the text says what to install.
    """
    if not isinstance(make, str):
        return make
    module_name, _, names = make.partition(":") if ":" in make else make.rpartition(".")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise TaskRunnerStartError(_not_imported(make, module_name, error)) from error
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            near = difflib.get_close_matches(name, [each for each in dir(found) if each[0] != "_"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise TaskRunnerStartError(f"cluster_class={make!r}: {module_name} has no {name!r}{hint}") from None
    if not callable(found):
        raise TaskRunnerStartError(f"cluster_class={make!r} is no class and no function, but {found!r}.")
    return found


def _not_imported(path: str, module_name: str, error: ImportError) -> str:
    package = module_name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return (
            f"cluster_class={path!r} needs the package {package!r}, which is not installed here: "
            f"pip install {package.replace('_', '-')} (if that is its name there)."
        )
    return f"cluster_class={path!r}: importing {module_name} failed: {type(error).__name__}: {error}"
