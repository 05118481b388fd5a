"""The contract with task runners, written out: what is here stays as it is for as long as `API_VERSION` is 1.

A new capability, method or attribute that runners may do without is added here; to change or take away a line is to
break somebody's runner, and needs another `API_VERSION`. `docs/writing-a-task-runner.md` promises that.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun import _calls, _outcomes, abc, hookspecs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

API_VERSION_1 = """
API_VERSION
Concurrency: CONCURRENT PARALLEL SEQUENTIAL
TaskExecutor.submit(self, call: TaskCall, /) -> Future[Outcome]
LocalTaskExecutor.spawn(self, job: Callable[[], object], /) -> None
LocalTaskExecutor.spawn_async(self, job: Callable[[], Coroutine[Any, Any, object]], context: Context, /) -> None
HelpableTaskExecutor.help(self, job: Callable[[], object], /) -> bool
ReplacingTaskExecutor.abandon(self, job: Callable[[], object], /) -> None
TaskReport.attempt(self) -> int
TaskReport.retries(self, count: int, /) -> None
TaskReport.begun(self, start_time: float, /) -> None
TaskReport.logged(self, records: list[LogRecord], worker: str, /) -> None
TaskReport.ended(self, outcome: Outcome, handle: object, /) -> None
TaskReport.lost(self, error: CrashedRun, /, *, begun: bool=True, final: bool=False) -> None
RemoteTaskExecutor.max_worker_losses: int
RemoteTaskExecutor.send(self, call: TaskCall, report: TaskReport, /) -> object
RemoteTaskExecutor.fetch(self, handle: object, /) -> object
RemoteTaskExecutor.holds(self, handle: object, /) -> bool
RemoteTaskExecutor.put(self, value: object, /) -> object
RemoteTaskExecutor.cancel(self, handle: object, /) -> bool
CancellingTaskExecutor.cancel_together(self, handles: list[Any], /) -> list[Any]
ExactTaskExecutor.cancel_is_exact: bool
TaskRunner.concurrency: ClassVar[Concurrency]
TaskRunner.api_version: ClassVar[int] = API_VERSION
TaskRunner.replaces_lost_workers: ClassVar[bool] = False
TaskRunner.survives_lost_workers: ClassVar[bool] = False
TaskRunner.start(self) -> AbstractContextManager[TaskExecutor | RemoteTaskExecutor]
ExecutorTaskRunner.replaces_lost_workers: ClassVar[bool] = True
ExecutorTaskRunner.executor(self) -> AbstractContextManager[TaskExecutor]
ExecutorTaskRunner.lanes(self) -> int | None
ExecutorTaskRunner.start(self) -> AbstractContextManager[TaskExecutor]
current_executor() -> Any
check_concurrency(runner: type[TaskRunner]) -> None
hook riverrun_task_runner() -> type[TaskRunner]
"""
OF_A_CALL = {"key", "name", "resources", "run_keeping", "runner_options", "upstreams"}
OF_AN_OUTCOME = {"error", "kept", "void"}


def lines_of(module: ModuleType) -> Iterator[str]:
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            yield _signature(statement)
        elif isinstance(statement, ast.ClassDef):
            yield from _parts(statement)
        elif isinstance(statement, ast.Assign):
            yield from (ast.unparse(target) for target in statement.targets)


def _parts(definition: ast.ClassDef) -> Iterator[str]:
    members = sorted(ast.unparse(part.targets[0]) for part in definition.body if isinstance(part, ast.Assign))
    if members:
        yield f"{definition.name}: {' '.join(members)}"
    for part in definition.body:
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            yield f"{definition.name}.{_signature(part)}"
        elif isinstance(part, ast.AnnAssign):
            yield f"{definition.name}.{ast.unparse(part)}"


def _signature(function: ast.FunctionDef) -> str:
    return f"{function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"


def test_the_contract_is_what_version_1_promised():
    [hook] = [line for line in lines_of(hookspecs) if line.startswith("riverrun_task_runner(")]
    assert abc.API_VERSION == 1
    assert [*lines_of(abc), f"hook {hook}"] == API_VERSION_1.strip().splitlines()


def test_what_executors_may_look_at_in_a_call_and_an_outcome_is_there():
    scope = _calls.TaskScope("double-0", None, {}, awaits=False)
    call = _calls.TaskCall(body=None, args=(), kwargs={}, scope=scope, key="double-0-1")
    assert [name for name in sorted(OF_A_CALL) if not hasattr(call, name)] == []
    assert [name for name in sorted(OF_AN_OUTCOME) if not hasattr(_outcomes.Outcome(), name)] == []


def test_what_executors_may_look_at_is_on_the_page():
    page = (Path(__file__).parents[2] / "docs" / "writing-a-task-runner.md").read_text("utf-8")
    assert [name for name in sorted(OF_A_CALL) if f"`call.{name}" not in page] == []
    assert [name for name in sorted(OF_AN_OUTCOME) if f"`outcome.{name}`" not in page] == []
