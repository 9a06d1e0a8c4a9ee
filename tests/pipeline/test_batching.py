"""Splitting batches and putting results together again."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex.errors import InvalidInputError
from tinkex.pipeline.batching import BINARY, JSON, combine_outputs, estimate_datum, estimate_input, split
from tinkex.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    TensorData,
)

sizes = st.lists(st.integers(0, 200), max_size=60)


@given(sizes, st.integers(1, 8), st.integers(1, 300))
def test_the_pieces_cover_the_batch_in_order_and_respect_the_limits(items, max_len, max_bytes):
    """Joined they are the batch; none is empty, too long, or too large unless it is one item."""
    pieces = split(items, max_len, max_bytes)
    assert list(range(len(items))) == [i for piece in pieces for i in range(len(items))[piece]]
    for piece in pieces:
        inside = items[piece]
        assert 1 <= len(inside) <= max_len
        assert sum(inside) <= max_bytes or len(inside) == 1


@given(sizes, st.integers(1, 8), st.integers(1, 300))
def test_no_piece_could_have_taken_the_next_item(items, max_len, max_bytes):
    """A piece is closed only where the next item would break a limit."""
    pieces = split(items, max_len, max_bytes)
    for piece, following in itertools.pairwise(pieces):
        inside = items[piece]
        assert len(inside) == max_len or sum(inside) + items[following.start] > max_bytes


def test_an_oversize_item_travels_alone():
    """What exceeds the limit by itself is not joined with its neighbours."""
    assert [slice(0, 1), slice(1, 2), slice(2, 3)] == split([5, 100, 5], 10, 50)


def test_sizes_are_estimated_as_the_official_clients_do():
    """JSON counts 10 bytes a number; the binary form its real width, and 8 for each index of a sparse tensor."""
    chunks = [
        EncodedTextChunk(tokens=[1, 2, 3]),
        ImageChunk(data=b"12345", format="png"),
        ImageAssetPointerChunk(location="s3://x", format="png"),
        DmelChunk(dmel=b"1234567"),
    ]
    prompt = ModelInput(chunks=chunks)
    assert (30 + 5 + 6 + 7, 12 + 5 + 6 + 7) == (estimate_input(prompt), estimate_input(prompt, BINARY))
    datum = Datum(
        model_input=ModelInput.from_ints([1, 2]),
        loss_fn_inputs={
            "target_tokens": TensorData(data=[1, 2], dtype="int64"),
            "weights": TensorData(
                data=[0.5], dtype="float32", shape=[2, 9], sparse_crow_indices=[0, 1, 1], sparse_col_indices=[4]
            ),
        },
    )
    assert 20 + 20 + 10 == estimate_datum(datum, JSON)
    assert 8 + 16 + 4 + 4 * 8 == estimate_datum(datum, BINARY)


def output(metrics, items=1, kind="k"):
    """Make the result of a piece."""
    outputs = [{"logprobs": TensorData(data=[float(i)], dtype="float32")} for i in range(items)]
    return ForwardBackwardOutput(loss_fn_output_type=kind, loss_fn_outputs=outputs, metrics=metrics)


def test_outputs_are_joined_in_order():
    """The datums keep their order, and the first piece names the type."""
    combined = combine_outputs([output({}, 2, "a"), output({}, 1, "b")])
    assert ("a", [0.0, 1.0, 0.0]) == (
        combined.loss_fn_output_type,
        [item["logprobs"].tolist()[0] for item in combined.loss_fn_outputs],
    )


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("x:mean", [1.0, 4.0], {"x:mean": 2.0}),
        ("x:sum", [1.0, 4.0], {"x:sum": 5.0}),
        ("x:min", [1.0, 4.0], {"x:min": 1.0}),
        ("x:max", [1.0, 4.0], {"x:max": 4.0}),
        ("x:slack", [1.0, 4.0], {"x:slack": 2.0}),
        ("x:unique", [1.0, 4.0], {"x:unique": 1.0, "x:unique_1": 4.0}),
        ("x:hash2", [2.0**63, 2.0**63], {"x:hash2": 0.0}),
        ("x:hash_unordered", [4.0, 1.0], {"x:hash_unordered": float(hash((1, 4)))}),
        ("x:median", [1.0, 4.0], {}),
        ("x", [1.0, 4.0], {}),
        ("x:y:sum", [1.0, 4.0], {}),
    ],
)
def test_metrics_are_combined_by_their_suffix(key, values, expected):
    """Two datums weigh twice as much as one; an unknown reduction is dropped."""
    pieces = [output({key: values[0]}, items=2), output({key: values[1]}, items=1)]
    assert expected == combine_outputs(pieces).metrics


def test_a_metric_without_a_reduction_is_kept_if_nothing_has_to_be_combined():
    """One piece keeps it, several drop it, and neither raises."""
    assert {"tokens": 3.0} == combine_outputs([output({"tokens": 3.0})]).metrics


def test_a_metric_that_a_piece_lacks_is_dropped():
    """Half a sum would be a wrong number."""
    assert {} == combine_outputs([output({"a:sum": 1.0}), output({"b:sum": 1.0})]).metrics


def test_pieces_without_outputs_do_not_divide_by_zero():
    """If no piece has outputs, a mean weighs them all the same."""
    assert {"x:mean": 2.0} == combine_outputs([output({"x:mean": 1.0}, 0), output({"x:mean": 3.0}, 0)]).metrics


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=4), st.sampled_from(["mean", "sum", "hash2", "hash_unordered"])
)
def test_no_value_of_a_metric_raises(values, reduction):
    """NaN and infinity pass through or count as nothing, but do not lose the result of the batch."""
    combined = combine_outputs([output({f"x:{reduction}": value}) for value in values])
    assert isinstance(combined.metrics[f"x:{reduction}"], float) or math.isfinite(combined.metrics[f"x:{reduction}"])


def test_nothing_cannot_be_combined():
    """An empty list is a mistake of the caller and says so."""
    with pytest.raises(InvalidInputError, match="outputs"):
        combine_outputs([])
