"""A task runner for Riverrun: tasks run in processes of this machine, and a process that dies is replaced."""

from runner_process._runner import ProcessTaskRunner

__all__ = ["ProcessTaskRunner"]
