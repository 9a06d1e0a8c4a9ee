"""The JSON form of the API's values: one cattrs converter over orjson.

The rules of the wire, for requests:

* since 0.18 ("B", what we write unless told otherwise): every field is sent, except those that are None;
  ``type`` is sent;
* up to 0.16 ("A"): only what differs from its default is sent, and fields that those SDKs always set, even if
  they are None; ``type`` is not sent;
* bytes travel as base64, times as RFC 3339, arrays as lists of numbers; NaN and infinity cannot travel.

For everything that is read: unknown fields are ignored, ``null`` equals absent where a field is optional, numbers
and texts are taken strictly (``"7"`` is not a number, ``1`` is not a boolean), chunks are told apart by their
fields, because ``type`` may be absent.

Lists and arrays of numbers go to orjson as they are: no Python loop runs over tokens.
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar

import attrs
import cattrs
import orjson
from cattrs import transform_error
from cattrs.gen import make_dict_structure_fn

from tinkex.errors import FailureCategory, InvalidInputError
from tinkex.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    GenericEvent,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInputChunk,
    RequestFailedResponse,
    ResultMetadata,
    SessionEndEvent,
    SessionStartEvent,
    TelemetryEvent,
    TensorData,
    TryAgainResponse,
    UnhandledExceptionEvent,
)
from tinkex.types._base import ALWAYS, TAG
from tinkex.types._numbers import all_finite, kinds
from tinkex.types.sampling import Stop

__all__ = ["Era", "decode", "decode_result", "encode", "make_converter", "structure", "unstructure"]

T = TypeVar("T")
Era = Literal["A", "B"]

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_CHUNK_BY_FIELD: dict[str, type[Any]] = {
    "tokens": EncodedTextChunk,
    "location": ImageAssetPointerChunk,
    "data": ImageChunk,
    "dmel": DmelChunk,
}
_EVENT_BY_NAME: dict[str, type[Any]] = {
    "SESSION_START": SessionStartEvent,
    "SESSION_END": SessionEndEvent,
    "UNHANDLED_EXCEPTION": UnhandledExceptionEvent,
    "GENERIC_EVENT": GenericEvent,
}


def encode(value: Any, era: Era = "B") -> bytes:
    """Write a value as JSON.

    Args:
        value: One of the types of :mod:`tinkex.types`, or plain data.
        era: Which generation's rules to follow.

    Returns:
        UTF-8 JSON.

    Raises:
        InvalidInputError: Something in it has no JSON form, such as a value in ``user_metadata`` or a NaN.
    """
    try:
        return orjson.dumps(unstructure(value, era), option=_OPTIONS)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{type(value).__name__} cannot be written as JSON: {error}") from error


def decode(data: bytes, cls: type[T]) -> T:
    """Read a value from JSON.

    Raises:
        InvalidInputError: It is not JSON, or does not fit the type; the message has the path of each field that
            does not.
    """
    return structure(parse(data), cls)


def parse(data: bytes) -> Any:
    """Read JSON into plain data.

    Raises:
        InvalidInputError: It is not JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"not JSON: {error}") from error


def structure(obj: Any, cls: type[T]) -> T:
    """Turn plain data into a value of the API.

    Raises:
        InvalidInputError: It does not fit; the message has the path of each bad field.
    """
    try:
        return make_converter("B").structure(obj, cls)
    except InvalidInputError as error:
        raise InvalidInputError(f"{cls_name(cls)}: {error.message}", field=error.field) from error
    except Exception as error:
        what = "; ".join(transform_error(error, path=cls_name(cls), format_exception=_describe))
        raise InvalidInputError(what, field=what.rpartition(" @ ")[2]) from error


def unstructure(value: Any, era: Era = "B") -> Any:
    """Turn a value of the API into plain data that orjson can write; arrays stay arrays."""
    return make_converter(era).unstructure(value)


def decode_result(data: bytes, cls: type[T]) -> TryAgainResponse | ResultMetadata | RequestFailedResponse | T:
    """Read the JSON answer to ``retrieve_future``.

    The answers have no common discriminator: "not yet" has ``type: try_again``, "large" has
    ``status: complete_metadata``, a failure has a key ``error``, and anything else is the result that was asked
    for.

    Raises:
        InvalidInputError: The body fits none of them.
    """
    obj = parse(data)
    if not isinstance(obj, dict):
        raise InvalidInputError(f"{cls_name(cls)}: expected an object, got {type(obj).__name__}")
    if obj.get("type") == "try_again":
        return structure(obj, TryAgainResponse)
    if obj.get("status") == "complete_metadata":
        return structure(obj, ResultMetadata)
    if "error" in obj:
        return structure(obj, RequestFailedResponse)
    return structure(obj, cls)


