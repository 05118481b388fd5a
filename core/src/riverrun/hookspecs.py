"""What a plugin may implement: one hook, which says which task runner it brings.

An entry point of the group `riverrun.task_runners` may name the task runner class, which needs none of this, or a
plugin: a module or an object with an implementation of the hook below::

    from riverrun import hookimpl


    @hookimpl
    def riverrun_task_runner():
        from runner_slurm.runner import SlurmTaskRunner  # imported when somebody asks for the runner

        return SlurmTaskRunner
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from riverrun.abc import TaskRunner

hookspec = pluggy.HookspecMarker("riverrun")
hookimpl = pluggy.HookimplMarker("riverrun")
"""Marks a function or method of a plugin as the implementation of the hook of that name."""


@hookspec(firstresult=True)
def riverrun_task_runner() -> type[TaskRunner]:
    """Tell which task runner the plugin brings.

    Returns:
        A subclass of `riverrun.abc.TaskRunner`: the class, no instance.
    """
    raise NotImplementedError  # a specification: only its signature counts
