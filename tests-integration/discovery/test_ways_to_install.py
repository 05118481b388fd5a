"""A plugin is found however it was installed, and among however many other distributions."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Environment, MakeWheel, StartUp

STRANGERS = 300
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "runner-mine"
    version = "0.1.dev0"

    [project.entry-points."riverrun.task_runners"]
    mine = "runner_mine:MineTaskRunner"
"""


@pytest.fixture
def project(tmp_path: Path, runner_source: Callable[..., str]) -> Path:
    """Give the folder of a project whose task runner is `mine`, as somebody works on it."""
    folder = tmp_path / "runner-mine"
    (folder / "src" / "runner_mine").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(dedent(PROJECT))
    (folder / "src" / "runner_mine" / "__init__.py").write_text(dedent(runner_source("MineTaskRunner")))
    return folder


def test_an_editable_install(environment: Environment, project: Path, clean_start_up: StartUp):
    environment.pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(project))
    environment.runs_on("mine")
    (row,) = environment.listed("mine")
    assert row == ("mine", "runner_mine:MineTaskRunner", "runner-mine", "0.1.dev0", "concurrent", "")
    assert environment.run("runners", "--check").returncode == 0
    assert environment.start_up().modules == clean_start_up.modules
    # An edit counts, without another install.
    (project / "src" / "runner_mine" / "__init__.py").write_text("raise OSError('work in progress')\n")
    (row,) = environment.listed("mine")
    assert row.problem == ("The task runner `mine` of runner-mine 0.1.dev0 cannot be loaded: OSError: work in progress")
    environment.runs_on("sequential")
    environment.pip("uninstall", "--yes", "runner-mine")
    assert environment.listed("mine") == []


def test_an_editable_install_whose_folder_was_moved_away(
    environment: Environment, project: Path, clean_start_up: StartUp
):
    environment.install("--no-build-isolation", "--editable", project)
    project.rename(project.with_name("elsewhere"))
    (row,) = environment.listed("mine")
    assert row.problem == (
        "The task runner `mine` of runner-mine 0.1.dev0 cannot be loaded: its entry point "
        "`mine = runner_mine:MineTaskRunner` names the module `runner_mine`, which does not exist. "
        "If its files were removed by hand: pip uninstall runner-mine."
    )
    environment.runs_on("sequential")
    assert environment.start_up() == clean_start_up


@pytest.mark.parametrize("way", ["PYTHONPATH", ".pth"])
def test_a_zip_on_the_path(environment: Environment, good: Path, way: str):
    # A wheel is a zip with its metadata: Python imports from it as it is.
    variables = {"PYTHONPATH": str(good)} if way == "PYTHONPATH" else {}
    if way == ".pth":
        (environment.site_packages / "good.pth").write_text(f"{good}\n")
    environment.runs_on("good", **variables)
    environment.runs_on("runner-good:good", **variables)
    (row,) = environment.listed("good", **variables)
    assert row == ("good", "runner_good:GoodTaskRunner", "runner-good", "1.0", "concurrent", "")
    assert environment.run("runners", "--check", **variables).returncode == 0
    environment.runs_on("sequential", **variables)


def test_a_file_that_is_no_zip_on_the_path(environment: Environment, good: Path, tmp_path: Path):
    environment.install(good)
    junk = tmp_path / "runner_junk-1.0-py3-none-any.whl"
    junk.write_bytes(b"half a download")
    variables = {"PYTHONPATH": str(junk)}
    environment.runs_on("good", **variables)
    (row,) = environment.listed("good", **variables)
    assert row.problem == ""
    environment.runs_on("sequential", **variables)


def test_among_300_distributions(environment: Environment, wheel: MakeWheel, good: Path, clean_start_up: StartUp):
    strangers = [
        wheel(f"stranger-{number}", None, {f"stranger_{number}": "raise OSError('nobody asked for me')\n"})
        for number in range(STRANGERS)
    ]
    environment.install(good, *strangers)
    assert len([*environment.site_packages.glob("*.dist-info")]) == STRANGERS + 1
    environment.runs_on("good")
    (row,) = environment.listed("good")
    assert row == ("good", "runner_good:GoodTaskRunner", "runner-good", "1.0", "concurrent", "")
    assert environment.run("runners", "--check").returncode == 0
    assert environment.start_up() == clean_start_up
    near = environment.hello("goods")
    assert near.returncode == 2
    assert near.stderr.startswith("Error: No task runner is named `goods`; did you mean `good`?")
