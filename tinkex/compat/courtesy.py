"""The methods of pydantic that programs written for the official SDK call on values."""

from __future__ import annotations

import copy as copies
import functools
import json as stdlib_json
from collections.abc import Collection, Iterator, Mapping
from types import GenericAlias
from typing import Any

from tinkex.compat.plain import FieldInfo, Mode, dump, fields_of, items_of, validate, values

__all__ = ["add", "remove"]

_JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_DATACLASSES = frozenset(
    {
        "Datum",
        "ForwardBackwardInput",
        "ForwardBackwardOutput",
        "ForwardBackwardRequest",
        "ForwardRequest",
        "PromptAltTokens",
        "PromptProvenanceSpan",
        "SampleResponse",
        "SampledProvenanceSpan",
        "SampledSequence",
        "TensorData",
    }
)
"""What is no class of pydantic in the official SDK either, so that nobody iterates over it."""


def model_dump(
    self: Any,
    *,
    mode: Mode = "python",
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
    exclude_none: bool = False,
    exclude_unset: bool = False,
    exclude_defaults: bool = False,
    **_: object,
) -> dict[str, Any]:
    """Return the value as plain data.

    Args:
        self: The value.
        mode: ``python`` leaves times as they are, ``json`` makes texts of them.
        include: Only these fields.
        exclude: Not these fields.
        exclude_none: Not what is None.
        exclude_unset: Not what has its default: whether it was given is not known.
        exclude_defaults: The same.
        **_: Other options of pydantic, such as ``by_alias``: no field has an alias.
    """

    def skip(field: FieldInfo | None, item: Any) -> bool:
        if item is None and exclude_none:
            return True
        return field is not None and (exclude_unset or exclude_defaults) and _has_default(field, item)

    dumped: dict[str, Any] = dump(self, mode, skip)
    return {
        name: item
        for name, item in dumped.items()
        if (include is None or name in include) and (exclude is None or name not in exclude)
    }


def _has_default(field: FieldInfo, item: Any) -> bool:
    return not field.required and bool(item == field.default)


class _Dict:
    """``dict()``: an object of a class, because typing finds it where an annotation of a value says ``dict[...]``."""

    def __get__(self, instance: object, cls: type[Any]) -> Any:
        return self if instance is None else functools.partial(model_dump, instance)

    def __getitem__(self, item: Any) -> Any:
        return GenericAlias(dict, item)


def model_dump_json(self: Any, *, indent: int | None = None, **options: Any) -> str:
    """Return the value as JSON; options are those of :func:`model_dump`."""
    separators = (",", ":") if indent is None else None
    data = self.model_dump(**{**options, "mode": "json"})
    return stdlib_json.dumps(data, indent=indent, separators=separators, ensure_ascii=False)


def model_copy(self: Any, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Any:
    """Return a copy with some fields changed, which are checked."""
    copied = copies.deepcopy(self) if deep else copies.copy(self)
    return type(self)(**{**dict(items_of(copied)), **update}) if update else copied


def _copy(self: Any, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Any:
    """Return a copy, like ``model_copy``."""
    return self.model_copy(update=update, deep=deep)


def _model_validate(cls: type[Any], /, obj: object, **_: object) -> Any:
    """Make a value of a dict.

    Raises:
        InvalidInputError: It does not fit; it is a ValueError, as pydantic's error is.
    """
    return validate(cls, obj)


def _model_validate_json(cls: type[Any], /, json_data: str | bytes, **_: object) -> Any:
    """Make a value of JSON; errors are those of ``model_validate``, or a ValueError if it is no JSON."""
    return validate(cls, stdlib_json.loads(json_data))


def _model_construct(cls: type[Any], /, _fields_set: object = None, **given: Any) -> Any:
    """Make a value of its fields; they are checked, unlike pydantic's."""
    return cls(**given)


def _model_json_schema(cls: type[Any], /, *_: object, **__: object) -> dict[str, Any]:
    """Return what JSON the value has: its fields, and the types of those that are one number, text or boolean."""
    fields = fields_of(cls)
    properties = {name: {"type": kind} if (kind := _JSON_TYPES.get(f.annotation)) else {} for name, f in fields.items()}
    schema: dict[str, Any] = {"title": cls.__name__, "type": "object", "properties": properties}
    required = [name for name, field in fields.items() if field.required]
    return {**schema, "required": required} if required else schema


def _core_schema(cls: type[Any], /, _source: object, _handler: object) -> Any:
    """Tell pydantic, which alone asks for this, how a field of this type is made and written."""
    from pydantic_core import core_schema

    def write(value: Any, info: Any) -> Any:
        return value.model_dump(mode=info.mode, exclude_none=info.exclude_none, exclude_defaults=info.exclude_defaults)

    return core_schema.no_info_plain_validator_function(
        lambda given: validate(cls, given),
        serialization=core_schema.plain_serializer_function_ser_schema(write, info_arg=True),
    )


def _pydantic_json_schema(cls: type[Any], /, _source: object, _handler: object) -> dict[str, Any]:
    return _model_json_schema(cls)


def _iter(self: Any) -> Iterator[tuple[str, Any]]:
    """Go through the fields: pairs of name and value."""
    return items_of(self)


class _ModelFields:
    """``model_fields``, of the class and of its values."""

    def __get__(self, instance: object, cls: type[Any]) -> dict[str, FieldInfo]:
        return dict(fields_of(cls))


def _model_fields_set(self: Any) -> set[str]:
    """Return the names of the fields that do not have their default: which ones were given is not known."""
    fields = fields_of(type(self))
    return {name for name, item in items_of(self) if not _has_default(fields[name], item)}


_MEMBERS: dict[str, Any] = {
    "model_dump": model_dump,
    "model_dump_json": model_dump_json,
    "model_copy": model_copy,
    "dict": _Dict(),
    "json": model_dump_json,
    "copy": _copy,
    "model_validate": classmethod(_model_validate),
    "model_validate_json": classmethod(_model_validate_json),
    "model_construct": classmethod(_model_construct),
    "model_json_schema": classmethod(_model_json_schema),
    "parse_obj": classmethod(_model_validate),
    "parse_raw": classmethod(_model_validate_json),
    "model_fields": _ModelFields(),
    "model_fields_set": property(_model_fields_set),
    "__get_pydantic_core_schema__": classmethod(_core_schema),
    "__get_pydantic_json_schema__": classmethod(_pydantic_json_schema),
    "__iter__": _iter,
}


def _members(cls: type[Any]) -> dict[str, Any]:
    hidden = "__iter__" if cls.__name__ in _DATACLASSES else ""
    return {name: member for name, member in _MEMBERS.items() if name != hidden}


def add() -> None:
    """Give the methods to each type."""
    for cls in values():
        for name, member in _members(cls).items():
            setattr(cls, name, member)


def remove() -> None:
    """Take them away again."""
    for cls in values():
        for name in _members(cls):
            if name in vars(cls):
                delattr(cls, name)
