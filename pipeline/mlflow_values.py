"""Results as MLflow takes them: flat names, numbers over steps, texts, in batches."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pipeline.unit import canonical_json

Item = TypeVar("Item")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted names; lists that hold sections are numbered."""
    flat = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def split_values(flat: Mapping[str, Any]) -> tuple[dict[str, list[tuple[int, float]]], dict[str, str]]:
    """Numbers as (step, value), a list of numbers over its index; and the texts. What has no value is left out."""
    series, texts = {}, {}
    for name, value in flat.items():
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, str) for part in parts):
            texts[name] = value if isinstance(value, str) else canonical_json(value)
        else:
            points = [(step, float(part)) for step, part in enumerate(parts) if part is not None]
            series |= {name: points} if points else {}
    return series, texts


def cell_tags(work: Mapping[str, Any]) -> dict[str, str]:
    """Method, loss, seed and names of a training, by the modules of its classes; of anything else none."""
    kinds = [part["type"] for axis in ("method", "loss") if isinstance(part := work.get(axis), Mapping)]
    if len(kinds) < 2 or "seed" not in work:
        return {}
    method, loss = (kind.split(".")[-2] for kind in kinds)
    return {"method": method, "loss": loss, **cell_names(method, loss), "seed": str(work["seed"])}


def cell_names(method: str, loss: str) -> dict[str, str]:
    """As files name a cell, and short enough for the legends of MLflow, like SF-DMD."""
    initials = "".join(word[0] for word in method.split("_"))
    return {"cell": f"{method}-{loss}", "short": f"{initials}-{loss}".upper()}


def in_batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def allowed(name: str) -> str:
    """The name with what MLflow forbids in keys replaced."""
    return re.sub(r"[^\w\-. /]", "_", name)[:250]
