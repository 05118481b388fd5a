"""The examples print what their README says, on every task runner that is installed.

By default each runs once, as its README shows it, and the census on every runner, but only once of all of the standard
library. That on every runner, and the others as scripts, too, are for `stress`.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Protocol

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
RUNNERS = sorted({"sequential", "concurrent", *entry_points(group="riverrun.task_runners").names})
SHOWN = dict(re.findall(r"```console\n\$ riverrun (run .*)\n([^`]*)```", (EXAMPLES / "README.md").read_text("utf-8")))
LIMIT = 400
"""How long one command may take, in seconds: a limit against hangs."""
ONLY_3_11 = "dask_collections"  # what it counts is in this Python's own files

# What an example warns of: a worker that dies is worth it.
LOST = r"'square-\w+-13' was lost in attempt 1 and is run again \(loss 1 of 2\)"
WARNINGS = {
    "dask_losses": [f"Task run {LOST}", "was killed by SIGKILL"],
    "ray_losses": [rf"\A.*{LOST}: .* was killed, by a signal such as SIGKILL .*\n\Z"],  # one line, and no other
}


def rarely(values: list[str], where: Callable[[str], object]) -> list[object]:
    """Mark some of a test's parameters for `stress`."""
    return [pytest.param(value, marks=[pytest.mark.stress] if where(value) else []) for value in values]


# Two are run as scripts below, which print the same and more.
SAME_EACH_TIME = rarely(
    [command for command in SHOWN if "stdlib_census" not in command],
    lambda command: "dask_clusters" in command or "dask_subflow" in command,
)
SCRIPTS = rarely(
    [path.name for path in sorted(EXAMPLES.glob("*.py")) if "census" not in path.name],
    lambda name: name.startswith(("dask_", "ray_")),  # these start clusters
)

pytestmark = pytest.mark.timeout(2 * LIMIT + 60)

BRANCHY = '''\
"""A module."""
if True and not False:                           # the code outside of functions: 2
    pass

class Tower:
    def climb(self, floors):                     # 10 branches, 4 deep
        for floor in floors:                     # 1
            if floor < 0 or floor > 38:          # 2
                while True:                      # 1
                    with floor:
                        break
            elif floor == 13:                    # 1, no deeper than its `if`
                continue
            else:
                if not floor:                    # 1
                    return [f for f in floors if f if f > 1]  # 3
        def inner():                             # a function by itself
            return 1 if floors else 2
        match floors:
            case []:                             # 1
                return inner()

async def glide(): ...
'''


class Riverrun(Protocol):
    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


class Load(Protocol):
    def __call__(self, name: str) -> ModuleType: ...


