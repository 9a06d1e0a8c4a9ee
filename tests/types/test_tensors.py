"""Tensors: copied, checked, dense or sparse, and the way back to NumPy and torch."""

from __future__ import annotations

import array
import copy
import math
import pickle
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.strategies import dense_tensors, sparse_tensors
from tinkex.errors import InvalidInputError
from tinkex.types import TensorData


def csr(**changes):
    """Make a sparse matrix [[7, 0, 0], [0, 0, 0], [0, 8, 9]], or one with a mistake."""
    fields = {
        "data": [7, 8, 9],
        "dtype": "int64",
        "shape": [3, 3],
        "sparse_crow_indices": [0, 1, 1, 3],
        "sparse_col_indices": [0, 1, 2],
    }
    return TensorData(**{**fields, **changes})


# --- Construction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[1, 2], (1, 2), range(1, 3), array.array("q", [1, 2]), np.array([1, 2]), iter([1, 2])]
)
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_numbers_come_in_many_forms(values, dtype):
    """Lists, tuples, ranges and arrays make the same tensor."""
    values = [1, 2] if isinstance(values, type(iter([]))) else values
    tensor = TensorData(data=values, dtype=dtype, shape=[2])
    assert tensor.data == [1, 2]
    assert len(tensor) == 2


@pytest.mark.parametrize("dtype", ["int32", "float64", "bfloat16", None, 5, ["int64"]])
def test_there_are_two_types_on_the_wire(dtype):
    """Any other type is refused before it is sent."""
    with pytest.raises(InvalidInputError, match="dtype must be 'int64' or 'float32', got") as caught:
        TensorData(data=[1], dtype=dtype)
    assert caught.value.field == "dtype"


@pytest.mark.parametrize(("shape", "needed"), [([2], 2), ([4], 4), ([3, 2], 6), ([0], 0), ([], 1), ([3, 1, 0], 0)])
def test_the_shape_must_agree_with_the_data(shape, needed):
    """The error says how many values the shape needs and how many there are."""
    message = rf"shape \[{', '.join(map(str, shape))}\] needs {needed} values, data has 3"
    with pytest.raises(InvalidInputError, match=message) as caught:
        TensorData(data=[1, 2, 3], dtype="int64", shape=shape)
    assert caught.value.field == "shape"


@pytest.mark.parametrize("shape", [[-3], [-1, -3], [3.0], ["3"], "3", 3, [True, 3]])
def test_a_shape_is_a_list_of_sizes(shape):
    """Negative sizes, fractions and texts are no sizes."""
    with pytest.raises(InvalidInputError, match="shape"):
        TensorData(data=[1, 2, 3], dtype="int64", shape=shape)


def test_a_missing_shape_means_one_dimension():
    """``shape`` stays None, as on the wire, and ``full_shape`` says what it means."""
    tensor = TensorData(data=[1, 2, 3], dtype="int64")
    assert tensor.shape is None
    assert tensor.full_shape == (3,)


def test_the_source_may_be_reused():
    """Changing the list, the array or the shape afterwards does not reach the tensor."""
    values, shape = [1, 2, 3, 4], [2, 2]
    numbers = np.array([0.5, 1.5])
    tensor, of_array = TensorData(data=values, dtype="int64", shape=shape), TensorData.from_numpy(numbers)
    values.clear()
    shape[0] = 9
    numbers[:] = 0
    assert tensor.tolist() == [[1, 2], [3, 4]]
    assert of_array.data == [0.5, 1.5]


def test_a_tensor_cannot_be_changed():
    """Its fields are frozen."""
    with pytest.raises(AttributeError):
        TensorData(data=[1], dtype="int64").shape = (2,)


# --- Sparse ----------------------------------------------------------------------------------------------------


def test_a_sparse_tensor_knows_its_cells():
    """Unlisted cells are 0 when it becomes dense; ``data`` has the stored ones only."""
    tensor = csr()
    assert tensor.is_sparse
    assert tensor.data == [7, 8, 9]
    assert tensor.full_shape == (3, 3)
    assert tensor.tolist() == [[7, 0, 0], [0, 0, 0], [0, 8, 9]]


