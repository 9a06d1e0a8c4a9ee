"""Hold bodies against the classes of the SDK beside which this runs: reads and writes JSON.

    PYTHONPATH=<folder of an SDK> python tests/strict/validate.py < bodies.json > verdicts.json

It imports nothing of tinkex. A verdict is what is wrong with the body, ``absent`` for a class that this SDK lacks, or
``names`` for a dataclass, of which only the names of the fields can be compared. ``fields`` are those names.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import pkgutil
import sys
import types
from typing import Any

if importlib.util.find_spec("torch") is None:
    # SDK 0.7 imports it, for a conversion that no request needs.
    sys.modules["torch"] = types.ModuleType("torch")
    sys.modules["torch"].Tensor = type("Tensor", (), {})


def classes() -> dict[str, type[Any]]:
    """Return the classes of the SDK's types by name."""
    package = importlib.import_module("tinker.types")
    modules = [importlib.import_module(info.name) for info in pkgutil.walk_packages(package.__path__, "tinker.types.")]
    found = [item for module in modules for item in vars(module).values() if isinstance(item, type)]
    return {cls.__name__: cls for cls in found if cls.__module__.split(".")[0] == "tinker"}


def fields(cls: type[Any] | None) -> set[str]:
    """Return the names that a class has for its fields on the wire."""
    if dataclasses.is_dataclass(cls):
        return {field.name for field in dataclasses.fields(cls)}
    found = getattr(cls, "model_fields", {})
    others = [name for field in found.values() for name in getattr(field.validation_alias, "choices", ())]
    return {*found, *others}


def verdict(cls: type[Any] | None, body: dict[str, Any]) -> Any:
    """Return what is wrong with a body; an empty list for nothing."""
    if cls is None:
        return "absent"
    if dataclasses.is_dataclass(cls):
        # One that keeps a field for itself looks different on the wire.
        private = any(name.startswith("_") for name in fields(cls))
        return "names" if private else sorted(set(body) - fields(cls)) or "names"
    # Classes that may also appear in answers ignore what they do not know; here they must not.
    strict = type(cls.__name__, (cls,), {"model_config": {"extra": "forbid"}, "__module__": cls.__module__})
    try:
        strict.model_validate(body)
    except ValueError as error:
        return [str(error)]
    return []


if __name__ == "__main__":
    known = classes()
    asked = json.load(sys.stdin)
    for item in asked:
        cls = known.get(item["name"])
        item.update(verdict=verdict(cls, item["body"]), fields=sorted(fields(cls)))
    json.dump(asked, sys.stdout)