def started(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RIVERRUN_", "PYTHONWARNINGS"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, env=clean | settings, capture_output=True, text=True, encoding="utf-8", timeout=LIMIT, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def riverrun() -> Riverrun:
    """Run the command `riverrun`."""
    (script,) = entry_points(group="console_scripts", name="riverrun") or [SimpleNamespace(value="riverrun._cli:main")]
    module, _, function = script.value.partition(":")
    return lambda *arguments: started("-c", f"from {module} import {function}; {function}()", *arguments)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import an example from its file."""

    def load(name: str) -> ModuleType:
        spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def report() -> str:
    """Take the census of the standard library, one file after the other, by running its file as a script."""
    script = started(str(EXAMPLES / "stdlib_census.py"), RIVERRUN_TASK_RUNNER="sequential", RIVERRUN_LOG_LEVEL="ERROR")
    assert script.returncode == 0, script.stderr
    assert not script.stderr
    return script.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a folder of modules, good and bad."""
    root = tmp_path / "tree"
    for folder in ("tower", "tower/deep", "tower/__pycache__", "site-packages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "notes.txt").write_text("no module")
    (root / "tower/__pycache__/cached.py").write_text("broken(")
    (root / "site-packages/other.py").write_text("broken(")
    (root / "tower/__init__.py").write_text("")
    (root / "tower/deep/branchy.py").write_text(BRANCHY)
    (root / "tower/unparsable.py").write_text("x = 1\ndef broken(:\n")
    (root / "loose.py").write_text("def größe(): return '\\d'", encoding="utf-8")
    (root / "encoding.py").write_bytes(b"# coding: uft-8\n")
    (root / "bytes.py").write_bytes(b"name = '\xf6'\n")
    (root / "null.py").write_bytes(b"x = '\0'\n")
    (root / "gone.py").symlink_to(root / "nowhere.py")
    return root


def test_the_readme_shows_every_example():
    shown = {Path(shlex.split(command)[1].partition(":")[0]).name for command in SHOWN}
    assert shown == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("command", SAME_EACH_TIME)
def test_an_example_prints_what_the_readme_shows(riverrun: Riverrun, command: str):
    done = riverrun(*shlex.split(command))
    assert done.returncode == 0, done.stderr
    warnings = next((found for name, found in WARNINGS.items() if name in command), [])
    assert bool(done.stderr) == bool(warnings), done.stderr
    assert [warning for warning in warnings if not re.search(warning, done.stderr)] == [], done.stderr
    # How long it took depends on who else is using this machine.
    printed = re.sub(r"less than \d+ seconds?", "less than 1 second", done.stdout)
    shown = SHOWN[command]
    if ONLY_3_11 in command and sys.version_info[:2] != (3, 11):
        shown, printed = (re.sub(r"^ *\d+ \w+$", "0 name", text, flags=re.MULTILINE) for text in (shown, printed))
    assert doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS), done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_as_a_script(script: str):
    done = started(str(EXAMPLES / script))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "finished in state Completed(message='All states completed.', type=COMPLETED)" in done.stderr


# -- the census


@pytest.mark.stress
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_census_of_the_standard_library_is_the_same_on_every_runner(riverrun: Riverrun, report: str, runner: str):
    done = riverrun(*["run", "examples/stdlib_census.py:census", "--log-level", "ERROR", "--runner"], runner)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == report


def test_the_census_looks_as_the_readme_shows_it(report: str):
    def headings(text: str) -> list[str]:
        lines = re.findall(r"^(?:Reading|The|branches|Totals|package) .*|.* could not be measured$", text, re.MULTILINE)
        return [re.sub(r"[\d,]+", "0", " ".join(line.split())) for line in lines]

    (shown,) = [text for command, text in SHOWN.items() if "stdlib_census" in command]
    assert len(headings(report)) == 6
    assert headings(shown) == headings(report)


def test_the_census_lists_a_hundred_functions_and_all_packages(report: str):
    _, functions, packages, skipped = re.split(r"The 100 most .*|Totals by package|\d+ of .* could not .*", report)
    ranks = [int(line.split()[0]) for line in functions.split("\n")[3:] if line]
    assert len(ranks) == 100
    assert ranks == sorted(ranks, reverse=True)
    numbers = re.findall(r"^(\S.*?)  +([\d,]+) +([\d,]+) ", packages, re.MULTILINE)
    files = {name: int(count.replace(",", "")) for name, count, _ in numbers}
    assert {"asyncio", "json", "(single modules)"} <= set(files)
    assert files.pop("all") == sum(files.values())
    assert report.isascii()
    assert all(re.match(r"\S+: \w+Error: ", line) for line in skipped.split("\n") if line)


@pytest.mark.parametrize("runner", rarely(RUNNERS, lambda runner: runner == "ray"))  # dask is one in other processes
def test_what_cannot_be_measured_is_named_and_skipped(riverrun: Riverrun, tree: Path, runner: str):
    command = ["run", "examples/stdlib_census.py:census", "--log-level", "WARNING", "--runner", runner]
    done = riverrun(*command, "-p", f"root={tree}", "-p", "top=3")
    assert done.returncode == 0, done.stderr
    assert "invalid escape" not in done.stderr
    measured, _, skipped = done.stdout.partition("5 of 8 files could not be measured\n\n")
    assert measured.rstrip("\n").split("\n") == [
        "Reading 8 files...",
        "",
        "The 3 most complex functions",
        "",
        "branches  lines  nesting  function           where",
        "      10     16        4  Tower.climb        tower/deep/branchy.py:6",
        "       1      2        0  Tower.climb.inner  tower/deep/branchy.py:17",
        "       0      1        0  gr\\xf6\\xdfe        loose.py:1",
        "",
        "Totals by package",
        "",
        "package           files  lines  classes  functions  branches  nesting  longest",
        "(single modules)      5      1        0          1         0        0        1",
        "tower                 3     23        1          3        13        4       16",
        "all                   8     24        1          4        13        4       16",
    ]
    reasons = dict(line.split(": ", 1) for line in skipped.splitlines())
    assert list(reasons) == ["bytes.py", "encoding.py", "gone.py", "null.py", "tower/unparsable.py"]
    assert reasons["encoding.py"] == "SyntaxError: unknown encoding: uft-8, line 1"
    assert reasons["gone.py"] == "FileNotFoundError: No such file or directory"
    assert reasons["tower/unparsable.py"] == "SyntaxError: invalid syntax, line 2"


def test_an_empty_folder_has_nothing_to_report(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    load("stdlib_census").census(root=str(tmp_path))
    assert capsys.readouterr().out == "Reading 0 files...\n"


def test_a_folder_that_is_not_there_is_an_error(load: Load):
    with pytest.raises(NotADirectoryError, match=r"There is no folder 'no-such-folder' to take the census of\."):
        load("stdlib_census").census(root="no-such-folder")


def test_a_list_of_no_functions_is_an_error(load: Load):
    with pytest.raises(ValueError, match=r"top must be 1 or more, not 0: it is how many functions to list\."):
        load("stdlib_census").census(top=0)


def test_a_folder_that_cannot_be_read_is_named_with_the_files(load: Load, tree: Path, monkeypatch: pytest.MonkeyPatch):
    scandir = os.scandir

    def locked(path: str) -> object:
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    module = load("stdlib_census")
    assert "tower/deep" in module.find_modules.fn(str(tree))
    assert module.measure.fn(str(tree), "tower/deep", 3).skipped[0].startswith("tower/deep: ")


def test_a_wrong_complaint_of_the_parser_does_not_count(load: Load, tree: Path, monkeypatch: pytest.MonkeyPatch):
    module = load("stdlib_census")
    complaints = [SystemError("AST constructor recursion depth mismatch (before=33, after=28)")] * 2
    monkeypatch.setattr(module.ast, "parse", _complaining(complaints, module.ast.parse))
    assert module.measure.fn(str(tree), "tower/deep/branchy.py", 3).functions == 3
    assert complaints == []


def test_a_parser_that_goes_on_complaining_is_named(load: Load, tree: Path, monkeypatch: pytest.MonkeyPatch):
    module = load("stdlib_census")
    monkeypatch.setattr(module.ast, "parse", _complaining([SystemError("no")] * 100, module.ast.parse))
    assert module.measure.fn(str(tree), "loose.py", 3).skipped == ("loose.py: SystemError: no",)


def _complaining(complaints: list[SystemError], parse: Callable[..., object]) -> Callable[..., object]:
    def parse_or_complain(source: bytes, name: str) -> object:
        if complaints:
            raise complaints.pop()
        return parse(source, name)

    return parse_or_complain


def test_warnings_of_the_parser_are_not_heard(load: Load, tree: Path):
    # A warning is an error here, and the parser would turn it into a SyntaxError.
    assert load("stdlib_census").measure.fn(str(tree), "loose.py", 3).skipped == ()


# -- the glass tower


def test_the_elevator_stops_at_38_floors_in_order(load: Load, capsys: pytest.CaptureFixture[str]):
    module = load("glass_tower")
    module.towering_infernflow.with_options(task_runner="sequential")()
    *stops, last = capsys.readouterr().out.splitlines()
    assert stops == [f"Ding! Floor {floor:2}{', with a view' if floor % 2 else ''}." for floor in range(1, 39)]
    assert last == "38 stops. Everybody out: floor 38 is the roof."


def test_the_elevator_runs_sync_and_async_tasks(load: Load):
    module = load("glass_tower")
    assert (module.stop_at.is_async, module.glide_to.is_async) == (False, True)
    assert module.towering_infernflow.name == "towering-infernflow"


def test_no_floor_is_left_out_where_tasks_overlap(load: Load, capsys: pytest.CaptureFixture[str]):
    module = load("glass_tower")
    module.towering_infernflow.with_options(task_runner="concurrent")()
    floors = [int(floor) for floor in re.findall(r"Floor +(\d+)", capsys.readouterr().out)]
    assert sorted(floors) == list(range(1, 39))


# -- many waits


def test_all_waits_overlap_on_the_concurrent_runner(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = load("many_waits")
    waits: list[float] = []
    all_wait: list[anyio.Event] = []  # made by the first wait, on its own event loop

    async def wait_for_all(seconds: float) -> None:
        waits.append(seconds)
        all_wait[:] = all_wait or [anyio.Event()]
        if len(waits) == module.PAGES:
            all_wait[0].set()
        with anyio.fail_after(100):  # reached if one waits for another
            await all_wait[0].wait()

    monkeypatch.setattr(module, "anyio", SimpleNamespace(sleep=wait_for_all))
    module.many_waits.with_options(task_runner="concurrent")()
    assert waits == [0.05] * 200
    assert capsys.readouterr().out.startswith("200 pages, 39,800 words.\n")


# -- on Dask


@pytest.mark.stress
def test_a_loss_is_explained_on_stderr(riverrun: Riverrun):
    done = riverrun("run", "examples/dask_losses.py:unlucky", "--log-level", "INFO")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Task run 'square-\w+-13' was lost in attempt 1 and is run again \(loss 1 of 2\)", done.stderr)
    assert "was killed by SIGKILL" in done.stderr
    assert "This one is about to meet with an accident." in done.stderr


def test_one_flow_runs_on_a_temporary_an_adaptive_and_a_running_cluster():
    done = started(str(EXAMPLES / "dask_clusters.py"), RIVERRUN_LOG_LEVEL="INFO")
    assert done.returncode == 0, done.stderr
    of_the_readme = [text for command, text in SHOWN.items() if "dask_clusters" in command]
    assert of_the_readme == ["33,860 primes below 400,000, in 8 tasks.\n"] * 2
    assert done.stdout == "".join([*of_the_readme, of_the_readme[0], "9,592 primes below 100,000, in 2 tasks.\n"])
    assert done.stderr.count("Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`") == 2
    assert done.stderr.count("Connecting to the Dask cluster at `tcp://127.0.0.1:") == 2


def test_a_dask_subflow_in_a_sequential_flow_is_logged_in_order():
    done = started(str(EXAMPLES / "dask_subflow.py"), RIVERRUN_LOG_LEVEL="INFO")
    assert done.returncode == 0, done.stderr
    assert [done.stdout] == [text for command, text in SHOWN.items() if "dask_subflow" in command]
    lines = [re.sub(r"'[\w-]*-(\d)'|'[\w-]*'|http\S+", r"...\1", line[15:]) for line in done.stderr.splitlines()]
    completed = "finished in state Completed(message='All states completed.', type=COMPLETED)"
    assert lines == [
        "Beginning flow run ... for flow ......",
        "Starting task runner `SequentialTaskRunner`...",
        "Submitting task run ...0 to task runner...",
        "Task run ...0 finished in state Completed(message=None, type=COMPLETED)",
        "Beginning subflow run ... for flow ......",
        "Starting task runner `DaskTaskRunner`...",
        "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`",
        "The Dask dashboard is available at ...",
        "Submitting task run ...0 to task runner...",
        "Task run ...0 finished in state Completed(message=None, type=COMPLETED)",
        "Shutting down task runner `DaskTaskRunner`...",
        f"Subflow run ... {completed}",
        "Submitting task run ...1 to task runner...",
        "Task run ...1 finished in state Completed(message=None, type=COMPLETED)",
        "Shutting down task runner `SequentialTaskRunner`...",
        f"Flow run ... {completed}",
    ]