@pytest.mark.parametrize(
    "changes",
    [
        {"sparse_col_indices": None},
        {"sparse_crow_indices": None},
        {"shape": None},
        {"shape": [9]},
        {"shape": [3, 3, 1]},
    ],
)
def test_a_sparse_tensor_needs_all_of_its_parts(changes):
    """Pointers, columns and a shape of two dimensions belong together."""
    with pytest.raises(
        InvalidInputError, match="a CSR tensor needs sparse_crow_indices, sparse_col_indices and a shape"
    ):
        csr(**changes)


@pytest.mark.parametrize(
    "starts", [[], [0, 1, 3], [0, 1, 1, 3, 3], [1, 1, 1, 3], [0, 1, 1, 2], [0, 2, 1, 3], [0, 4, 4, 3]]
)
def test_row_pointers_must_rise_from_zero_to_the_number_of_values(starts):
    """Anything else would lose or invent cells."""
    with pytest.raises(InvalidInputError, match="sparse_crow_indices must rise from 0 to 3 in 4 entries") as caught:
        csr(sparse_crow_indices=starts)
    assert caught.value.field == "sparse_crow_indices"


@pytest.mark.parametrize("columns", [[0, 1], [0, 1, 3], [-1, 1, 2], [0, 1, 2, 2]])
def test_columns_must_lie_within_the_shape(columns):
    """Each stored value has a column of the matrix."""
    with pytest.raises(InvalidInputError, match="sparse_col_indices must hold 3 columns between 0 and 2") as caught:
        csr(sparse_col_indices=columns)
    assert caught.value.field == "sparse_col_indices"


def test_a_sparse_tensor_may_be_empty():
    """A matrix of zeros stores nothing."""
    empty = csr(data=[], sparse_crow_indices=[0, 0, 0, 0], sparse_col_indices=[])
    assert empty.tolist() == [[0, 0, 0]] * 3


def test_sparse_indices_are_copied():
    """Changing the indices afterwards does not reach the tensor."""
    starts, columns = [0, 1, 1, 3], np.array([0, 1, 2])
    tensor = csr(sparse_crow_indices=starts, sparse_col_indices=columns)
    starts[1] = 3
    columns[:] = 0
    assert tensor == csr()


# --- Back and forth --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(
        st.sampled_from(["float16", "float32", "int8", "int32", "int64", "uint8", "uint32"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_numpy_arrays_come_back(given_array):
    """Values and shape survive; floats come back as float32, whole numbers as int64."""
    tensor = TensorData.from_numpy(given_array)
    back = tensor.to_numpy()
    assert back.dtype == ("float32" if given_array.dtype.kind == "f" else "int64")
    assert back.shape == given_array.shape
    assert np.array_equal(back, given_array)


@settings(deadline=None, max_examples=50)
@given(dense_tensors() | sparse_tensors())
def test_nested_lists_are_those_of_numpy(tensor):
    """``tolist`` needs no NumPy and says the same."""
    expected = tensor.to_numpy()
    assert np.array_equal(np.array(tensor.tolist(), dtype=expected.dtype).reshape(expected.shape), expected)
    assert np.array(tensor.tolist()).shape[: expected.ndim] == expected.shape or not expected.size


def test_arrays_given_away_may_be_changed():
    """What ``to_numpy`` and ``tolist`` return belongs to the caller."""
    tensor = TensorData.from_numpy(np.array([1.0, 2.0]))
    tensor.to_numpy()[0] = 9
    listed = TensorData(data=[1, 2], dtype="int64")
    listed.tolist()[0] = 9
    listed.to_numpy()[0] = 9
    assert tensor.data == [1.0, 2.0]
    assert listed.data == [1, 2]


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64"])
def test_torch_floats_come_back_as_float32(name):
    """Floats of any width are read, with or without a gradient."""
    torch = pytest.importorskip("torch")
    given_tensor = torch.tensor([[0.5, -2.0]], dtype=getattr(torch, name), requires_grad=True)
    tensor = TensorData.from_torch(given_tensor)
    assert tensor.dtype == "float32"
    assert torch.equal(tensor.to_torch(), torch.tensor([[0.5, -2.0]]))


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_torch_whole_numbers_come_back_as_int64(name):
    """Whole numbers of any width are read."""
    torch = pytest.importorskip("torch")
    tensor = TensorData.from_torch(torch.tensor([[1, 2], [3, 4]], dtype=getattr(torch, name)).T)
    assert torch.equal(tensor.to_torch(), torch.tensor([[1, 3], [2, 4]]))


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_torch_matrix_survives_compression(dtype, data):
    """Only cells other than the pad value are stored, unless all of them take less, and the matrix comes back."""
    torch = pytest.importorskip("torch")
    matrix = data.draw(
        hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0), elements=st.integers(-1, 1))
    )
    given_tensor, pad_value = torch.from_numpy(matrix), data.draw(st.integers(-1, 1))
    tensor = TensorData.from_torch_sparse(given_tensor, pad_value)
    stored = np.count_nonzero(matrix != pad_value)
    assert tensor.is_sparse == (len(matrix) + 1 + 2 * stored < matrix.size)
    assert len(tensor) == (stored if tensor.is_sparse else matrix.size)
    assert torch.equal(tensor.to_torch(pad_value), given_tensor)
    assert tensor.tolist(pad_value) == matrix.tolist()


