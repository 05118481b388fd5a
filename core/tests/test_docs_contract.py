"""The pages in `docs`: their links, and what `writing-a-task-runner.md` says of the contract.

Its longest example is put to the conformance suite here; the two short ones, a thread pool and a process pool, are in
`test_conformance_suite.py`.
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


@pytest.mark.parametrize("module", [abc, hookspecs, workers])
def test_every_public_name_of_the_contract_is_on_the_page(module: ModuleType):
    names = {name for name in public_names(module) if not name.startswith("_")}
    assert names
    if module is hookspecs:  # the hooks of observers have a page of their own, see the next test
        names = {name for name in names if name in {"riverrun_task_runner", "hookimpl", "hookspec"}}
    page = PAGE.read_text("utf-8")
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_every_hook_of_observers_and_every_record_and_its_fields_are_on_their_page():
    page = PAGE_OF_OBSERVERS.read_text("utf-8")
    hooks = {
        name for name in public_names(hookspecs) if name.startswith("riverrun_") and name != "riverrun_task_runner"
    }
    assert len(hooks) == 8
    records = {name: kind for name, kind in vars(observers).items() if dataclasses.is_dataclass(kind)}
    fields = {field.name for kind in records.values() for field in dataclasses.fields(kind)}
    assert {"flow_run_id", "state", "worker"} <= fields
    # Ids and names of runs in a log record are told together.
    names = [*hooks, *records, *fields, "register"]
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.parametrize("name", ["TaskRunner", "Concurrency"])
def test_every_public_part_of_a_class_of_the_contract_is_on_the_page(name: str):
    page = PAGE.read_text("utf-8")
    parts = {*vars(getattr(abc, name)), *getattr(abc.TaskRunner, "__annotations__", {})}
    assert [part for part in sorted(parts) if not part.startswith("_") and f"`{part}" not in page] == []


def test_the_first_runner_of_the_page_has_at_most_40_lines():
    page = PAGE.read_text("utf-8")
    [first] = re.findall(r"## A complete one\n\n```python\n(.*?)```", page, re.DOTALL)
    assert len(first.splitlines()) <= 40


class TestTheCapabilitiesOfThePage(TaskRunnerConformance):
    time_limit = 30

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
