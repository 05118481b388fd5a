"""What an entry of `ship=` names, as files: a module that is imported or can be, or a path.

Nothing is imported to find that out, and nothing is read yet: sizes come first.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from riverrun._suggestions import did_you_mean
from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHIVES = (".zip", ".whl", ".egg")
COMPILED = (".so", ".pyd")
LEFT_OUT = (".pyc", ".pyo")


class File(NamedTuple):
    """One file to send: where it is (in an archive, the name of the member), and its size in bytes."""

    path: str
    size: int


class Found(NamedTuple):
    """What one entry names.

    Attributes:
        entry: the entry, as people wrote it.
        name: what it brings, for people and for the folder on the worker.
        files: the files by their names below a folder of `sys.path`, with `/` between the parts.
        archive: the archive that they are members of, or an empty string.
    """

    entry: str
    name: str
    files: dict[str, File]
    archive: str = ""

    def modules(self) -> tuple[str, ...]:
        """Give the names that can be imported once the files are on `sys.path`."""
        names: dict[str, None] = {}
        for file in self.files:
            first, _, rest = file.partition("/")
            name = first if rest else first.removesuffix(".py")
            if file.endswith(".py") and name.isidentifier() and name not in {"__main__", "__init__"}:
                names[name] = None
        return tuple(names)


def find(entry: ModuleType | str | os.PathLike[str]) -> Found:
    """Find the files of one entry of `ship=`.

    Args:
        entry: a module, an import name, or a path.

    Returns:
        Its files, without what is never sent: byte code, hidden files and folders, virtual environments.

    Raises:
        TaskRunnerStartError: it names nothing that can be sent; the text says what instead.
    """
    import zipfile

    shown = entry.__name__ if isinstance(entry, ModuleType) else os.fspath(entry)
    try:
        found = _found(entry, shown)
    except (OSError, zipfile.BadZipFile) as error:
        refuse(shown, f"it cannot be read: {error}.")
    for file in found.files:
        if file.endswith(COMPILED):
            refuse(shown, f"it has compiled parts ({file}). Install it on the workers; only Python source is sent.")
    if "riverrun" in found.modules():
        refuse(shown, "workers need Riverrun before anything can be sent. Install `core` on them.")
    return found


def refuse(shown: str, reason: str) -> NoReturn:
    """Say why an entry cannot be sent.

    Args:
        shown: the entry, as people wrote it.
        reason: the rest of the sentence.

    Raises:
        TaskRunnerStartError: always.
    """
    raise TaskRunnerStartError(f"Cannot ship {shown!r}: {reason}")


def _found(entry: ModuleType | str | os.PathLike[str], shown: str) -> Found:
    if isinstance(entry, ModuleType):
        top = entry if "." not in shown else sys.modules.get(shown.partition(".")[0])
        return _module(shown, top) if top is not None else _by_name(shown)
    path = os.path.abspath(os.path.expanduser(shown))
    is_name = isinstance(entry, str) and all(part.isidentifier() for part in shown.split("."))
    if is_name and not shown.endswith((".py", *ARCHIVES)):
        return _by_name(shown)
    return _path(shown, path)


def _by_name(shown: str) -> Found:
    from importlib.util import find_spec

    top = shown.partition(".")[0]
    if (module := sys.modules.get(top)) is not None:
        return _module(shown, module)
    spec = find_spec(top)
    if spec is not None:
        return _of_origin(shown, top, spec.origin, spec.submodule_search_locations)
    if os.path.exists(shown):
        return _path(shown, os.path.abspath(shown))
    import pkgutil

    known = {module.name for module in pkgutil.iter_modules()} | {name for name in sys.modules if "." not in name}
    refuse(
        shown,
        f"no module `{top}` can be imported here{did_you_mean(top, known)} To ship something that is not on "
        f"`sys.path`, give its path.",
    )


def _module(shown: str, module: ModuleType) -> Found:
    if module.__name__ == "__main__":
        refuse(shown, "what a script or a notebook defines travels with each task anyway. Leave it out.")
    spec = getattr(module, "__spec__", None)
    origin = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    return _of_origin(shown, module.__name__, origin, getattr(module, "__path__", None))


def _of_origin(shown: str, name: str, origin: str | None, locations: object) -> Found:
    """Find the files of a top-level module, from where it was loaded or would be."""
    standard = os.path.dirname(os.__file__)
    if name in sys.stdlib_module_names and (origin in {None, "built-in", "frozen"} or str(origin).startswith(standard)):
        refuse(shown, f"`{name}` is a part of Python, so every worker has it. Leave it out.")
    if origin is None and locations is not None:
        folder = next(iter(locations), "") if hasattr(locations, "__iter__") else ""
        refuse(
            shown,
            f"`{name}` is a folder without an `__init__.py` (a namespace package), and its parts may be anywhere. Add "
            f"an `__init__.py`, or ship the folder that it is in by its path: {os.path.dirname(folder)!r}.",
        )
    if origin is not None and origin.endswith(COMPILED):
        refuse(shown, f"`{name}` is compiled ({origin}). Install it on the workers; only Python source is sent.")
    if origin is None or not origin.endswith(".py") or not os.path.isfile(origin):
        where = f" ({origin} is no source file)" if origin else ""
        refuse(
            shown,
            f"`{name}` has no source here{where}. Install it on the workers; if it comes from an archive, ship the "
            f"archive by its path.",
        )
    if locations is not None:
        return Found(shown, name, dict(_below(os.path.dirname(origin), f"{name}/")))
    return Found(shown, name, {f"{name}.py": File(origin, os.path.getsize(origin))})


def _path(shown: str, path: str) -> Found:
    if not os.path.exists(path):
        refuse(shown, f"there is no {path}.")
    name = os.path.basename(path)
    if os.path.isfile(path) and name.endswith(ARCHIVES):
        found = Found(shown, name, dict(_members(path)), path)
    else:
        path = _top(path)
        name = os.path.basename(path).removesuffix(".py")
        package = os.path.isfile(os.path.join(path, "__init__.py"))
        is_folder, is_module = os.path.isdir(path), os.path.isfile(path) and path.endswith(".py")
        if not (is_folder or is_module) or ((package or is_module) and not name.isidentifier()):
            refuse(shown, f"{os.path.basename(path)!r} is no name that can be imported, nor an archive.")
        if is_folder:
            found = Found(shown, name, dict(_below(path, f"{name}/" if package else "")))
        else:
            found = Found(shown, name, {f"{name}.py": File(path, os.path.getsize(path))})
    if not found.modules():
        refuse(shown, f"{path} has no module or package right in it.")
    return found


def _top(path: str) -> str:
    """Give the package that a path is a part of, if it is imported as that part; else the path itself."""
    on_path = {os.path.realpath(folder) for folder in sys.path}
    parent = os.path.dirname(path)
    while os.path.isfile(os.path.join(parent, "__init__.py")) and os.path.realpath(parent) not in on_path:
        path, parent = parent, os.path.dirname(parent)
    return path


def _below(folder: str, prefix: str, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, File]]:
    """Give the files of a folder; symbolic links are followed, unless they lead in circles."""
    above |= {os.path.realpath(folder)}
    for inside in sorted(os.scandir(folder), key=lambda found: found.name):
        if _is_left_out(inside.name):
            continue
        if inside.is_dir():
            is_environment = os.path.isfile(os.path.join(inside.path, "pyvenv.cfg"))
            if not is_environment and os.path.realpath(inside.path) not in above:
                yield from _below(inside.path, f"{prefix}{inside.name}/", above)
        elif inside.is_file():
            yield prefix + inside.name, File(inside.path, inside.stat().st_size)


def _members(path: str) -> Iterator[tuple[str, File]]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            parts = member.filename.split("/")
            if ".." in parts or "" in parts[:-1] or "\\" in member.filename:
                raise zipfile.BadZipFile(f"it has a member outside of itself, {member.filename!r}")
            if not member.is_dir() and not any(map(_is_left_out, parts)):
                yield member.filename, File(member.filename, member.file_size)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith(LEFT_OUT)
