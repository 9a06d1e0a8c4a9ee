"""Values as plain data, and made of plain data, as pydantic's ``model_dump`` and ``model_validate`` do it."""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import attrs

from tinkex import types
from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._numbers import kinds
from tinkex.wire.json import structure

__all__ = ["FieldInfo", "Mode", "dump", "fields_of", "items_of", "refuses_unknown", "validate", "values"]

T = TypeVar("T")
Mode = Literal["python", "json"]

_STORED = {types.EncodedTextChunk: "tokens", types.TensorData: "data"}
"""What the field is called to the outside that holds packed numbers."""
_STRICT = re.compile(r"(Request|Params|Query|Owner|Config|Chunk|Input|Target|Node|Graph|Datum|Span)$")


@attrs.frozen
class FieldInfo:
    """What ``model_fields`` tells of a field.

    Attributes:
        annotation: Its type.
        default: What it is unless given; None if it must be given.
        required: It must be given.
    """

    annotation: Any
    default: Any
    required: bool

    def is_required(self) -> bool:
        """Tell whether it must be given."""
        return self.required


def values() -> list[type[Any]]:
    """Return the classes of all public values."""
    found = [getattr(types, name) for name in types.__all__]
    return [cls for cls in found if isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))]


def refuses_unknown(cls: type[Any]) -> bool:
    """Tell whether the official SDK refuses a field that it does not know; of what a server sends it ignores them."""
    return cls is not types.SamplingParams and _STRICT.search(cls.__name__) is not None


def _fields_of(cls: Any) -> dict[str, FieldInfo]:
    """Return the fields by name, in the order of their declaration."""
    if not attrs.has(cls):
        return {field.name: _of_dataclass(field) for field in dataclasses.fields(cls)}
    attrs.resolve_types(cls)
    return {_STORED.get(cls, "") if field.name == "_values" else field.name: _of(field) for field in attrs.fields(cls)}


fields_of: Callable[[Any], dict[str, FieldInfo]] = functools.cache(_fields_of)


def _of(field: attrs.Attribute[Any]) -> FieldInfo:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    required = default is attrs.NOTHING
    return FieldInfo(field.type, None if required else default, required)


def _of_dataclass(field: dataclasses.Field[Any]) -> FieldInfo:
    required = field.default is dataclasses.MISSING
    return FieldInfo(field.type, None if required else field.default, required)


def items_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Go through the fields of a value, with what they hold."""
    for name in fields_of(type(value)):
        yield name, getattr(value, name)


def dump(value: Any, mode: Mode = "python", skip: Callable[[FieldInfo | None, Any], bool] | None = None) -> Any:
    """Return plain data: values become dicts, also those inside others.

    Args:
        value: A value, or plain data with values in it.
        mode: ``json`` also makes texts of times and None of what JSON has no number for.
        skip: Tells by the field, which is None in a dict, and what it holds, whether to leave it out.
    """
    if isinstance(value, types.Unrecognized):
        return {**dump(value.fields, mode, skip), "type": value.type}
    if attrs.has(type(value)) or dataclasses.is_dataclass(value):
        fields = fields_of(type(value))
        pairs = [(name, item) for name, item in items_of(value) if skip is None or not skip(fields[name], item)]
        return {name: dump(item, mode, skip) for name, item in pairs}
    if isinstance(value, Mapping):
        return {key: dump(item, mode, skip) for key, item in value.items() if skip is None or not skip(None, item)}
    if isinstance(value, (list, tuple)):
        if kinds(value) <= {int, str}:
            return list(value)
        listed = [dump(item, mode, skip) for item in value]
        return tuple(listed) if mode == "python" and isinstance(value, tuple) else listed
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value if mode == "python" else _to_json(value)


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    value = plain_number(value.value if isinstance(value, enum.Enum) else value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def validate(cls: type[T], data: object) -> T:
    """Make a value of plain data.

    Args:
        cls: The class.
        data: A dict with its fields, or such a value already.

    Raises:
        InvalidInputError: It does not fit; the message has the path of the field.
    """
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"{cls.__name__} is made of a dict, got {data!r:.80}")
    unknown = ", ".join(str(name) for name in data if name not in fields_of(cls))
    if unknown and refuses_unknown(cls):
        raise InvalidInputError(f"{cls.__name__} has no field {unknown:.80}")
    return structure(dump(data, "json"), cls)
