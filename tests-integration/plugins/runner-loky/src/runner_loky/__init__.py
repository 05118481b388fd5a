"""A task runner for Riverrun: tasks run in processes that loky keeps."""

from runner_loky._runner import LokyTaskRunner

__all__ = ["LokyTaskRunner"]
