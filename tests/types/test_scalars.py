"""One number is taken in whatever form programs compute it: NumPy and torch scalars are numbers like any other."""

from __future__ import annotations

import enum
import fractions
import re

import attrs
import numpy as np
import pytest

import tinkex
from tinkex import types
from tinkex._scalars import plain_number, whole_argument
from tinkex.errors import ConfigurationError, InvalidInputError
from tinkex.recipes.plan import SFTSettings
from tinkex.recipes.recovery import RecoveryPolicy, SavePoint

WHOLE = [np.int64, np.int32, np.uint8, lambda value: np.array(value), lambda value: enum.IntEnum("E", {"A": value}).A]
REAL = [np.float64, np.float32, np.float16, np.int64, lambda value: np.array(value, "float32"), fractions.Fraction]
SETTINGS = [
    tinkex.ClientConfig,
    tinkex.RetryPolicy,
    tinkex.CircuitBreaker,
    RecoveryPolicy,
    SavePoint,
    SFTSettings,
]
OWN_NUMBERS = {"seq_id", "model_seq_id", "sampling_session_seq_id", "prev_cursor"}
"""Fields of requests whose numbers clients give out themselves."""
ANSWERS = re.compile(
    "Response$|BillingEvent$|BillingUsage|^Current|^(Checkpoint|Cursor|SupportedModel|TrainingRun|SessionSummary)$|"
    "^(Future|ResultMetadata|AuditLog|ApiKey|GenericEvent|Session(?!Search)|UnhandledException)"
)
"""Types that a server makes, or the client itself; a program only reads them."""


def numeric_fields() -> list[tuple[type, str]]:
    values = [getattr(types, name) for name in types.__all__ if not ANSWERS.search(name)]
    classes = [cls for cls in values if isinstance(cls, type) and attrs.has(cls)] + SETTINGS
    return [
        (cls, field.name)
        for cls in classes
        for field in attrs.fields(cls)
        if re.fullmatch(r"(int|float)( \| None)?", str(getattr(field.type, "__name__", field.type)))
        and field.name not in OWN_NUMBERS
    ]


def test_there_are_fields_to_look_at() -> None:
    """The list below is not empty by mistake, and has the names that programs compute."""
    found = {f"{cls.__name__}.{name}" for cls, name in numeric_fields()}
    assert len(found) > 50
    assert found >= {
        "AdamParams.learning_rate",
        "SamplingParams.max_tokens",
        "LoraConfig.rank",
        "SaveWeightsRequest.ttl_seconds",
        "ClientConfig.timeout",
        "SFTSettings.seed",
        "SessionSearchRequest.limit",
    }


@pytest.mark.parametrize(("cls", "name"), numeric_fields())
def test_every_field_takes_numbers_of_other_libraries(cls: type, name: str) -> None:
    """A field of one number turns it into one of Python before its validator sees it."""
    assert getattr(attrs.fields(cls), name).converter is plain_number


@pytest.mark.parametrize("form", WHOLE)
def test_a_whole_number_becomes_an_int(form) -> None:
    """Whatever form it has, what is kept is an int of Python."""
    params = types.SamplingParams(max_tokens=form(5), seed=form(5), top_k=form(5), stop=[form(5), form(5)])
    kept = [params.max_tokens, params.seed, params.top_k, *params.stop]
    kept += [types.LoraConfig(rank=form(5)).rank, types.PromptProvenanceSpan(sequence_id="s", length=form(5)).length]
    assert kept == [5] * 7
    assert {type(value) for value in kept} == {int}


@pytest.mark.parametrize("form", REAL)
def test_a_number_becomes_a_float_or_an_int(form) -> None:
    """The same for fields that take any number."""
    adam, sampling = types.AdamParams(learning_rate=form(2)), types.SamplingParams(temperature=form(2))
    kept = [adam.learning_rate, sampling.temperature]
    kept += [tinkex.ClientConfig(timeout=form(2)).timeout, RecoveryPolicy(max_wait_s=form(2)).max_wait_s]
    assert kept == [2] * 4
    assert {type(value) for value in kept} <= {int, float}


def test_a_torch_scalar_is_a_number() -> None:
    """Also one that a gradient goes through, as a learned temperature has."""
    torch = pytest.importorskip("torch")
    params = types.SamplingParams(
        max_tokens=torch.tensor(5), temperature=torch.tensor(0.5, requires_grad=True), stop=list(torch.tensor([3, 4]))
    )
    assert (params.max_tokens, params.temperature, params.stop) == (5, 0.5, [3, 4])
    assert types.AdamParams(learning_rate=torch.tensor(0.25, dtype=torch.bfloat16)).learning_rate == 0.25


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True), "5", 5.5, np.array([5]), None, np.nan])
def test_what_is_no_whole_number_is_refused(value) -> None:
    """A boolean of any library, a text and an array of one are not 5; the error names the field."""
    with pytest.raises(InvalidInputError, match=r"LoraConfig\.rank must be a whole number"):
        types.LoraConfig(rank=value)
    with pytest.raises(InvalidInputError, match="window must be a whole number of at least 1"):
        whole_argument(value, "window", 1)


@pytest.mark.parametrize("value", [True, np.bool_(True), "5", np.array([5.0]), np.float32("nan"), np.float64("inf")])
def test_what_is_no_number_is_refused(value) -> None:
    """Neither are these a learning rate, or a time limit."""
    with pytest.raises(InvalidInputError, match="learning_rate must be a finite number"):
        types.AdamParams(learning_rate=value)
    with pytest.raises(ConfigurationError, match="timeout must be a finite number"):
        tinkex.ClientConfig(timeout=value)


def test_settings_of_a_loss_are_numbers() -> None:
    """What a schedule computes is sent as the number that it is."""
    config = {"clip_low_threshold": np.float32(0.5), "clip_high_threshold": np.array(2.0)}
    request = types.ForwardBackwardInput(data=[], loss_fn="ppo", loss_fn_config=config)
    assert request.loss_fn_config == {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}
    assert {type(value) for value in request.loss_fn_config.values()} == {float}
