"""A training script: its losses as JSON. Which server trains is a matter of the environment.

    TINKER_BASE_URL=... TINKER_API_KEY=... python -m tests.servers.train BASE_MODEL

The embedded server, a process on this machine and a cluster run the same lines.
"""

from __future__ import annotations

import json
import sys

import tinkex
from tinkex import types

STEPS = 10


def make_datum(seed: int) -> types.Datum:
    """Make a datum of 24 tokens."""
    tokens = [(seed * 7 + at * 5) % 240 + 3 for at in range(25)]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * 24},
    )


def main(base_model: str) -> list[float]:
    """Train; return the mean loss of each step, before the step, and that after the last one."""
    data = [make_datum(seed) for seed in range(4)]
    with tinkex.ServiceClient() as service:
        train = service.create_lora_training_client(base_model, rank=8, seed=11)
        futures = []
        for _ in range(STEPS):
            futures.append(train.forward_backward(data, "cross_entropy"))
            train.optim_step(types.AdamParams(learning_rate=2e-3))
        futures.append(train.forward(data, "cross_entropy"))
        return [mean_loss(future.result()) for future in futures]


def mean_loss(output: types.ForwardBackwardOutput) -> float:
    """Return the mean over all tokens."""
    values = [value for one in output.loss_fn_outputs for value in one["logprobs"].data]
    return -sum(values) / len(values)


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
