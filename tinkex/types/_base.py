"""Field helpers shared by the values: what the two JSON rules of the wire need to know about a field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from tinkex.errors import InvalidInputError

ALWAYS = {"tinkex": "always"}
"""Metadata of a field that SDKs before 0.18 send even when it is null or has its default."""
_SINCE = "since"


def since(sdk: str) -> dict[str, str]:
    """Return the metadata of a request's field that came with this version of the official SDK.

    A server that reuses the request classes of an older SDK refuses it, so it does not travel at its default. A field
    without this is in SDK 0.7 already, or came together with its request.
    """
    return {_SINCE: sdk}


def default_of(field: attrs.Attribute[Any]) -> Any:
    """Return the default of a field."""
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def is_late(field: attrs.Attribute[Any]) -> bool:
    """Tell whether a field came with a later SDK than its request."""
    return _SINCE in field.metadata


def late_fields(value: Any) -> dict[str, str]:
    """Find what is set in a request, at any depth, that a server may be too old to know.

    Returns:
        The version of the SDK that each field came with, by the name of the field.
    """
    found: dict[str, str] = {}
    fields = attrs.fields(type(value)) if attrs.has(type(value)) else ()
    for field in fields:
        item = getattr(value, field.name)
        if is_late(field) and item is not None and (default_of(field) is None or item != default_of(field)):
            found[field.name] = field.metadata[_SINCE]
    for part in _parts(value, fields):
        found |= late_fields(part)
    return found


def _parts(value: Any, fields: Iterable[attrs.Attribute[Any]]) -> Iterable[Any]:
    if isinstance(value, dict) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return (value if isinstance(value, dict) else vars(value)).values()
    return value if isinstance(value, list) else [getattr(value, field.name) for field in fields]


_OF_PYDANTIC = frozenset({"copy", "dict", "json", "model_copy", "model_dump", "model_dump_json", "model_fields_set"})


class Value:
    """What all values share: a text without the fields that are None.

    It is one method for all, because making one for each is a good part of importing them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the fields, each as attrs would."""
        shown = [
            f"{field.name}={(repr if field.repr is True else field.repr)(item)}"
            for field in attrs.fields(type(self))  # type: ignore[arg-type]
            if field.repr and (item := getattr(self, field.name)) is not None
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The fields by name, for ``vars()``; a new dict each time."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        """Say where the methods are that the official SDK's values have."""
        hint = "; tinkex.compat.install() adds the methods of pydantic" if name in _OF_PYDANTIC else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")


def tag(name: str) -> Any:
    """Declare a constant ``type`` field; SDKs before 0.18 do not send it, so servers must not need it."""
    return attrs.field(default=name, repr=False)


def kind(name: str) -> Any:
    """Declare the constant field by which a reader tells the members of a union apart; it always travels."""
    return attrs.field(default=name, metadata=ALWAYS, repr=False)


def bytes_only(value: bytes | bytearray | memoryview) -> bytes:
    """Copy bytes; ``bytes(5)`` would make five zeros of a mistake.

    Raises:
        InvalidInputError: The value is not bytes.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidInputError(f"data must be bytes, got {value!r:.60}", field="data")
    return bytes(value)


class FrozenList(list[Any]):
    """A list that is part of a value: equal to every list and tuple of the same items, and not to be changed.

    A change would reach a copy only, so it is refused instead of lost. Slices, sums and ``copy()`` are plain lists.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("this list is part of a value that does not change: take list(...) of it, and make a new value")

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __eq__(self, other: object) -> bool:
        """Compare with a list or a tuple."""
        return list.__eq__(self, list(other)) if isinstance(other, (list, tuple)) else NotImplemented

    def __ne__(self, other: object) -> bool:
        """Compare with a list or a tuple."""
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        """Be the same key as a tuple."""
        return hash(tuple(self))

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        """Copy and pickle as a whole: there is no adding to it."""
        return FrozenList, (list(self),)


def copied_list(value: Iterable[Any]) -> list[Any]:
    """Copy into a list, so that the caller's later changes do not reach the value."""
    return list(value)


def _copied_dict(value: Mapping[str, Any], field: attrs.Attribute[Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{field.name} must be a dict, got {value!r:.80}", field=field.name)
    return dict(value)


_DICT: Any = attrs.Converter(_copied_dict, takes_field=True)
_DICT_OR_NONE = attrs.converters.optional(_DICT)


def copied_dict(**options: Any) -> Any:
    """Declare a field whose dict is copied, so that the caller's later changes do not reach the value.

    A field with a ``default`` may be None. All else is an InvalidInputError.
    """
    return attrs.field(converter=_DICT_OR_NONE if "default" in options else _DICT, **options)


def optional(check: Callable[[Any, attrs.Attribute[Any], Any], None]) -> Callable[..., None]:
    """Make a validator that lets None through."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return validate


def _fail(instance: Any, attribute: attrs.Attribute[Any], value: Any, rule: str) -> None:
    name = f"{type(instance).__name__}.{attribute.name}"
    raise InvalidInputError(f"{name} must be {rule}, got {value!r:.80}", field=attribute.name)


def whole(minimum: int | None = None, maximum: int | None = None) -> Callable[..., None]:
    """Make a validator for an int within bounds (both inclusive)."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        fits = isinstance(value, int) and not isinstance(value, bool)
        fits = fits and (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
        if not fits:
            low = "" if minimum is None else f" of at least {minimum}"
            high = "" if maximum is None else f" and at most {maximum}"
            _fail(instance, attribute, value, f"a whole number{low}{high}")

    return validate


def number(
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Callable[..., None]:
    """Make a validator for a finite number; ``minimum`` and ``maximum`` are inclusive, the others are not."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
        fits = fits and (minimum is None or value >= minimum) and (above is None or value > above)
        fits = fits and (maximum is None or value <= maximum) and (below is None or value < below)
        if not fits:
            bounds = (("of at least", minimum), ("above", above), ("at most", maximum), ("below", below))
            rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
            _fail(instance, attribute, value, f"a finite number {rule}".strip())

    return validate


SEED = whole(-(2**63), 2**64 - 1)
"""Validator of a seed: what JSON writers and the binary form can hold."""


def one_of(*choices: str) -> Callable[..., None]:
    """Make a validator for a text out of a fixed set."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            _fail(instance, attribute, value, "one of " + ", ".join(repr(choice) for choice in choices))

    return validate


def text(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validate a non-empty text."""
    if not isinstance(value, str) or not value:
        _fail(instance, attribute, value, "a non-empty text")


def texts(instance: Any, attribute: attrs.Attribute[Any], value: Mapping[Any, Any]) -> None:
    """Validate a dict of texts by name."""
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            name = f"{type(instance).__name__}.{attribute.name}[{key!r:.80}]"
            raise InvalidInputError(f"{name} must be a text under a name, got {item!r:.80}", field=attribute.name)
