"""The JSON form of the API's values: one cattrs converter over orjson.

The rules of the wire, for requests:

* since 0.18 ("B", what we write unless told otherwise): every field is sent, except those that are None, and those
  that came with a later SDK (``types._base.since``) and have their default; ``type`` is sent;
* up to 0.16 ("A"): only what differs from its default is sent, and fields that those SDKs always set, even if
  they are None; ``type`` is not sent;
* bytes travel as base64, times as RFC 3339, arrays as lists of numbers; NaN and infinity cannot travel.

For everything that is read: unknown fields are ignored, ``null`` equals absent where a field is optional,
numbers and texts are taken strictly (``"7"`` is not a number, ``1`` is not a boolean), chunks are told apart by their
fields, because ``type`` may be absent.

Long lists and arrays of numbers go to orjson as they are: no Python loop runs over tokens.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import importlib
import math
from collections.abc import Callable
from datetime import datetime, timezone
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

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
    ForwardBackwardOutput,
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
    Unrecognized,
)
from tinkex.types._base import ALWAYS, default_of, is_late
from tinkex.types._numbers import Values, all_finite, as_numpy_if_loaded, is_numpy, kinds, loaded, may_be_booleans
from tinkex.types.sampling import Stop
from tinkex.wire._texts import NumberText, parse_around

__all__ = ["Era", "decode", "decode_result", "encode", "make_converter", "structure", "unstructure"]

T = TypeVar("T")
Era = Literal["A", "B"]

_MANY = 1024
_ONE = 0x3F800000
"""The bits of 1.0 in float32; those of 0.0 are 0, and -0.0 has others."""
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
    except InvalidInputError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{type(value).__name__} cannot be written as JSON: {error}") from error


def decode(data: bytes, cls: type[T]) -> T:
    """Read a value from JSON.

    Raises:
        InvalidInputError: It is not JSON, or does not fit the type; the message has the path of each field that
            does not.
    """
    return structure(parse(data), cls)


def parse(data: bytes, loads: Callable[[bytes], Any] = orjson.loads) -> Any:
    """Read JSON into plain data.

    Raises:
        InvalidInputError: It is not JSON.
    """
    try:
        return loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"not JSON: {error}") from error


def structure(obj: Any, cls: type[T]) -> T:
    """Turn plain data into a value of the API.

    Raises:
        InvalidInputError: It does not fit; the message has the path of each bad field.
    """
    with contextlib.suppress(Exception):
        return make_converter("B").structure(obj, cls)
    # It does not fit: once more, with the code that knows where.
    try:
        return make_converter("B", places=True).structure(obj, cls)
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
    obj = parse(data, parse_around if cls is ForwardBackwardOutput else orjson.loads)
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


@functools.lru_cache(maxsize=4)
def make_converter(era: Era = "B", *, places: bool = False) -> cattrs.Converter:
    """Build the converter of one era; both read the same.

    Args:
        era: The rules by which it writes.
        places: Its errors tell where something does not fit; the code for that is longer, and takes longer to make.
    """
    converter = cattrs.Converter(detailed_validation=places, prefer_attrib_converters=False)
    configure_converter(converter, era)
    return converter


def configure_converter(converter: cattrs.Converter, era: Era) -> None:
    """Register the rules of the wire, which the docstring of this module lists."""
    converter.register_structure_hook_factory(attrs.has, lambda cls: _reader(cls, converter))
    converter.register_unstructure_hook_factory(attrs.has, lambda cls: _writer(cls, converter, era))
    converter.register_structure_hook_factory(_is_tagged, lambda union: _tagged_reader(union, converter))
    converter.register_unstructure_hook_factory(_is_tagged, lambda _: converter.unstructure)
    for cls, read, write in _RULES:
        _register(converter, cls, read, write)
    _register(converter, EncodedTextChunk, _read_text, functools.partial(_write_text, era))
    _register(converter, ModelInputChunk, functools.partial(_read_chunk, converter), converter.unstructure)
    _register(converter, TelemetryEvent, functools.partial(_read_event, converter), converter.unstructure)
    converter.register_unstructure_hook(Datum, functools.partial(_write_datum, converter))


def _register(converter: cattrs.Converter, cls: Any, read: Callable[[Any], Any], write: Callable[[Any], Any]) -> None:
    if get_origin(cls) is None:
        converter.register_structure_hook(cls, lambda value, _: read(value))
        converter.register_unstructure_hook(cls, write)
    else:
        converter.register_structure_hook_func(lambda given: given == cls, lambda value, _: read(value))
        converter.register_unstructure_hook_func(lambda given: given == cls, write)


def _tag_of(cls: type[Any]) -> attrs.Attribute[Any] | None:
    """Return the field that tells a class apart from the other members of its union; see ``types._base.kind``."""
    fields = attrs.fields(cls) if attrs.has(cls) else ()
    return next((field for field in fields if field.metadata == ALWAYS and isinstance(field.default, str)), None)


def _members(union: Any) -> list[Any]:
    return [cls for cls in get_args(union) if cls is not type(None)]


def _is_tagged(given: Any) -> bool:
    members = _members(given) if get_origin(given) in (Union, UnionType) else []
    return len(members) > 1 and all(cls is Unrecognized or _tag_of(cls) for cls in members)


def _tagged_reader(union: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Read a member of a union by its tag."""
    tagged = [(cls, _tag_of(cls)) for cls in _members(union)]
    by_tag = {str(tag.default): cls for cls, tag in tagged if tag is not None}
    name = next(tag.name for _, tag in tagged if tag is not None)
    others = Unrecognized if Unrecognized in get_args(union) else None

    def read(obj: Any, _: Any) -> Any:
        if obj is None and type(None) in get_args(union):
            return None
        tag = _object(obj).get(name)
        cls = by_tag.get(tag, others) if isinstance(tag, str) else None
        if cls is None:
            raise TypeError(f"{name} must be one of {', '.join(by_tag)}, got {tag!r:.60}")
        return converter.structure(obj, cls)

    return read


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
    return field.metadata == ALWAYS or item != default_of(field)


