"""One user of a server: the SDK, the data, and the list of checks.

Nothing here is of tinkex or of the official SDK, so the same lines run with both.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CHECKS: dict[str, Callable[[World], object]] = {}
RANK = 8
RATE = 2e-2


class LackingError(AssertionError):
    """What a check builds on is not there."""


def check(name: str) -> Callable[[Callable[[World], object]], Callable[[World], object]]:
    """Add a function to the checks; it passes if it returns."""

    def add(function: Callable[[World], object]) -> Callable[[World], object]:
        CHECKS[name] = function
        return function

    return add


def done(value: Any) -> Any:
    """Wait for what may be a future."""
    return value.result() if hasattr(value, "result") else value


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a program that awaits."""
    return asyncio.run(coroutine)


def settled(call: Callable[[], Any]) -> bool:
    """Make a call and read its result; return whether it was refused, at once or then."""
    try:
        done(call())
    except Exception:
        return True
    return False


def refused(call: Callable[[], Any]) -> None:
    """Make a call that no server may take."""
    assert settled(call), "it was not refused"


def near(a: float, b: float, tolerance: float = 2e-3) -> None:
    """Compare two numbers."""
    assert math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance), f"{a:.6f} and {b:.6f}"


@dataclasses.dataclass
class Trained:
    """A model that was trained, and what was saved of it."""

    train: Any
    loss: float
    state: str
    weights: str


class World:
    """A user of one server, with one client."""

    def __init__(self, client: str, base_url: str, api_key: str, base_model: str) -> None:
        """Import the client; nothing is sent."""
        self.sdk = importlib.import_module(client)
        self.types = importlib.import_module(f"{client}.types")
        self.base_model = base_model
        self._address = {"base_url": base_url, "api_key": api_key}
        self._trained: Trained | None = None
        self._attempted = False
        self._names = 0

    # --- clients ---

    def service(self, **options: Any) -> Any:
        """Make a service client, with a session of its own."""
        return self.sdk.ServiceClient(**self._address, **options)

    def rest(self) -> Any:
        """Make a client for the lists."""
        return self.service().create_rest_client()

    def model(self, service: Any = None, **options: Any) -> Any:
        """Make a model."""
        service = service or self.service()
        return done(service.create_lora_training_client(base_model=self.base_model, rank=RANK, **options))

    def base_sampler(self) -> Any:
        """Make a sampler of the base model."""
        return done(self.service().create_sampling_client(base_model=self.base_model))

    def name(self) -> str:
        """Return the name of a checkpoint that no other has."""
        self._names += 1
        return f"{self.sdk.__name__}-{self._names}"

    @property
    def trained(self) -> Trained:
        """A model that was trained and saved once for all checks that only look at it."""
        if self._trained is None:
            if self._attempted:
                raise LackingError("no trained model: see the first check that needs one")
            self._attempted = True
            train = self.model()
            self.steps(train, 3)
            state = done(train.save_state(self.name())).path
            weights = done(train.save_weights_for_sampler(self.name())).path
            self._trained = Trained(train, self.loss_of(train), state, weights)
        return self._trained

    # --- data ---

    def prompt(self, *tokens: int) -> Any:
        """Make a prompt."""
        return self.types.ModelInput.from_ints(list(tokens) or [10, 15, 20, 25])

    def tensor(self, data: list[float], dtype: str = "float32") -> Any:
        """Make a tensor of one dimension."""
        return self.types.TensorData(data=data, dtype=dtype, shape=[len(data)])

    def datum(self, seed: int, length: int = 12, **inputs: float) -> Any:
        """Make a datum; an input given by one number has it at every token."""
        tokens = [(seed * 7 + at * 5) % 240 + 3 for at in range(length)]
        given = inputs or {"weights": 1.0}
        read = {name: self.tensor([value] * (length - 1)) for name, value in given.items()}
        return self.types.Datum(
            model_input=self.types.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={"target_tokens": self.tensor(tokens[1:], "int64"), **read},
        )

    def batch(self, **inputs: float) -> list[Any]:
        """Make three data."""
        return [self.datum(seed, **inputs) for seed in (1, 2, 3)]

    def bad_datum(self) -> Any:
        """Make a datum with a token that no model has."""
        datum = self.datum(1)
        tokens = [10**6] * 11
        return self.types.Datum(
            model_input=self.types.ModelInput.from_ints(tokens), loss_fn_inputs=dict(datum.loss_fn_inputs)
        )

    def greedy(self, **options: Any) -> Any:
        """Make the parameters of a sample that needs no luck."""
        return self.types.SamplingParams(**{"max_tokens": 4, "temperature": 0.0, **options})

    # --- what is done again and again ---

    def adam(self, **options: Any) -> Any:
        """Make the parameters of a step."""
        return self.types.AdamParams(**{"learning_rate": RATE, **options})

    def steps(self, train: Any, count: int) -> list[float]:
        """Submit steps, read them afterwards, and return the losses."""
        batch = self.batch()
        futures = [
            (train.forward_backward(batch, "cross_entropy"), train.optim_step(self.adam())) for _ in range(count)
        ]
        losses = [nll(done(backward)) for backward, _ in futures]
        for _, step in futures:
            done(step)
        return losses

    def loss_of(self, train: Any) -> float:
        """Compute the loss without training."""
        return nll(done(train.forward(self.batch(), "cross_entropy")))

    def draw(self, sampler: Any, count: int = 1, **options: Any) -> Any:
        """Sample from one prompt."""
        params = options.pop("sampling_params", None) or self.greedy()
        return done(sampler.sample(prompt=self.prompt(), num_samples=count, sampling_params=params, **options))


def nll(output: Any) -> float:
    """Return the mean negative logprob of a result: what every server reports, whatever it sums into its metrics."""
    values = [float(value) for one in output.loss_fn_outputs for value in one["logprobs"].data]
    assert values, "no logprobs"
    assert all(math.isfinite(value) for value in values), "a logprob is not finite"
    return -sum(values) / len(values)


def tokens_of(response: Any) -> list[list[int]]:
    """Return the tokens of every sequence."""
    return [list(sequence.tokens) for sequence in response.sequences]
