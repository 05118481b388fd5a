from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Command, Install, Write

    Show = Callable[[str], str]

SHOW = """
    from datetime import date
    from pathlib import Path
    from typing import Any
    from riverrun import flow

    @flow(task_runner="sequential")
    def show({parameters}):
        print(*map(repr, [{names}]))
"""
RUNNER = """
    from typing import Any
    from riverrun.abc import Concurrency, TaskRunner
    from runner_sequential import SequentialTaskRunner

    class ShowTaskRunner(TaskRunner):
        concurrency = Concurrency.SEQUENTIAL
        size: int = 1
        queue: str | None = None
        cluster: dict[str, Any] = {"keep": True, "inner": {"a": 1}}

        def start(self):
            print(self)
            return SequentialTaskRunner().start()
"""


@pytest.fixture
def show(write: Write):
    def show(parameters: str) -> str:
        names = ", ".join(re.findall(r"(?:^|; )\**(\w+)", parameters))
        write("show.py", SHOW.format(parameters=parameters.replace("; ", ", "), names=names))
        return "show.py"

    return show


@pytest.fixture
def runner(install: Install, write: Write) -> str:
    install("runner-show", {"show": "show_plugin:ShowTaskRunner"}, {"show_plugin": RUNNER})
    write("plain.py", "from riverrun import flow\n\n@flow\ndef plain():\n    pass\n")
    write("decorated.py", "from riverrun import flow\n\n@flow(task_runner='show')\ndef decorated():\n    pass\n")
    return "show"


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("int", "5", "5"),
        ("float", "5", "5.0"),
        ("bool", "yes", "True"),
        ("bool", "true", "True"),
        ("list[int]", "[1, 2]", "[1, 2]"),
        ("dict[str, int]", '{"a": 1}', "{'a': 1}"),
        ("str", "1.10", "'1.10'"),
        ("str", "null", "'null'"),
        ("str", "a=b", "'a=b'"),
        ("str | None", "null", "None"),
        ("str | None", "007", "'007'"),
        ("str | None", "7", "'7'"),
        ("int | str", "7", "7"),
        ("int | str", "x", "'x'"),
        ("date", "2024-05-01", "datetime.date(2024, 5, 1)"),
        ("Path", "2024", "PosixPath('2024')"),
        ("Any", "[1, null]", "[1, None]"),
        ("Any", "text", "'text'"),
    ],
)
def test_a_value_is_json_if_it_fits_and_text_otherwise(
    command: Command, show: Show, annotation: str, text: str, value: str
):
    ended = command("run", show(f"x: {annotation}"), "-p", f"x={text}")
    assert (ended.status, ended.out) == (0, f"{value}\n"), ended.err


def test_without_annotations_a_value_is_json_or_text(command: Command, show: Show):
    ended = command("run", show("x; y; z=5"), "--param", "x=1", "-p", "y=one")
    assert ended.out == "1 'one' 5\n"


def test_parameters_by_position_or_by_name_only_are_given_like_others(command: Command, show: Show):
    assert command("run", show("x; /; *; y"), "-p", "y=2", "-p", "x=1").out == "1 2\n"


def test_keywords_of_any_name_are_passed_on(command: Command, show: Show):
    assert command("run", show("x; **rest"), "-p", "y=2", "-p", "x=1").out == "1 {'y': 2}\n"


def test_an_unknown_parameter_is_told_before_anything_runs(command: Command, show: Show):
    assert command("run", show("limit: int = 1"), "-p", "limt=2") == (
        2,
        "",
        (
            "Error: Flow 'show' was called with arguments that do not fit: 'limt' is not a parameter of it "
            "(did you mean 'limit'?). Its parameters: limit.\nParameters are given as: -p NAME=VALUE\n"
        ),
    )


def test_a_missing_parameter_is_told_before_anything_runs(command: Command, show: Show):
    assert command("run", show("limit: int; name: str")) == (
        2,
        "",
        (
            "Error: Flow 'show' was called with arguments that do not fit: 'limit' is missing; 'name' is missing. "
            "Its parameters: limit, name.\nParameters are given as: -p NAME=VALUE\n"
        ),
    )


def test_all_values_that_do_not_fit_are_told_and_none_is_shown(command: Command, show: Show):
    ended = command("run", show("a: int; b: list[int]; c: str"), "-p", "a=hunter2", "-p", "b=[1]", "-p", "c=3")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "Error: Flow 'show' was called with parameters that do not fit:\n"
        "  a: Input should be a valid integer, unable to parse string as an integer (got str)\n"
        "Parameters are given as: -p NAME=VALUE\n"
    )


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (["-p", "limit"], "`-p limit` gives no value to a parameter. Type: -p limit=VALUE"),
        (["-p", "=5"], "`-p =5` gives no value to a parameter. Type: -p PARAMETER=VALUE"),
        (["-o", "size"], "`-o size` gives no value to a key. Type: -o size=VALUE"),
        (["-p", "a=1", "-p", "a=2"], "The parameter `a` is given twice: type `-p a=VALUE` once."),
        (["-o", "a=1", "-o", "a=2"], "The key `a` is given twice: type `-o a=VALUE` once."),
    ],
)
def test_what_is_no_pair_is_told_with_what_to_type(command: Command, show: Show, typed: list[str], text: str):
    ended = command("run", show("a=1; limit=2"), *typed)
    assert ended == (2, "", f"Error: {text}\n")