def test_a_torch_csr_matrix_is_read():
    """A tensor that torch itself keeps sparse is compressed anew."""
    torch = pytest.importorskip("torch")
    dense = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    tensor = TensorData.from_torch_sparse(dense.to_sparse())
    assert tensor.is_sparse
    assert tensor.tolist() == [[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)])
def test_only_a_matrix_is_compressed(shape):
    """CSR has two dimensions: a tensor of another number of them stays dense."""
    torch = pytest.importorskip("torch")
    tensor = TensorData.from_torch_sparse(torch.zeros(shape))
    assert not tensor.is_sparse
    assert tensor.full_shape == shape


def test_indices_are_lists():
    """Whatever they came in, they go through json."""
    made = csr(sparse_crow_indices=np.array([0, 1, 1, 3]), sparse_col_indices=(0, 1, 2))
    assert (made.sparse_crow_indices, made.sparse_col_indices) == ([0, 1, 1, 3], [0, 1, 2])
    assert type(made.sparse_crow_indices) is type(made.sparse_col_indices) is list


@pytest.mark.parametrize(("pad_value", "whole"), [(2.5, False), ("0", True), (True, True), (None, True), (-1, True)])
def test_a_pad_value_is_a_number_of_the_dtype(pad_value, whole):
    """Cells of whole numbers are not filled with fractions, and none with what is no number."""
    if pad_value == -1:
        assert csr().tolist(np.int64(pad_value)) == [[7, -1, -1], [-1, -1, -1], [-1, 8, 9]]
        return
    with pytest.raises(InvalidInputError, match="pad_value must be a whole number"):
        csr().to_numpy(pad_value)
    if whole:
        with pytest.raises(InvalidInputError, match="pad_value must be a number"):
            csr(dtype="float32").tolist(pad_value)
    else:
        assert csr(dtype="float32").tolist(pad_value)[1] == [pad_value] * 3


# --- As the official SDK has it --------------------------------------------------------------------------------


def test_a_tensor_is_made_by_position():
    """Data, dtype and shape come in this order, then the indices of a sparse one."""
    assert TensorData([1, 2], "int64") == TensorData(data=[1, 2], dtype="int64")
    assert TensorData([1.0, 2.0], "float32", [1, 2]).tolist() == [[1.0, 2.0]]
    assert TensorData([7, 8, 9], "int64", [3, 3], [0, 1, 1, 3], [0, 1, 2]) == csr()


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([[1, 2], [3, 4]], [2, 2]),
        (((1, 2), [3, 4]), [2, 2]),
        ([[[1], [2]], [[3], [4]]], [2, 2, 1]),
        ([np.array([1, 2]), np.array([3, 4])], [2, 2]),
        (np.array([[1, 2], [3, 4]]), [2, 2]),
        ([[], []], [2, 0]),
    ],
)
def test_nested_data_has_its_shape(data, shape):
    """Lists in lists, rows that are arrays and whole arrays keep their dimensions, also where no shape is given."""
    tensor = TensorData(data, "int64")
    assert tensor.shape == shape
    assert tensor.data == [1, 2, 3, 4][: len(tensor)]
    assert TensorData(data, "int64", shape) == tensor
    assert TensorData(data, "int64", [math.prod(shape)]).data == tensor.data


