"""Copying and checking long runs of numbers without a Python loop over them.

Lists stay lists (the JSON encoder reads them as they are) and arrays stay arrays (it reads their buffers).
NumPy and torch are never imported from here: an array can only arrive if the caller has them loaded.
"""

from __future__ import annotations

import itertools
import math
import operator
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Union

from tinkex.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

Values = Union["list[int]", "list[float]", "np.ndarray[Any, Any]"]

FLOAT32_MAX = 3.4028234663852886e38
INT64_MAX = 2**63 - 1


def is_numpy(values: object) -> bool:
    """Tell whether ``values`` is a NumPy array, without importing NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(values, numpy.ndarray)


def is_torch(values: object) -> bool:
    """Tell whether ``values`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def torch_to_numpy(tensor: Any) -> Any:
    """Return a torch tensor's values as a NumPy array; floats of any width become float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def as_array(values: Any) -> Any | None:
    """Return ``values`` as a NumPy array if it is an array of any kind, else None."""
    if is_numpy(values):
        return values
    return torch_to_numpy(values) if is_torch(values) else None


def kinds(values: Iterable[object]) -> set[type[Any]]:
    """Return the types that occur; for a run of one type at half the cost of ``set(map(type, values))``."""
    return {kind for kind, _ in itertools.groupby(values, type)}


def copy_ints(values: Any, field: str, low: int = -INT64_MAX - 1, high: int = INT64_MAX) -> Values:
    """Copy whole numbers.

    Args:
        values: A list, tuple or other iterable of ints, or an integer array of any shape (it is flattened).
        field: Name used in the error.
        low: Smallest number allowed.
        high: Largest number allowed.

    Returns:
        A list of ints, or a read-only 1-D int64 array.

    Raises:
        InvalidInputError: Something in it is not a whole number, or lies outside the bounds.
    """
    given = as_array(values)
    if given is None:
        items = _int_list(values, field)
        if not _surely_within(items, low, high):
            _report_outside(items, field, low, high)
        return items
    if given.dtype.kind not in "iu":
        raise InvalidInputError(f"{field} must hold whole numbers, not {given.dtype}", field=field)
    if given.size and not low <= int(given.min()) <= int(given.max()) <= high:
        _report_outside(given.ravel().tolist(), field, low, high)
    return _frozen_copy(given, "int64")


def copy_floats(values: Any, field: str) -> Values:
    """Copy finite numbers.

    Args:
        values: A list, tuple or other iterable of numbers, or a numeric array of any shape (it is flattened).
        field: Name used in the error.

    Returns:
        A list of floats and ints, or a read-only 1-D float32 array.

    Raises:
        InvalidInputError: Something in it is not a number that fits a float32, or is NaN or infinite.
    """
    given = as_array(values)
    if given is None:
        return _float_list(values, field)
    if given.dtype.kind not in "fiub":
        raise InvalidInputError(f"{field} must hold numbers, not {given.dtype}", field=field)
    return _finite_copy(given, field)


def bounds(values: Values) -> tuple[float, float]:
    """Return the smallest and the largest number; (0, 0) if there is none."""
    if not len(values):
        return 0, 0
    return (min(values), max(values)) if isinstance(values, list) else (values.min(), values.max())


def all_finite(values: Sequence[float]) -> bool:
    """Tell whether no number is NaN or infinite."""
    return math.isfinite(_size(values)) or all(map(math.isfinite, values))


def to_list(values: Values) -> list[Any]:
    """Return the numbers as a list; the list itself if it is one."""
    return values if isinstance(values, list) else values.tolist()


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
    """Return a number above every magnitude, the Euclidean norm rounded up; NaN or infinite if any number is.

    No other pass over a list is as cheap: half the cost of ``max``.
    """
    try:
        return 1.000001 * math.hypot(*values)
    except OverflowError:  # an int too large for a float
        return math.inf


def _surely_within(items: list[int], low: int, high: int) -> bool:
    """Tell cheaply that every number lies within the bounds; False if that takes a closer look."""
    if low < 0:
        return _size(items) <= min(-low, high)
    try:
        array("I", items)  # refuses what is below 0 at half the cost of ``min``
    except OverflowError:
        return False
    return sum(items) <= high


def _items(values: Any, field: str) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidInputError(
            f"{field} must be a list or an array of numbers, got {values!r:.60}", field=field
        )
    return list(values)


def _int_list(values: Any, field: str) -> list[int]:
    items = _items(values, field)
    return items if kinds(items) <= {int} else [_to_int(item, field, at) for at, item in enumerate(items)]


def _float_list(values: Any, field: str) -> list[float]:
    items = _items(values, field)
    if not kinds(items) <= {int, float}:
        items = [_to_float(item, field, at) for at, item in enumerate(items)]
    size = _size(items)
    if not size <= FLOAT32_MAX:
        _report_not_finite(items, field)
    # JSON writers have no room for whole numbers beyond 64 bits.
    return items if size <= INT64_MAX else [float(item) for item in items]


def _to_int(item: Any, field: str, at: int) -> int:
    try:
        if not isinstance(item, bool):
            return operator.index(item)
    except TypeError:
        pass
    raise InvalidInputError(f"{field}[{at}] must be a whole number, got {item!r:.80}", field=f"{field}[{at}]")


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
        if not -FLOAT32_MAX <= item <= FLOAT32_MAX:
            _refuse_not_finite(item, field, at)


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
