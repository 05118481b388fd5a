"""The handshake of a flow's process with workers on other machines: what each has installed, and where they differ.

`environment()` runs on every worker before the first task does, so it imports nothing but the reader of metadata. Its
record is pickled by one version of Riverrun and may be read by another: every field has a default, so that one which
the other side does not know, or does not send, does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverrun._tables import printable, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALWAYS = ("cloudpickle", "numpy", "pydantic")  # what values, and the classes in them, are most often made with
LONGEST = 80  # characters of an exception that came in place of a record
NAMED = 3  # so many workers are named in a row of the table; the others are counted
MISSING = None
UNKNOWN = "unknown"
NO_ANSWER = "no answer: "


@dataclass(frozen=True)
class Environment:
    """What one process runs on: the versions that a flow's process and its workers should share.

    Attributes:
        python: the version of Python, as in "3.11.7"; with the implementation behind it, where it is not CPython.
        riverrun: the version of Riverrun, or None where it is on the path without being installed.
        packages: the versions of distributions by name; None for one that is not installed.
        host: the name of the machine.
        pid: the number of the process.
    """

    python: str = ""
    riverrun: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    host: str = ""
    pid: int = 0


def environment(packages: Sequence[str] = ()) -> Environment:
    """Tell what this process runs on; quickly, and without importing what it tells about.

    Args:
        packages: the names of distributions (as `pip` knows them) to tell the versions of; cloudpickle, numpy and
            pydantic are always told.

    Returns:
        A record that can be pickled.

    Example:
        >>> from riverrun.workers import environment
        >>> here = environment(["no-such-thing"])
        >>> here.python.startswith("3."), list(here.packages), here.packages["no-such-thing"]
        (True, ['cloudpickle', 'numpy', 'pydantic', 'no-such-thing'], None)
    """
    import os
    import platform
    import socket

    implementation = platform.python_implementation()
    return Environment(
        python=platform.python_version() + ("" if implementation == "CPython" else f" ({implementation})"),
        riverrun=_installed("core"),
        packages={name: _installed(name) for name in (*ALWAYS, *packages)},
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def _installed(distribution: str) -> str | None:
    from importlib import metadata  # the back-ends of runners have loaded it already

    try:
        found = metadata.distribution(distribution).metadata
    except (metadata.PackageNotFoundError, OSError, ValueError):  # not there, or not to be read, or no name
        return None
    return (found["Version"] or None) if "Version" in found else None


@dataclass(frozen=True)
class Difference:
    """One thing that this process and some workers have in different versions.

    Attributes:
        package: what it is: "python", "riverrun", or a distribution.
        here: its version in this process; None where it is missing.
        there: the other versions (None: it is missing there), and the workers that have them.
    """

    package: str
    here: str | None
    there: Mapping[str | None, Sequence[str]]


class Differences:
    """Where workers differ from this process; false if they do not.

    Attributes:
        rows: one for each thing that differs.
        workers: how many workers were compared.
    """

    def __init__(self, rows: Sequence[Difference], workers: int) -> None:
        self.rows = rows
        self.workers = workers

    def __bool__(self) -> bool:
        return bool(self.rows)

    def who(self) -> set[str]:
        """Give the names of the workers that differ in something."""
        return {worker for row in self.rows for workers in row.there.values() for worker in workers}

    def table(self) -> str:
        """Lay the differences out for people: a line for each version, with the first of the workers that have it."""
        lines = []
        for row in self.rows:
            name, here = row.package, _shown(row.here)
            for version, workers in row.there.items():
                lines.append([name, here, _shown(version), _named(workers, self.workers)])
                name, here = "", ""
        return table(["package", "here", "there", "on"], lines)


def differences(here: Environment, others: Mapping[str, Environment | BaseException]) -> Differences:
    """Compare this process with its workers.

    Args:
        here: what `environment()` gave in this process.
        others: what it gave on each worker, by the worker's name or address. An exception in its place says that it
            could not run there: a `ModuleNotFoundError`, that a module is missing.

    Returns:
        The differences, in a fixed order. What is absent on both sides is none.

    Example:
        >>> from riverrun.workers import Environment, differences
        >>> here = Environment("3.11.7", "0.1.0", {"numpy": "2.1.0"})
        >>> there = Environment("3.11.7", "0.1.0", {"numpy": "1.26.4"})
        >>> print(differences(here, {"10.0.0.2:4001": here, "10.0.0.3:4001": there}).table())
        PACKAGE  HERE   THERE   ON
        numpy    2.1.0  1.26.4  10.0.0.3:4001
    """
    mine = _versions(here)
    found: dict[str, dict[str | None, list[str]]] = {name: {} for name in mine}
    for worker, answer in others.items():
        theirs = _versions(answer) if isinstance(answer, Environment) else _instead(answer, mine)
        for package, version in theirs.items():
            if package in mine and version != mine[package]:
                found[package].setdefault(version, []).append(worker)
    rows = [Difference(package, mine[package], there) for package, there in found.items() if there]
    return Differences(rows, len(others))


def _versions(record: Environment) -> dict[str, str | None]:
    return {"python": record.python, "riverrun": record.riverrun or UNKNOWN, **record.packages}


def _instead(error: BaseException, mine: Mapping[str, str | None]) -> dict[str, str | None]:
    """Say what an exception in place of a record tells of a worker."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        distribution = error.name.replace("_", "-")
        if distribution in mine:  # as a whole; a part of it that is missing, `riverrun.x`, is one of another version
            return {distribution: MISSING}
    return {"riverrun": NO_ANSWER + printable(repr(error))[:LONGEST]}


def _shown(version: str | None) -> str:
    return "missing" if version is MISSING else version


def _named(workers: Sequence[str], total: int) -> str:
    if len(workers) == total > NAMED:
        return f"all {total} workers"
    rest = len(workers) - NAMED
    return ", ".join(workers[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
