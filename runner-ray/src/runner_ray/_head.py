"""Questions to the head of the cluster, none of them without a limit.

Ray waits for an answer however long it takes; while it does, it closes no session, and when the head was away for 60
seconds, it ends this process. So what only the head knows is asked with a time limit here, or early, while it is there.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

ANSWER_WITHIN = 5.0
"""Seconds for an answer; it takes less than one where the head is not about to go."""


def nodes() -> list[dict[str, Any]]:
    """Give the nodes of the cluster, those that are gone, too: of what `ray.nodes()` has, the part that is used here.

    Raises:
        Exception: Ray's own; it was not answered in time, say.
    """
    import ray

    client = _client()
    if client is None:  # the question goes to a server, and the head's absence ends that
        return list(ray.nodes())
    return [
        {
            "NodeID": node_id.hex(),
            "Alive": node.state == 0,  # of `GcsNodeInfo.GcsNodeState`, which has ALIVE and DEAD
            "NodeManagerAddress": node.node_manager_address,
            "NodeManagerHostname": node.node_manager_hostname,
            "NodeManagerPort": node.node_manager_port,
            "Resources": dict(node.resources_total),
            "Labels": dict(node.labels),
        }
        for node_id, node in client.get_all_node_info(timeout=ANSWER_WITHIN).items()
    ]


def ask_ahead() -> None:
    """Let Ray ask what it would ask, without a limit, when the cluster first tells of its nodes, and then remembers.

    What it tells first may well be that one of them is gone, and the head goes next.
    """
    if _client() is None:
        return
    with suppress(Exception):  # then it asks later
        from ray.autoscaler.v2.utils import is_autoscaler_v2

        is_autoscaler_v2()


def _client() -> Any:
    """Give what this process asks the head with, which alone takes a limit; None through Ray Client."""
    import ray

    return getattr(ray._private.worker.global_worker, "gcs_client", None)  # noqa: SLF001
