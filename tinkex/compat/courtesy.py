"""Two methods of pydantic that programs written for the official SDK may call on a value."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from tinkex import types
from tinkex.wire.json import encode

__all__ = ["add", "remove"]


def _fields(cls: type[Any]) -> list[str]:
    declared = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else attrs.fields(cls)
    return [field.name for field in declared if not field.name.startswith("_")]


def model_dump(self: Any, *, exclude_none: bool = False, **_: object) -> dict[str, Any]:
    """Return the value as plain data; what is None only if ``exclude_none`` is not set."""
    written: dict[str, Any] = orjson.loads(encode(self))
    return written if exclude_none else {**dict.fromkeys(_fields(type(self))), **written}


def model_copy(self: Any, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Any:
    """Return a copy with some fields changed."""
    if not update:
        return copy.deepcopy(self) if deep else copy.copy(self)
    return (dataclasses.replace if dataclasses.is_dataclass(self) else attrs.evolve)(self, **update)


_METHODS = (model_dump, model_copy)


def _values() -> list[Any]:
    found = [getattr(types, name) for name in types.__all__]
    return [cls for cls in found if isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))]


def add() -> None:
    """Give the methods to each type."""
    for cls in _values():
        for method in _METHODS:
            setattr(cls, method.__name__, method)


def remove() -> None:
    """Take them away again."""
    for cls in _values():
        for method in _METHODS:
            if method.__name__ in vars(cls):
                delattr(cls, method.__name__)
