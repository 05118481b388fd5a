"""Whole processes in an environment where much else is installed, beside a clean one."""

from __future__ import annotations

import os
import sysconfig
import venv
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from figures import Figure
from processes import HELLO, compiled_in
from timing import in_turn, python

if TYPE_CHECKING:
    from figures import Sizes

GOOD = """\
from concurrent.futures import ThreadPoolExecutor

from riverrun.abc import Concurrency, TaskRunner

class Good(TaskRunner):
    concurrency = Concurrency.CONCURRENT

    def start(self):
        return ThreadPoolExecutor(1)
"""
BROKEN = {
    "raises": ("raises_plugin:Runner", "raise OSError('no such queue')\n"),
    "names-nothing": ("nothing_plugin:Runner", "class Walker: pass\n"),
    "left-behind": ("removed_plugin:Runner", None),
}


def crowded(sizes: Sizes) -> list[Figure]:
    """A one-task flow among 300 other distributions and 3 broken plugins; beside a clean environment."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hello.py").write_text(HELLO, encoding="utf-8")
        (folder / "good.py").write_text(HELLO.replace('"sequential"', '"good"'), encoding="utf-8")
        compiled = compiled_in(folder / "compiled", sizes)
        clean, among = environment(folder / "clean"), environment(folder / "crowded")
        crowd(site_packages(folder / "crowded"), sizes.distributions)
        for one in ("clean", "crowded"):
            distribution(site_packages(folder / one), "runner-good", "good_plugin:Good", GOOD, runner="good")
        run = partial(python, folder=folder, environment=compiled)
        times = in_turn(
            {
                "clean": lambda: run("hello.py", executable=clean),
                "crowded": lambda: run("hello.py", executable=among),
                "good, clean": lambda: run("good.py", executable=clean),
                "good, crowded": lambda: run("good.py", executable=among),
            },
            sizes.process_rounds,
        )
    ms = {contender: [time * 1e3 for time in taken] for contender, taken in times.items()}
    what = f"a process with a one-task flow, sequential, among {sizes.distributions} distributions and 3 broken"
    by_name = "  the same on a plugin by other people, which is looked for by name"
    return [
        Figure("crowded", what, "ms", ms["crowded"], ms["clean"], "ratio", 1.1),
        Figure("crowded-by-name", by_name, "ms", ms["good, crowded"], ms["good, clean"], "ratio"),
    ]


def environment(folder: Path) -> str:
    """Make a virtual environment that sees what this one has installed; give its Python."""
    venv.create(folder, symlinks=os.name != "nt")
    here = sysconfig.get_path("purelib")
    (site_packages(folder) / "below.pth").write_text(f"import site; site.addsitedir({here!r})\n", encoding="utf-8")
    return str(Path(path_of("scripts", folder)) / "python")


def site_packages(folder: Path) -> Path:
    """Give the folder that an environment's distributions are in."""
    return Path(path_of("purelib", folder))


def path_of(what: str, folder: Path) -> str:
    """Give one of the folders of an environment."""
    return sysconfig.get_path(what, "venv", {"base": str(folder), "platbase": str(folder)})


def crowd(site: Path, strangers: int) -> None:
    """Install distributions that have nothing to do with Riverrun, and plugins that are broken."""
    for number in range(strangers):
        distribution(site, f"stranger-{number}", f"stranger_{number}:main", "def main(): ...\n")
    for name, (value, source) in BROKEN.items():
        distribution(site, f"runner-{name}", value, source, runner=name)


def distribution(site: Path, name: str, value: str, source: str | None, *, runner: str = "") -> None:
    """Write what an installer leaves of a distribution: its module, and its metadata with one entry point."""
    about = site / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    described = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n{'It does something else. ' * 80}\n"
    (about / "METADATA").write_text(described, encoding="utf-8")
    points = f"[riverrun.task_runners]\n{runner} = {value}\n" if runner else f"[console_scripts]\n{name} = {value}\n"
    (about / "entry_points.txt").write_text(points, encoding="utf-8")
    if source is not None:
        (site / f"{value.partition(':')[0]}.py").write_text(source, encoding="utf-8")
