"""What is refused before anything runs, and how the engine introduces itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinkex.data import TINY_NAME, TINY_PATH, builtin_models, canonical_name
from tinkex.errors import ConfigurationError, InvalidInputError
from tinkex.types import (
    Datum,
    DmelChunk,
    ForwardBackwardInput,
    ImageChunk,
    LoraConfig,
    ModelData,
    ModelInput,
    SampleRequest,
    SamplingParams,
    SupportedModel,
    TensorData,
)

pytest.importorskip("torch")
pytest.importorskip("peft")

pytestmark = pytest.mark.engine

IMAGE = ImageChunk(data=b"\x89PNG", format="png", expected_tokens=2)


def datum(tokens: list[int], **inputs) -> Datum:
    """A datum; targets are the tokens themselves unless given."""
    return Datum(model_input=ModelInput.from_ints(tokens), loss_fn_inputs={"target_tokens": tokens, **inputs})


BAD_DATA = [
    (datum([1, 272]), "data[1].model_input.chunks[0].tokens", "272.*0 to 271"),
    (datum([1, 2], target_tokens=[1, 999]), "data[1].loss_fn_inputs['target_tokens']", "999"),
    (datum([1, 2], target_tokens=[1, -1]), "data[1].loss_fn_inputs['target_tokens'][1]", "-1"),
    (datum([1] * 129), "data[1].model_input", "129 tokens.*128"),
    (datum([1, 2], weights=[1.0]), "data[1].loss_fn_inputs['weights']", "shape"),
    (datum([1, 2], returns=[1.0, 2.0]), "data[1].loss_fn_inputs['returns']", "unknown"),
    (datum([1, 2], target_tokens=np.zeros((2, 0), dtype=np.int64)), "data[1].loss_fn_inputs['target_tokens']", "shape"),
    (
        datum([1, 2], target_tokens=TensorData(data=[1.0, 2.0], dtype="float32")),
        "data[1].loss_fn_inputs['target_tokens']",
        "int64",
    ),
    (
        Datum(model_input=ModelInput.from_ints([1]).append(IMAGE), loss_fn_inputs={"target_tokens": [1, 2, 3]}),
        "data[1].model_input.chunks[1]",
        "ImageChunk.*text only",
    ),
    (
        Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={}),
        "data[1].loss_fn_inputs['target_tokens']",
        "missing",
    ),
]


@pytest.mark.parametrize(("bad", "field", "words"), BAD_DATA)
def test_a_bad_datum_is_named(bench, bad: Datum, field: str, words: str) -> None:
    """check_batch and forward refuse it alike, with the field, its index and what is wrong."""
    batch = ForwardBackwardInput(data=[datum([1, 2]), bad], loss_fn="cross_entropy")
    for attempt in (bench.engine.check_batch, lambda *call: bench.engine.forward(*call, backward=True)):
        with pytest.raises(InvalidInputError, match=words) as caught:
            attempt("a", batch)
        assert (caught.value.field, caught.value.index) == (field, 1)


def test_a_good_batch_passes_the_check(bench) -> None:
    """Nothing is raised for what can run."""
    bench.engine.check_batch(
        "a", ForwardBackwardInput(data=[datum([0, 271]), datum([1] * 128)], loss_fn="cross_entropy")
    )


BAD_SAMPLES = [
    ({"prompt": ModelInput.from_ints([5, 272])}, "prompt.chunks[0].tokens", "272"),
    ({"prompt": ModelInput.empty()}, "prompt", "empty"),
    ({"prompt": ModelInput(chunks=[IMAGE])}, "prompt.chunks[0]", "text only"),
    ({"prompt": ModelInput(chunks=[DmelChunk(dmel=b"\x00\x01\x05")])}, "prompt.chunks[0]", "text only"),
    ({"prompt": ModelInput.from_ints([1] * 200)}, "prompt", "200 tokens.*128"),
    ({"prompt": ModelInput.from_ints([1] * 128)}, "sampling_params.max_tokens", "128 tokens"),
    ({"sampling_params": SamplingParams(max_tokens=127)}, "sampling_params.max_tokens", "127 after a prompt of 2"),
    ({"num_samples": 257}, "num_samples", "257.*256"),
    ({"topk_prompt_logprobs": 21}, "topk_prompt_logprobs", "21.*20"),
    ({"sampling_params": SamplingParams(stop=["a", ""])}, "sampling_params.stop", "empty text"),
    ({"sampling_params": SamplingParams(stop=[3, 272])}, "sampling_params.stop", "272"),
    ({"topk_sample_logprobs": 21}, "topk_sample_logprobs", "at most 20"),
    ({"prompt_alt_tokens_k": 21}, "prompt_alt_tokens_k", "at most 20"),
    ({"prompt_logprobs_last_n": 1}, "prompt_logprobs_last_n", "needs prompt_logprobs"),
    ({"prompt_logprobs": True, "prompt_logprobs_last_n": 2}, "prompt_logprobs_last_n", "1 that can be scored"),
    ({"target_prompt_logprobs": TensorData(data=[1], dtype="int64")}, "target_prompt_logprobs", r"\[1, K\]"),
    (
        {"target_prompt_logprobs": TensorData(data=[-1, 272], dtype="int64", shape=[1, 2])},
        "target_prompt_logprobs",
        "272",
    ),
]


@pytest.mark.parametrize(("change", "field", "words"), BAD_SAMPLES)
def test_a_bad_sample_is_named(bench, change: dict, field: str, words: str) -> None:
    """check_sample refuses it with the field and the limit."""
    request = {"prompt": ModelInput.from_ints([1, 2]), "sampling_params": SamplingParams(), **change}
    with pytest.raises(InvalidInputError, match=words) as caught:
        bench.engine.check_sample(SampleRequest(**request), bench.base_model)
    assert caught.value.field == field


def test_a_good_sample_passes_the_check(bench) -> None:
    """Nothing is raised at the limits."""
    params = SamplingParams(max_tokens=126, stop=["x"])
    bench.engine.check_sample(
        SampleRequest(prompt=ModelInput.from_ints([0, 271]), sampling_params=params, num_samples=256), bench.base_model
    )


def test_stop_texts_need_a_tokenizer(nano_folder: Path, tmp_path: Path) -> None:
    """For a model without one the refusal says to pass ids; token stops work."""
    from tinkex.local.engine.torch_hf import TorchEngine

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(nano_folder / name)
    engine = TorchEngine({"bare": tmp_path})
    prompt = ModelInput.from_ints([1])
    with pytest.raises(InvalidInputError, match="without a tokenizer"):
        engine.check_sample(SampleRequest(prompt=prompt, sampling_params=SamplingParams(stop="x")), "bare")
    engine.check_sample(SampleRequest(prompt=prompt, sampling_params=SamplingParams(stop=[5])), "bare")


def test_unknown_names_are_refused(bench) -> None:
    """Models and base models that do not exist are named, with what there is."""
    batch = ForwardBackwardInput(data=[datum([1])], loss_fn="cross_entropy")
    request = SampleRequest(prompt=ModelInput.from_ints([1]), sampling_params=SamplingParams())
    with pytest.raises(InvalidInputError, match="no model 'zz'"):
        bench.engine.check_batch("zz", batch)
    with pytest.raises(InvalidInputError, match=r"'zz' is unknown; this server has test/nano"):
        bench.engine.check_sample(request, "zz")
    with pytest.raises(InvalidInputError, match="'zz'"):
        bench.engine.model_data("zz")


def test_the_engine_says_what_it_has(bench, nano_folder: Path) -> None:
    """Name, context and architecture; the tokenizer of a model of one's own is its folder."""
    assert bench.engine.supported_models() == [
        SupportedModel(model_name=bench.base_model, max_context_length=128, trainable=True, sampleable=True)
    ]
    assert bench.engine.model_data(bench.base_model) == ModelData(
        arch="Qwen3ForCausalLM", model_name=bench.base_model, tokenizer_id=str(nano_folder)
    )


