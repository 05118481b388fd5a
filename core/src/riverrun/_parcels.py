"""Parcels: code of the flow's process on its way to workers (`ship=`).

A parcel is what one entry of `ship=` names, as bytes. Its digest is made of the names and the bytes of its files alone,
so that the same code is the same parcel wherever and whenever it was packed, and a worker that has it needs no other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from riverrun._ship_entries import Found, find, refuse
from riverrun.exceptions import TaskRunnerOptionError, TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT = 100_000_000
BIGGEST = 3  # so many files are named in the error about too much code
ORIGIN = os.urandom(16).hex()  # this process: where a parcel comes from, its code is already


@dataclass(frozen=True)
class Parcel:
    """The code that one entry of `ship=` names, ready to travel.

    Attributes:
        name: what it was made from: the name of a module, of a folder or of an archive.
        digest: a text that is the same for the same files, and differs for others.
        modules: the names that can be imported where it has been unpacked.
        content: the files, as a zip archive.
        origin: the process that packed it.
    """

    name: str
    digest: str
    modules: tuple[str, ...]
    content: bytes = field(repr=False, compare=False)
    origin: str = field(default=ORIGIN, repr=False, compare=False)


def pack(ship: Iterable[Any], limit: int = LIMIT) -> list[Parcel]:
    """Turn modules and paths into parcels that `unpack()` makes importable on a worker.

    An entry is a module, an import name (of which the whole top-level package is sent), or the path of a `.py` file, of
    a package, of a folder of modules (what is in it can be imported by itself, as from a folder on `sys.path`), or of a
    `.zip`, `.whl` or `.egg` archive. A text that could be both is an import name; `./name` is a path. A path inside a
    package sends that package. Data files are sent too. Not sent: byte code, hidden files and folders (which may hold
    secrets), virtual environments.

    Args:
        ship: the entries, or a single one.
        limit: the most bytes that all files together may have, before they are compressed.

    Returns:
        A parcel for each entry, without repetitions.

    Raises:
        TaskRunnerStartError: an entry cannot be sent, or all of it is too much; the text says what to do.
        TaskRunnerOptionError: an entry is neither a module nor a text nor a path.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from riverrun.workers import pack
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "steps_of_mine.py")
        ...     _ = file.write_text("ANSWER = 42")
        ...     [parcel] = pack([file])
        >>> parcel.name, parcel.modules
        ('steps_of_mine', ('steps_of_mine',))
    """
    everything = [find(entry) for entry in _entries(ship, "pack()")]
    _refuse_too_much(everything, limit)
    parcels: dict[str, Parcel] = {}
    by_module: dict[str, tuple[str, str]] = {}
    for found in everything:
        parcel = _parcel(found)
        parcels[parcel.digest] = parcel
        for module in parcel.modules:
            other, digest = by_module.setdefault(module, (found.entry, parcel.digest))
            if digest != parcel.digest:
                refuse(found.entry, f"{other!r} brings a module `{module}` too. Leave one of them out.")
    return list(parcels.values())


def checked_ship(value: object, owner: str) -> tuple[str | os.PathLike[str], ...]:
    """Check the value of an option `ship=`; for the `validate()` of a task runner.

    Whether each entry exists is seen when the flow starts, by `pack()`.

    Args:
        value: what the user gave: one entry, or a list or tuple of them.
        owner: the name of the task runner, for the text.

    Returns:
        The entries. A module is replaced by its name: so a task runner that has it can be pickled and compared.

    Raises:
        TaskRunnerOptionError: the value is something else.

    Example:
        >>> import json
        >>> from riverrun.workers import checked_ship
        >>> checked_ship("mypackage", "MyTaskRunner"), checked_ship([json, "steps.py"], "MyTaskRunner")
        (('mypackage',), ('json', 'steps.py'))
    """
    entries = _entries(value, f"`{owner}`")
    return tuple(entry.__name__ if isinstance(entry, ModuleType) else entry for entry in entries)


def _entries(value: Any, owner: str) -> list[ModuleType | str | os.PathLike[str]]:
    kinds = (ModuleType, str, os.PathLike)
    wanted = "modules, import names or paths"
    if isinstance(value, kinds):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise TaskRunnerOptionError(f"{owner}: `ship` takes a list of {wanted}, not {value!r}.")
    for entry in value:
        if not isinstance(entry, kinds) or entry == "" or (not isinstance(entry, ModuleType) and _is_bytes(entry)):
            raise TaskRunnerOptionError(f"{owner}: `ship` takes {wanted}; {entry!r} is none of them.")
    return list(value)


def _is_bytes(path: str | os.PathLike[Any]) -> bool:
    return isinstance(os.fspath(path), bytes)


def _refuse_too_much(everything: list[Found], limit: int) -> None:
    sizes = {os.path.join(found.archive, path): size for found in everything for path, size in found.files.values()}
    if (total := sum(sizes.values())) <= limit:
        return
    biggest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:BIGGEST]
    named = ", ".join(f"{path} ({_megabytes(sizes[path])})" for path in biggest)
    raise TaskRunnerStartError(
        f"Cannot ship {', '.join(repr(found.entry) for found in everything)}: {_megabytes(total)} are more than the "
        f"limit of {_megabytes(limit)}. The biggest files: {named}. Put data where the workers can read it, or install "
        f"the code on them."
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _parcel(found: Found) -> Parcel:
    import hashlib
    import io
    import zipfile

    digest = hashlib.sha256()
    content = io.BytesIO()
    try:
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in _contents(found):
                for part in (name.encode(), data):
                    digest.update(len(part).to_bytes(8, "big") + part)
                info = zipfile.ZipInfo(name)  # at a fixed date
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
    except (OSError, RuntimeError, UnicodeError, zipfile.BadZipFile) as error:  # RuntimeError: it has a password
        refuse(found.entry, f"it cannot be read: {error}.")
    return Parcel(found.name, digest.hexdigest(), found.modules(), content.getvalue())


def _contents(found: Found) -> Iterator[tuple[str, bytes]]:
    if found.archive:
        import zipfile

        with zipfile.ZipFile(found.archive) as archive:
            for name in sorted(found.files):
                yield name, archive.read(name)
        return
    for name in sorted(found.files):
        with open(found.files[name].path, "rb") as file:
            yield name, file.read()
