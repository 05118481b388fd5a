"""Parcels on a worker: their files are written once for each host, and their folders put on `sys.path`.

Several processes and threads of one host may unpack the same parcel at the same time, and what sweeps temporary folders
may take files away: so every file that is not there yet is written aside and renamed into its place, and a process goes
on only when all files are there.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

from riverrun._parcels import ORIGIN, Parcel
from riverrun.exceptions import TaskRunnerStartError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from zipfile import ZipFile


_lock = threading.Lock()
_homes: dict[str, str] = {}  # the folder that each shipped module is imported from in this process


def unpack(parcels: Iterable[Parcel], folder: str | None = None) -> list[str]:
    """Make shipped code importable in this process; on a worker, before the first task.

    The files of a parcel are in a folder of their own, named by their content: so doing it again does nothing. The
    folder comes first on `sys.path`. Where a module of the parcel is already imported from elsewhere, an older parcel
    or what is installed here, it is forgotten, so that the next import gives the code that was shipped; whatever has
    the old module keeps it. In the process that packed the parcel (its workers are threads), modules that it can import
    by itself stay as they are.

    Args:
        parcels: what `pack()` gave.
        folder: where to put the files; without one, below the user's own temporary folder, where they stay for the next
            time.

    Returns:
        The folders that are on `sys.path` for these parcels.

    Raises:
        TaskRunnerStartError: the files cannot be written; the text names the worker and the folder.

    Example:
        >>> import sys
        >>> import tempfile
        >>> from pathlib import Path
        >>> from riverrun.workers import pack, unpack
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "steps_of_yours.py")
        ...     _ = file.write_text("ANSWER = 42")
        ...     [there] = unpack(pack([file]), folder)
        ...     import steps_of_yours
        ...
        ...     sys.path.remove(there)
        >>> steps_of_yours.ANSWER
        42
    """
    wanted = [parcel for parcel in parcels if not _is_at_home(parcel)]
    if not wanted:
        return []
    with _lock:
        try:
            root = _root(folder)
            folders = [_written(parcel, root) for parcel in wanted]
        except OSError as error:
            import socket

            names = ", ".join(repr(parcel.name) for parcel in wanted)
            raise TaskRunnerStartError(
                f"Worker {socket.gethostname()}:{os.getpid()} cannot write the code that was shipped to it ({names}): "
                f"{error}. Give it a folder that it can write to, with enough room, or install the code there."
            ) from error
        for parcel, place in zip(wanted, folders, strict=True):
            _show(parcel, place)
        importlib.invalidate_caches()
    return folders


def _is_at_home(parcel: Parcel) -> bool:
    """Say whether a parcel comes from this very process, which can import its modules without it."""
    if parcel.origin != ORIGIN or not _homes.keys().isdisjoint(parcel.modules):
        return False
    from importlib.util import find_spec

    return all(name in sys.modules or find_spec(name) for name in parcel.modules)


def _root(folder: str | None) -> str:
    """Give the folder for all parcels; one that another user could write into is not used, for its code would run."""
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
        return os.path.abspath(folder)
    import stat
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else None
    root = os.path.join(tempfile.gettempdir(), f"riverrun-shipped-{'' if user is None else user}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(root, 0o700)
    status = os.lstat(root)
    if stat.S_ISDIR(status.st_mode) and (user is None or (status.st_uid == user and not status.st_mode & 0o022)):
        return root
    return _another_root()


@cache
def _another_root() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="riverrun-shipped-")


def _written(parcel: Parcel, root: str) -> str:
    """See that all files of a parcel are in its folder, and give the folder."""
    import io
    import zipfile

    folder = os.path.join(root, f"{parcel.name}-{parcel.digest[:32]}")
    with zipfile.ZipFile(io.BytesIO(parcel.content)) as archive:
        for member in archive.infolist():
            path = os.path.join(folder, *member.filename.split("/"))
            if not os.path.isfile(path) or os.path.getsize(path) != member.file_size:
                _write(archive, member.filename, path)
    return folder


def _write(archive: ZipFile, member: str, path: str) -> None:
    import tempfile

    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".riverrun-")
    try:
        with open(handle, "wb") as file:
            file.write(archive.read(member))
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def _show(parcel: Parcel, folder: str) -> None:
    """Let the modules of a parcel be the ones that an import finds."""
    if folder in sys.path and all(_homes.get(module) == folder for module in parcel.modules):
        return
    before = {_homes[module] for module in parcel.modules if module in _homes} - {folder}
    _homes.update(dict.fromkeys(parcel.modules, folder))
    for place in (folder, *before.difference(_homes.values())):  # a folder that nothing is wanted from any more goes
        while place in sys.path:
            sys.path.remove(place)
    sys.path.insert(0, folder)
    for module in set(parcel.modules) - sys.stdlib_module_names:
        _forget(module, folder, before if parcel.origin == ORIGIN else None)


def _forget(top: str, folder: str, before: set[str] | None) -> None:
    """Take a module and what is below it out of `sys.modules`, unless it comes from the folder.

    Args:
        top: the name of the module.
        folder: where the module is to come from.
        before: the folders of older parcels, if it is only to be forgotten when it comes from one of them.
    """
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    if file.startswith(folder + os.sep):
        return
    if before is not None and not file.startswith(tuple(place + os.sep for place in before)):
        return
    for name in list(sys.modules):
        if name == top or name.startswith(top + "."):
            sys.modules.pop(name, None)
