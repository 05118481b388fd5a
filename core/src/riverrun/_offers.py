"""What the installed distributions offer to Riverrun, found out without importing any of them.

::

    a runner of ours ("dask")          -> OURS: a table, so that no metadata is read
    any other runner ("slurm", "d:n")  -> scan(): entry points of the group `riverrun.task_runners`
    any observer                       -> scan(OBSERVER): entry points of the group `riverrun.observers`
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

TASK_RUNNER, OBSERVER = "task runner", "observer"
GROUPS = {TASK_RUNNER: "riverrun.task_runners", OBSERVER: "riverrun.observers"}
"""The groups of entry points, by what they name."""


class Offer(NamedTuple):
    """One line in the entry points of a distribution."""

    name: str
    value: str
    """What it names, as in `runner_slurm:SlurmTaskRunner`."""
    distribution: str
    version: str = ""
    problem: str = ""
    """Why nothing of this distribution can be used."""
    kind: str = TASK_RUNNER
    """What it is that is offered."""

    @property
    def module(self) -> str:
        """The module that has to be imported."""
        return self.value.partition(":")[0].partition("[")[0].strip()

    @property
    def attribute(self) -> str:
        """What is meant in the module; empty for the module itself."""
        return self.value.partition(":")[2].partition("[")[0].strip()

    @property
    def extra(self) -> str:
        """The extra of the distribution that is needed for it: `progress` in `package.module:Class [progress]`."""
        return self.value.partition("[")[2].partition("]")[0].strip()

    @property
    def full_name(self) -> str:
        """The name that is unique: `runner-slurm:slurm`."""
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


OURS = {
    "sequential": Offer("sequential", "runner_sequential:SequentialTaskRunner", "runner-sequential"),
    "concurrent": Offer("concurrent", "runner_concurrent:ConcurrentTaskRunner", "runner-concurrent"),
    "dask": Offer("dask", "runner_dask:DaskTaskRunner", "runner-dask"),
    "ray": Offer("ray", "runner_ray:RayTaskRunner", "runner-ray"),
}
"""These names belong to Riverrun, whoever else offers them."""

INSTALL = {
    "sequential": "pip install runner-sequential",
    "concurrent": "pip install runner-concurrent",
    "dask": "pip install 'core[dask]'",
    "ray": "pip install 'core[ray]'",
}


def normalized(distribution: str) -> str:
    """Return the one spelling of a distribution's name."""
    return distribution.strip().lower().replace("_", "-").replace(".", "-")


def is_ours(offer: Offer) -> bool:
    """Tell whether this is one of the task runners that are in the table of ours, offered by the right distribution."""
    return _takes_our_name(offer) and normalized(offer.distribution) == OURS[offer.name].distribution


def _takes_our_name(offer: Offer) -> bool:
    return offer.kind == TASK_RUNNER and offer.name in OURS


def is_importable(offer: Offer) -> bool:
    """Tell whether the top-level package of an offer is there, without importing it."""
    from importlib.util import find_spec

    package = offer.module.partition(".")[0]
    return sys.modules.get(package) is not None or find_spec(package) is not None


def version_of(distribution: str) -> str:
    """Return the version of a distribution, or an empty string if its metadata are not there."""
    from importlib_metadata import PackageNotFoundError, version

    try:
        return version(distribution) or ""
    except PackageNotFoundError:
        return ""


_scanned: dict[tuple[str, ...], tuple[Offer, ...]] = {}


def scan(kind: str = TASK_RUNNER, *, warn: bool = True) -> tuple[Offer, ...]:
    """Read what every distribution on `sys.path` offers; this happens once, for all kinds.

    Args:
        kind: what is looked for: `TASK_RUNNER` or `OBSERVER`.
        warn: whether to report distributions that take a name of Riverrun's.

    Returns:
        The offers of that kind, Riverrun's own included, sorted by name and distribution.
    """
    # A change of sys.path (a notebook, the command line) may bring others, so the answer belongs to one sys.path.
    path = tuple(sys.path)
    if path not in _scanned:
        _scanned.clear()
        _scanned[path] = _read_all()
        for offer in _scanned[path] if warn else ():
            if _takes_our_name(offer) and not is_ours(offer):
                import warnings

                warnings.warn(shadowing(offer), stacklevel=4)
    return tuple(offer for offer in _scanned[path] if offer.kind == kind)


def shadowing(offer: Offer) -> str:
    """Say that a distribution takes a name of Riverrun's."""
    return (
        f"The distribution {offer} offers a task runner `{offer.name}`: "
        f"that name belongs to {OURS[offer.name].distribution}, so this one is not used."
    )


def _read_all() -> tuple[Offer, ...]:
    from importlib_metadata import distributions

    offers: dict[Offer, None] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError):  # somebody else's broken metadata: whether it is for us nobody can say
            continue
        # Only what has a group of ours is parsed: a mistake in somebody else's entry points is not our business.
        if text and (kinds := {group: kind for kind, group in GROUPS.items() if f"[{group}]" in text}):
            offers.update(dict.fromkeys(_offers_of(distribution, text, kinds)))
    return tuple(sorted(offers))


def _offers_of(distribution: Any, text: str, kinds: dict[str, str]) -> list[Offer]:
    from importlib_metadata import distribution as first_on_path

    try:
        name, version = distribution.name or "", distribution.version or ""
        if first_on_path(name).read_text("entry_points.txt") != text:  # an older copy, further down on sys.path
            return []
        entries = [entry for entry in distribution.entry_points if entry.group in kinds]
    except Exception as error:  # noqa: BLE001 - metadata can be broken in many ways, and must not stop the others
        # Only a private attribute tells where they are; that folder's name is all that is known of the distribution.
        folder = str(getattr(distribution, "_path", distribution.locate_file("?"))).rstrip("/")
        problem = f"its metadata in {folder} cannot be read ({type(error).__name__}: {error})"
        whose = normalized(os.path.basename(folder).partition("-")[0])
        return [Offer("?", "", whose, "", problem, kind) for kind in kinds.values()]
    return [Offer(entry.name, entry.value, name, version, "", kinds[entry.group]) for entry in entries]
