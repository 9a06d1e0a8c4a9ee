"""Copying and checking long runs of numbers without a Python loop over them.

They are kept as the binary form of the wire has them: int32 (token ids), int64 or float32, in an ``array.array``, or
in a read-only NumPy array if they came in an array. Packing a list is also the cheapest way to find out what is in it.
NumPy and torch are never imported from here: an array can only arrive if the caller has them loaded.
"""

from __future__ import annotations

import itertools
import math
import operator
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Union

from tinkex.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

Values = Union["array[Any]", "np.ndarray[Any, Any]"]

FLOAT32_OVERFLOW = float(2**128 - 2**103)
"""Smallest number that no longer rounds to a finite float32."""
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_NUMPY_INTS = {"i": "int32", "q": "int64"}
_STRUCTS = {"i": "I", "q": "q", "f": "f"}
"""An int32 is at least 0 here, and the code that refuses all others is the faster one."""


def loaded(name: str) -> Any | None:
    """Return a module that the program has imported, or None.

    A module stands in ``sys.modules`` from the beginning of its import, while most of its names are still missing. As
    long as another thread imports it, it counts as absent here; whoever needs it has to import it, which waits.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module


def is_numpy(values: object) -> bool:
    """Tell whether ``values`` is a NumPy array, without importing NumPy."""
    numpy = loaded("numpy")
    return numpy is not None and isinstance(values, numpy.ndarray)


def is_torch(values: object) -> bool:
    """Tell whether ``values`` is a torch tensor, without importing torch."""
    torch = loaded("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def torch_to_numpy(tensor: Any) -> Any:
    """Return a torch tensor's values as a NumPy array; floats of any width become float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def as_array(values: Any) -> Any | None:
    """Return ``values`` as a NumPy array if it is an array of any kind, else None."""
    if type(values) is list:  # most are
        return None
    if is_numpy(values):
        return values
    return torch_to_numpy(values) if is_torch(values) else None


def kinds(values: Iterable[object]) -> set[type[Any]]:
    """Return the types that occur; for a run of one type cheaper than ``set(map(type, values))``."""
    return {kind for kind, _ in itertools.groupby(values, type)}


def copy_ints(values: Any, field: str, low: int = -INT64_MAX - 1, high: int = INT64_MAX) -> Values:
    """Copy whole numbers.

    Args:
        values: A list, tuple or other iterable of ints, or an integer array of any shape (it is flattened). A list
            that begins with a boolean is refused: it is a mask, not numbers.
        field: Name used in the error.
        low: Smallest number allowed.
        high: Largest number allowed.

    Returns:
        A 1-D array, of int32 if all numbers within the bounds fit, else of int64.

    Raises:
        InvalidInputError: Something in it is not a whole number, or lies outside the bounds.
    """
    code = "i" if low >= 0 and high <= INT32_MAX else "q"
    given = as_array(values)
    if given is None:
        return _pack_ints(_items(values, field), code, field, low, high)
    if given.dtype.kind not in "iu":
        raise InvalidInputError(f"{field} must hold whole numbers, not {given.dtype}", field=field)
    whole_range = low < -INT64_MAX and high == INT64_MAX and given.dtype.kind == "i"
    if given.size and not whole_range and not low <= int(given.min()) <= int(given.max()) <= high:
        _report_outside(given.ravel().tolist(), field, low, high)
    return _frozen_copy(given, _NUMPY_INTS[code])


def copy_floats(values: Any, field: str) -> Values:
    """Copy finite numbers.

    Args:
        values: A list, tuple or other iterable of numbers, or a numeric array of any shape (it is flattened).
        field: Name used in the error.

    Returns:
        A 1-D array of float32.

    Raises:
        InvalidInputError: Something in it is not a number that fits a float32, or is NaN or infinite.
    """
    given = as_array(values)
    if given is None:
        return _pack_floats(_items(values, field), field)
    if given.dtype.kind not in "fiub":
        raise InvalidInputError(f"{field} must hold numbers, not {given.dtype}", field=field)
    return _finite_copy(given, field)


def as_numpy_if_loaded(values: Values) -> Values:
    """Return a NumPy array of the same memory if the program uses NumPy, which then is faster; else the values."""
    numpy = loaded("numpy")
    return values if numpy is None else numpy.asarray(values)


def bounds(values: Values) -> tuple[float, float]:
    """Return the smallest and the largest number; (0, 0) if there is none."""
    if not len(values):
        return 0, 0
    seen: Any = as_numpy_if_loaded(values)
    return (seen.min(), seen.max()) if is_numpy(seen) else (min(seen), max(seen))


def all_finite(values: Sequence[float] | Values) -> bool:
    """Tell whether no number is NaN or infinite."""
    seen: Any = values
    if is_numpy(seen):
        import numpy as np

        return bool(np.isfinite(seen).all())
    if isinstance(seen, array):
        return _packed_finite(seen)
    return math.isfinite(_size(seen)) or all(map(math.isfinite, seen))


def any_negative(packed: Values) -> bool:
    """Tell whether one of these whole numbers, as they are kept, is below 0."""
    return not _top_bytes(packed).isascii()


def may_be_booleans(packed: Values) -> bool:
    """Tell whether one of these float32 can have been a boolean: whether there is a 0 or a 1, or one that looks alike.

    Args:
        packed: float32 in an ``array.array``, as a list of numbers is kept.
    """
    top = _top_bytes(packed)
    return b"\x00" in top or b"\x3f" in top


