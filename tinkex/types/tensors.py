"""TensorData: an array on the wire."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import FrozenList, since
from tinkex.types._numbers import Values, as_array, copy_floats, copy_ints, shorten, to_list, torch_to_numpy

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["TensorData", "TensorDtype"]

TensorDtype = Literal["int64", "float32"]
_COPY: dict[TensorDtype, Callable[[Any, str], Values]] = {"int64": copy_ints, "float32": copy_floats}


def _shape(value: Sequence[int] | None) -> FrozenList | None:
    if value is None or (type(value) is tuple and all(type(size) is int and size >= 0 for size in value)):
        return None if value is None else FrozenList(value)
    return FrozenList(to_list(copy_ints(value, "shape", low=0)))


def _indices(value: Any, field: str) -> list[int] | None:
    return None if value is None else copy_ints(value, field).tolist()


@attrs.frozen(slots=True, repr=False, eq=False, init=False)
class TensorData:
    """An array of int64 or float32, dense or compressed by rows (CSR).

    Lists and arrays are copied at construction and checked: whole numbers for int64, finite numbers for
    float32, as many as the shape says.

    Attributes:
        dtype: ``"int64"`` or ``"float32"``, the only two on the wire.
        shape: Sizes of the dimensions, a list that refuses to be changed; None means one dimension.
        sparse_crow_indices: Row pointers of a CSR matrix, length rows + 1, or None if dense.
        sparse_col_indices: Column of each stored value, or None if dense.
    """

    # ``Any`` stands for ``Values``, which names NumPy types that cattrs would try to look up.
    _values: Any
    dtype: TensorDtype
    # A ``FrozenList``, which cattrs would try to look up.
    shape: Any
    sparse_crow_indices: Any = attrs.field(default=None, metadata=since("0.18"))
    sparse_col_indices: Any = attrs.field(default=None, metadata=since("0.18"))

    def __init__(
        self,
        data: Sequence[Any] | np.ndarray[Any, Any] | torch.Tensor,
        dtype: TensorDtype,
        shape: Sequence[int] | None = None,
        sparse_crow_indices: Sequence[int] | np.ndarray[Any, Any] | None = None,
        sparse_col_indices: Sequence[int] | np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Copy and check.

        Args:
            data: The values, flat in row-major order or nested; of a CSR matrix only the stored ones, flat.
            dtype: ``"int64"`` or ``"float32"``.
            shape: Sizes of the dimensions; those of ``data`` unless given. Must be given for CSR.
            sparse_crow_indices: CSR row pointers, together with ``sparse_col_indices``.
            sparse_col_indices: CSR column indices.

        Raises:
            InvalidInputError: A value has the wrong kind, is NaN or infinite, or the sizes do not agree.
        """
        if dtype not in ("int64", "float32"):
            raise InvalidInputError(f"dtype must be 'int64' or 'float32', got {dtype!r}", field="dtype")
        crow = _indices(sparse_crow_indices, "sparse_crow_indices")
        col = _indices(sparse_col_indices, "sparse_col_indices")
        flat, own_shape = _flatten(data, "data")
        if own_shape is not None and (len(own_shape) == 1 or crow is not None or col is not None):
            own_shape = None  # None stands for one dimension, and is what programs expect there
        self.__attrs_init__(_COPY[dtype](flat, "data"), dtype, _shape(own_shape if shape is None else shape), crow, col)
        self._check_dense() if crow is None and col is None else self._check_sparse()

    def _check_dense(self) -> None:
        needed = math.prod(self.full_shape)
        if needed != len(self._values):
            raise InvalidInputError(
                f"shape {list(self.full_shape)} needs {needed} values, data has {len(self._values)}",
                field="shape",
            )

    def _check_sparse(self) -> None:
        crow, col = self.sparse_crow_indices, self.sparse_col_indices
        if crow is None or col is None or self.shape is None or len(self.shape) != 2:
            raise InvalidInputError(
                "a CSR tensor needs sparse_crow_indices, sparse_col_indices and a shape of two dimensions",
                field="sparse_crow_indices",
            )
        (rows, columns), stored = self.shape, len(self._values)
        starts, places = self._csr()
        ends = (starts[0], starts[-1]) if len(starts) == rows + 1 else None
        if ends != (0, stored) or any(a > b for a, b in itertools.pairwise(starts)):
            raise InvalidInputError(
                f"sparse_crow_indices must rise from 0 to {stored} in {rows + 1} entries",
                field="sparse_crow_indices",
            )
        if len(places) != stored or not all(0 <= place < columns for place in places):
            raise InvalidInputError(
                f"sparse_col_indices must hold {stored} columns between 0 and {columns - 1}",
                field="sparse_col_indices",
            )

    @property
    def data(self) -> list[int] | list[float]:
        """The values as a flat list, row by row; of a CSR tensor only the stored ones."""
        return to_list(self._values)

    @property
    def buffer(self) -> Values:
        """The values as they are stored: 1-D, in ``array.array`` or NumPy, of ``dtype``. Nobody may change it."""
        values: Values = self._values
        return values

    @property
    def is_sparse(self) -> bool:
        """True if compressed by rows."""
        return self.sparse_crow_indices is not None

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape, also where it was left out."""
        return (len(self._values),) if self.shape is None else tuple(self.shape)

    def __len__(self) -> int:
        """Return the number of stored values."""
        return len(self._values)

    def tolist(self, pad_value: float = 0) -> list[Any]:
        """Return the values as (nested) lists of the tensor's shape; arguments are those of :meth:`to_numpy`."""
        if not self.is_sparse:
            return _nest(self.data, self.full_shape)
        dense: list[Any] = self.to_numpy(pad_value).tolist()
        return dense

    def to_numpy(self, pad_value: float = 0) -> np.ndarray[Any, Any]:
        """Return a new NumPy array of this shape and dtype.

        Args:
            pad_value: What the unlisted cells of a CSR tensor are, a number of its dtype; a dense tensor has none.

        Raises:
            ImportError: NumPy is not installed.
            InvalidInputError: ``pad_value`` is no number, or not a whole one for int64.
        """
        import numpy as np

        pad_value = _pad_value(pad_value, whole=self.dtype == "int64")
        values = np.array(self._values, dtype=self.dtype)
        if not self.is_sparse:
            return values.reshape(self.full_shape)
        dense = np.full(self.full_shape, pad_value, dtype=self.dtype)
        rows = np.repeat(np.arange(self.full_shape[0]), np.diff(np.asarray(self.sparse_crow_indices)))
        dense[rows, np.asarray(self.sparse_col_indices, dtype=np.int64)] = values
        return dense

    def to_torch(self, pad_value: float = 0) -> torch.Tensor:
        """Return a new torch tensor of this shape and dtype; otherwise like :meth:`to_numpy`.

        Raises:
            ImportError: torch is not installed.
        """
        import torch

        return torch.from_numpy(self.to_numpy(pad_value))

    @classmethod
    def adopt(
        cls,
        *,
        data: Values,
        dtype: TensorDtype,
        shape: Sequence[int] | None = None,
        sparse_crow_indices: Any = None,
        sparse_col_indices: Any = None,
    ) -> TensorData:
        """Make a tensor of numbers that a server computed, as they are: not copied, and NaN if it says so.

        Args:
            data: ``array.array`` or NumPy array of the type that ``dtype`` names; nobody may change it any more.
            dtype: ``"int64"`` or ``"float32"``.
            shape: Sizes of the dimensions; None for one dimension.
            sparse_crow_indices: CSR row pointers, together with ``sparse_col_indices``.
            sparse_col_indices: CSR column indices.

        Raises:
            InvalidInputError: The sizes do not agree.
        """
        tensor = cls.__new__(cls)
        crow = _indices(sparse_crow_indices, "sparse_crow_indices")
        col = _indices(sparse_col_indices, "sparse_col_indices")
        tensor.__attrs_init__(data, dtype, _shape(shape), crow, col)
        tensor._check_dense() if crow is None and col is None else tensor._check_sparse()
        return tensor

    @classmethod
    def from_numpy(cls, array: np.ndarray[Any, Any]) -> TensorData:
        """Copy a NumPy array; floats become float32 and whole numbers int64.

        Raises:
            InvalidInputError: The array holds neither, or a value is not finite.
        """
        dtype: TensorDtype = "float32" if array.dtype.kind == "f" else "int64"
        return cls(data=array, dtype=dtype, shape=array.shape)

    @classmethod
    def from_torch(cls, tensor: torch.Tensor) -> TensorData:
        """Copy a dense torch tensor, from any device; floats of any width become float32."""
        return cls.from_numpy(torch_to_numpy(tensor))

    @classmethod
    def from_torch_sparse(cls, tensor: torch.Tensor, pad_value: float = 0) -> TensorData:
        """Copy a torch tensor, storing only the cells that differ from ``pad_value`` if that is smaller.

        A tensor that does not have two dimensions is copied as a dense one, and so is one in which too few cells are
        ``pad_value``: each stored cell takes two numbers, and each row one more.

        Raises:
            InvalidInputError: ``pad_value`` is no number, or not a whole one for a tensor of whole numbers.
        """
        import numpy as np

        array = torch_to_numpy(tensor.to_dense() if tensor.layout != _strided() else tensor)
        differs = array != _pad_value(pad_value, whole=array.dtype.kind != "f")
        if array.ndim != 2 or len(array) + 1 + 2 * np.count_nonzero(differs) >= array.size:
            return cls.from_numpy(array)
        rows, columns = np.nonzero(differs)
        crow = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=array.shape[0]))])
        return cls(
            data=array[rows, columns],
            dtype="float32" if array.dtype.kind == "f" else "int64",
            shape=array.shape,
            sparse_crow_indices=crow,
            sparse_col_indices=columns,
        )

    @classmethod
    def coerce(cls, value: Any, dtype: TensorDtype | None, field: str) -> TensorData:
        """Make a tensor out of whatever a user may hand over as a loss input.

        Args:
            value: A TensorData (returned as it is), a NumPy or torch array, or a list (of lists) of numbers.
            dtype: Type for lists; None if the input has no conventional type.
            field: Name used in the error.

        Returns:
            The tensor.

        Raises:
            InvalidInputError: The value cannot be read as numbers, or a list came without a known type.
        """
        if isinstance(value, cls):
            return value
        array = as_array(value)
        if array is not None:
            dtype = dtype or ("float32" if array.dtype.kind == "f" else "int64")
        if dtype is None:
            raise InvalidInputError(
                f"{field} is a list under a name of no conventional type; pass a TensorData or an array",
                field=field,
            )
        flat, shape = _flatten(value, field)
        return cls._of(flat, dtype, shape, field)

    @classmethod
    def _of(cls, data: Any, dtype: TensorDtype, shape: Sequence[int] | None, field: str) -> TensorData:
        """Copy numbers that are known to have this shape, or one dimension."""
        try:
            values = _COPY[dtype](data, "data")
        except InvalidInputError as error:
            raise InvalidInputError(f"{field}: {error.message}", field=field) from None
        tensor = cls.__new__(cls)
        tensor.__attrs_init__(values, dtype, FrozenList((len(values),) if shape is None else shape), None, None)
        return tensor

    def __eq__(self, other: object) -> bool:
        """Compare type, shape and values, however they are stored."""
        if not isinstance(other, TensorData):
            return NotImplemented
        return (
            self.dtype == other.dtype
            and self.full_shape == other.full_shape
            and self.is_sparse == other.is_sparse
            and self.data == other.data
            and (not self.is_sparse or self._csr() == other._csr())
        )

    __hash__ = None  # type: ignore[assignment]

    def _csr(self) -> tuple[list[int], list[int]]:
        return to_list(self.sparse_crow_indices), to_list(self.sparse_col_indices)

    def __repr__(self) -> str:
        """Show type, shape and the first values."""
        sparse = ", sparse" if self.is_sparse else ""
        return f"TensorData({self.dtype}, shape={list(self.full_shape)}{sparse}, data={shorten(self._values)})"


