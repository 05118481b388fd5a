"""What a call asks of Ray: `remote_options()`, the task's `resources`, its `runner_options["ray"]`."""

from __future__ import annotations

import logging
import re
from numbers import Real
from typing import TYPE_CHECKING, Any

from riverrun.exceptions import TaskRunnerOptionError

from runner_ray._remote_options import options_here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from riverrun.abc import TaskCall

OPTIONS = (
    "num_cpus",
    "num_gpus",
    "memory",
    "resources",
    "accelerator_type",
    "label_selector",
    "fallback_strategy",
    "scheduling_strategy",
    "runtime_env",
    "enable_task_events",
)
"""What `runner_options={"ray": {...}}` and `remote_options(...)` may have."""

RESERVED = {
    "name": "the name in Ray is the name of the task run",
    "num_returns": "the value of a task is one value",
    "max_retries": "retries are Riverrun's: @task(retries=...), RayTaskRunner(max_worker_losses=...)",
    "retry_exceptions": "retries are Riverrun's: @task(retries=..., retry_condition_fn=...)",
    "max_calls": "all tasks share their worker processes",
}
"""What they may not have, with the reason."""

TASK_RESOURCES = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
"""How `@task(resources={...})` is called in Ray; any other name is one of Ray's custom resources."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
logger = logging.getLogger("riverrun.task_runners.ray")


def checked(options: Mapping[str, Any], where: str) -> None:
    """Refuse options that Ray does not have, or that are not the user's to set.

    Args:
        options: what was given.
        where: to whom, for the text.

    Raises:
        TaskRunnerOptionError: there is such an option.
    """
    for name in options:
        if name in RESERVED:
            raise TaskRunnerOptionError(f"{where}: leave {name!r} out: {RESERVED[name]}.")
        if name not in OPTIONS:
            raise TaskRunnerOptionError(f"{where} has no option {name!r}. Its options are: {', '.join(OPTIONS)}.")


def wanted(call: TaskCall) -> dict[str, Any]:
    """Translate what a call asks for into Ray's options; to be called in the context of the task's call.

    As in Ray, what is said at the call (`remote_options`) wins over what the task says; and there, `runner_options`
    over `resources`.

    Args:
        call: the call.

    Raises:
        TaskRunnerOptionError: an option does not exist, or its value makes no sense.
    """
    around, own = options_here(), call.runner_options.get("ray")
    if not around and not own and not call.resources:
        return {}
    own = own or {}
    where = f"Task run {call.name!r}: runner_options['ray']"
    checked(own, where)
    options: dict[str, Any] = {}
    custom: dict[str, float] = {}
    for name, amount in call.resources.items():
        if name == "memory":
            options["memory"] = size_in_bytes(amount, call.name)
        elif name in TASK_RESOURCES:
            options[TASK_RESOURCES[name]] = amount
        else:
            custom[name] = amount
    for said in (own, around):
        options.update(said)
        custom.update(said.get("resources") or {})
    if custom:
        options["resources"] = custom
    if isinstance(options.get("memory"), str):
        options["memory"] = size_in_bytes(options["memory"], call.name)
    for amount_of in ("num_cpus", "num_gpus"):
        _check_number(options.get(amount_of), amount_of, call.name)
    for resource, amount in (options.get("resources") or {}).items():
        _check_number(amount, f"resources[{resource!r}]", call.name)
    return options


def _check_number(amount: Any, what: str, name: str) -> None:
    if amount is not None and not (isinstance(amount, Real) and 0 <= float(amount) < float("inf")):
        raise TaskRunnerOptionError(f"Task run {name!r}: {what} is a number, 0 or more, not {amount!r}.")


def size_in_bytes(amount: Any, name: str) -> int:
    """Turn a size as people write it into bytes.

    Args:
        amount: a number of bytes, or a text such as "4GiB".
        name: of the task run, for the error.

    Raises:
        TaskRunnerOptionError: it is neither.
    """
    if isinstance(amount, (int, float)):
        return int(amount)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", str(amount), re.IGNORECASE)
    if found is None or found[2].lower() not in UNITS:
        raise TaskRunnerOptionError(
            f"Task run {name!r}: memory is a number of bytes or a text such as '4GiB', not {amount!r}."
        )
    return int(float(found[1]) * UNITS[found[2].lower()])


def demand(options: Mapping[str, Any]) -> dict[str, float]:
    """Say what a call needs of a single node, in Ray's own terms.

    Args:
        options: its options, as `wanted` gives them.
    """
    cpus = options.get("num_cpus")
    amounts = {
        "CPU": 1 if cpus is None else cpus,
        "GPU": options.get("num_gpus") or 0,
        "memory": options.get("memory") or 0,
        **(options.get("resources") or {}),
    }
    if options.get("accelerator_type"):
        amounts[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return {name: float(amount) for name, amount in amounts.items() if amount}


def fits(amounts: Mapping[str, float], nodes: list[dict[str, Any]]) -> bool:
    """Say whether a node has all that, at least when it is idle.

    Args:
        amounts: what is needed.
        nodes: as `ray.nodes()` gives them.
    """
    return any(
        node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in amounts.items())
        for node in nodes
    )


def unmet(name: str, amounts: Mapping[str, float], nodes: list[dict[str, Any]]) -> str:
    """Say what a call asks for, and what there is.

    Args:
        name: of the task run.
        amounts: what it needs.
        nodes: those that there are.
    """
    alive = [node for node in nodes if node["Alive"]]
    have = sorted({_shown(_offered(node["Resources"])) for node in alive})
    return (
        f"Task run {name!r} asks for {_shown(amounts)}, which no node of the Ray cluster has. Its {len(alive)} "
        f"node{'' if len(alive) == 1 else 's'} have at most: {'; '.join(have[:5]) or 'nothing'}."
    )


def refuse_labels(name: str, selector: Mapping[str, Any], nodes: Callable[..., list[dict[str, Any]]]) -> None:
    """Say at once that a call asks for labels that no node has; it would wait for ever.

    Only plain values are looked at: what operators such as `!` and `in(...)` mean is Ray's to say.

    Args:
        name: of the task run.
        selector: its `label_selector`.
        nodes: gives the nodes that there are.

    Raises:
        TaskRunnerOptionError: no node has them.
    """
    plain = {label: value for label, value in selector.items() if not str(value).startswith(("!", "in("))}
    if not plain or _are_there(plain, nodes()) or _are_there(plain, nodes(fresh=True)):
        return
    alive = [node.get("Labels") or {} for node in nodes() if node["Alive"]]
    have = sorted({f"{label}={labels[label]}" for labels in alive for label in plain if label in labels})
    asked = ", ".join(f"{label}={value}" for label, value in plain.items())
    raise TaskRunnerOptionError(
        f"Task run {name!r} asks for a node with the labels {asked}, and the Ray cluster has none. Of these "
        f"labels, its nodes have: {', '.join(have[:5]) or 'nothing'}. Correct label_selector, or start a node "
        "that has them (`ray start --labels=...`)."
    )


def _are_there(labels: Mapping[str, Any], nodes: list[dict[str, Any]]) -> bool:
    return any(node["Alive"] and labels.items() <= (node.get("Labels") or {}).items() for node in nodes)


def _offered(resources: Mapping[str, float]) -> dict[str, float]:
    return {
        name: amount
        for name, amount in resources.items()
        if not name.startswith("node:") and name != "object_store_memory"
    }


def _shown(amounts: Mapping[str, float]) -> str:
    return (
        ", ".join(
            f"{name}={amount / 2**30:.2f}GiB" if name == "memory" else f"{name}={amount:g}"
            for name, amount in sorted(amounts.items())
        )
        or "nothing"
    )


def refuse_unmet(
    name: str, amounts: Mapping[str, float], nodes: Callable[[], list[dict[str, Any]]], *, may_grow: bool
) -> None:
    """Say at once what would wait for ever.

    Args:
        name: of the task run.
        amounts: what it needs.
        nodes: gives the nodes that there are.
        may_grow: whether the cluster may get others: then it is a warning.

    Raises:
        TaskRunnerOptionError: no node has that much, and none is going to.
    """
    there = nodes()
    if fits(amounts, there):
        return
    text = unmet(name, amounts, there)
    if not may_grow:
        raise TaskRunnerOptionError(f"{text} Ask for less, or start a node that has it.")
    logger.warning("%s It waits until the cluster gets one.", text)
