"""The concurrent task runner, the default: tasks overlap in this process, on threads and on an event loop."""

from runner_concurrent._runner import ConcurrentTaskRunner

__all__ = ["ConcurrentTaskRunner"]
