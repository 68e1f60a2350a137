"""Compare YAML with the types of the Kubernetes API, and with the keys of the Airflow chart, without a cluster."""

import re
from typing import Any

from kubernetes.client import models

_PLAIN = {"str": str, "int": int, "bool": bool, "float": float}


def faults(value: Any, kind: Any, where: str = "") -> list[str]:
    """Return what does not fit: unknown keys, and values of another type, each with its path.

    Args:
        value: what the file has.
        kind: `str`, `int`, `bool`, `any`, the name of a type of the Kubernetes client, a list with the type of its
            entries, or a mapping from key to type, in which `*` is any key.
        where: path of the value.
    """
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [fault for i, entry in enumerate(value) for fault in faults(entry, kind[0], f"{where}[{i}]")]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{where}: not a mapping"]
        known = {key: kind.get(key, kind.get("*")) for key in value}
        unknown = [f"{where}.{key}: no such key" for key, found in known.items() if found is None]
        return unknown + [
            f for key, k in known.items() if k is not None for f in faults(value[key], k, f"{where}.{key}")
        ]
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "bool") == isinstance(value, bool)
        return [] if fits else [f"{where}: {value!r} is not a {kind}"]
    return [] if kind in {"any", "object", "datetime"} else _api_faults(value, kind, where)


def _api_faults(value: Any, kind: str, where: str) -> list[str]:
    if mapping := re.fullmatch(r"dict\[str, (.+)\]", kind):
        # A quantity such as `limits: {nvidia.com/gpu: 1}` may be a number, although the API calls it a string.
        inner = "any" if where.endswith((".limits", ".requests")) else mapping[1]
        return faults(value, {"*": inner}, where)
    if entries := re.fullmatch(r"list\[(.+)\]", kind):
        return faults(value, [entries[1]], where)
    model = getattr(models, kind)
    types = {model.attribute_map[name]: found for name, found in model.openapi_types.items()}
    found = faults(value, types, where)
    if isinstance(value, dict):
        found += [f"{where}: {key} is missing" for key in _required(model) - value.keys()]
    return found


def _required(model: Any) -> set[str]:
    """Return the keys without which the client refuses to build an object."""
    needed = set()
    for name, key in model.attribute_map.items():
        setter = getattr(model, name).fset
        if setter is not None and "must not be `None`" in str(setter.__code__.co_consts):
            needed.add(key)
    return needed
