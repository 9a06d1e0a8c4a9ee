"""A model of a few thousand random parameters, and short ways to ask an engine for something."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tinkex.data import TINY_PATH
from tinkex.types import (
    Datum,
    ForwardBackwardInput,
    LoraConfig,
    ModelInput,
    SampledSequence,
    SampleRequest,
    SamplingParams,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

NANO = "test/nano"


class Bench:
    """An engine with the random model, one adapter ``a`` whose weights are not zero, and helpers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        from tinkex.local.engine.torch_hf import TorchEngine

        self.base_model = NANO
        self.engine = TorchEngine({NANO: folder}, threads=1, device="cpu", **settings)

    def create(self, model_id: str = "a", *, rank: int = 4, seed: int = 7, **flags: bool) -> None:
        """Make a model with random weights in both halves of its adapter: a fresh one changes nothing yet."""
        self.engine.create_model(model_id, NANO, LoraConfig(rank=rank, seed=seed, **flags))
        generator = torch.Generator().manual_seed(seed)
        adapter = self.adapter(model_id)
        adapter.assign(0.1 * torch.randn(adapter.flat().shape, generator=generator))

    def adapter(self, model_id: str = "a") -> Any:
        """The adapter of a model."""
        return self.engine._models[model_id].adapter

    def gradient(self, model_id: str = "a") -> Any:
        """What a model has accumulated, None if nothing."""
        return self.engine._models[model_id].gradient

    def run(self, data: Sequence[Datum], loss_fn: str = "cross_entropy", *, model_id: str = "a", **options: Any) -> Any:
        """Run forward_backward, or with ``backward=False`` forward."""
        backward = options.pop("backward", True)
        batch = ForwardBackwardInput(data=data, loss_fn=loss_fn, loss_fn_config=options.pop("config", None))
        return self.engine.forward(model_id, batch, backward=backward)

    def logprobs(self, data: Sequence[Datum], model_id: str = "a") -> list[list[float]]:
        """The logprobs of the targets, for each datum."""
        outputs = self.run(data, model_id=model_id, backward=False).loss_fn_outputs
        return [output["logprobs"].tolist() for output in outputs]

    def sample(self, prompt: Sequence[int], sampler: str = "s", **options: Any) -> list[SampledSequence]:
        """Sample one request and return its sequences."""
        (answer,) = self.engine.sample(sampler, [ask(prompt, **options)])
        if isinstance(answer, Exception):
            raise answer
        return answer.sequences

    def sampler_of(self, folder: Path, model_id: str = "a", sampler: str = "s") -> None:
        """Freeze a model into a sampler."""
        folder.mkdir()
        self.engine.save(model_id, folder, optimizer=False)
        self.engine.open_sampler(sampler, NANO, folder)


def ask(prompt: Sequence[int], num_samples: int = 1, **options: Any) -> SampleRequest:
    """Make a sample request; options of SampleRequest and of SamplingParams together."""
    own = {name: options.pop(name) for name in list(options) if "logprobs" in name or "alt_tokens" in name}
    return SampleRequest(
        prompt=ModelInput.from_ints(list(prompt)),
        num_samples=num_samples,
        sampling_params=SamplingParams(**options),
        **own,
    )


def some_data(lengths: Sequence[int], seed: int = 0, **inputs: Callable[[random.Random], float]) -> list[Datum]:
    """Random datums; each further input is filled by calling its function for every token."""
    # Two sources, so that the tokens are the same with and without further inputs.
    chance, other = random.Random(seed), random.Random(seed + 1)
    data = []
    for length in lengths:
        tokens = [chance.randrange(256) for _ in range(length + 1)]
        own: dict[str, Any] = {name: [draw(other) for _ in range(length)] for name, draw in inputs.items()}
        own["target_tokens"] = tokens[1:]
        data.append(Datum(model_input=ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=own))
    return data


@pytest.fixture(scope="session")
def nano_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with the tokenizer of the model in the package."""
    folder = tmp_path_factory.mktemp("nano")
    config = transformers.Qwen3Config(
        vocab_size=272, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=128, tie_word_embeddings=False,
        bos_token_id=256, eos_token_id=257, pad_token_id=261, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY_PATH / name, folder)
    return folder


@pytest.fixture
def new_bench(nano_folder: Path) -> Callable[..., Bench]:
    """Make a bench with other settings."""
    return lambda **settings: Bench(nano_folder, **settings)


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """A bench with the model ``a``."""
    made = new_bench()
    made.create("a")
    return made


@pytest.fixture
def data() -> Callable[..., list[Datum]]:
    """Make random datums: ``data([lengths], seed=0, weights=lambda chance: ...)``."""
    return some_data


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., SampleRequest]:
    """Make a sample request: ``ask(prompt, num_samples=1, max_tokens=..., prompt_logprobs=...)``."""
    return ask
