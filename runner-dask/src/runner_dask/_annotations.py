"""What a call asks of a worker: `dask.annotate`, the task's `resources`, its `runner_options["dask"]`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from riverrun.exceptions import TaskRunnerOptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riverrun.abc import TaskCall

OPTIONS = ("priority", "resources", "workers", "allow_other_workers")
"""What `runner_options={"dask": {...}}` may have."""

_logger = logging.getLogger("riverrun.task_runners.dask")


class Offer(NamedTuple):
    """What one worker has.

    Args:
        name: its address.
        threads: how many tasks it runs at once.
        memory: its memory limit in bytes; 0 if it has none.
        resources: what it declares, by name.
        alias: the name that it was started with.
        host: the name of its machine.
    """

    name: str
    threads: int
    memory: int
    resources: dict[str, float]
    alias: str = ""
    host: str = ""

    def is_called(self, text: str) -> bool:
        """Say whether `workers=` means it: Dask takes addresses, names, and hosts."""
        place = self.name.rpartition("://")[2]
        return text in {self.name, self.alias, self.host, place, place.rpartition(":")[0].strip("[]")}


class Wanted(NamedTuple):
    """What goes along with the Dask task of a call.

    Args:
        annotations: as for `dask.annotate`.
        retries: how often the annotations say that a failed run is tried again; Riverrun does that, not Dask.
    """

    annotations: dict[str, Any]
    retries: int


def wanted(call: TaskCall, offers: Iterable[Offer], *, may_grow: bool) -> Wanted:
    """Translate what a call asks for; to be called in the context of the task's call.

    Args:
        call: the call.
        offers: the workers that are there.
        may_grow: whether the cluster may get other workers: then what nobody has is a warning.

    Raises:
        TaskRunnerOptionError: an option does not exist, or no worker has what is asked for.
    """
    import dask

    annotations = dict(dask.get_annotations())
    options = _checked_options(call)
    resources = {**annotations.pop("resources", {}), **options.pop("resources", {})}
    annotations.update(options)
    retries = annotations.pop("retries", 0)
    if callable(retries) or not isinstance(retries, int):
        raise TaskRunnerOptionError(
            f"Task run {call.name!r}: dask.annotate(retries=...) is a whole number, not {retries!r}."
        )
    offers = list(offers)
    _add_task_resources(call, resources, offers, may_grow=may_grow)
    if "workers" in annotations:
        offers = _among(call, annotations, offers, may_grow=may_grow)
    if resources:
        _check_declared(call, resources, offers, may_grow=may_grow)
        annotations["resources"] = resources
    return Wanted(annotations, retries)


def _checked_options(call: TaskCall) -> dict[str, Any]:
    options = dict(call.runner_options.get("dask", {}))
    for name in options:
        if name not in OPTIONS:
            raise TaskRunnerOptionError(
                f"Task run {call.name!r}: runner_options['dask'] has no option {name!r}. Its options are: "
                f"{', '.join(OPTIONS)}."
            )
    if options.get("allow_other_workers") and "workers" not in options:
        raise TaskRunnerOptionError(
            f"Task run {call.name!r}: allow_other_workers in runner_options['dask'] needs workers= beside it."
        )
    return options


def _among(call: TaskCall, annotations: dict[str, Any], offers: list[Offer], *, may_grow: bool) -> list[Offer]:
    """Put `workers` as Dask wants it, and give those that it means; that there are none would be a wait for ever."""
    workers = annotations["workers"]
    if callable(workers):  # of the key: Dask calls it
        return offers
    workers = [workers] if isinstance(workers, (str, int)) else list(workers)
    annotations["workers"] = workers
    meant = [offer for offer in offers if any(offer.is_called(str(worker)) for worker in workers)]
    if meant or not offers:
        return meant or offers
    if annotations.get("allow_other_workers"):
        return offers
    there = ", ".join(f"{offer.name} ({offer.alias})" for offer in offers[:5])
    text = (
        f"Task run {call.name!r} asks for workers={workers!r}, which the Dask cluster does not have. The first of its "
        f"{len(offers)} workers: {there}."
    )
    if not may_grow:
        raise TaskRunnerOptionError(f"{text} Name one of them, or set allow_other_workers=True.")
    _logger.warning("%s It waits until the cluster gets one.", text)
    return []


def _add_task_resources(call: TaskCall, resources: dict[str, Any], offers: list[Offer], *, may_grow: bool) -> None:
    """Turn `cpu`, `gpu` and `memory` into what the workers declare; what Dask does not count is only compared."""
    for name, amount in call.resources.items():
        declared = next((known for offer in offers for known in offer.resources if known.lower() == name.lower()), None)
        if declared is not None:
            resources[declared] = _bytes(amount) if name == "memory" else amount
        elif name == "cpu":
            _compare(call, name, float(amount), [offer.threads for offer in offers], "threads", may_grow=may_grow)
        elif name == "memory":
            limits = [offer.memory or float("inf") for offer in offers]
            _compare(call, name, _bytes(amount), limits, "bytes", may_grow=may_grow)
        else:
            resources["GPU" if name == "gpu" else name] = amount


def _bytes(amount: Any) -> float:
    from dask.utils import parse_bytes

    return float(parse_bytes(amount))


def _compare(
    call: TaskCall, name: str, amount: float, offered: list[float] | list[int], unit: str, *, may_grow: bool
) -> None:
    most = max(offered, default=None)
    if most is not None and amount > most:
        _refuse(call, f"{name}={amount:g}", f"the largest worker has {most:g} {unit}", may_grow=may_grow)


def _check_declared(call: TaskCall, resources: dict[str, Any], offers: list[Offer], *, may_grow: bool) -> None:
    """Say at once what would wait for ever: resources that no single worker declares, or not as many."""
    if offers and not any(
        all(offer.resources.get(name, 0) >= amount for name, amount in resources.items()) for offer in offers
    ):
        kinds = sorted({str(offer.resources) if offer.resources else "none" for offer in offers})
        asked = ", ".join(f"{name}={amount:g}" for name, amount in resources.items())
        _refuse(call, asked, f"the {len(offers)} workers declare: {'; '.join(kinds[:5])}", may_grow=may_grow)


def _refuse(call: TaskCall, asked: str, available: str, *, may_grow: bool) -> None:
    text = f"Task run {call.name!r} asks for {asked}, which no worker of the Dask cluster has: {available}."
    how = "Start workers with `--resources` (or cluster_kwargs={'resources': {...}}), or ask for less."
    if not may_grow:
        raise TaskRunnerOptionError(f"{text} {how}")
    _logger.warning("%s It waits until the cluster gets one.", text)
