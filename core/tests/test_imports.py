from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from concurrent.futures import CancelledError as FutureCancelledError
from importlib.metadata import PackageNotFoundError, version

import pytest
import riverrun
from riverrun import exceptions


def loaded_by(code: str) -> set[str]:
    """Give the modules that a new interpreter has loaded after running some code."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {
    "anyio",
    "asyncio",
    "click",
    "cloudpickle",
    "concurrent.futures.thread",
    "coolname",
    "dask",
    "importlib.metadata",
    "importlib_metadata",
    "inspect",
    "logging",
    "logging.handlers",
    "multiprocessing",
    "pathlib",
    "pluggy",
    "pydantic",
    "ray",
    "runner_concurrent",
    "runner_dask",
    "runner_ray",
    "runner_sequential",
    "sniffio",
    "socket",
    "ssl",
    "trio",
    "unittest",
}


def test_import_riverrun_loads_next_to_nothing():
    already = loaded_by("pass")
    assert (loaded_by("import riverrun") - already) & HEAVY == set()


def test_flow_and_task_load_no_plugin_and_nothing_of_pydantic_or_anyio():
    already = loaded_by("import inspect, logging")  # from Python 3.15 on, also pathlib
    loaded = loaded_by("from riverrun import flow, task, TaskFuture, State, wait, get_run_logger")
    assert (loaded - already) & HEAVY == set()


def test_a_flow_on_the_sequential_runner_loads_no_other_runner_and_no_event_loop():
    loaded = loaded_by(
        "from riverrun import flow, task\n"
        "@task\ndef one(x: int) -> int:\n    return 1\n"
        "@flow(task_runner='sequential')\ndef my_flow(n: int = 1) -> int:\n    return one(n)\n"
        "assert my_flow() == 1",
    )
    assert "runner_sequential" in loaded
    others = {"runner_concurrent", "anyio", "asyncio", "importlib_metadata", "pluggy", "pydantic", "trio"}
    assert loaded & others == set()


def test_nothing_is_written_to_the_home_directory(tmp_path):
    code = (
        "from riverrun import flow, task\n"
        "@task\ndef one():\n    return 1\n"
        "@flow\ndef my_flow():\n    return one()\n"
        "my_flow()"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "USERPROFILE": str(home), "PATH": os.defpath}
    if "SYSTEMROOT" in os.environ:  # without it, no Python starts on Windows
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=60, cwd=tmp_path)
    assert [path.name for path in home.iterdir()] == []


def test_every_public_name_resolves():
    for name in riverrun.__all__:
        assert getattr(riverrun, name) is not None
        assert name in dir(riverrun)


def test_public_names_are_these():
    documented = {
        "flow", "task", "wait", "as_completed", "gather", "unmapped", "allow_failure", "quote", "exponential_backoff",
        "get_run_logger", "Flow", "Task", "TaskFuture", "TaskFutureList", "State", "TaskRunner", "hookimpl", "states",
        "exceptions", "abc", "task_runners",
    }  # fmt: skip
    assert documented <= set(riverrun.__all__)
    assert "testing" not in riverrun.__all__  # a star import must work where pytest is not installed
    assert riverrun.testing.TaskRunnerConformance


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError) as caught:
        riverrun.flwo  # noqa: B018
    assert str(caught.value).startswith("module 'riverrun' has no attribute 'flwo'")


def test_the_version_is_that_of_the_distribution():
    try:
        expected = version("core")
    except PackageNotFoundError:
        pytest.skip("riverrun is not installed, only on the path")
    assert riverrun.__version__ == expected
    assert "importlib_metadata" not in loaded_by("import riverrun")


EXCEPTIONS = {
    name: kind
    for name, kind in vars(exceptions).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException) and not name.startswith("_")
}


def test_every_exception_is_in_riverrun_and_in_its_module():
    for name, kind in EXCEPTIONS.items():
        assert getattr(riverrun, name) is kind
        assert name in riverrun.__all__
        assert issubclass(kind, riverrun.RiverrunError)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_can_be_pickled(name):
    again = pickle.loads(pickle.dumps(EXCEPTIONS[name]("what happened")))  # noqa: S301 - made in the line itself
    assert (type(again), str(again)) == (EXCEPTIONS[name], "what happened")


def test_exceptions_are_also_the_ones_that_people_catch():
    assert issubclass(riverrun.CancelledError, FutureCancelledError)
    assert issubclass(riverrun.ParameterTypeError, TypeError)
    assert issubclass(riverrun.ResultTimeout, TimeoutError)
    assert issubclass(riverrun.RunTimeout, TimeoutError)
    assert issubclass(riverrun.MappingLengthMismatch, ValueError)
    assert issubclass(riverrun.MappingMissingIterable, ValueError)
    assert issubclass(riverrun.ReservedArgumentError, ValueError)
    assert issubclass(riverrun.MissingContextError, RuntimeError)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_in_the_tree_that_heads_the_module(name):
    assert f" {name}" in (exceptions.__doc__ or "") or name == "RiverrunError"
