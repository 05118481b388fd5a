from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command, Write

ONE = """
    from riverrun import flow

    @flow(task_runner="sequential")
    def say_hello(name: str = "world"):
        print(f"Hello, {name}!")
"""
TWO = """
    from riverrun import flow, task

    @task
    def double(x):
        return 2 * x

    def plain():
        pass

    @flow(task_runner="sequential")
    def census():
        print("census")

    @flow(task_runner="sequential")
    def other_flow():
        print("other")
"""


def test_a_flow_of_a_file_runs_and_the_status_is_zero(command: Command, write: Write):
    write("hello.py", ONE)
    ended = command("run", "hello.py:say_hello")
    assert (ended.status, ended.out) == (0, "Hello, world!\n")


def test_the_only_flow_of_a_file_need_not_be_named(command: Command, write: Write):
    write("hello.py", ONE)
    assert command("run", "hello.py").out == "Hello, world!\n"


def test_a_file_with_several_flows_lists_them(command: Command, write: Write):
    write("two.py", TWO)
    ended = command("run", "two.py")
    assert ended.status == 2
    assert ended.err == "Error: `two.py` has 2 flows: `census`, `other_flow`. Name one: riverrun run two.py:census\n"


def test_an_imported_flow_does_not_count_beside_those_of_the_file_and_counts_alone(command: Command, write: Write):
    write("hello.py", ONE)
    write("both.py", TWO + "\n    from hello import say_hello\n    del other_flow\n")
    write("borrowed.py", "from hello import say_hello\n")
    assert command("run", "both.py").out == "census\n"
    assert command("run", "borrowed.py").out == "Hello, world!\n"


def test_a_flow_is_found_by_the_name_in_the_logs_too(command: Command, write: Write):
    write("two.py", TWO)
    assert command("run", "two.py:other-flow").out == "other\n"


def test_a_flow_of_a_module_runs(command: Command, write: Write):
    write("my_flows/__init__.py", "")
    write("my_flows/greetings.py", ONE)
    assert command("run", "my_flows.greetings:say_hello").out == "Hello, world!\n"


def test_the_folder_of_a_file_is_where_its_imports_are_found(command: Command, write: Write):
    write("flows/neighbour.py", "WHO = 'neighbour'\n")
    write("flows/caller.py", f"{ONE}\n    import neighbour\n    say_hello.fn.__defaults__ = (neighbour.WHO,)\n")
    assert command("run", "flows/caller.py").out == "Hello, neighbour!\n"
    assert sys.path[0] == os.path.abspath("flows")  # noqa: PTH100


def test_a_file_that_is_named_like_a_module_of_python_hides_it_from_nobody(command: Command, write: Write):
    write("json.py", ONE)
    assert command("run", "json.py").status == 0
    assert sys.modules["json"] is json


def test_a_file_whose_name_is_no_identifier_runs(command: Command, write: Write):
    write("2024-census.py", ONE)
    assert command("run", "2024-census.py").out == "Hello, world!\n"


def test_what_is_meant_for_python_itself_is_not_run(command: Command, write: Write):
    write("hello.py", f"{ONE}\n    if __name__ == '__main__':\n        raise AssertionError\n")
    assert command("run", "hello.py").status == 0


def test_nothing_is_written_beside_the_file(command: Command, write: Write, bare_settings: Path):
    write("hello.py", ONE)
    command("run", "hello.py")
    assert [path.name for path in bare_settings.iterdir()] == ["hello.py"]


def test_a_missing_file_is_told_with_a_near_match(command: Command, write: Write):
    write("census.py", ONE)
    assert command("run", "cenus.py:f") == (2, "", "Error: There is no file `cenus.py`; did you mean `census.py`?\n")
    assert command("run", "nowhere/x.py") == (2, "", "Error: There is no file `nowhere/x.py`.\n")


