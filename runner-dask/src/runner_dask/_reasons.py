"""Why Dask drops a task, in a few words, as far as the scheduler knows. It travels to the scheduler with the watch."""

from __future__ import annotations

from typing import Any

WHY = {
    "processing": "the worker that had it died",
    "leaving": "the worker that had it left the cluster",
    "value": "the only worker with its value is gone",
    "upstream": "something that it takes was lost",
    "refused": "its worker was leaving, or was to begin it no more",
}


def why_cancelled(stimulus: str) -> str:
    """Say why somebody else's wish ended a task.

    Args:
        stimulus: the name by which the scheduler knows what is going on.
    """
    return "another client cancelled it" if stimulus.startswith("cancel") else "the cluster was restarted"


def is_release(stimulus: str) -> bool:
    """Say whether a task is dropped because its own client does not want it any more.

    Args:
        stimulus: the name by which the scheduler knows what is going on.
    """
    return stimulus.startswith(("client-releases-keys", "remove-client", "cancel-key-"))


def text_of(exception: Any) -> str:
    """The text of an exception that the scheduler itself made (and pickled).

    Args:
        exception: as it comes with a transition.
    """
    if exception is None:
        return "unknown"
    try:
        from distributed.protocol import deserialize
        from distributed.protocol.pickle import loads

        if not isinstance(exception, bytes):
            exception = deserialize(exception.header, exception.frames)
        made = exception if isinstance(exception, BaseException) else loads(exception)
        return f"{type(made).__name__}: {made}"
    except Exception as error:  # noqa: BLE001 - whatever a foreign exception does when it is unpickled
        return f"an exception that cannot be read ({error!r})"
