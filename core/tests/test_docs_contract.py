"""The pages in `docs`: their links, and what `writing-a-task-runner.md` says of the contract.

Its runners are put to the conformance suite here, as they stand on the page.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from riverrun import abc, hookspecs, observers, workers
from riverrun.testing import TaskRunnerConformance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "writing-a-task-runner.md"
PAGE_OF_OBSERVERS = ROOT / "docs" / "observers.md"
HOOKS_OF_RUNNERS = {"riverrun_task_runner"}


def public_names(module: ModuleType) -> Iterator[str]:
    for statement in ast.parse(Path(module.__file__).read_text("utf-8")).body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    yield from getattr(module, "__all__", ())  # what it gives out, though it is defined elsewhere


@pytest.fixture
def class_of_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], type[abc.TaskRunner]]:
    """Write the block of the page that defines a class into a module, and give the class."""

    def class_of_the_page(name: str) -> type[abc.TaskRunner]:
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        [block] = [block for block in blocks if f"class {name}(" in block]
        file = tmp_path_factory.mktemp("page") / "runner_of_the_page.py"
        file.write_text(f"from riverrun.abc import Concurrency, TaskRunner\n\n{block}", "utf-8")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)  # so that a runner can be pickled
        spec.loader.exec_module(module)
        return getattr(module, name)

    return class_of_the_page


def names_missing_on(page: Path, names: set[str]) -> list[str]:
    """Give the names that are nowhere on a page, as code: by themselves, in a call, or behind a dot."""
    assert names
    text = page.read_text("utf-8")
    return [name for name in sorted(names) if not re.search(rf"`(\w+\.)?{name}\b", text)]


def hooks_of(page: str) -> set[str]:
    """Give the hooks that a page explains: those of runners are on this page, all others are for observers."""
    hooks = {
        part.name
        for part in ast.walk(ast.parse(Path(hookspecs.__file__).read_text("utf-8")))
        if isinstance(part, ast.FunctionDef) and any("hookspec" in ast.unparse(mark) for mark in part.decorator_list)
    }
    assert hooks >= HOOKS_OF_RUNNERS
    return HOOKS_OF_RUNNERS if page == PAGE.name else hooks - HOOKS_OF_RUNNERS


@pytest.mark.parametrize("module", [abc, workers])
def test_every_public_name_of_the_contract_is_on_the_page(module: ModuleType):
    assert names_missing_on(PAGE, {name for name in public_names(module) if not name.startswith("_")}) == []


def test_every_hook_is_on_the_page_of_those_who_implement_it():
    assert names_missing_on(PAGE, hooks_of(PAGE.name) | {"hookimpl", "hookspec"}) == []
    assert len(hooks_of(PAGE_OF_OBSERVERS.name)) == 8


def test_every_hook_of_observers_and_every_record_and_its_fields_are_on_their_page():
    records = {name: kind for name, kind in vars(observers).items() if dataclasses.is_dataclass(kind)}
    fields = {field.name for kind in records.values() for field in dataclasses.fields(kind)}
    assert {"flow_run_id", "state", "worker"} <= fields
    # Ids and names of runs in a log record are told together.
    names = {*hooks_of(PAGE_OF_OBSERVERS.name), *records, *fields, "register"}
    assert names_missing_on(PAGE_OF_OBSERVERS, names) == []


CLASSES = [name for name in public_names(abc) if isinstance(getattr(abc, name), type)]


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_part_of_a_class_of_the_contract_is_on_the_page(name: str):
    contract = getattr(abc, name)
    parts = {*vars(contract), *vars(contract).get("__annotations__", {})}
    assert names_missing_on(PAGE, {part for part in parts if not part.startswith("_")}) == []


def test_a_name_that_is_not_on_a_page_is_found_missing(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("A `send(call)`, a `report.lost` and a `sender`, and the word fetch.\n")
    assert names_missing_on(page, {"send", "lost", "sende", "fetch", "los"}) == ["fetch", "los", "sende"]


def test_the_first_runner_of_the_page_has_at_most_40_lines_and_one_on_an_executor_at_most_25():
    page = PAGE.read_text("utf-8")
    first, second = (
        re.search(rf"## {heading}\n.*?```python\n(.*?)```", page, re.DOTALL)[1].splitlines()
        for heading in ("A complete one", "Any executor, in other processes")
    )
    assert any("class PoolTaskRunner" in line for line in first)
    assert len(first) <= 40
    code = [line for line in second if line.strip() and not line.strip().startswith("#")]
    assert any("class ProcessPoolTaskRunner" in line for line in code)
    assert len(code) <= 25


class UnstartableTaskRunner(abc.TaskRunner):
    concurrency = abc.Concurrency.CONCURRENT

    def start(self):
        raise OSError("no licence")


class TestTheFirstRunnerOfThePage(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self, class_of_the_page: Callable[[str], type[abc.TaskRunner]]):
        return class_of_the_page("PoolTaskRunner")(threads=2)

    @pytest.fixture
    def unstartable_task_runner(self):
        return UnstartableTaskRunner()


@pytest.mark.stress  # two Pythons are spawned for each flow run: by default, only where that may make a difference
class TestAllOfTheProcessPoolOfThePage(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self, class_of_the_page: Callable[[str], type[abc.TaskRunner]]):
        return class_of_the_page("ProcessPoolTaskRunner")(max_workers=2)


SPAWNED = {
    "test_a_map_gives_its_values_in_order",
    "test_a_run_that_is_lost_with_its_worker_is_crashed",
    "test_no_run_hangs_when_a_worker_dies",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_an_async_flow_run",
    "test_sync_tasks_overlap",
    "test_tasks_run_in_the_processes_that_the_runner_declares",
    "test_the_process_ends_and_leaves_no_other_behind_after",
}


class TestTheProcessPoolOfThePage(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self, class_of_the_page: Callable[[str], type[abc.TaskRunner]]):
        return class_of_the_page("ProcessPoolTaskRunner")(max_workers=2)


TESTS_OF_THE_SUITE = {name for name in dir(TaskRunnerConformance) if name.startswith("test_")}
assert TESTS_OF_THE_SUITE >= SPAWNED, SPAWNED - TESTS_OF_THE_SUITE  # one that has another name now must be noticed
for test in TESTS_OF_THE_SUITE - SPAWNED:
    setattr(TestTheProcessPoolOfThePage, test, None)


class TestTheCapabilitiesOfThePage(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self, class_of_the_page: Callable[[str], type[abc.TaskRunner]]):
        return class_of_the_page("ThreadPerTaskRunner")(slots=2)


PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")])


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda page: page.stem)
def test_every_decision_has_context_decision_and_consequences(page: Path):
    assert re.findall(r"^## (.*)$", page.read_text("utf-8"), re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert f"(decisions/{page.name})" in (ROOT / "docs" / "README.md").read_text("utf-8")