def to_list(values: Any) -> list[Any]:
    """Return the numbers as a list; the list itself if it is one."""
    return values if isinstance(values, list) else list(values.tolist())


def plain_list(values: Iterable[Any]) -> list[Any]:
    """Copy into a list; the numbers of an array become Python numbers."""
    given = as_array(values)
    return list(values) if given is None else given.ravel().tolist()


def shorten(values: Any, limit: int = 6) -> str:
    """Render a long list or array for a ``repr``: its first items and how many there are."""
    if values is None:
        return "None"
    head = to_list(values[:limit])
    shown = ", ".join(f"{item:.6g}" if isinstance(item, float) else repr(item) for item in head)
    return f"[{shown}, ... {len(values)} in all]" if len(values) > limit else f"[{shown}]"


def _size(values: Sequence[float]) -> float:
    """Return the Euclidean norm: NaN or infinite if any number is, and cheaper than any other pass over a list."""
    try:
        return math.hypot(*values)
    except OverflowError:  # an int too large for a float
        return math.inf


def _items(values: Any, field: str) -> Sequence[Any]:
    if isinstance(values, (list, tuple, array)):
        return values
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{field} must be a list or an array of numbers, got {values!r:.60}", field=field)
    return list(values)


def _pack_ints(items: Sequence[Any], code: str, field: str, low: int, high: int) -> array[Any]:
    is_mask = len(items) > 0 and _is_bool(items[0])
    packed = None if is_mask else _pack(items, code)
    if packed is None or not _packed_within(packed, low, high):
        items = [_to_int(item, field, at) for at, item in enumerate(items)]
        _report_outside(items, field, low, high)
    return array(code, items) if packed is None else packed


def _pack_floats(items: Sequence[Any], field: str) -> array[Any]:
    packed = _pack(items, "f")
    if packed is None or not _packed_finite(packed):
        items = [item if type(item) in (int, float) else _to_float(item, field, at) for at, item in enumerate(items)]
        _report_not_finite(items, field)
    return array("f", items) if packed is None else packed


def _pack(items: Sequence[Any], code: str) -> array[Any] | None:
    """Pack numbers; None if that is impossible. ``array`` itself would take longer."""
    if isinstance(items, array) and items.typecode == code:
        return items[:]
    try:
        # The method of a Struct takes the list as its arguments; the function copies it to put the format before it.
        return array(code, struct.Struct(f"{len(items)}{_STRUCTS[code]}").pack(*items))
    except (struct.error, OverflowError):
        return None


def _top_bytes(packed: Values) -> bytes:
    """Return of each number the byte that has the sign."""
    start = packed.itemsize - 1 if sys.byteorder == "little" else 0
    return packed.tobytes()[start :: packed.itemsize]


def _packed_within(packed: array[Any], low: int, high: int) -> bool:
    largest = INT32_MAX if packed.typecode == "i" else INT64_MAX
    if high == largest and (low < -largest or (low == 0 and not any_negative(packed))):
        return True
    return not packed or low <= min(packed) <= max(packed) <= high


def _packed_finite(packed: array[Any]) -> bool:
    # Only numbers from 2**127 on, infinity and NaN have these bits of the exponent in their first byte.
    top = _top_bytes(packed)
    return not (b"\x7f" in top or b"\xff" in top) or all(map(math.isfinite, packed))


def _to_int(item: Any, field: str, at: int) -> int:
    try:
        if not _is_bool(item):
            return operator.index(item)
    except TypeError:
        pass
    raise InvalidInputError(f"{field}[{at}] must be a whole number, got {item!r:.80}", field=f"{field}[{at}]")


def _is_bool(item: Any) -> bool:
    return isinstance(item, bool) or "bool" in str(getattr(item, "dtype", ""))


def _to_float(item: Any, field: str, at: int) -> float:
    try:
        if not isinstance(item, (str, bytes)):
            return float(item)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInputError(f"{field}[{at}] must be a number, got {item!r:.80}", field=f"{field}[{at}]")


def _report_outside(items: Iterable[int], field: str, low: int, high: int) -> None:
    """Raise for the first number outside the bounds, if there is one."""
    for at, item in enumerate(items):
        if not low <= item <= high:
            raise InvalidInputError(
                f"{field}[{at}] is {item}; it must lie between {low} and {high}", field=f"{field}[{at}]"
            )


def _report_not_finite(items: Iterable[float], field: str) -> None:
    """Raise for the first number that no float32 can hold, if there is one."""
    for at, item in enumerate(items):
        if not _fits_float32(item):
            _refuse_not_finite(item, field, at)


def _fits_float32(item: float) -> bool:
    try:
        return -FLOAT32_OVERFLOW < float(item) < FLOAT32_OVERFLOW
    except OverflowError:
        return False


def _refuse_not_finite(item: float, field: str, at: int) -> NoReturn:
    raise InvalidInputError(
        f"{field}[{at}] is {item!s:.40}; every number must be finite and fit a float32. "
        "Look for a division by zero or the logarithm of zero where it was computed",
        field=f"{field}[{at}]",
    )


def _frozen_copy(given: Any, dtype: str) -> np.ndarray[Any, Any]:
    copied: np.ndarray[Any, Any] = given.astype(dtype, copy=True).reshape(-1)
    copied.setflags(write=False)
    return copied


def _finite_copy(given: Any, field: str) -> np.ndarray[Any, Any]:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        copied = _frozen_copy(given, "float32")
    finite = np.isfinite(copied)
    if not finite.all():
        at = int(finite.argmin())
        _refuse_not_finite(given.ravel()[at], field, at)
    return copied