def _travels_b(field: attrs.Attribute[Any], item: Any) -> bool:
    return item is not None and not (is_late(field) and item == default_of(field))


def _write_field(cls: type[Any], name: str, hook: Callable[[Any], Any], item: Any) -> Any:
    try:
        return hook(item)
    except InvalidInputError as error:
        raise InvalidInputError(f"{cls.__name__}.{name}: {error.message}", field=name) from error


def _exactly(*allowed: type[Any]) -> Callable[[Any], Any]:
    """Read a value of one of the types, without any conversion."""
    names = " or ".join(kind.__name__ for kind in allowed)

    def read(value: Any) -> Any:
        if type(value) not in allowed:
            raise TypeError(f"expected {names}, got {value!r:.60}")
        return value

    return read


def _list_of(*allowed: type[Any]) -> Callable[[Any], list[Any]]:
    """Read a long list with one pass in C instead of a hook for each item."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {value!r:.60}")
        if not kinds(value).issubset(allowed):
            at = next(at for at, item in enumerate(value) if type(item) not in allowed)
            raise TypeError(f"item {at} has the wrong type: {value[at]!r:.60}")
        return value

    return read


def _read_float(value: Any) -> float:
    return float(_read_number(value))


def _as_it_is(value: Any) -> Any:
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise InvalidInputError(f"{value} has no JSON form; every number must be finite")
    return value


def _write_numbers(values: list[Any]) -> list[Any]:
    if not all_finite([value for value in values if value is not None]):
        at = next(at for at, value in enumerate(values) if value is not None and not math.isfinite(value))
        raise InvalidInputError(f"item {at}: {values[at]} has no JSON form; every number must be finite")
    return values


def _write_number_or_text(value: float | str) -> float | str:
    return value if isinstance(value, str) else _finite(value)


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise TypeError(f"expected base64, got {value!r:.40}") from error


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


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


def _read_chunk(converter: cattrs.Converter, obj: Any) -> Any:
    names = [name for name in _CHUNK_BY_FIELD if isinstance(obj, dict) and obj.get(name) is not None]
    if len(names) != 1:
        raise TypeError(f"a chunk needs exactly one of {', '.join(_CHUNK_BY_FIELD)}, got {_keys(obj)}")
    return converter.structure(obj, _CHUNK_BY_FIELD[names[0]])


def _read_event(converter: cattrs.Converter, obj: Any) -> Any:
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


def _read_unrecognized(obj: Any) -> Unrecognized:
    fields = dict(_object(obj))
    return Unrecognized(type=_exactly(str)(fields.pop("type")), fields=fields)


def _write_unrecognized(value: Unrecognized) -> dict[str, Any]:
    return {**value.fields, "type": value.type}


def _read_text(obj: Any) -> EncodedTextChunk:
    return EncodedTextChunk(tokens=_read_ints(_object(obj)["tokens"]))


def _for_orjson(values: Values) -> Any:
    """Return packed numbers as orjson takes them: a NumPy array if NumPy is there, else a list."""
    if len(values) >= _MANY and loaded("numpy") is None:
        # Loading it once costs less than making Python numbers of all values of a batch. If another thread is loading
        # it, this waits.
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy")
    seen = as_numpy_if_loaded(values)
    return seen if is_numpy(seen) else seen.tolist()


def _is_mask(floats: Any) -> bool:
    """Tell whether these are many, and each 0.0 or 1.0, as most weights are."""
    if len(floats) < _MANY or not is_numpy(floats):
        return False
    bits = floats.view("uint32")
    return bool(((bits == 0) | (bits == _ONE)).all())


def _write_floats(tensor: TensorData) -> Any:
    floats = _for_orjson(tensor.buffer)
    if _is_mask(floats):
        return floats.astype("int8")  # 0 and 1 are the same to JSON, and quicker to write
    return floats if all_finite(tensor.buffer) else _write_numbers(tensor.data)


def _write_text(era: Era, chunk: EncodedTextChunk) -> dict[str, Any]:
    tokens = _for_orjson(chunk.buffer)
    return {"tokens": tokens} if era == "A" else {"tokens": tokens, "type": chunk.type}


def _write_tensor(tensor: TensorData) -> dict[str, Any]:
    data = _write_floats(tensor) if tensor.dtype == "float32" else _for_orjson(tensor.buffer)
    written: dict[str, Any] = {"data": data, "dtype": tensor.dtype}
    if tensor.shape is not None:
        written["shape"] = tensor.shape
    if tensor.is_sparse:
        written["sparse_crow_indices"] = tensor.sparse_crow_indices
        written["sparse_col_indices"] = tensor.sparse_col_indices
    return written


def _read_tensor(obj: Any) -> TensorData:
    data, dtype = _object(obj)["data"], obj["dtype"]
    if isinstance(data, NumberText):
        data = data.numbers()
    names = ("shape", "sparse_crow_indices", "sparse_col_indices")
    rest = {name: obj.get(name) for name in names}
    if dtype != "float32" or not isinstance(data, list):
        return TensorData(data=_read_numbers(data), dtype=dtype, **rest)
    # Packing refuses everything but numbers and booleans, so most logprobs need no pass over their types.
    tensor = TensorData(data=data, dtype=dtype, **rest)
    if may_be_booleans(tensor.buffer):
        _read_numbers(data)
    return tensor


def _write_datum(converter: cattrs.Converter, datum: Datum) -> dict[str, Any]:
    inputs = {name: _write_tensor(tensor) for name, tensor in datum.loss_fn_inputs.items()}
    return {"model_input": converter.unstructure(datum.model_input), "loss_fn_inputs": inputs}


def _describe(error: BaseException, _: type[Any] | None) -> str:
    if isinstance(error, KeyError):
        return f"required field {error.args[0]!r} is missing"
    return error.message if isinstance(error, InvalidInputError) else str(error) or type(error).__name__


_read_number = _exactly(int, float)
_read_ints = _list_of(int)
_read_numbers = _list_of(int, float)
_RULES: tuple[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (int, _exactly(int), _as_it_is),
    (str, _exactly(str), _as_it_is),
    (bool, _exactly(bool), _as_it_is),
    (float, _read_float, _finite),
    (float | str, _exactly(int, float, str), _write_number_or_text),
    (bytes, _from_base64, _to_base64),
    (datetime, _from_rfc3339, _to_rfc3339),
    (list[int], _read_ints, _as_it_is),
    (list[float], _read_numbers, _write_numbers),
    (list[float | None], _list_of(int, float, type(None)), _write_numbers),
    (list[str], _list_of(str), _as_it_is),
    (TensorData, _read_tensor, _write_tensor),
    (Unrecognized, _read_unrecognized, _write_unrecognized),
    # These two are checked by the types that have them.
    (Stop, _as_it_is, _as_it_is),
    (FailureCategory, _as_it_is, _as_it_is),
)
"""How each type is read and written; the attrs classes follow from their fields."""
