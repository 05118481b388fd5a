from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from riverrun import task_runners
from riverrun.exceptions import TaskRunnerConflict, TaskRunnerLoadError, TaskRunnerNotFound, TaskRunnerNotInstalled

if TYPE_CHECKING:
    from conftest import Install, RunnerSource

pytestmark = pytest.mark.usefixtures("bare_settings")


@pytest.fixture
def dask(install: Install, runner_source: RunnerSource):
    install("runner-dask", {}, {"runner_dask": runner_source("DaskTaskRunner", "address: str | None = None")})


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "runner_ray", None)


def test_get_makes_a_runner_by_name(dask: None):
    assert repr(task_runners.get("dask", address="tcp://a")) == "DaskTaskRunner(address='tcp://a')"


def test_a_class_of_ours_is_imported_when_it_is_first_asked_for(dask: None):
    assert "runner_dask" not in sys.modules
    from riverrun.task_runners import DaskTaskRunner

    assert DaskTaskRunner.__module__ == "runner_dask"
    assert task_runners.DaskTaskRunner is DaskTaskRunner


def test_a_class_of_ours_that_is_not_installed_names_the_line_that_installs_it(no_ray: None):
    with pytest.raises(TaskRunnerNotInstalled) as caught:
        from riverrun.task_runners import RayTaskRunner  # noqa: F401
    assert str(caught.value) == "The task runner `ray` is not installed. To install it: pip install 'core[ray]'"


def test_a_class_by_somebody_else_is_found_through_the_entry_points(install: Install, runner_source: RunnerSource):
    install("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": "raise RuntimeError\n"})
    install("runner-slurm", {"slurm": "slurm_plugin:Slurm"}, {"slurm_plugin": runner_source("Slurm")})
    assert task_runners.Slurm.__module__ == "slurm_plugin"
    assert "bad_plugin" not in sys.modules


def test_a_class_behind_a_hook_is_found_by_the_name_of_its_runner(install: Install, runner_source: RunnerSource):
    source = runner_source("MyMpiTaskRunner") + (
        "from riverrun.hookspecs import hookimpl\n\n"
        "@hookimpl\ndef riverrun_task_runner():\n    return MyMpiTaskRunner\n"
    )
    install("runner-mpi", {"my-mpi": "mpi_plugin"}, {"mpi_plugin": source})
    assert task_runners.MyMpiTaskRunner.__name__ == "MyMpiTaskRunner"
    with pytest.raises(AttributeError):
        _ = task_runners.Mympi


def test_a_class_that_two_distributions_offer_is_refused(install: Install, runner_source: RunnerSource):
    for name in ("one", "two"):
        install(f"runner-{name}", {name: f"{name}_plugin:Fast"}, {f"{name}_plugin": runner_source("Fast")})
    with pytest.raises(TaskRunnerConflict) as caught:
        _ = task_runners.Fast
    assert str(caught.value) == (
        "2 distributions offer a class `Fast`: runner-one 1.0 and runner-two 1.0. "
        'Choose one: task_runner="runner-one:one" or task_runner="runner-two:two".'
    )


def test_a_class_that_is_switched_off_is_refused(
    install: Install, runner_source: RunnerSource, monkeypatch: pytest.MonkeyPatch
):
    install("runner-slurm", {"slurm": "slurm_plugin:Slurm"}, {"slurm_plugin": runner_source("Slurm")})
    monkeypatch.setenv("RIVERRUN_DISABLE_PLUGINS", "1")
    with pytest.raises(TaskRunnerNotFound, match="is switched off by RIVERRUN_DISABLE_PLUGINS"):
        _ = task_runners.Slurm


def test_a_class_whose_plugin_is_broken_shows_why(install: Install):
    install("runner-bad", {"bad": "bad_plugin:Bad"}, {"bad_plugin": "raise RuntimeError('broken')\n"})
    with pytest.raises(TaskRunnerLoadError, match=r"of runner-bad 1\.0 cannot be loaded: RuntimeError: broken"):
        _ = task_runners.Bad


def test_an_unknown_class_is_no_attribute_and_the_near_match_is_told():
    with pytest.raises(AttributeError) as caught:
        _ = task_runners.DaskRunner
    assert str(caught.value) == (
        "module 'riverrun.task_runners' has no attribute 'DaskRunner'; did you mean `DaskTaskRunner`?"
    )
    with pytest.raises(ImportError, match=r"cannot import name 'DaskRunner' from 'riverrun\.task_runners'"):
        from riverrun.task_runners import DaskRunner  # noqa: F401


def test_names_that_python_looks_for_are_no_runners():
    assert not hasattr(task_runners, "__path__")
    with pytest.raises(AttributeError, match=r"^module 'riverrun.task_runners' has no attribute '_x'$"):
        _ = task_runners._x


def test_dir_has_the_classes_that_are_installed(dask: None, install: Install, no_ray: None):
    install("runner-slurm", {"slurm": "slurm_plugin:SlurmTaskRunner", "mpi": "mpi_plugin"})
    names = dir(task_runners)
    assert {"get", "DaskTaskRunner", "SlurmTaskRunner"} <= {*names}
    assert not {"RayTaskRunner", "mpi_plugin", ""} & {*names}
    assert "slurm_plugin" not in sys.modules


def test_the_singular_fails_with_the_right_name():
    text = r"^No module named 'riverrun\.task_runner'; did you mean 'riverrun\.task_runners'\?$"
    with pytest.raises(ModuleNotFoundError, match=text):
        import riverrun.task_runner  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=text):
        from riverrun.task_runner import DaskTaskRunner  # noqa: F401
