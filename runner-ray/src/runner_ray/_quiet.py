"""What Ray itself says in the flow's process, silenced where a message of ours says the same, and better."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

logger = logging.getLogger("riverrun.task_runners.ray")

_LOGGERS = (
    "ray.util.client.logsclient",
    "ray._private.worker",
    "ray._private.authentication.authentication_token_setup",
    "ray.worker",
    "ray",
)
_TOLD_BETTER = (
    "SIGTERM handler is not set because current thread",
    "Token authentication is enabled for this Ray cluster",
    "Unhandled error (suppress with",
)
_LOSSES = (
    "A worker died or was killed while executing a task",
    "Raylet is terminated",
    "The node with node id",
    "Workers (tasks / actors) killed due to memory pressure",
)
"""How Ray's messages about losses begin: each lost task run is told of by itself."""


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_TOLD_BETTER)


_filter = _Filter()


def quiet() -> None:
    """Drop, from now on, what Ray logs about things that are as they should be."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # once, however often it is called


@contextmanager
def losses_unprinted() -> Iterator[None]:
    """Let a session of Ray that is opened in the block hand its messages to us, instead of printing them to stdout."""
    import ray

    module: Any = ray._private.worker  # noqa: SLF001 - Ray has no switch for it
    before = getattr(module, "listen_error_messages", None)
    if before is None:
        yield
        return
    module.listen_error_messages = _listen
    try:
        yield
    finally:
        module.listen_error_messages = before


def _listen(worker: Any, stopped: threading.Event) -> None:
    """Take the messages that Ray publishes to the processes that use it."""
    try:
        worker.gcs_error_subscriber.subscribe()
        jobs = {worker.current_job_id.binary(), b"\xff" * len(worker.current_job_id.binary()), None}
        while not stopped.is_set():
            _, message = worker.gcs_error_subscriber.poll()
            if message is None or message["job_id"] not in jobs:
                continue
            text = message["error_message"]
            level = logging.DEBUG if text.startswith(_LOSSES) else logging.WARNING
            logger.log(level, "Ray says: %s", text)
    except Exception as error:  # noqa: BLE001 - the cluster is gone, which is told of elsewhere
        logger.debug("No more messages from Ray: %r", error)
