"""Which task runners the fixture `flow_runner` goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun import task_runners
from riverrun._offers import INSTALL
from riverrun._suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence


def parameters(config: pytest.Config, marker: pytest.Mark | None) -> list[Any]:
    """Give the names of the task runners for one test, each as a parameter; one that cannot be used is skipped.

    Args:
        config: what was typed, and the ini file.
        marker: `@pytest.mark.flow_runner(...)` of the test, if it has one.

    Raises:
        pytest.UsageError: a name does not exist.
    """
    installed = task_runners.names()
    typed = config.getoption("flow_runners")
    chosen = _known(typed or config.getini("flow_runners"), "--flow-runner" if typed else "flow_runners", installed)
    if marker is None:
        names = chosen or installed
    else:
        names = _known(marker.args, "@pytest.mark.flow_runner", installed)
        if not names:
            raise pytest.UsageError("@pytest.mark.flow_runner needs at least one name of a task runner.")
        left = [name for name in names if not chosen or name in chosen]
        if not left:
            why = f"runs on {', '.join(names)}, and {', '.join(chosen)} was asked for"
            return [pytest.param(None, marks=pytest.mark.skip(why), id=names[0])]
        names = left
    return [
        pytest.param(name, id=name)
        if name in installed or ":" in name
        else pytest.param(
            name, id=name, marks=pytest.mark.skip(f"task runner `{name}` is not installed: {INSTALL[name]}")
        )
        for name in names
    ]


def _known(names: Sequence[str], where: str, installed: list[str]) -> list[str]:
    """Refuse names that stand for nothing."""
    for name in names:
        if name not in installed and name not in INSTALL and ":" not in name:
            near = did_you_mean(name, [*installed, *INSTALL])
            raise pytest.UsageError(
                f"{where}: no task runner is named `{name}`{near} Installed: {', '.join(installed)}."
            )
    return list(dict.fromkeys(names))
