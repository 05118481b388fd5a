"""The sequential task runner: every task runs to its end, in the order of the calls, in the flow's own thread."""

from runner_sequential._runner import SequentialTaskRunner

__all__ = ["SequentialTaskRunner"]
