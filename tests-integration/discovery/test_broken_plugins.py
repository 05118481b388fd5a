"""A plugin that cannot be used disturbs nobody who does not ask for it, and who asks is told what is wrong with it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Environment, MakeWheel, StartUp

LOADED = "The task runner `bad` of runner-bad 0.9 cannot be loaded: "


@pytest.fixture
def undisturbed(clean_start_up: StartUp) -> Callable[[Environment], None]:
    """Give the check that others work, and that a flow on a runner of ours starts as if nothing were installed."""

    def undisturbed(environment: Environment) -> None:
        for runner in ("good", "sequential", "concurrent"):
            environment.runs_on(runner)
        (row,) = environment.listed("good")
        assert row == ("good", "runner_good:GoodTaskRunner", "runner-good", "1.0", "concurrent", "")
        assert environment.start_up() == clean_start_up

    return undisturbed


def broken(environment: Environment, problem: str, name: str = "bad") -> str:
    """Check that a plugin is listed with its problem, and what the exit statuses are; give what a run of it says."""
    (row,) = environment.listed(name)
    assert (row.distribution, row.version, row.concurrency, row.problem) == ("runner-bad", "0.9", "", problem)
    checked = environment.run("runners", "--check")
    assert (checked.returncode, checked.stderr) == (1, "")
    done = environment.hello(name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {problem}")
    return done.stderr.removeprefix(f"Error: {problem}")


def test_a_clean_environment_starts_without_a_look_at_what_is_installed(clean_start_up: StartUp):
    assert "runner_sequential" in clean_start_up.modules
    assert not {"importlib_metadata", "importlib.metadata", "pluggy"} & {*clean_start_up.modules}
    assert clean_start_up.touched
    assert not [path for path in clean_start_up.touched if "-info" in path]


def test_one_that_raises_on_import(environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable):
    source = "raise OSError('no such queue')\n"
    environment.install(good, wheel("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": source}, version="0.9"))
    undisturbed(environment)
    more = broken(environment, f"{LOADED}OSError: no such queue")
    assert "Traceback (most recent call last):" in more
    assert "raise OSError('no such queue')" in more
    assert "riverrun" not in more


def test_one_that_exits_on_import(environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable):
    source = "import sys\nsys.exit('this is a script')\n"
    environment.install(good, wheel("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": source}, version="0.9"))
    undisturbed(environment)
    broken(environment, f"{LOADED}SystemExit: this is a script")


def test_one_whose_entry_point_names_nothing(
    environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable
):
    runners = {"bad": "bad_plugin:Bad", "worse": "worse_plugin:Bad"}
    environment.install(good, wheel("runner-bad", runners, {"bad_plugin": "class Good: pass\n"}, version="0.9"))
    undisturbed(environment)
    nothing = "its entry point `bad = bad_plugin:Bad` names nothing: module 'bad_plugin' has no attribute 'Bad'."
    assert broken(environment, f"{LOADED}{nothing}") == "\n"
    no_module = (
        "its entry point `worse = worse_plugin:Bad` names the module `worse_plugin`, which does not exist. "
        "If its files were removed by hand: pip uninstall runner-bad."
    )
    assert broken(environment, f"{LOADED}{no_module}".replace("bad", "worse", 1), "worse") == "\n"


def test_one_that_was_built_for_an_older_version_of_the_contract(
    environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable, runner_source: Callable[..., str]
):
    source = runner_source("Bad", "api_version = 0")
    environment.install(good, wheel("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": source}, version="0.9"))
    undisturbed(environment)
    problem = (
        "The task runner `bad` of runner-bad 0.9 was written for version 0 of the task runner contract, "
        "and this Riverrun has version 1. Upgrade it: pip install --upgrade runner-bad"
    )
    assert broken(environment, problem) == "\n"


def test_one_whose_files_were_removed_and_its_metadata_left_behind(
    environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable
):
    modules = {"bad_plugin/__init__": "", "bad_plugin/runner": "class Bad: pass\n"}
    environment.install(good, wheel("runner-bad", {"bad": "bad_plugin.runner:Bad"}, modules, version="0.9"))
    shutil.rmtree(environment.site_packages / "bad_plugin")
    undisturbed(environment)
    advice = "pip uninstall runner-bad"
    problem = (
        f"{LOADED}its entry point `bad = bad_plugin.runner:Bad` names the module `bad_plugin`, which does not exist. "
        f"If its files were removed by hand: {advice}."
    )
    assert broken(environment, problem) == "\n"
    # What the text says to type does help.
    environment.pip(*advice.split()[1:], "--yes")
    assert environment.listed("bad") == []
    assert environment.run("runners", "--check").returncode == 0
    gone = environment.hello("bad")
    assert gone.returncode == 2
    assert gone.stderr.startswith("Error: No task runner is named `bad`")


def test_one_whose_metadata_cannot_be_read(
    environment: Environment, wheel: MakeWheel, good: Path, undisturbed: Callable
):
    environment.install(good, wheel("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": ""}, version="0.9"))
    metadata = environment.site_packages / "runner_bad-0.9.dist-info"
    (metadata / "entry_points.txt").write_text("[riverrun.task_runners]\nno equals sign here\n")
    undisturbed(environment)
    (row,) = environment.listed("?")
    assert row.distribution == "runner-bad"
    assert row.problem.startswith(f"its metadata in {metadata} cannot be read (")
    assert environment.run("runners", "--check").returncode == 1
    assert environment.hello("bad").returncode == 2  # whose it is, and what it is called, nobody can say
