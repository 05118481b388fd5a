"""`riverrun run --observer NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Command, Write

FLOW = """
    from riverrun import flow

    @flow(task_runner="sequential", name="hello")
    def hello():
        print("Hello!")
"""
PLUGIN = """
    from riverrun import hookimpl

    class Shouts:
        @hookimpl
        def riverrun_flow_run_finished(self, event):
            print("THE END OF", event.flow_name)
"""
GROUP = "riverrun.observers"


@pytest.fixture
def shouts(install):
    install("observer-shouts", {"shouts": "shouts_plugin:Shouts"}, {"shouts_plugin": PLUGIN}, group=GROUP)


def test_an_observer_is_named_on_the_command_line(command: Command, write: Write, shouts):
    write("flows.py", FLOW)
    ended = command("run", "flows.py", "--observer", "shouts", "--observer", "otel")
    assert (ended.status, ended.out) == (0, "Hello!\nTHE END OF hello\n")
    assert command("run", "flows.py").out == "Hello!\n"


def test_what_is_named_there_stands_in_place_of_what_the_settings_name(
    command: Command, write: Write, shouts, monkeypatch: pytest.MonkeyPatch
):
    write("flows.py", FLOW)
    monkeypatch.setenv("RIVERRUN_OBSERVERS", "shouts")
    assert command("run", "flows.py").out == "Hello!\nTHE END OF hello\n"
    assert command("run", "flows.py", "--observer", "otel").out == "Hello!\n"


def test_an_unknown_observer_is_refused_before_anything_runs(command: Command, write: Write):
    write("flows.py", FLOW)
    ended = command("run", "flows.py", "--observer", "progess")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "Error: No observer is named `progess`; did you mean `progress`? Installed: otel, progress. "
        "(The name comes from the command line.)\n"
    )


def test_a_broken_observer_is_told_with_its_traceback_before_anything_runs(command: Command, write: Write, install):
    install("observer-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise OSError('no licence')"}, group=GROUP)
    write("flows.py", FLOW)
    ended = command("run", "flows.py", "--observer", "bad")
    assert (ended.status, ended.out) == (1, "")
    assert "Error: The observer `bad` of observer-bad 1.0 cannot be loaded: OSError: no licence" in ended.err
    assert "Traceback (most recent call last):" in ended.err


def test_an_extra_that_is_missing_is_told_with_what_to_type(
    command: Command, write: Write, install, monkeypatch: pytest.MonkeyPatch
):
    install("observer-x", {"x": "x_plugin [fast]"}, {"x_plugin": "import a_library_that_nobody_has"}, group=GROUP)
    write("flows.py", FLOW)
    ended = command("run", "flows.py", "--observer", "x")
    assert (ended.status, ended.out) == (2, "")
    assert "To install it: pip install 'observer-x[fast]'" in ended.err