def test_rows_that_differ_are_refused():
    """There is no shape for them; whole numbers are still those of the dtype."""
    with pytest.raises(InvalidInputError, match="data is a list of lists of different lengths"):
        TensorData([[1, 2], [3]], "int64")
    with pytest.raises(InvalidInputError, match=r"data\[3\] must be a whole number"):
        TensorData([[1, 2], [3, None]], "int64")


def test_a_shape_is_a_list_that_stays_as_it_is():
    """It equals lists and tuples, and a change is refused instead of lost."""
    tensor = TensorData([1, 2, 3, 4], "int64", (2, 2))
    assert isinstance(tensor.shape, list)
    assert tensor.shape == [2, 2] == list(tensor.shape)
    assert tensor.shape == (2, 2)
    assert tensor.shape != [4]
    assert [*tensor.shape, 1] == [2, 2, 1]
    for change in (lambda: tensor.shape.append(1), lambda: tensor.shape.__setitem__(0, 4), lambda: tensor.shape.sort()):
        with pytest.raises(TypeError, match="does not change"):
            change()
    assert pickle.loads(pickle.dumps(tensor)).shape == copy.deepcopy(tensor).shape == tensor.shape
    assert hash(pickle.loads(pickle.dumps(tensor.shape))) == hash((2, 2))


def test_a_torch_tensor_is_read_as_data():
    """The constructor takes a torch tensor as it takes an array."""
    torch = pytest.importorskip("torch")
    assert TensorData(data=torch.tensor([1, 2]), dtype="int64").data == [1, 2]


def test_without_torch_nothing_is_a_torch_tensor(monkeypatch):
    """Where torch was never loaded, no value can be one of its tensors, and NumPy likewise."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert TensorData(data=np.array([1]), dtype="int64").data == [1]
    monkeypatch.delitem(sys.modules, "numpy", raising=False)
    assert TensorData(data=[1], dtype="int64").data == [1]


# --- Reading what users hand over ------------------------------------------------------------------------------


def test_coercion_keeps_a_tensor():
    """A TensorData is taken as it is."""
    tensor = TensorData(data=[1], dtype="int64")
    assert TensorData.coerce(tensor, "float32", "x") is tensor


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        ([1, 2], "int64", (2,)),
        ((0.5,), "float32", (1,)),
        ([], "float32", (0,)),
        ([[1, 2], [3, 4], [5, 6]], "int64", (3, 2)),
        ([[], []], "int64", (2, 0)),
        (((1, 2),), "float32", (1, 2)),
        (range(3), "int64", (3,)),
        (array.array("d", [0.5]), "float32", (1,)),
        (np.zeros((2, 3)), "float32", (2, 3)),
        (np.zeros((2, 3), dtype="int32"), "float32", (2, 3)),
        ((item for item in [1, 2]), "int64", (2,)),
    ],
)
def test_lists_take_the_type_of_their_name(value, dtype, shape):
    """A list (of lists) of numbers becomes a tensor of the conventional type, with its shape."""
    tensor = TensorData.coerce(value, dtype, "x")
    assert (tensor.dtype, tensor.full_shape) == (dtype, shape)
    assert tensor.shape is not None or isinstance(value, types.GeneratorType)


@pytest.mark.parametrize(("kind", "dtype"), [("float64", "float32"), ("int16", "int64")])
def test_arrays_without_a_conventional_type_keep_their_kind(kind, dtype):
    """An array says itself whether it holds floats or whole numbers."""
    assert TensorData.coerce(np.ones(2, dtype=kind), None, "x").dtype == dtype


def test_a_list_without_a_conventional_type_is_refused():
    """[1, 0] could be either type, so the way out is named."""
    with pytest.raises(InvalidInputError, match="x is a list under a name of no conventional type; pass a TensorData"):
        TensorData.coerce([1, 0], None, "x")


@pytest.mark.parametrize("rows", [[[1], [1, 2]], [[1], 2], [[1], "ab"], [[1, 2], None]])
def test_ragged_lists_are_refused(rows):
    """Rows must be equally long."""
    with pytest.raises(InvalidInputError, match="x is a list of lists of different lengths") as caught:
        TensorData.coerce(rows, "int64", "x")
    assert caught.value.field == "x"


@pytest.mark.parametrize("value", ["12", 5, None, [[["1"]]], {"a": 1}, [None]])
def test_what_is_no_list_of_numbers_is_refused_by_name(value):
    """The error names the input."""
    with pytest.raises(InvalidInputError, match=r"^x: data") as caught:
        TensorData.coerce(value, "int64", "x")
    assert caught.value.field == "x"


# --- Equality, repr, pickle ------------------------------------------------------------------------------------


def test_equality_is_of_type_shape_and_values():
    """However the values are stored, equal float32 numbers are equal."""
    tensor = TensorData(data=[0.1, 0.2], dtype="float32", shape=[2])
    assert tensor == TensorData(data=np.array([0.1, 0.2], dtype="float32"), dtype="float32")
    assert tensor != TensorData(data=[0.1, 0.3], dtype="float32")
    assert tensor != TensorData(data=[0.1, 0.2], dtype="float32", shape=[1, 2])
    assert TensorData(data=[1], dtype="int64") != TensorData(data=[1], dtype="float32")
    assert tensor != [0.1, 0.2]


def test_equality_of_sparse_tensors_looks_at_the_indices():
    """The same values in other cells are another tensor, and so is the dense form."""
    assert csr() == csr(sparse_col_indices=np.array([0, 1, 2]))
    assert csr() != csr(sparse_col_indices=[1, 1, 2])
    assert csr() != csr(sparse_crow_indices=[0, 0, 1, 3])
    assert TensorData(data=[1], dtype="int64", shape=[1, 1]) != TensorData(
        data=[1], dtype="int64", shape=[1, 1], sparse_crow_indices=[0, 1], sparse_col_indices=[0]
    )


def test_a_tensor_has_no_hash():
    """Values that hold arrays are compared, not hashed."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(TensorData(data=[1], dtype="int64"))


