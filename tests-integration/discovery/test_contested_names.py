"""Two distributions that offer one name, and one that offers a name of ours; and settings that exclude plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Environment, MakeWheel, StartUp


@pytest.fixture
def rivals(environment: Environment, wheel: MakeWheel, runner_source: Callable[..., str]) -> Environment:
    """Give an environment in which two distributions offer `twin`."""
    environment.install(
        wheel("first-twin", {"twin": "first_twin:First"}, {"first_twin": runner_source("First")}),
        wheel("second-twin", {"twin": "second_twin:Second"}, {"second_twin": runner_source("Second")}, version="2.0"),
    )
    return environment


def test_two_distributions_with_one_name(rivals: Environment, clean_start_up: StartUp):
    done = rivals.hello("twin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: 2 distributions offer a task runner `twin`: first-twin 1.0 and second-twin 2.0. "
        'Choose one: task_runner="first-twin:twin" or task_runner="second-twin:twin".\n'
    )
    for chosen, class_name in [("first-twin:twin", "First"), ("second-twin:twin", "Second")]:
        rivals.runs_on(chosen)
        log = rivals.run("run", "hello.py", "--runner", chosen).stderr
        assert f"Starting task runner `{class_name}`..." in log
    first, second = rivals.listed("twin")
    assert first.problem == "second-twin 2.0 offers this name too: write `first-twin:twin`"
    assert second.problem == "first-twin 1.0 offers this name too: write `second-twin:twin`"
    assert rivals.run("runners", "--check").returncode == 1
    rivals.runs_on("sequential")
    assert rivals.start_up() == clean_start_up


def test_the_allow_list_decides_between_two_distributions_with_one_name(rivals: Environment):
    rivals.runs_on("twin", RIVERRUN_PLUGINS="second-twin")
    first, second = rivals.listed("twin", RIVERRUN_PLUGINS="second-twin")
    assert first.problem == "not among the plugins that RIVERRUN_PLUGINS allows"
    assert (second.concurrency, second.problem) == ("concurrent", "")
    assert rivals.run("runners", "--check", RIVERRUN_PLUGINS="second-twin").returncode == 0
    excluded = rivals.hello("first-twin:twin", RIVERRUN_PLUGINS="second-twin")
    assert excluded.returncode == 2
    assert excluded.stderr == (
        "Error: The task runner `twin` of first-twin 1.0 is not among the plugins that RIVERRUN_PLUGINS allows. "
        "To allow it, add `first-twin` to RIVERRUN_PLUGINS.\n"
    )
    rivals.runs_on("first-twin:twin", RIVERRUN_PLUGINS="second-twin,first-twin")  # as the text says


def test_an_allow_list_in_the_file_is_obeyed_as_well(rivals: Environment):
    (rivals.work / "pyproject.toml").write_text('[tool.riverrun]\nplugins = ["first-twin:twin"]\n')
    rivals.runs_on("twin")
    first, second = rivals.listed("twin")
    assert first.problem == ""
    assert second.problem == (f"not among the plugins that [tool.riverrun] of {rivals.work / 'pyproject.toml'} allows")


def test_plugins_that_are_switched_off_are_not_imported(rivals: Environment, wheel: MakeWheel):
    mark = rivals.work / "imported"
    source = f"open({str(mark)!r}, 'w').close()\nraise OSError('no such queue')\n"
    rivals.install(wheel("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": source}))
    done = rivals.hello("bad", RIVERRUN_DISABLE_PLUGINS="1")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: The task runner `bad` of runner-bad 1.0 is switched off by RIVERRUN_DISABLE_PLUGINS. "
        "To switch plugins on, unset RIVERRUN_DISABLE_PLUGINS.\n"
    )
    for name in ("bad", "twin"):
        for row in rivals.listed(name, RIVERRUN_DISABLE_PLUGINS="1"):
            assert (row.concurrency, row.problem) == ("", "switched off by RIVERRUN_DISABLE_PLUGINS")
    assert rivals.run("runners", "--check", RIVERRUN_DISABLE_PLUGINS="1").returncode == 0
    for ours in ("sequential", "concurrent"):
        rivals.runs_on(ours, RIVERRUN_DISABLE_PLUGINS="1")
    assert not mark.exists()
    assert rivals.run("runners", "--check").returncode == 1
    assert mark.exists()


def test_one_that_tries_to_take_the_name_of_dask(
    environment: Environment, wheel: MakeWheel, good: object, runner_source: Callable[..., str], clean_start_up: StartUp
):
    mark = environment.work / "imported"
    source = f"open({str(mark)!r}, 'w').close()\n"
    environment.install(good, wheel("evil", {"dask": "evil_plugin:Evil"}, {"evil_plugin": source}))
    told = (
        "The distribution evil 1.0 offers a task runner `dask`: "
        "that name belongs to runner-dask, so this one is not used."
    )
    ran = environment.run("run", "hello.py", "--runner", "dask", "-o", "cluster_kwargs.n_workers=1")
    assert (ran.returncode, ran.stdout) == (0, "Hello, you!\n")
    assert "Starting task runner `DaskTaskRunner`..." in ran.stderr
    assert environment.start_up() == clean_start_up
    ours, evil = environment.listed("dask")
    assert (ours.distribution, ours.concurrency, ours.problem) == ("runner-dask", "parallel", "")
    assert (evil.distribution, evil.concurrency, evil.problem) == ("evil", "", told)
    assert environment.run("runners", "--check").returncode == 1
    chosen = environment.hello("evil:dask")
    assert chosen.returncode == 2
    assert chosen.stderr == (
        'Error: The name `dask` belongs to runner-dask; `evil:dask` is not used. Write task_runner="dask".\n'
    )
    # Who asks for another plugin, so that the metadata are read, is warned, once; that one runs.
    warned = environment.execute("-m", "riverrun", "--log-level", "WARNING", "run", "hello.py", "--runner", "good")
    assert (warned.returncode, warned.stdout) == (0, "Hello, you!\n")
    assert warned.stderr.count(told) == 1
    assert not mark.exists()
