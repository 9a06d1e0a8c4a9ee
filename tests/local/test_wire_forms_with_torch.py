"""The embedded server over the real engine, in both forms of the wire: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinkex
from tinkex import types
from tinkex.data import TINY_NAME
from tinkex.local import LocalServer

for module in ("torch", "transformers", "peft"):
    pytest.importorskip(module)

pytestmark = pytest.mark.engine

WAIT = 60.0
TEXTS = (b"the cat sat on the mat", b"to be or not", b"that is the question")


def datum(text: bytes, form: type | object) -> types.Datum:
    """Make a training example of a text, of lists or of arrays."""
    tokens = list(text)
    return types.Datum(
        model_input=types.ModelInput.from_ints(form(tokens[:-1])),
        loss_fn_inputs={"target_tokens": form(tokens[1:]), "weights": form([0.5] * (len(tokens) - 1))},
    )


def numbers(service: tinkex.ServiceClient, form: object) -> dict[str, object]:
    """Train, score and sample, and return what came out."""
    batch = [datum(text, form) for text in TEXTS]
    train = service.create_lora_training_client(TINY_NAME, rank=4, seed=5)
    before = train.forward(batch, "cross_entropy")
    steps = []
    for _ in range(3):
        steps.append(train.forward_backward(batch, "cross_entropy"))
        train.optim_step(types.AdamParams(learning_rate=1e-2))
    sampler = train.save_weights_and_get_sampling_client()
    params = types.SamplingParams(max_tokens=8, temperature=0)
    prompt = types.ModelInput.from_ints(list(b"the cat"))
    drawn = sampler.sample(prompt, 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=3).result(WAIT)
    results = [future.result(WAIT) for future in (before, *steps)]
    return {
        "losses": [result.metrics["loss:sum"] for result in results],
        "logprobs": [
            value for result in results for output in result.loss_fn_outputs for value in output["logprobs"].data
        ],
        "tokens": drawn.sequences[0].tokens,
        "sampled": drawn.sequences[0].logprobs,
        "prompt": drawn.prompt_logprobs[1:],
        "likeliest": [pair for row in drawn.topk_prompt_logprobs[1:] for pair in row],
    }


def test_both_forms_give_the_same_numbers(tmp_path: Path) -> None:
    """Losses, logprobs, samples and scores agree to 1e-6, from lists and arrays, as JSON and in the binary form."""
    with LocalServer(data_dir=tmp_path, threads=1) as server:
        settings = {"base_url": server.base_url, "api_key": server.api_key, "telemetry": False}
        results = []
        for wire, form in (("json", list), ("proto", list), ("proto", np.array), ("json", np.array)):
            with tinkex.ServiceClient(**settings, wire=wire) as service:
                results.append(numbers(service, form))
    first = results[0]
    assert first["losses"][-1] < first["losses"][0]
    for other in results[1:]:
        assert other["tokens"] == first["tokens"]
        for name, values in first.items():
            np.testing.assert_allclose(other[name], values, rtol=0, atol=1e-6, err_msg=name)