@pytest.mark.parametrize("form", [list, np.array])
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_million_values_are_shown_in_a_line(form, dtype):
    """A tensor in a log or a notebook does not flood it."""
    shown = repr(TensorData(data=form([123456789] * 1_000_000), dtype=dtype, shape=[1000, 1000]))
    assert len(shown) < 300
    assert "1000000 in all" in shown
    assert "shape=[1000, 1000]" in shown


def test_the_repr_tells_what_there_is():
    """Type, shape, sparseness and the first values."""
    assert repr(csr()) == "TensorData(int64, shape=[3, 3], sparse, data=[7, 8, 9])"
    assert repr(TensorData(data=[math.pi], dtype="float32")) == "TensorData(float32, shape=[1], data=[3.14159])"


@settings(deadline=None, max_examples=25)
@given(dense_tensors() | sparse_tensors())
def test_tensors_pickle(tensor):
    """A tensor crosses to another process."""
    assert pickle.loads(pickle.dumps(tensor)) == tensor


@pytest.mark.parametrize("form", [list, np.array])
def test_the_buffer_is_what_the_wire_has(form):
    """Numbers are kept in their type on the wire, so that writing them is a copy of bytes."""
    assert bytes(TensorData(data=form([258]), dtype="int64").buffer) == b"\2\1\0\0\0\0\0\0"
    assert bytes(TensorData(data=form([0.5]), dtype="float32").buffer) == b"\0\0\0\x3f"


def test_an_adopted_tensor_holds_what_it_was_given():
    """The numbers of a result are neither copied nor judged; its sizes must agree all the same."""
    values = array.array("f", [math.nan, 1.0])
    tensor = TensorData.adopt(data=values, dtype="float32", shape=(2, 1))
    assert tensor.buffer is values
    assert math.isnan(tensor.tolist()[0][0])
    with pytest.raises(InvalidInputError, match=r"shape \[3\] needs 3 values, data has 2"):
        TensorData.adopt(data=values, dtype="float32", shape=(3,))
    with pytest.raises(InvalidInputError, match="sparse_crow_indices must rise from 0 to 2 in 2 entries"):
        TensorData.adopt(
            data=values, dtype="float32", shape=(1, 2), sparse_crow_indices=[0, 1], sparse_col_indices=[0, 1]
        )