def test_the_model_in_the_package_answers_under_its_short_names(ask) -> None:
    """``tiny`` and ``tinkex/tiny`` are the same model, which has learnt to copy."""
    from tinkex.local.engine.torch_hf import TorchEngine

    engine = TorchEngine()
    assert [model.model_name for model in engine.supported_models()] == [TINY_NAME]
    assert engine.model_data("tiny").tokenizer_id == str(TINY_PATH.resolve())
    engine.open_sampler("s", "tinkex/tiny", None)
    prompt = [256, 258, *b"say: cat", 257, 259]
    (answer,) = engine.sample("s", [ask(prompt, temperature=0)])
    assert bytes(answer.sequences[0].tokens[:-1]) == b"cat"
    assert answer.sequences[0].stop_reason == "stop"
    engine.create_model("a", "tiny", LoraConfig(rank=8, seed=1))
    assert {canonical_name(name) for name in ("tiny", "tinkex/tiny", TINY_NAME)} == {TINY_NAME}
    assert canonical_name("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert builtin_models() == {TINY_NAME: TINY_PATH}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"models": {"x": "/no/such/folder"}}, "'x'.*no config.json"),
        ({"device": "tpu"}, "device must be"),
        ({"threads": 0}, "at least 1"),
        ({"microbatch_tokens": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, words: str) -> None:
    """The constructor names the model or the setting."""
    from tinkex.local.engine.torch_hf import TorchEngine

    with pytest.raises(ConfigurationError, match=words):
        TorchEngine(**settings)


def test_a_folder_with_no_readable_weights_is_refused(nano_folder: Path, tmp_path: Path) -> None:
    """A configuration without weights, or with damaged ones, is reported with the model's name."""
    from tinkex.local.engine.torch_hf import TorchEngine

    (tmp_path / "config.json").write_bytes((nano_folder / "config.json").read_bytes())
    with pytest.raises(ConfigurationError, match=r"'x' in .* cannot be loaded"):
        TorchEngine({"x": tmp_path})
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ConfigurationError, match=r"'x' in .* cannot be loaded"):
        TorchEngine({"x": tmp_path})


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_checks_and_interface_need_no_torch() -> None:
    """Interface, checks, losses and the model's whereabouts load neither torch nor NumPy."""
    code = (
        "import sys, tinkex.data, tinkex.local.engine.base, tinkex.local.engine.checks, tinkex.local.engine.losses\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


def test_without_torch_the_error_says_what_to_install() -> None:
    """The message has the command for the extra and the one for PyTorch's small build."""
    code = "import sys\nsys.modules['torch'] = None\nimport tinkex.local.engine.torch_hf"
    stderr = run_python(code).stderr
    assert 'pip install "tinkex[local]"' in stderr
    assert "--index-url https://download.pytorch.org/whl/cpu" in stderr


def test_loading_training_and_sampling_are_silent(nano_folder: Path) -> None:
    """Nothing is printed on the normal paths: no progress bar, no advice, no warning."""
    code = f"""
from tinkex.local.engine.torch_hf import TorchEngine
from tinkex.types import *
engine = TorchEngine({{"x": {str(nano_folder)!r}}})
engine.create_model("a", "x", LoraConfig(rank=2))
datum = Datum(model_input=ModelInput.from_ints([1, 2]), loss_fn_inputs={{"target_tokens": [2, 3]}})
engine.forward("a", ForwardBackwardInput(data=[datum], loss_fn="cross_entropy"), backward=True)
engine.optim_step("a", AdamParams())
engine.open_sampler("s", "x", None)
engine.sample("s", [SampleRequest(prompt=ModelInput.from_ints([1]), sampling_params=SamplingParams(stop="x"))])
engine.drop_model("a")
"""
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
