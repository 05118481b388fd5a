"""Observers: what is told what happens to runs; how to register one in code, and the records that they are given.

An observer is named in the settings (`RIVERRUN_OBSERVERS=progress,otel`), on the command line
(`riverrun run --observer progress`), or given to `register()`. Its hooks are specified in `riverrun.hookspecs`.
"""

from __future__ import annotations

from riverrun._events import (
    Event,
    Failure,
    FlowRunAttempt,
    FlowRunEvent,
    FlowRunFinished,
    FlowRunStarted,
    LogRecord,
    TaskRunAttempt,
    TaskRunEvent,
    TaskRunnerEvent,
    TaskRunnerStarted,
    TaskRunnerStopped,
    TaskRunStateChanged,
)
from riverrun._observing import Registration, register

__all__ = [
    "Event",
    "Failure",
    "FlowRunAttempt",
    "FlowRunEvent",
    "FlowRunFinished",
    "FlowRunStarted",
    "LogRecord",
    "Registration",
    "TaskRunAttempt",
    "TaskRunEvent",
    "TaskRunStateChanged",
    "TaskRunnerEvent",
    "TaskRunnerStarted",
    "TaskRunnerStopped",
    "register",
]