def cls_name(cls: Any) -> str:
    """Name a type for an error message."""
    return getattr(cls, "__name__", str(cls))


@functools.lru_cache(maxsize=2)
def make_converter(era: Era = "B") -> cattrs.Converter:
    """Build the converter of one era; both read the same."""
    converter = cattrs.Converter(detailed_validation=True, prefer_attrib_converters=False)
    configure_converter(converter, era)
    return converter


def configure_converter(converter: cattrs.Converter, era: Era) -> None:
    """Register the rules of the wire, which the docstring of this module lists."""
    for primitive in (int, str, bool):
        converter.register_structure_hook(primitive, _strict(primitive))
    converter.register_structure_hook(float, _strict_float)
    converter.register_unstructure_hook(float, _finite)
    converter.register_structure_hook(bytes, lambda value, _: _from_base64(value))
    converter.register_unstructure_hook(bytes, lambda value: base64.b64encode(value).decode("ascii"))
    converter.register_structure_hook(datetime, lambda value, _: _from_rfc3339(value))
    converter.register_unstructure_hook(datetime, _to_rfc3339)
    converter.register_structure_hook_func(lambda cls: cls == Stop, lambda value, _: value)
    converter.register_structure_hook_func(lambda cls: cls == (float | str), _number_or_text)
    converter.register_structure_hook_func(lambda cls: cls == FailureCategory, lambda value, _: value)
    for list_type, kinds_allowed in _LISTS:
        _register_list(converter, list_type, kinds_allowed)
    converter.register_structure_hook_func(
        lambda cls: cls == ModelInputChunk, functools.partial(_structure_chunk, converter)
    )
    converter.register_structure_hook_func(
        lambda cls: cls == TelemetryEvent, functools.partial(_structure_event, converter)
    )
    converter.register_unstructure_hook_func(
        lambda cls: cls in (ModelInputChunk, TelemetryEvent), converter.unstructure
    )
    converter.register_unstructure_hook_func(lambda cls: cls == Stop, _as_it_is)
    converter.register_unstructure_hook_func(lambda cls: cls == (float | str), _write_number_or_text)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _reader(cls, converter))
    converter.register_unstructure_hook_factory(attrs.has, lambda cls: _writer(cls, converter, era))
    converter.register_structure_hook(EncodedTextChunk, lambda value, _: _read_text(value))
    converter.register_unstructure_hook(EncodedTextChunk, _write_text_a if era == "A" else _write_text_b)
    converter.register_structure_hook(TensorData, lambda value, _: _read_tensor(value))
    converter.register_unstructure_hook(TensorData, _write_tensor)
    converter.register_unstructure_hook(Datum, functools.partial(_write_datum, converter))


_LISTS: tuple[tuple[Any, set[type[Any]]], ...] = (
    (list[int], {int}),
    (list[float], {int, float}),
    (list[float | None], {int, float, type(None)}),
    (list[str], {str}),
)


def _register_list(converter: cattrs.Converter, list_type: Any, allowed: set[type[Any]]) -> None:
    """Read and write a long list of plain values with one pass in C instead of a hook for each value."""
    write = _write_numbers if float in allowed else _as_it_is
    converter.register_structure_hook_func(
        lambda cls: cls == list_type, lambda value, _: _plain_list(value, allowed)
    )
    converter.register_unstructure_hook_func(lambda cls: cls == list_type, write)


def _plain_list(value: Any, allowed: set[type[Any]]) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r:.60}")
    if not kinds(value) <= allowed:
        position = next(at for at, item in enumerate(value) if type(item) not in allowed)
        raise TypeError(f"item {position} has the wrong type: {value[position]!r:.60}")
    return value


