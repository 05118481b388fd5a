"""Observers are found by name, through the entry points, and a broken one is told with what is needed to mend it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from riverrun import _observer_loading, _plugins, flow, hookimpl, observers
from riverrun._settings import override
from riverrun.exceptions import (
    ObserverConflict,
    ObserverLoadError,
    ObserverNotFound,
    ObserverNotInstalled,
    RiverrunError,
    TaskRunnerLoadError,
)

pytestmark = pytest.mark.usefixtures("bare_settings")

GROUP = "riverrun.observers"
SOURCE = """
    from riverrun import hookimpl

    class Observer:
        @hookimpl
        def riverrun_flow_run_started(self, event):
            pass
"""


def message_of(name: str, error: type[RiverrunError]) -> str:
    with pytest.raises(error) as caught:
        _observer_loading.by_name(name)
    assert type(caught.value) is error
    return str(caught.value)


def test_an_observer_is_found_by_its_name_or_with_its_distribution(install):
    install("observer-slack", {"slack": "slack_plugin:Observer"}, {"slack_plugin": SOURCE}, group=GROUP)
    for name in ("slack", "observer-slack:slack", "Observer_Slack:slack"):
        observer = _observer_loading.by_name(name)
        assert observer.name == "slack"
        assert observer.label == "Observer `slack` of observer-slack 1.0"
        assert list(observer.hooks) == ["riverrun_flow_run_started"]


def test_a_module_may_be_an_observer(install):
    source = """
        from riverrun import hookimpl

        @hookimpl
        def riverrun_log_record(event):
            pass
    """
    install("observer-logs", {"logs": "logs_plugin"}, {"logs_plugin": source}, group=GROUP)
    assert list(_observer_loading.by_name("logs").hooks) == ["riverrun_log_record"]


def test_loading_one_imports_no_other(install):
    install("observer-a", {"a": "a_plugin:Observer"}, {"a_plugin": SOURCE}, group=GROUP)
    install("observer-b", {"b": "b_plugin:Observer"}, {"b_plugin": SOURCE}, group=GROUP)
    _observer_loading.by_name("a")
    assert "a_plugin" in sys.modules
    assert "b_plugin" not in sys.modules


def test_an_observer_is_no_task_runner_and_the_other_way_round(install):
    install("observer-a", {"only-here": "a_plugin:Observer"}, {"a_plugin": SOURCE}, group=GROUP)
    with pytest.raises(RiverrunError, match="No task runner is named `only-here`"):
        _plugins.get("only-here")
    assert "No observer is named `dask`" in message_of("dask", ObserverNotFound)


def test_an_unknown_name_is_told_with_near_matches_and_what_is_installed(install):
    install("observer-slack", {"slack": "slack_plugin:Observer"}, {"slack_plugin": SOURCE}, group=GROUP)
    assert message_of("slak", ObserverNotFound) == (
        "No observer is named `slak`; did you mean `slack`? Installed: otel, progress, slack."
    )


def test_two_distributions_with_one_name_are_told_with_how_to_choose(install):
    install("observer-a", {"slack": "a_plugin:Observer"}, {"a_plugin": SOURCE}, group=GROUP)
    install("observer-b", {"slack": "b_plugin:Observer"}, {"b_plugin": SOURCE}, version="2.0", group=GROUP)
    assert message_of("slack", ObserverConflict) == (
        "2 distributions offer an observer `slack`: observer-a 1.0 and observer-b 2.0. "
        'Choose one: "observer-a:slack" or "observer-b:slack".'
    )
    assert _observer_loading.by_name("observer-b:slack").label == "Observer `slack` of observer-b 2.0"


def test_the_names_of_the_core_are_names_like_others(install):
    install("observer-a", {"progress": "a_plugin:Observer"}, {"a_plugin": SOURCE}, group=GROUP)
    assert message_of("progress", ObserverConflict).endswith('Choose one: "observer-a:progress" or "core:progress".')
    assert "of core " in _observer_loading.by_name("core:progress").label


def test_one_that_raises_on_import_is_told_with_its_distribution_version_and_traceback(install):
    source = "def broken():\n    raise OSError('no licence file')\nbroken()\n"
    install("observer-bad", {"bad": "bad_plugin:Observer"}, {"bad_plugin": source}, version="3.1", group=GROUP)
    text = message_of("bad", ObserverLoadError)
    assert text.startswith("The observer `bad` of observer-bad 3.1 cannot be loaded: OSError: no licence file\n\n")
    assert "Traceback (most recent call last):" in text
    assert "raise OSError('no licence file')" in text


def test_one_whose_class_raises_is_told_the_same_way(install):
    source = SOURCE + "\n        def __init__(self):\n            raise OSError('no token')\n"
    install("observer-bad", {"bad": "bad_plugin:Observer"}, {"bad_plugin": source}, group=GROUP)
    text = message_of("bad", ObserverLoadError)
    assert text.startswith("The observer `bad` of observer-bad 1.0 cannot be loaded: OSError: no token\n\nTraceback")


class Files:
    def __init__(self, path: str) -> None:
        self.path = path

    @hookimpl
    def riverrun_flow_run_started(self, event):
        pass


def test_a_registered_class_that_takes_arguments_is_told_with_what_to_register():
    @flow(task_runner="sequential")
    def hello():
        return "ran"

    with observers.register(Files), pytest.raises(ObserverLoadError) as caught:
        hello()
    assert str(caught.value) == (
        "The observer `Files` cannot be made: `Files()` raised TypeError: Files.__init__() missing 1 required "
        "positional argument: 'path'. Each flow run makes an object of the class, without arguments; to use one for "
        "all, register it: register(Files(...))."
    )
    with observers.register(Files("a.txt")):
        assert hello() == "ran"


@pytest.mark.parametrize(
    ("value", "source", "problem"),
    [
        ("gone_plugin:Observer", None, "names the module `gone_plugin`, which does not exist"),
        ("bad_plugin:Nothing", SOURCE, "names nothing: module 'bad_plugin' has no attribute 'Nothing'"),
        (
            "bad_plugin:x",
            "x = 5",
            "`bad_plugin:x` has no `@hookimpl` of a hook of observers: riverrun_flow_run_started",
        ),
        (
            "bad_plugin:Observer",
            SOURCE.replace("event", "happening"),
            "`bad_plugin:Observer` has a hook that does not fit: Plugin",
        ),
    ],
)
def test_an_entry_point_that_does_not_fit_is_told_with_what_is_wrong(install, value, source, problem):
    install("observer-bad", {"bad": value}, {} if source is None else {"bad_plugin": source}, group=GROUP)
    text = message_of("bad", ObserverLoadError)
    assert text.startswith("The observer `bad` of observer-bad 1.0 cannot be loaded: ")
    assert problem in text


def test_an_extra_that_is_not_installed_is_told_with_what_to_type(install):
    source = "import a_library_that_nobody_has"
    install("observer-x", {"x": "x_plugin:Observer [fast]"}, {"x_plugin": source}, group=GROUP)
    assert message_of("x", ObserverNotInstalled) == (
        "The observer `x` of observer-x 1.0 needs the module `a_library_that_nobody_has`, which is not installed. "
        "To install it: pip install 'observer-x[fast]'"
    )


@pytest.mark.parametrize(("name", "library"), [("progress", "rich"), ("otel", "opentelemetry")])
def test_an_extra_of_the_core_that_is_not_installed_is_told_with_what_to_type(name, library, tmp_path):
    code = (
        "import sys\n"
        f"sys.modules[{library!r}] = None\n"
        "from riverrun import flow\n"
        "@flow(task_runner='sequential')\ndef hello():\n    print('ran')\n"
        "hello()\n"
    )
    environment = {**os.environ, "RIVERRUN_OBSERVERS": name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert f"pip install 'core[{name}]'" in last
    assert "riverrun.exceptions.ObserverNotInstalled" in last


def test_other_peoples_observers_may_be_switched_off_and_those_of_the_core_stay(install):
    install("observer-slack", {"slack": "slack_plugin:Observer"}, {"slack_plugin": SOURCE}, group=GROUP)
    with override(disable_plugins=True):
        assert message_of("slack", ObserverNotFound) == (
            "The observer `slack` of observer-slack 1.0 is switched off by the command line. To switch plugins on, set "
            "`disable_plugins` to false in the command line."
        )
        assert _observer_loading.by_name("progress").name == "progress"
    with override(plugins=["others"]):
        assert "not among the plugins that the command line allows" in message_of("slack", ObserverNotFound)
    with override(plugins=["observer-slack"]):
        assert _observer_loading.by_name("slack").name == "slack"


def test_a_plugin_with_hooks_of_observers_alone_is_no_task_runner(install):
    source = "from riverrun import hookimpl\n\n@hookimpl\ndef riverrun_flow_run_started(event):\n    pass\n"
    install("runner-odd", {"odd": "odd_plugin"}, {"odd_plugin": source})
    with pytest.raises(TaskRunnerLoadError) as caught:
        _plugins.get("odd")
    assert "is neither a subclass of `riverrun.abc.TaskRunner` nor a plugin" in str(caught.value)


def test_no_observer_costs_no_import():
    code = (
        "import sys\n"
        "from riverrun import flow\n"
        "@flow(task_runner='sequential')\ndef hello():\n    return None\n"
        "hello()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "riverrun._observing" in loaded
    costly = {"rich", "opentelemetry", "pluggy", "dataclasses", "riverrun._events", "riverrun.observers"}
    code = "import logging, sys; print(*sys.modules)"  # from Python 3.14 on, also dataclasses
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded & (costly - set(done.stdout.split())) == set()
