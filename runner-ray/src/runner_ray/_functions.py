"""The function that Ray has of this package: exported once, whatever the number of calls and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner_ray import _worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from riverrun.workers import Parcel

    from runner_ray._sessions import Session

ALWAYS = {"num_returns": 2, "max_retries": 0, "retry_exceptions": False}
"""A call is made once: Ray runs none a second time."""


class Functions:
    """Makes calls of `_worker.run`.

    Args:
        parcels: the code that was shipped; it is put into the object store once.
        session: the session of Ray.
    """

    def __init__(self, parcels: list[Parcel], session: Session) -> None:
        import ray

        self._ray = ray
        self._session = session
        self._first = [ray.put(parcels)] if parcels else []
        self._function = _worker.run_shipped if parcels else _worker.run
        self._made: dict[Any, Any] = {}

    def call(self, options: Mapping[str, Any], name: str, payload: bytes, values: Sequence[Any]) -> Any:
        """Call it on a worker.

        Args:
            options: Ray's, for this call.
            name: what it is called in Ray's dashboard.
            payload: the call, packed.
            values: the references of the values that it takes.

        Returns:
            The references of its outcome and its value.

        Raises:
            ConnectionError: the head does not answer, which a call with new options has to ask.
        """
        plain = self._made.get(()) or self._with_options({})
        function = self._with_options(options) if options else plain
        # What `plain.options(..., name=name).remote(...)` does, which also makes a class and checks options each time.
        # Only `plain` is exported, and so the head is asked once, whatever options come later.
        return plain._remote(  # noqa: SLF001
            args=(*self._first, payload, *values),
            serialized_runtime_env_info=function._serialized_base_runtime_env_info,  # noqa: SLF001
            **{**function._default_options, "name": name},  # noqa: SLF001
        )

    def _with_options(self, options: Mapping[str, Any]) -> Any:
        same = _frozen(options)
        function = self._made.get(same)
        if function is None:
            if not self._session.is_reachable:
                raise ConnectionError(f"lost the connection to {self._session.where}: its head does not answer.")
            function = self._made[same] = self._ray.remote(**{**ALWAYS, **options})(self._function)
        return function


def _frozen(value: Any) -> Any:
    """Give what is equal for equal options, and can be the key of a dict."""
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(each) for each in value)
    if type(value).__module__ == "ray.util.scheduling_strategies":  # equal ones are not equal for Python
        return type(value), _frozen(vars(value))
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
