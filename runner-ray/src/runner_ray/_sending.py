"""A call on its way, and the value that it is going to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riverrun.abc import TaskReport


class Value:
    """The handle of a value in Ray's object store; the value lives as long as somebody has it.

    Args:
        key: the call's that makes it; empty for a value that was put there.
    """

    __slots__ = ("__weakref__", "failed", "is_void", "key", "lost", "outcome", "ref")

    def __init__(self, key: str = "", ref: Any = None) -> None:
        self.key = key
        self.ref = ref
        """Ray's reference to the value."""
        self.outcome: Any = None
        """Ray's reference to the outcome, until that is there."""
        self.lost = False
        """Whether the value is known to be gone."""
        self.failed = False
        """Whether the call has ended without a value."""
        self.is_void = False
        """Whether the call never begins, for something that it takes has no value."""

    def is_behind(self, hexadecimal: str) -> bool:
        """Say whether a reference that Ray names is this one."""
        return self.ref is not None and self.ref.hex() == hexadecimal


class Sending:
    """A call that has not ended.

    Args:
        key: the call's.
        name: of its task run.
        value: the handle of its value.
        upstreams: the handles of what it takes.
        report: to be told what becomes of it.
        needs: what it needs of a node, and whether that is all that says where it runs.
    """

    __slots__ = ("answer", "asking", "begun", "key", "name", "needs", "report", "upstreams", "value", "withdrawn")

    def __init__(
        self,
        key: str,
        name: str,
        value: Value,
        *,
        upstreams: tuple[Value, ...],
        report: TaskReport,
        needs: dict[str, float],
    ) -> None:
        self.key = key
        self.name = name
        self.value = value
        self.upstreams = upstreams
        self.report = report
        self.needs = needs
        self.withdrawn = False
        """Whether Ray was asked to withdraw it."""
        self.asking = 0
        """How many threads wait for what Ray says to that."""
        self.answer: Any = None
        """What came in place of its outcome meanwhile."""
        self.begun = False
        """Whether it has begun, or counts so: it was not withdrawn."""
