"""What stands for a running cluster where the object itself cannot go: in a pickle."""

from __future__ import annotations

from typing import Any


class ClusterHandle:
    """The address of a cluster's scheduler, and what it takes to connect; it can be used as `cluster`."""

    __slots__ = ("name", "scheduler_address", "security")

    def __init__(self, scheduler_address: str, name: str, security: Any) -> None:
        self.scheduler_address = scheduler_address
        self.name = name
        self.security = security

    @classmethod
    def of(cls, cluster: Any) -> ClusterHandle:
        """Make the handle of a cluster.

        Args:
            cluster: a cluster object, or a handle.

        Returns:
            A handle that can be pickled, and that opens nothing when it is unpickled.
        """
        if isinstance(cluster, cls):
            return cluster
        security = getattr(cluster, "security", None)
        return cls(cluster.scheduler_address, str(getattr(cluster, "name", "")), security)

    def __reduce__(self) -> tuple[Any, ...]:
        return ClusterHandle, (self.scheduler_address, self.name, self.security)

    def __repr__(self) -> str:
        return f"<cluster at {self.scheduler_address}>"


def identity_of(cluster: Any) -> Any:
    """Say which cluster it is: by the address of its scheduler, or by the object where it has none (it is closed).

    Args:
        cluster: a cluster object, a handle, or None.

    Returns:
        What is equal for equal clusters.
    """
    address = getattr(cluster, "scheduler_address", None)
    return address if address and "://" in address else cluster