def test_a_folder_is_told(command: Command, write: Write):
    write("flows/census.py", ONE)
    assert command("run", "flows/") == (
        2,
        "",
        "Error: `flows/` is a folder. Name a file in it: riverrun run flows/FILE.py:FLOW\n",
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(command: Command, write: Write):
    write("secret.py", ONE).chmod(0)
    assert command("run", "secret.py") == (2, "", "Error: `secret.py` cannot be read: Permission denied.\n")


def test_a_missing_module_is_told_with_the_file_that_may_be_meant(command: Command, write: Write):
    assert command("run", "no_such_flows:f") == (
        2,
        "",
        "Error: There is no module `no_such_flows`. A file is typed with its ending: riverrun run FILE.py:FLOW\n",
    )
    write("deep/census.py", ONE)
    write("deep/__init__.py", "raise ModuleNotFoundError(name='deep.census')\n")
    ended = command("run", "deep.census:f")
    assert ended.err == "Error: There is no module `deep.census`; did you mean the file `deep/census.py`?\n"


def test_what_is_neither_a_file_nor_a_module_is_told(command: Command):
    assert command("run", "my-flows") == (
        2,
        "",
        "Error: `my-flows` is neither a file nor the name of a module. Type: riverrun run FILE.py:FLOW\n",
    )


def test_an_unknown_flow_is_told_with_the_near_match_and_those_there_are(command: Command, write: Write):
    write("two.py", TWO)
    assert command("run", "two.py:cenus") == (
        2,
        "",
        "Error: `two.py` has no flow `cenus`; did you mean `census`? Its flows: `census`, `other_flow`.\n",
    )


@pytest.mark.parametrize(("name", "kind"), [("double", "task"), ("plain", "function"), ("task", "function")])
def test_what_is_no_flow_is_told_with_what_it_is(command: Command, write: Write, name: str, kind: str):
    write("two.py", TWO)
    assert command("run", f"two.py:{name}") == (
        2,
        "",
        f"Error: `{name}` of `two.py` is no flow, it is a {kind}. Its flows: `census`, `other_flow`.\n",
    )


def test_a_file_without_a_flow_is_told(command: Command, write: Write):
    write("none.py", "x = 1\n")
    ended = command("run", "none.py")
    assert ended == (2, "", "Error: `none.py` has no flow: write `@flow` above a function in it.\n")
    ended = command("run", "none.py:census")
    assert ended.err == (
        "Error: `none.py` has no flow `census`. It has no flow: write `@flow` above a function in it.\n"
    )


def test_a_file_that_fails_to_import_shows_the_users_part_of_the_traceback(command: Command, write: Write):
    file = write("broken.py", "import no_such_library\n")
    ended = command("run", "broken.py:f")
    assert ended.status == 1
    assert ended.err == (
        "Traceback (most recent call last):\n"
        f'  File "{file}", line 1, in <module>\n    import no_such_library\n'
        "ModuleNotFoundError: No module named 'no_such_library'\n"
        "Error: `broken.py` cannot be imported: ModuleNotFoundError: No module named 'no_such_library'\n"
    )
    assert "broken" not in sys.modules


def test_a_module_that_fails_to_import_is_told_as_a_file_is(command: Command, write: Write):
    write("my_flows/__init__.py", "")
    write("my_flows/broken.py", "1 / 0\n")
    ended = command("run", "my_flows.broken:f")
    assert ended.status == 1
    assert "importlib" not in ended.err
    assert ended.err.endswith("Error: `my_flows.broken` cannot be imported: ZeroDivisionError: division by zero\n")


def test_a_syntax_error_is_shown_with_its_place(command: Command, write: Write):
    write("broken.py", "def f(:\n    pass\n")
    ended = command("run", "broken.py")
    assert ended.status == 1
    assert "line 1\n    def f(:\n" in ended.err
    assert "\nError: `broken.py` cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)\n" in ended.err


def test_a_file_that_exits_when_it_is_imported_is_told_what_to_do(command: Command, write: Write):
    write("script.py", "import sys\nsys.exit(0)\n")
    ended = command("run", "script.py")
    assert ended.status == 1
    assert ended.err.endswith(
        "Error: `script.py` cannot be imported: it calls `sys.exit()` as it is imported. "
        'Put what is meant for `python FILE.py` below `if __name__ == "__main__":`.\n'
    )


def test_a_relative_import_in_a_file_names_the_line_that_works(command: Command, write: Write):
    write("pkg/__init__.py", "")
    write("pkg/flows.py", "from . import other\n")
    ended = command("run", "pkg/flows.py:census")
    assert ended.status == 1
    assert ended.err.endswith(
        "Error: `flows.py` cannot be imported: ImportError: attempted relative import with no known parent package. "
        "Run it as a module of its package, from the folder above: riverrun run pkg.flows:FLOW\n"
    )


def test_what_a_file_defines_travels_with_its_code(command: Command, write: Write, bare_settings: Path):
    write(
        "travels.py",
        """
        import pathlib, cloudpickle
        from riverrun import flow, task
        from riverrun._by_value import tell_cloudpickle

        FACTOR = 3

        class Pair:
            def __init__(self, x):
                self.x = x

        def helper(pair):
            return FACTOR * pair.x

        @task
        def triple(pair):
            return helper(pair)

        @flow(task_runner="sequential")
        def packs():
            tell_cloudpickle()
            pathlib.Path("packed").write_bytes(cloudpickle.dumps((triple, Pair(2))))
        """,
    )
    assert command("run", "travels.py").status == 0
    (bare_settings / "travels.py").unlink()
    code = "import cloudpickle; task, pair = cloudpickle.load(open('packed', 'rb')); print(task.fn(pair))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (loaded.stdout, loaded.stderr) == ("6\n", "")