def test_the_runner_on_the_command_line_beats_decorator_environment_and_file(
    command: Command, write: Write, runner: str, monkeypatch: pytest.MonkeyPatch
):
    write("flows.py", "from riverrun import flow\n\n@flow(task_runner='concurrent')\ndef f():\n    pass\n")
    write("pyproject.toml", "[tool.riverrun]\ntask_runner = 'concurrent'\n")
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "sequential")
    assert command("run", "flows.py", "--runner", "show").out == "ShowTaskRunner()\n"


def test_a_subflow_that_names_no_runner_follows_the_command_line(
    command: Command, write: Write, runner: str, monkeypatch: pytest.MonkeyPatch
):
    write(
        "flows.py",
        """
        from riverrun import flow

        @flow
        def inner():
            pass

        @flow(task_runner="sequential")
        def own():
            pass

        @flow
        def outer():
            inner()
            own()
        """,
    )
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "sequential")
    assert command("run", "flows.py:outer", "--runner", "show").out == "ShowTaskRunner()\n" * 2


def test_options_go_to_the_named_runner(command: Command, runner: str):
    ended = command("run", "plain.py", "--runner", "show", "-o", "size=3", "-o", "queue=007")
    assert ended.out == "ShowTaskRunner(size=3, queue='007')\n"


def test_options_alone_go_to_the_runner_that_the_flow_would_use(
    command: Command, runner: str, monkeypatch: pytest.MonkeyPatch
):
    assert command("run", "decorated.py", "-o", "size=3").out == "ShowTaskRunner(size=3)\n"
    monkeypatch.setenv("RIVERRUN_TASK_RUNNER", "show")
    assert command("run", "plain.py", "-o", "size=4").out == "ShowTaskRunner(size=4)\n"


def test_a_dot_changes_one_key_and_leaves_the_others(command: Command, runner: str):
    ended = command("run", "decorated.py", "-o", "cluster.n_workers=4", "-o", "cluster.inner.b=two")
    cluster = {"keep": True, "inner": {"a": 1, "b": "two"}, "n_workers": 4}
    assert ended.out == f"ShowTaskRunner(cluster={cluster})\n"
    ended = command("run", "decorated.py", "-o", 'cluster={"x": 1}', "-o", "cluster.y=2")
    assert ended.out == "ShowTaskRunner(cluster={'x': 1, 'y': 2})\n"


def test_a_dot_behind_what_is_no_dict_is_told(command: Command, runner: str):
    assert command("run", "decorated.py", "-o", "size.x=4") == (
        2,
        "",
        "Error: `-o size.x=...` needs a dict as `size` of `ShowTaskRunner`; it is something else.\n",
    )


def test_an_unknown_option_is_told(command: Command, runner: str):
    text = "Error: `ShowTaskRunner` has no option `sise`; did you mean `size`? Its options: size, queue, cluster.\n"
    assert command("run", "decorated.py", "-o", "sise=4") == (2, "", text)
    assert command("run", "plain.py", "--runner", "show", "-o", "sise=4") == (2, "", text)
    assert command("run", "plain.py", "--runner", "show", "-o", "sise.x=4") == (2, "", text)


def test_an_option_of_the_wrong_type_is_told(command: Command, runner: str):
    assert command("run", "decorated.py", "-o", "size=big") == (
        2,
        "",
        "Error: `ShowTaskRunner` takes `int` as its option `size`, not 'big' (str).\n",
    )


def test_an_unknown_runner_is_told(command: Command, runner: str):
    ended = command("run", "plain.py", "--runner", "shwo")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("Error: No task runner is named `shwo`; did you mean `show`? Installed: ")


def test_a_plugin_that_is_broken_fails_with_its_traceback(command: Command, install: Install, runner: str):
    install("runner-bad", {"bad": "bad_plugin:X"}, {"bad_plugin": "1 / 0\n"})
    ended = command("run", "plain.py", "--runner", "bad")
    assert ended.status == 1
    assert ended.err.startswith("Error: The task runner `bad` of runner-bad 1.0 cannot be loaded: ZeroDivisionError")
    assert "Traceback (most recent call last):" in ended.err


def test_a_setting_that_cannot_be_used_is_told(command: Command, runner: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIVERRUN_LOG_LEVEL", "LOUD")
    ended = command("run", "plain.py")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("Error: RIVERRUN_LOG_LEVEL is 'LOUD'; it must be one of DEBUG, INFO, ")


def test_the_log_level_is_taken_before_and_behind_the_command(command: Command, runner: str):
    before = command("--log-level", "LOUD", "run", "plain.py")
    assert before == command("run", "--log-level", "LOUD", "plain.py")
    assert before == (
        2,
        "",
        "Error: `log_level` on the command line is 'LOUD'; it must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL.\n",
    )
