"""One user of the API: the SDK, its data, and what was noted; and the list of steps."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Iterable
from typing import Any

WAIT = 60.0
RANK = 8
TOLERANCE = 1e-4

STEPS: dict[str, Step] = {}
GENERATION = "0.38"


@dataclasses.dataclass(frozen=True)
class Step:
    """What to do, and who can: the generations from ``since`` to ``until``, and these clients."""

    run: Callable[[World], None]
    since: tuple[int, int]
    until: tuple[int, int]
    clients: tuple[str, ...]


def step(
    since: str = "0.7", until: str = "99.0", clients: tuple[str, ...] = ("tinker", "tinkex")
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Add a function to the steps."""

    def add(function: Callable[[World], None]) -> Callable[[World], None]:
        STEPS[function.__name__] = Step(function, version(since), version(until), clients)
        return function

    return add


def version(text: str) -> tuple[int, int]:
    """Read the first two numbers of a version."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def names_of(world: World) -> list[str]:
    """Return the names of the steps that a client of a generation can do."""
    return [
        name
        for name, one in STEPS.items()
        if one.since <= world.generation <= one.until and world.client in one.clients
    ]


def done(value: Any) -> Any:
    """Wait for what may be a future: some generations return clients, others futures of clients."""
    return value.result(timeout=WAIT) if hasattr(value, "result") else value


def close(a: float, b: float, tolerance: float = TOLERANCE) -> bool:
    """Tell whether two numbers agree."""
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


def near(values: Iterable[float], others: Iterable[float], tolerance: float = TOLERANCE) -> bool:
    """Tell whether as many numbers agree, each with its own."""
    return all(close(a, b, tolerance) for a, b in zip(values, others, strict=True))


class World:
    """One user: the SDK, a service client, and what was noted."""

    def __init__(self, client: str, generation: str | None, base_url: str, api_key: str) -> None:
        """Connect."""
        self.sdk = importlib.import_module(client)
        self.types = importlib.import_module(f"{client}.types")
        self.client = client
        self.official = client == "tinker"
        self.version = self.sdk.__version__
        self.generation = version(generation or (self.version if self.official else GENERATION))
        self.address = {"base_url": base_url, "api_key": api_key}
        self.home = self.connect()
        self.service = self.home
        self.numbers: dict[str, Any] = {}
        self._models: list[Any] = []
        self.rest = self._rest()
        self.base = self.capabilities().supported_models[0].model_name
        self._shared: tuple[Any, Any] | None = None

    @property
    def _newest(self) -> bool:
        return self.official and self.generation >= (0, 26)

    def connect(self) -> Any:
        """Make a service client."""
        project = {"project_id": "project-1"} if self.generation >= (0, 18) else {}
        return self.sdk.ServiceClient(user_metadata={"who": "peer"}, **project, **self.address)

    def _rest(self) -> Any:
        return self.sdk.RestClient(**self.address) if self._newest else self.home.create_rest_client()

    def begin(self) -> None:
        """Start a step."""
        self.numbers = {}
        if self._newest:
            self.service = self.connect()

    def end(self) -> None:
        """Give back what a step has made: the newest generation cannot unload a model, it can finish a session."""
        models, self._models = self._models, []
        if self._newest:
            done(self.service.close("success"))
        else:
            for train in models:
                self.unload(train)

    def unload(self, train: Any) -> None:
        """Free a model; no client of the official SDK has a method for it, its resource has."""
        if not self.official:
            done(train.unload())
            return
        from tinker.lib.api_future_impl import _APIFuture
        from tinker.lib.client_connection_pool_type import ClientConnectionPoolType

        async def send() -> Any:
            with holder.aclient(ClientConnectionPoolType.TRAIN) as client:
                promise = await client.models.unload(request=self.types.UnloadModelRequest(model_id=train.model_id))
            answer = self.types.UnloadModelResponse
            future = _APIFuture(answer, holder, promise, request_start_time=0.0, request_type="UnloadModel")
            return await future.result_async()

        holder = self.service.holder
        assert done(holder.run_coroutine_threadsafe(send())).model_id == train.model_id

    def capabilities(self) -> Any:
        """Ask the server what it offers."""
        return done((self.rest if self._newest else self.home).get_server_capabilities())

    def train(self, **options: Any) -> Any:
        """Make a model for one step; all of them start from the same weights."""
        return self.borrow(self._create(self.service, **options))

    def borrow(self, train: Any) -> Any:
        """Take care that a model is given back at the end of the step."""
        self._models.append(done(train))
        return self._models[-1]

    def _create(self, service: Any, **options: Any) -> Any:
        return done(service.create_lora_training_client(self.base, rank=RANK, seed=1, **options))

    def shared(self) -> tuple[Any, Any]:
        """Return a model that has learned a few steps and learns no more, and a sampler of it that has no name."""
        if self._shared is None:
            train = self._create(self.home, user_metadata={"recipe": "peer"})
            steps(train, self, 3)
            self._shared = train, done(train.save_weights_and_get_sampling_client())
        return self._shared

    def adam(self, learning_rate: float = 1e-2, **options: Any) -> Any:
        """Return the settings of a step."""
        return self.types.AdamParams(learning_rate=learning_rate, **options)

    def datum(self, number: int, length: int, **inputs: Any) -> Any:
        """Return a datum whose targets are the tokens that follow."""
        tokens = text(number, length + 1)
        inputs = {"target_tokens": tokens[1:], **inputs}
        return self.types.Datum(model_input=self.types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)

    def batch(self, first: int = 0) -> list[Any]:
        """Return supervised data of several lengths, with a prompt that does not count."""
        return [
            self.datum(first + number, length, weights=[0.0] * 2 + [1.0] * (length - 2))
            for number, length in enumerate((6, 11, 8, 14))
        ]

    def policy_batch(self, train: Any) -> list[Any]:
        """Return data of a policy loss, with ratios from 0.45 to 2.2 and advantages of both signs."""
        lengths = list(enumerate((10, 13, 11)))
        plain = [self.datum(number, length, weights=[1.0] * length) for number, length in lengths]
        scores = logprobs(done(train.forward(plain, "cross_entropy")))
        return [
            self.datum(
                number,
                length,
                logprobs=[score + 0.4 * (place % 5 - 2) for place, score in enumerate(scores[number])],
                advantages=[(-1.0) ** place * (0.5 + 0.1 * number) for place in range(length)],
            )
            for number, length in lengths
        ]

    def floats(self, values: list[float]) -> Any:
        """Return numbers as an input of a loss."""
        return self.types.TensorData(data=values, dtype="float32", shape=[len(values)])

    def prompt(self, length: int = 9) -> Any:
        """Return a prompt."""
        return self.types.ModelInput.from_ints(text(2, length))

    def params(self, **options: Any) -> Any:
        """Return settings for greedy sampling."""
        return self.types.SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **options})

    def note(self, name: str, *values: Any) -> None:
        """Keep numbers for the comparison."""
        self.numbers.setdefault(name, []).extend(values)


def text(number: int, length: int) -> list[int]:
    """Return token ids that look like words in letters a to z."""
    return [97 + (7 * number + 3 * place + place * place) % 26 for place in range(length)]


def loss(future: Any) -> float:
    """Wait for a training result and return its loss."""
    return done(future).metrics["loss:sum"]


def steps(train: Any, world: World, count: int, first: int = 0) -> list[float]:
    """Submit training steps without waiting for any, and return their losses."""
    futures = []
    for number in range(first, first + count):
        futures.append(train.forward_backward(world.batch(4 * (number % 2)), "cross_entropy"))
        futures.append(train.optim_step(world.adam()))
    results = [done(future) for future in futures]
    return [result.metrics["loss:sum"] for result in results[::2]]


def logprobs(output: Any) -> list[list[float]]:
    """Return the logprobs of each datum as plain lists."""
    return [list(one["logprobs"].tolist()) for one in output.loss_fn_outputs]
