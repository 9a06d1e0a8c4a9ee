"""Saving, loading, resuming, and what PEFT makes of the files."""

from __future__ import annotations

import json

import pytest

from tinkex.errors import InvalidInputError
from tinkex.types import AdamParams, LoraConfig, WeightsInfoResponse

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.engine

STEP = AdamParams(learning_rate=0.02)


def saved(bench, tmp_path, *, model_id: str = "a", optimizer: bool = True):
    """Save a model into a new folder."""
    folder = tmp_path / f"{model_id}-{optimizer}"
    folder.mkdir()
    bench.engine.save(model_id, folder, optimizer=optimizer)
    return folder


def steps(bench, data, model_id: str, seeds: range) -> list[float]:
    """Train one step on each seed's data and return the losses."""
    losses = []
    for seed in seeds:
        losses.append(bench.run(data([7, 4], seed=seed), model_id=model_id).metrics["loss:sum"])
        bench.engine.optim_step(model_id, STEP)
    return losses


def test_a_resumed_model_goes_on_bit_for_bit(bench, data, tmp_path) -> None:
    """Loaded with the optimizer into another model, training continues with the losses it would have had."""
    steps(bench, data, "a", range(3))
    folder = saved(bench, tmp_path)
    expected = steps(bench, data, "a", range(3, 8))
    bench.create("b", seed=99)
    bench.engine.load("b", folder, optimizer=True)
    assert steps(bench, data, "b", range(3, 8)) == expected


def test_without_the_optimizer_training_starts_anew_from_the_weights(bench, data, tmp_path) -> None:
    """Weights alone give the same next loss and other ones after; accumulated gradients and moments are gone."""
    steps(bench, data, "a", range(3))
    folder = saved(bench, tmp_path)
    expected = steps(bench, data, "a", range(3, 6))
    bench.run(data([5], seed=50))
    bench.engine.load("a", folder, optimizer=False)
    assert bench.gradient() is None
    assert bench.engine._models["a"].optimizer.steps == 0
    again = steps(bench, data, "a", range(3, 6))
    assert again[0] == expected[0]
    assert again[1:] != expected[1:]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
def test_peft_reads_the_adapter_and_computes_the_same(bench, data, nano_folder, tmp_path) -> None:
    """PeftModel.from_pretrained on the base gives the engine's logprobs."""
    folder = saved(bench, tmp_path, optimizer=False)
    plain = transformers.AutoModelForCausalLM.from_pretrained(nano_folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(plain, folder).eval()
    (datum,) = data([25])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([datum.model_input.to_ints()])).logits[0]
    targets = torch.tensor(datum.loss_fn_inputs["target_tokens"].data).unsqueeze(1)
    theirs = torch.log_softmax(logits, -1).gather(-1, targets)[:, 0]
    assert bench.logprobs([datum])[0] == pytest.approx(theirs.tolist(), abs=1e-5)


def test_the_files_are_those_of_peft_plus_ours_and_nothing_is_pickled(bench, tmp_path) -> None:
    """Alpha and base model are recorded; the optimizer's file is there only if asked for."""
    with_state, without = saved(bench, tmp_path), saved(bench, tmp_path, optimizer=False)
    names = {"adapter_config.json", "adapter_model.safetensors", "tinkex.json"}
    assert {path.name for path in without.iterdir()} == names
    assert {path.name for path in with_state.iterdir()} == names | {"optimizer.safetensors"}
    config = json.loads((without / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["r"], config["base_model_name_or_path"]) == (32, 4, bench.base_model)


def test_describe_tells_what_a_checkpoint_needs(bench, tmp_path) -> None:
    """Base model, rank and the three flags come back; a folder of something else is refused."""
    bench.create("b", rank=3, train_mlp=False)
    assert bench.engine.describe(saved(bench, tmp_path, model_id="b")) == WeightsInfoResponse(
        base_model=bench.base_model, is_lora=True, lora_rank=3, train_unembed=True, train_mlp=False, train_attn=True
    )
    with pytest.raises(InvalidInputError, match="no readable checkpoint"):
        bench.engine.describe(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": 8}, "rank is 4 in the checkpoint and 8 in the model"),
        ({"rank": 4, "train_mlp": False}, "train_mlp is True in the checkpoint and False in the model"),
        ({"rank": 4, "train_unembed": False}, "train_unembed is True in the checkpoint and False in the model"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_with_both_values(bench, tmp_path, settings, words: str) -> None:
    """The message names the setting and both values, and the model keeps its weights."""
    folder = saved(bench, tmp_path)
    bench.create("other", seed=3, **settings)
    before = bench.adapter("other").flat()
    with pytest.raises(InvalidInputError, match=words):
        bench.engine.load("other", folder, optimizer=True)
    assert torch.equal(bench.adapter("other").flat(), before)


def test_a_checkpoint_of_another_base_is_refused(bench, tmp_path) -> None:
    """For training and for sampling, both names are in the message."""
    folder = saved(bench, tmp_path)
    card = json.loads((folder / "tinkex.json").read_text())
    (folder / "tinkex.json").write_text(json.dumps({**card, "base_model": "someone/else"}))
    for attempt in (
        lambda: bench.engine.load("a", folder, optimizer=False),
        lambda: bench.engine.open_sampler("s", bench.base_model, folder),
    ):
        with pytest.raises(InvalidInputError, match=r"'someone/else'.*'test/nano'"):
            attempt()


def test_asking_for_an_optimizer_that_was_not_saved_is_refused(bench, tmp_path) -> None:
    """The message says how to load it all the same; the weights stay."""
    folder = saved(bench, tmp_path, optimizer=False)
    bench.create("b", seed=4)
    before = bench.adapter("b").flat()
    with pytest.raises(InvalidInputError, match="optimizer=false"):
        bench.engine.load("b", folder, optimizer=True)
    assert torch.equal(bench.adapter("b").flat(), before)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors", "tinkex.json"])
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(bench, data, tmp_path, name: str) -> None:
    """A file cut short is reported by name or as unreadable, never half loaded."""
    steps(bench, data, "a", range(1))
    folder = saved(bench, tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    bench.create("b", seed=4)
    before = bench.adapter("b").flat()
    with pytest.raises(InvalidInputError, match="read"):
        bench.engine.load("b", folder, optimizer=True)
    assert torch.equal(bench.adapter("b").flat(), before)


def test_weights_of_another_shape_are_refused(bench, tmp_path) -> None:
    """A file that does not hold what its description says is found out before anything is copied."""
    bench.create("wide", rank=6)
    folder, other = saved(bench, tmp_path), saved(bench, tmp_path, model_id="wide")
    (other / "adapter_model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(InvalidInputError, match="does not fit"):
        bench.engine.load("a", folder, optimizer=False)
    with pytest.raises(InvalidInputError, match="does not fit"):
        bench.engine.open_sampler("s", bench.base_model, folder)


def test_a_rank_beyond_the_limit_and_a_taken_id_are_refused(bench) -> None:
    """Creation names the limit; the model that has the id stays."""
    with pytest.raises(InvalidInputError, match=r"rank is 129.*128"):
        bench.engine.create_model("b", bench.base_model, LoraConfig(rank=129))
    with pytest.raises(InvalidInputError, match="'a' exists"):
        bench.engine.create_model("a", bench.base_model, LoraConfig(rank=1))
    with pytest.raises(InvalidInputError, match=r"'no/model' is unknown.*test/nano"):
        bench.engine.create_model("b", "no/model", LoraConfig(rank=1))