def _nest(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) <= 1:
        return list(values)
    step = math.prod(shape[1:])
    return [_nest(values[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]


def _strided() -> Any:
    import torch

    return torch.strided


def _pad_value(value: float, *, whole: bool) -> float:
    given = plain_number(value)
    if isinstance(given, bool) or not isinstance(given, int if whole else (int, float)):
        rule = "a whole number" if whole else "a number"
        raise InvalidInputError(f"pad_value must be {rule}, got {value!r:.60}", field="pad_value")
    return given


def _flatten(value: Any, field: str) -> tuple[Any, Sequence[int] | None]:
    """Return the values of an array or of lists in lists with their shape; None for what else has one dimension."""
    given = as_array(value)
    if given is not None:
        return given, given.shape
    if not _is_row(value) or not len(value) or not _is_row(value[0]):
        return value, None
    shape = [len(value)]
    while len(value) and _is_row(value[0]):
        width = len(value[0])
        if not all(_is_row(row) and len(row) == width for row in value):
            raise InvalidInputError(f"{field} is a list of lists of different lengths", field=field)
        shape.append(width)
        value = [cell for row in value for cell in (row if isinstance(row, (list, tuple)) else row.tolist())]
    return value, shape


def _is_row(value: Any) -> bool:
    """Tell whether this has items: a list, or an array of at least one dimension."""
    return isinstance(value, (list, tuple)) or len(getattr(value, "shape", ())) > 0