def _reader(cls: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Read an attrs class: null counts as absent where the field has a default."""
    read = make_dict_structure_fn(cls, converter, _cattrs_use_alias=False)
    attrs.resolve_types(cls)
    optional = {field.name for field in attrs.fields(cls) if field.default is not attrs.NOTHING}

    def structure_object(obj: Any, _: Any) -> Any:
        if None in _object(obj).values():
            obj = {key: value for key, value in obj.items() if value is not None or key not in optional}
        return read(obj, cls)

    return structure_object


def _writer(cls: type[Any], converter: cattrs.Converter, era: Era) -> Callable[[Any], dict[str, Any]]:
    """Write an attrs class by the rules of an era."""
    attrs.resolve_types(cls)
    fields = [(field, converter.get_unstructure_hook(field.type, False)) for field in attrs.fields(cls)]
    travels = _travels_a if era == "A" else _travels_b

    def write(value: Any) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for field, hook in fields:
            item = getattr(value, field.name)
            if travels(field, item):
                written[field.name] = None if item is None else _write_field(cls, field.name, hook, item)
        return written

    return write


def _travels_a(field: attrs.Attribute[Any], item: Any) -> bool:
    return field.metadata != TAG and (field.metadata == ALWAYS or item != _default(field))


def _travels_b(_: attrs.Attribute[Any], item: Any) -> bool:
    return item is not None


def _write_field(cls: type[Any], name: str, hook: Callable[[Any], Any], item: Any) -> Any:
    try:
        return hook(item)
    except InvalidInputError as error:
        raise InvalidInputError(f"{cls.__name__}.{name}: {error.message}", field=name) from error


def _default(field: attrs.Attribute[Any]) -> Any:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _strict(primitive: type[Any]) -> Callable[[Any, Any], Any]:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not primitive:
            raise TypeError(f"expected {primitive.__name__}, got {value!r:.60}")
        return value

    return check


def _strict_float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"expected a number, got {value!r:.60}")
    return float(value)


def _as_it_is(value: Any) -> Any:
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise InvalidInputError(f"{value} has no JSON form; every number must be finite")
    return value


def _write_numbers(values: list[Any]) -> list[Any]:
    if not all_finite([value for value in values if value is not None]):
        at = next(at for at, value in enumerate(values) if value is not None and not math.isfinite(value))
        raise InvalidInputError(
            f"item {at} is {values[at]}, which has no JSON form; every number must be finite"
        )
    return values


def _write_number_or_text(value: float | str) -> float | str:
    return value if isinstance(value, str) else _finite(value)


def _number_or_text(value: Any, _: Any) -> float | str:
    if type(value) not in (int, float, str):
        raise TypeError(f"expected a number or a text, got {value!r:.60}")
    return value  # type: ignore[no-any-return]


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise TypeError(f"expected base64, got {value!r:.40}") from error


def _from_rfc3339(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError(f"expected a time, got {value!r:.60}")
    text = value[:-1] + "+00:00" if value[-1:] in ("Z", "z") else value
    head, dot, rest = text.partition(".")
    if dot:
        # Python 3.10 reads three or six digits only.
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def _to_rfc3339(when: datetime) -> str:
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return when.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _structure_chunk(converter: cattrs.Converter, obj: Any, _: Any) -> Any:
    names = [name for name in _CHUNK_BY_FIELD if isinstance(obj, dict) and obj.get(name) is not None]
    if len(names) != 1:
        raise TypeError(f"a chunk needs exactly one of {', '.join(_CHUNK_BY_FIELD)}, got {_keys(obj)}")
    return converter.structure(obj, _CHUNK_BY_FIELD[names[0]])


def _structure_event(converter: cattrs.Converter, obj: Any, _: Any) -> Any:
    name = obj.get("event") if isinstance(obj, dict) else None
    if name not in _EVENT_BY_NAME:
        raise TypeError(f"event must be one of {', '.join(_EVENT_BY_NAME)}, got {name!r:.40}")
    return converter.structure(obj, _EVENT_BY_NAME[name])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r:.60}")
    return value


def _keys(obj: Any) -> str:
    return ", ".join(map(str, obj))[:80] if isinstance(obj, dict) else repr(obj)[:80]


def _write_text_a(chunk: EncodedTextChunk) -> dict[str, Any]:
    return {"tokens": chunk.buffer}


def _write_text_b(chunk: EncodedTextChunk) -> dict[str, Any]:
    return {"tokens": chunk.buffer, "type": "encoded_text"}


def _write_tensor(tensor: TensorData) -> dict[str, Any]:
    written: dict[str, Any] = {"data": tensor.buffer, "dtype": tensor.dtype}
    if tensor.shape is not None:
        written["shape"] = tensor.shape
    if tensor.is_sparse:
        written["sparse_crow_indices"] = tensor.sparse_crow_indices
        written["sparse_col_indices"] = tensor.sparse_col_indices
    return written


def _read_text(obj: Any) -> EncodedTextChunk:
    return EncodedTextChunk(tokens=_plain_list(_object(obj)["tokens"], {int}))


def _read_tensor(obj: Any) -> TensorData:
    data = _plain_list(_object(obj)["data"], {int, float})
    names = ("shape", "sparse_crow_indices", "sparse_col_indices")
    return TensorData(data=data, dtype=obj["dtype"], **{name: obj.get(name) for name in names})


def _write_datum(converter: cattrs.Converter, datum: Datum) -> dict[str, Any]:
    inputs = {name: _write_tensor(tensor) for name, tensor in datum.loss_fn_inputs.items()}
    return {"model_input": converter.unstructure(datum.model_input), "loss_fn_inputs": inputs}


def _describe(error: BaseException, _: type[Any] | None) -> str:
    if isinstance(error, KeyError):
        return f"required field {error.args[0]!r} is missing"
    return error.message if isinstance(error, InvalidInputError) else str(error) or type(error).__name__
