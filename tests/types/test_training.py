"""Datums, batches, losses, and the checks that run before anything is sent."""

from __future__ import annotations

import copy
import dataclasses
import math
import typing

import numpy as np
import pytest
from hypothesis import given, settings

from tests.strategies import batches, data
from tinkex.errors import InvalidInputError
from tinkex.types import (
    LOSS_INPUTS,
    AdamParams,
    Datum,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ImageChunk,
    ModelInput,
    OptimStepRequest,
    TensorData,
)
from tinkex.types.training import INPUT_DTYPES, KnownLoss, check_data, check_loss

THREE = ModelInput.from_ints([1, 2, 3])
CROSS_ENTROPY = {"target_tokens": [2, 3, 4], "weights": [0, 1, 1]}
POLICY = {"target_tokens": [2, 3, 4], "logprobs": [-1.0, -1.0, -1.0], "advantages": [0.0, 1.0, 1.0]}


def datum(model_input=THREE, **inputs):
    """Make a datum of three tokens."""
    return Datum(model_input=model_input, loss_fn_inputs=inputs)


def floats(*shape):
    """Make a float tensor of ones."""
    return TensorData.from_numpy(np.ones(shape))


def refused(batch, loss_fn="cross_entropy"):
    """Check a batch that must be refused and return the error."""
    with pytest.raises(InvalidInputError) as caught:
        check_data(batch, loss_fn)
    return caught.value


# --- Datum -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUT_DTYPES)
@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda v: np.array(v, dtype="uint16"),
        lambda v: TensorData(data=v, dtype="int64"),
        lambda v: pytest.importorskip("torch").tensor(v),
        lambda v: [v],
    ],
    ids=["list", "tuple", "numpy", "uint16", "tensor", "torch", "nested"],
)  # fmt: skip
def test_inputs_become_tensors_whatever_they_were(name, make):
    """After construction each input is a TensorData; all but ready tensors take the type of their name."""
    tensor = datum(**{name: make([1, 0, 1])}).loss_fn_inputs[name]
    assert isinstance(tensor, TensorData)
    assert tensor.data == [1, 0, 1]
    assert tensor.dtype == ("int64" if isinstance(make([1]), TensorData) else INPUT_DTYPES[name])


def test_bfloat16_is_an_input():
    """Logprobs straight from a model in bfloat16 are taken."""
    torch = pytest.importorskip("torch")
    made = datum(logprobs=torch.tensor([-0.5, -1.0], dtype=torch.bfloat16))
    assert made.loss_fn_inputs["logprobs"] == TensorData(data=[-0.5, -1.0], dtype="float32")


def test_a_bad_input_is_named():
    """The error says which input, and where in it."""
    with pytest.raises(InvalidInputError, match=r"loss_fn_inputs\['weights'\]: data\[1\] is nan") as caught:
        datum(weights=[0.0, math.nan])
    assert caught.value.field == "loss_fn_inputs['weights']"
    with pytest.raises(InvalidInputError, match=r"loss_fn_inputs\['target_tokens'\]: data must hold whole numbers"):
        datum(target_tokens=np.array([1.0]))
    with pytest.raises(InvalidInputError, match=r"loss_fn_inputs\['mask'\] is a list under a name of no conventional"):
        datum(mask=[1, 0])


@pytest.mark.parametrize("bad", [[1, 2], None, "text"])
def test_a_model_input_is_a_model_input(bad):
    """Bare token ids are refused with the way out."""
    with pytest.raises(InvalidInputError, match=r"model_input must be a ModelInput.*ModelInput.from_ints\(tokens\)"):
        datum(model_input=bad)


def test_replace_works_on_a_datum():
    """Programs drop an input with ``dataclasses.replace``; the old datum keeps it."""
    old = datum(target_tokens=[2], mask=np.array([1.0]))
    kept = {name: value for name, value in old.loss_fn_inputs.items() if name != "mask"}
    new = dataclasses.replace(old, loss_fn_inputs=kept)
    assert list(new.loss_fn_inputs) == ["target_tokens"]
    assert "mask" in old.loss_fn_inputs
    assert dataclasses.replace(old) == old


