"""Models of other families than the one in the package: names of their modules, and their ways with padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinkex.errors import InvalidInputError
from tinkex.types import AdamParams, Datum, ForwardBackwardInput, LoraConfig, ModelInput

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.engine

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 1}),
    "gemma3": ("Gemma3TextConfig", {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 6}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt2": ("GPT2Config", {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}),
    "opt": ("OPTConfig", {"ffn_dim": 24, "word_embed_proj_dim": 16}),
}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random model of a family."""
    config_name, changes = FAMILIES[request.param]
    known = {**SMALL, **changes}
    if request.param == "gpt2":
        known = {key: known[key] for key in ("vocab_size", "eos_token_id", "bos_token_id", "pad_token_id", *changes)}
    config = getattr(transformers, config_name)(**known)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(std=0.3)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def batch_of(*rows: list[int]) -> ForwardBackwardInput:
    """Next-token data."""
    data = [
        Datum(model_input=ModelInput.from_ints(row[:-1]), loss_fn_inputs={"target_tokens": row[1:]}) for row in rows
    ]
    return ForwardBackwardInput(data=data, loss_fn="cross_entropy")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out:UserWarning")
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")
def test_a_family_trains_samples_and_saves(folder: Path, tmp_path: Path, ask) -> None:
    """Attention, MLP and output are found and trained; batches are padded rightly; sampler, forward and PEFT agree."""
    from tinkex.local.engine.torch_hf import TorchEngine

    engine = TorchEngine({"x": folder})
    engine.create_model("a", "x", LoraConfig(rank=2, seed=1))
    rows = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [20, 21, 22]]
    batch = batch_of(*rows)
    first = engine.forward("a", batch, backward=True)
    for _ in range(3):
        engine.optim_step("a", AdamParams(learning_rate=0.02))
        last = engine.forward("a", batch, backward=True)
    assert last.metrics["loss:sum"] < first.metrics["loss:sum"]

    logprobs = [output["logprobs"].tolist() for output in engine.forward("a", batch, backward=False).loss_fn_outputs]
    for row, own in zip(rows, logprobs, strict=True):
        (alone,) = engine.forward("a", batch_of(row), backward=False).loss_fn_outputs
        assert alone["logprobs"].tolist() == pytest.approx(own, abs=1e-5)

    saved = tmp_path / "saved"
    saved.mkdir()
    engine.save("a", saved, optimizer=True)
    engine.open_sampler("s", "x", saved)
    requests = [ask(row, 2, max_tokens=10, stop=[], seed=4, prompt_logprobs=True) for row in rows]
    for row, own, answer in zip(rows, logprobs, engine.sample("s", requests), strict=True):
        assert answer.prompt_logprobs[1:] == pytest.approx(own, abs=1e-5)
        for sequence in answer.sequences:
            (output,) = engine.forward("a", batch_of(row + sequence.tokens), backward=False).loss_fn_outputs
            expected = output["logprobs"].tolist()[len(row) - 1 :]
            assert sequence.logprobs == pytest.approx(expected, abs=1e-5)

    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(plain, saved).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rows[0][:-1]])).logits[0]
    theirs = torch.log_softmax(logits, -1).numpy()[np.arange(10), rows[0][1:]]
    assert logprobs[0] == pytest.approx(theirs.tolist(), abs=1e-5)


def test_each_part_of_a_family_can_be_trained_alone(folder: Path) -> None:
    """Each flag finds modules of its own, and no module belongs to two."""
    from tinkex.local.engine.torch_hf import TorchEngine

    engine = TorchEngine({"x": folder})
    parts = []
    for flag in ("train_attn", "train_mlp", "train_unembed"):
        flags = dict.fromkeys(["train_attn", "train_mlp", "train_unembed"], False) | {flag: True}
        parts.append(set(engine._bases["x"].places(LoraConfig(rank=1, **flags))))
    assert all(parts)
    modules = len(engine._bases["x"]._linear)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 2 * modules


def test_a_part_without_modules_of_a_known_name_is_refused(nano_folder: Path) -> None:
    """The error names the flag, and the modules that there are."""
    from tinkex.local.engine.torch_hf import TorchEngine

    engine = TorchEngine({"x": nano_folder})
    base = engine._bases["x"]
    base._linear = {"model.layers.0.mixer.in_proj": (4, 4), "lm_head": (4, 4)}
    with pytest.raises(InvalidInputError, match=r"train_attn is true.*in_proj, lm_head") as caught:
        engine.create_model("a", "x", LoraConfig(rank=1))
    assert caught.value.field == "lora_config.train_attn"