def test_the_dict_of_a_datum_may_change_and_that_of_the_caller_too():
    """Programs assign to ``loss_fn_inputs``; the dict that was handed in is another one."""
    given_dict = {"target_tokens": [2, 3, 4]}
    made = Datum(model_input=THREE, loss_fn_inputs=given_dict)
    made.loss_fn_inputs["weights"] = floats(3)
    given_dict["advantages"] = [1]
    assert list(made.loss_fn_inputs) == ["target_tokens", "weights"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.model_input = THREE


def test_a_copy_has_a_dict_of_its_own():
    """So whoever has a copy does not see what is put into the dict afterwards; the tensors are shared."""
    made = datum(**CROSS_ENTROPY)
    copied = copy.copy(made)
    assert copied == made
    assert copied.loss_fn_inputs["weights"] is made.loss_fn_inputs["weights"]
    made.loss_fn_inputs["weights"] = floats(3)
    assert copied == datum(**CROSS_ENTROPY)


@settings(deadline=None, max_examples=25)
@given(data)
def test_a_copy_of_a_datum_is_equal(made):
    """Replacing nothing gives an equal datum."""
    assert dataclasses.replace(made) == made


# --- Batches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[THREE], ["x"], [datum(), None]])
def test_a_batch_holds_datums(bad):
    """The error names the index of what is none."""
    index = len(bad) - 1
    for build in (lambda: ForwardBackwardInput(data=bad, loss_fn="x"), lambda: check_data(bad, "cross_entropy")):
        with pytest.raises(InvalidInputError, match=rf"data\[{index}\] must be a Datum, got") as caught:
            build()
        assert (caught.value.field, caught.value.index) == (f"data[{index}]", index)


@pytest.mark.parametrize("bad", [5, None])
def test_a_batch_is_a_list(bad):
    """Something that is no list at all is refused."""
    with pytest.raises(InvalidInputError, match="data must be a list of Datum"):
        ForwardBackwardInput(data=bad, loss_fn="x")


def test_a_batch_does_not_follow_its_source():
    """The list and the config may be reused."""
    batch, config = [datum()], {"beta": 0.5}
    made = ForwardBackwardInput(data=batch, loss_fn="dro", loss_fn_config=config)
    batch.clear()
    config.clear()
    assert (len(made.data), made.loss_fn_config) == (1, {"beta": 0.5})


def test_outputs_do_not_follow_their_source():
    """A server may reuse its lists."""
    outputs, metrics = [{}], {"loss:sum": 1.0}
    made = ForwardBackwardOutput(loss_fn_output_type="x", loss_fn_outputs=outputs, metrics=metrics)
    outputs.clear()
    metrics.clear()
    assert (made.loss_fn_outputs, made.metrics) == ([{}], {"loss:sum": 1.0})


def test_a_large_batch_is_shown_in_a_few_lines():
    """Neither a batch nor its output floods a log."""
    long = datum(ModelInput.from_ints([1] * 10**5), target_tokens=[1] * 10**5, weights=[0.5] * 10**5)
    assert len(repr(long)) < 600
    assert len(repr(ForwardBackwardInput(data=[long] * 1000, loss_fn="x"))) < 6 * 600
    output = ForwardBackwardOutput(loss_fn_output_type="x", loss_fn_outputs=[long.loss_fn_inputs] * 1000)
    assert "1000 in all" in repr(output)


# --- Losses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_fn", typing.get_args(KnownLoss))
def test_every_loss_of_the_wire_is_known(loss_fn):
    """All names of the API pass, with and without an empty config; the embedded server takes them too."""
    for config in (None, {}):
        check_loss(loss_fn, config)
        check_loss(loss_fn, config, here=True)


@pytest.mark.parametrize("config", [None, {"delta_low": 0.1, "mode": "tv"}])
def test_a_loss_that_only_the_server_knows_is_its_own_business(config):
    """Its name and its settings pass, numbers or texts; the embedded server knows all that it has."""
    check_loss("dppo", config)
    with pytest.raises(
        InvalidInputError, match=r"loss_fn 'dppo' is unknown; use one of cross_entropy, .*, or forward_"
    ):
        check_loss("dppo", config, here=True)


@pytest.mark.parametrize("bad", ["", None, 5, ["ppo"]])
def test_what_is_no_name_of_a_loss_is_refused_with_the_known_ones(bad):
    """The message lists what there is, and the way to a loss of one's own."""
    with pytest.raises(
        InvalidInputError,
        match=r"loss_fn .* is unknown; use one of cross_entropy, .*, dro, .*, or forward_backward_custom",
    ) as caught:
        check_loss(bad, None)
    assert caught.value.field == "loss_fn"


@pytest.mark.parametrize(
    ("loss_fn", "config"),
    [
        ("ppo", {"clip_low_threshold": 0.8, "clip_high_threshold": 2}),
        ("dro", {"beta": 0}),
        ("custom", {"loss_id": "abc", "x": 1}),
        ("gspo", {"clip_low_threshold": 0.9997}),
        ("stable_reinforce", {"kl_coeff": 0.1, "anything": -1.5}),
    ],
)
def test_settings_that_a_loss_has_are_accepted(loss_fn, config):
    """Numbers for the losses with a formula; texts too where the server decides."""
    check_loss(loss_fn, config)


@pytest.mark.parametrize(
    ("loss_fn", "config", "message"),
    [
        (
            "cross_entropy",
            {"beta": 1},
            r"loss_fn_config\['beta'\] is unknown to cross_entropy, which takes no settings",
        ),
        ("dro", {"betta": 1}, r"loss_fn_config\['betta'\] is unknown to dro, which takes beta"),
        ("ppo", {"clip": 1}, r"which takes clip_low_threshold, clip_high_threshold"),
        ("dro", {"beta": "0.05"}, r"loss_fn_config\['beta'\] must be a finite number, got '0.05'"),
        ("dro", {"beta": math.nan}, r"must be a finite number, got nan"),
        ("dro", {"beta": math.inf}, r"must be a finite number, got inf"),
        ("gspo", {"kl_coeff": 1}, r"is unknown to gspo, which takes clip_low_threshold, clip_high_threshold"),
        ("stable_reinforce", {"x": -math.inf}, r"must be a finite number, got -inf"),
        ("dro", {"beta": True}, r"must be a finite number, got True"),
        ("custom", {"x": None}, r"must be a finite number, got None"),
        ("custom", {"x": [1]}, r"must be a finite number, got \[1\]"),
        ("dppo", {"x": True}, r"must be a finite number, got True"),
        ("dppo", {"x": None}, r"must be a finite number, got None"),
        ("dppo", {"x": math.inf}, r"must be a finite number, got inf"),
        ("dro", [("beta", 1)], r"loss_fn_config must be a dict of numbers by name"),
    ],
)
def test_settings_that_a_loss_does_not_have_are_refused(loss_fn, config, message):
    """The message names the key and what would be right."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        check_loss(loss_fn, config)
    assert caught.value.field.startswith("loss_fn_config")


# --- check_data ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(batches())
def test_a_sound_batch_passes(batch):
    """Targets and weights as long as the input are what cross_entropy wants."""
    check_data(batch, "cross_entropy")


@pytest.mark.parametrize("loss_fn", [name for name in LOSS_INPUTS if name != "cross_entropy"])
def test_a_sound_batch_of_the_policy_losses_passes(loss_fn):
    """All of them read the same inputs."""
    check_data([datum(**POLICY)], loss_fn)


def test_candidate_targets_pass():
    """K targets for each position: all inputs are N x K."""
    check_data([datum(target_tokens=np.ones((3, 5), dtype=int), weights=floats(3, 5))], "cross_entropy")


def test_a_loss_without_a_formula_takes_any_inputs_of_the_right_length():
    """What the server alone knows is not second-guessed, but sizes are checked."""
    check_data([datum(anything=floats(3, 2), target_tokens=[1, 2, 3])], "stable_reinforce")
    assert refused([datum(anything=floats(2))], "stable_reinforce").field == "data[0].loss_fn_inputs['anything']"


@pytest.mark.parametrize("name", ["values", "target_tokens", "whatever"])
def test_a_loss_that_only_the_server_knows_has_inputs_of_the_right_length(name):
    """A row for each token, or a single number under a name that is not known to have one for each token."""
    check_data([datum(values=[0.1, 0.2, 0.3], whatever=floats(3, 2), extra=floats(1))], "ppo_critic")
    given = np.ones(2, dtype=np.int64 if name == "target_tokens" else np.float32)
    error = refused([datum(**{name: given})], "ppo_critic")
    assert error.field == f"data[0].loss_fn_inputs[{name!r}]"
    assert "first dimension must be the length of model_input, which is 3 tokens" in error.message


def test_a_single_number_is_no_row_of_what_is_known_to_have_one_for_each_token():
    """Whatever the loss."""
    assert "first dimension" in refused([datum(advantages=floats(1))], "ppo_critic").message


def test_what_a_loss_does_not_read_and_another_does_may_be_there():
    """Data of one loss can be used with another, on the embedded server as well; only the length counts then."""
    for loss_fn in ("cross_entropy", "importance_sampling", "ppo"):
        for here in (False, True):
            check_data([datum(**POLICY, weights=[1, 1, 1])], loss_fn, here=here)
    candidates = np.ones((3, 2), dtype=int)
    check_data([datum(target_tokens=candidates, logprobs=[0, 0, 0])], "cross_entropy")
    assert "first dimension" in refused([datum(target_tokens=[1, 2, 3], logprobs=[0, 0])]).message


def test_what_only_other_servers_read_is_sent_and_refused_here():
    """The embedded server would drop what means something to the caller."""
    data = [datum(**CROSS_ENTROPY, returns=[1, 2, 3])]
    check_data(data, "cross_entropy")
    with pytest.raises(InvalidInputError, match=r"\['returns'\] is unknown to cross_entropy, .*; remove it"):
        check_data(data, "cross_entropy", here=True)


@pytest.mark.parametrize("nothing", [[], ()])
def test_an_empty_batch_is_refused(nothing):
    """There must be something to train on."""
    assert refused(nothing).message == "data is empty: pass at least one Datum"


def test_a_single_datum_is_not_a_batch():
    """The way out is to put it in a list."""
    assert refused(datum()).message == "data is a single Datum: pass a list, [datum]"


SOUND = datum(**CROSS_ENTROPY)
MISTAKES = [
    (datum(ModelInput.empty()), "cross_entropy", "model_input", "is empty: it needs at least one token"),
    (datum(ModelInput.from_ints([])), "gspo", "model_input", "is empty: it needs at least one token"),
    (datum(weights=[1, 1, 1]), "cross_entropy", "loss_fn_inputs['target_tokens']",
     "is missing: cross_entropy needs target_tokens"),
    (datum(target_tokens=[1, 2, 3], logprobs=[0, 0, 0]), "ppo", "loss_fn_inputs['advantages']",
     "is missing: ppo needs target_tokens, logprobs, advantages"),
    (datum(**CROSS_ENTROPY, mask=floats(3)), "cross_entropy", "loss_fn_inputs['mask']",
     "is unknown to cross_entropy, which reads target_tokens, weights; remove it"),
    (datum(**POLICY, mask=floats(3)), "ppo", "loss_fn_inputs['mask']",
     "is unknown to ppo, which reads target_tokens, logprobs, advantages; remove it"),
    (datum(target_tokens=[1, 2, -100], weights=[1, 1, 0]), "cross_entropy", "loss_fn_inputs['target_tokens'][2]",
     "is -100, which is no token id; a position that does not count has any token, such as 0, and the weight or "
     "advantage 0"),
    (datum(target_tokens=np.array([[-1, 2], [3, 4], [5, 6]])), "custom", "loss_fn_inputs['target_tokens'][0]",
     "is -1, which is no token id; a position that does not count has any token, such as 0, and the weight or "
     "advantage 0"),
    (datum(target_tokens=floats(3)), "cross_entropy", "loss_fn_inputs['target_tokens']",
     "is float32; token ids are int64"),
    (datum(target_tokens=[1, 2]), "cross_entropy", "loss_fn_inputs['target_tokens']",
     "has shape [2]; its first dimension must be the length of model_input, which is 3 tokens"),
    (datum(target_tokens=[1, 2, 3], weights=[1]), "cross_entropy", "loss_fn_inputs['weights']",
     "has shape [1]; its first dimension must be the length of model_input, which is 3 tokens"),
    (datum(target_tokens=TensorData(data=[1], dtype="int64", shape=[])), "cross_entropy",
     "loss_fn_inputs['target_tokens']",
     "has shape []; its first dimension must be the length of model_input, which is 3 tokens"),
    (datum(target_tokens=[1, 2, 3], weights=floats(3, 2)), "cross_entropy", "loss_fn_inputs['weights']",
     "has shape [3, 2]; it must have the shape of target_tokens, [3]"),
    (datum(target_tokens=np.ones((3, 2), dtype=int), weights=[1, 1, 1]), "cross_entropy", "loss_fn_inputs['weights']",
     "has shape [3]; it must have the shape of target_tokens, [3, 2]"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "loss_fn", "field", "problem"), MISTAKES)
@pytest.mark.parametrize("index", [0, 2])
def test_a_mistake_names_the_field_and_the_index(bad, loss_fn, field, problem, index):
    """The message tells which datum, which field of it, what is wrong and what would be right."""
    sound = SOUND if loss_fn == "cross_entropy" else datum(**POLICY)
    error = refused([sound] * index + [bad], loss_fn)
    assert error.message == f"data[{index}].{field} {problem}"
    assert (error.field, error.index) == (f"data[{index}].{field}", index)


@pytest.mark.parametrize("name", ["target_tokens", "weights"])
def test_a_dict_that_was_changed_afterwards_is_checked(name):
    """Only tensors may be put into ``loss_fn_inputs`` by hand, whichever name comes first."""
    for order in (["target_tokens", "weights"], ["weights", "target_tokens"]):
        bad = datum(**{key: CROSS_ENTROPY[key] for key in order})
        bad.loss_fn_inputs[name] = [1, 2, 3]
        error = refused([SOUND, bad])
        assert error.message == f"data[1].loss_fn_inputs[{name!r}] must be a TensorData, got [1, 2, 3]"
        assert error.index == 1


def test_a_picture_of_unknown_size_leaves_the_length_to_the_server():
    """The first dimension cannot be checked then; the inputs among themselves still are."""
    picture = ModelInput.from_ints([1]).append(ImageChunk(data=b"", format="png"))
    check_data([datum(picture, target_tokens=[1] * 99, weights=[1] * 99)], "cross_entropy")
    assert (
        "must have the shape of target_tokens"
        in refused([datum(picture, target_tokens=[1] * 9, weights=[1] * 8)]).message
    )


def test_a_sparse_input_counts_by_its_shape():
    """The stored values are few; the shape is what must agree."""
    targets = TensorData(
        data=[7], dtype="int64", shape=[3, 9], sparse_crow_indices=[0, 1, 1, 1], sparse_col_indices=[8]
    )
    check_data([datum(target_tokens=targets, weights=floats(3, 9))], "cross_entropy")


# --- Optimizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learning_rate", "beta1", "beta2", "eps", "weight_decay", "grad_clip_norm"])
@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf, "0.1", None, True])
def test_hyper_parameters_are_finite_and_not_negative(name, bad):
    """A mistake in the schedule is reported at the call that makes it."""
    with pytest.raises(InvalidInputError, match=rf"AdamParams\.{name} must be a finite number of at least 0"):
        AdamParams(**{name: bad})


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_decays_lie_below_one(name):
    """A decay of 1 would never forget."""
    assert getattr(AdamParams(**{name: 0}), name) == 0
    with pytest.raises(InvalidInputError, match=rf"{name} must be a finite number of at least 0 and below 1, got 1"):
        AdamParams(**{name: 1})


def test_the_defaults_are_those_of_the_api():
    """Clients before 0.18 leave defaults to the server, so they must be the same everywhere."""
    assert AdamParams() == AdamParams(
        learning_rate=1e-4, beta1=0.9, beta2=0.95, eps=1e-12, weight_decay=0.0, grad_clip_norm=0.0
    )


@pytest.mark.parametrize("bad", [0, -1, 1.0, True])
def test_sequence_numbers_of_training_start_at_one(bad):
    """Number 0 is the creation of the model."""
    with pytest.raises(InvalidInputError, match=r"OptimStepRequest\.seq_id must be a whole number of at least 1"):
        OptimStepRequest(adam_params=AdamParams(), model_id="m", seq_id=bad)
