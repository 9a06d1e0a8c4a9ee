"""What the engine thread does: one method for each kind of job."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Generator, Sequence
from pathlib import Path

from tinkex.errors import InvalidInputError, RequestFailedError, TinkexError
from tinkex.local.checkpoints import CheckpointStore, SavedCheckpoint
from tinkex.local.engine.base import Engine
from tinkex.local.limits import Limits
from tinkex.local.scratch import Scratch
from tinkex.local.store import Model, Sampler, Store
from tinkex.types import (
    AdamOptimizerConfig,
    AdamParams,
    CreateCustomLossRequest,
    CreateCustomLossResponse,
    CreateModelResponse,
    ForwardBackwardInput,
    ForwardBackwardOutput,
    LoadWeightsRequest,
    LoadWeightsResponse,
    LoraConfig,
    OptimizerConfig,
    OptimStepRequest,
    OptimStepResponse,
    SampleRequest,
    SampleResponse,
    SaveWeightsExternalRequest,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerRequest,
    SaveWeightsForSamplerResponse,
    SaveWeightsRequest,
    SaveWeightsResponse,
)
from tinkex.types.weights import require_kind

__all__ = ["DEFAULT_RANK", "Work"]

DEFAULT_RANK = 32
_PARTS = ("train_unembed", "train_mlp", "train_attn")


class Work:
    """Everything that touches the engine, apart from its checks. Used from the engine thread only."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        checkpoints: CheckpointStore,
        scratch: Scratch,
        limits: Limits,
    ) -> None:
        """Start with nothing in the engine."""
        self._engine = engine
        self._store = store
        self._checkpoints = checkpoints
        self._scratch = scratch
        self._limits = limits
        self._open: set[str] = set()
        self._losses: set[str] = set()
        self._snapshots: OrderedDict[str, Sampler] = OrderedDict()

    def check_wanted(self, model: Model, dropped: int = 0) -> None:
        """Refuse to run an operation of a model, or what is left of it, if nobody waits for it any more.

        Args:
            model: The model.
            dropped: What ``model.dropped`` was when the operation was sent.

        Raises:
            InvalidInputError: The model has ended.
            RequestFailedError: Its session was finished or is silent, or an operation sent before was dropped for that.
        """
        if model.ended:
            raise InvalidInputError(f"model {model.id} {model.ended}, so this did not run", field="model_id")
        if reason := self._gone(model.session_id):
            model.dropped += 1
            raise RequestFailedError(f"{reason}, so this was dropped; the model is as before", category="user")
        if model.dropped != dropped:
            raise RequestFailedError(
                "an operation of this model that was sent before this one was dropped, since its session was silent; "
                "so this did not run. Send both again",
                category="user",
            )

    def create(
        self, model: Model, base_model: str, lora: LoraConfig, optimizer: OptimizerConfig | None = None
    ) -> CreateModelResponse:
        """Make a model."""
        _check_optimizer(optimizer or AdamOptimizerConfig(), "optimizer_config")
        if lora.rank > self._limits.rank:
            raise InvalidInputError(
                f"lora_config.rank is {lora.rank}, the limit of this server is {self._limits.rank}", field="rank"
            )
        self._make_room()
        self._engine.create_model(model.id, base_model, lora)
        model.base_model, model.lora_rank, model.live = base_model, lora.rank, True
        return CreateModelResponse(model_id=model.id)

    def create_from(self, model: Model, request: LoadWeightsRequest) -> LoadWeightsResponse:
        """Make a model from a checkpoint."""
        info = self._saved(request.path).info
        parts = {name: value for name in _PARTS if (value := getattr(info, name)) is not None}
        lora = LoraConfig(rank=info.lora_rank or DEFAULT_RANK, **parts)
        self.create(model, request.base_model or info.base_model, lora, request.optimizer_config)
        try:
            return self.load(model, request)
        except BaseException:
            self._engine.drop_model(model.id)
            model.live = False
            raise

    def load(self, model: Model, request: LoadWeightsRequest) -> LoadWeightsResponse:
        """Load a checkpoint into a model."""
        record = self._saved(request.path)
        self._engine.load(model.id, self._checkpoints.folder_of(record), optimizer=request.optimizer)
        return LoadWeightsResponse(path=request.path, model_id=model.id)

    def add_loss(self, loss_id: str, request: CreateCustomLossRequest) -> CreateCustomLossResponse:
        """Keep a client's own loss."""
        self._engine.add_loss(loss_id, request)
        self._losses.add(loss_id)
        return CreateCustomLossResponse(loss_id=loss_id)

    def end_loss(self, loss_id: str) -> None:
        """Free a client's own loss."""
        self._losses.discard(loss_id)
        self._engine.drop_loss(loss_id)

    def forward(
        self, model: Model, batch: ForwardBackwardInput, backward: bool
    ) -> Generator[None, None, ForwardBackwardOutput]:
        """Compute a loss, and with ``backward`` its gradient; yield where others may have a turn."""
        self._check_size(batch)
        _check_owner(model, batch)
        self._engine.check_batch(model.id, batch)
        with contextlib.closing(self._engine.forward_in_steps(model.id, batch, backward=backward)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    output: ForwardBackwardOutput = end.value
                    return output
                yield
                self.check_wanted(model, model.dropped)

    def optim_step(self, model: Model, request: OptimStepRequest) -> OptimStepResponse:
        """Change the weights."""
        params = request.adam_params or request.optimizer_params
        if not isinstance(params, AdamParams):
            raise _no_optimizer(params.type if params else "none", "optimizer_params")
        return self._engine.optim_step(model.id, params)

    def save(self, model: Model, request: SaveWeightsRequest) -> SaveWeightsResponse:
        """Save weights and optimizer under a name."""
        name = f"checkpoint-{uuid.uuid4().hex[:8]}" if request.path is None else request.path
        record = self._save(model, "weights", name, request, overwrite=request.overwrite)
        return SaveWeightsResponse(path=record.tinker_path)

    def save_external(self, model: Model, request: SaveWeightsExternalRequest) -> SaveWeightsExternalResponse:
        """Save weights under a name, to be downloaded; PEFT's files are what other programs read."""
        if request.age_encryption_recipients:
            raise InvalidInputError(
                "age_encryption_recipients: this server does not encrypt; leave it out, and run age on the files",
                field="age_encryption_recipients",
            )
        record = self._save(model, "external_weights", request.path, request)
        return SaveWeightsExternalResponse(path=record.tinker_path, size_bytes=record.size_bytes)

    def save_for_sampler(self, model: Model, request: SaveWeightsForSamplerRequest) -> SaveWeightsForSamplerResponse:
        """Save weights under a name, or make a sampler of them at once."""
        if request.path is None:
            return SaveWeightsForSamplerResponse(sampling_session_id=self._snapshot(model, request).id)
        record = self._save(model, "sampler_weights", request.path, request)
        return SaveWeightsForSamplerResponse(path=record.tinker_path)

    def sample(self, sampler: Sampler, requests: Sequence[SampleRequest]) -> list[SampleResponse | TinkexError]:
        """Answer requests of one sampler as one batch."""
        if sampler.ended:
            raise InvalidInputError(f"sampler {sampler.id} {sampler.ended}", field="sampling_session_id")
        if reason := self._gone(sampler.session_id):
            error = RequestFailedError(f"{reason}, so this was not drawn", category="user")
            return [error] * len(requests)
        if sampler.id not in self._open:
            self._engine.open_sampler(sampler.id, sampler.base_model, sampler.folder)
            self._open.add(sampler.id)
        return self._engine.sample(sampler.id, requests)

    def end_model(self, model: Model, reason: str) -> None:
        """Free a model."""
        model.ended = model.ended or reason
        if model.live:
            model.live = False
            self._engine.drop_model(model.id)

    def end_sampler(self, sampler: Sampler, reason: str) -> None:
        """Free a sampler and remove its files."""
        sampler.ended = sampler.ended or reason
        self._snapshots.pop(sampler.id, None)
        if sampler.id in self._open:
            self._open.remove(sampler.id)
            self._engine.close_sampler(sampler.id)
        if sampler.folder is not None:
            shutil.rmtree(sampler.folder, ignore_errors=True)

    def end_all(self, reason: str) -> None:
        """Free everything, so that another server can use the engine."""
        for model in self._store.models():
            self.end_model(model, reason)
        while self._open:
            self._engine.close_sampler(self._open.pop())
        while self._losses:
            self._engine.drop_loss(self._losses.pop())

    def _save(
        self,
        model: Model,
        kind: str,
        name: str,
        request: SaveWeightsRequest | SaveWeightsForSamplerRequest | SaveWeightsExternalRequest,
        *,
        overwrite: bool = False,
    ) -> SavedCheckpoint:
        optimizer = kind == "weights"
        metadata = None if isinstance(request, SaveWeightsExternalRequest) else request.user_metadata
        return self._checkpoints.save(
            run=model.id,
            kind=kind,
            name=name,
            write=lambda folder: self._engine.save(model.id, folder, optimizer=optimizer),
            describe=self._engine.describe,
            overwrite=overwrite,
            ttl_seconds=request.ttl_seconds,
            user_metadata=metadata,
            run_metadata=model.user_metadata,
        )

    def _snapshot(self, model: Model, request: SaveWeightsForSamplerRequest) -> Sampler:
        sampler_id = f"{model.session_id}:sample:{request.sampling_session_seq_id}"
        if self._store.find_sampler(sampler_id) is not None:
            raise InvalidInputError(
                f"sampling_session_seq_id {request.sampling_session_seq_id} of this session has a sampler already",
                field="sampling_session_seq_id",
            )
        folder = self._scratch.new_folder("sampler")
        self._engine.save(model.id, folder, optimizer=False)
        follows = model.id if request.kind == "inflight" else None
        self._replace_weights(follows, folder)
        sampler = Sampler(
            id=sampler_id, session_id=model.session_id, base_model=model.base_model, folder=folder, follows=follows
        )
        self._store.add_sampler(sampler)
        self._snapshots[sampler.id] = sampler
        limit = self._limits.kept_snapshots
        while len(self._snapshots) > limit:
            oldest = next(iter(self._snapshots.values()))
            self.end_sampler(
                oldest, f"is no longer kept, since {limit} newer ones were made; save weights under a name to keep them"
            )
        return sampler

    def _replace_weights(self, model_id: str | None, folder: Path) -> None:
        """Give the samplers that follow a model the weights in ``folder``; they are opened again when next asked."""
        for sampler in self._snapshots.values():
            if model_id is None or sampler.follows != model_id or sampler.folder is None:
                continue
            outdated, sampler.folder = sampler.folder, self._scratch.copy(folder.iterdir(), "sampler")
            if sampler.id in self._open:
                self._open.remove(sampler.id)
                self._engine.close_sampler(sampler.id)
            shutil.rmtree(outdated, ignore_errors=True)

    def _make_room(self) -> None:
        """Free the models of clients that have gone, if the engine holds as many models as it may."""
        live = [model for model in self._store.models() if model.live]
        if len(live) < self._limits.live_models:
            return
        for model in live:
            if self._store.silent_s(self._store.session(model.session_id)) > self._limits.session_s:
                self.end_model(model, f"was freed: its session was silent for {self._limits.session_s:g} s")
        if sum(model.live for model in live) >= self._limits.live_models:
            raise InvalidInputError(
                f"{len(live)} models are live, the limit is {self._limits.live_models}; unload one, or close a client",
                field="model_seq_id",
            )

    def _gone(self, session_id: str | None) -> str | None:
        """Say why nobody waits for the work of a session any more; None while somebody may."""
        if session_id is None:
            return None
        session = self._store.session(session_id)
        if session.finished:
            return f"session {session.id} was finished ({session.finished})"
        silent_s = self._store.silent_s(session)
        # Without heartbeats a client may be one that submits its work and comes back for the results.
        if session.beats and silent_s > self._limits.session_s:
            return f"session {session.id} was silent for {silent_s:.0f} s (no heartbeat, no request for a result)"
        return None

    def _saved(self, path: str) -> SavedCheckpoint:
        record = self._checkpoints.find_path(require_kind(path, "training"))
        if record is None:
            raise InvalidInputError(self._checkpoints.not_found(path, "path"), field="path")
        return record

    def _check_size(self, batch: ForwardBackwardInput) -> None:
        if len(batch.data) > self._limits.data:
            raise InvalidInputError(
                f"data has {len(batch.data)} items, the limit is {self._limits.data}; split the batch", field="data"
            )
        tokens = sum(chunk.length for datum in batch.data for chunk in datum.model_input.chunks)
        if tokens > self._limits.tokens:
            raise InvalidInputError(
                f"data has {tokens} input tokens, the limit is {self._limits.tokens}; split the batch", field="data"
            )


def _check_owner(model: Model, batch: ForwardBackwardInput) -> None:
    loss_id = (batch.loss_fn_config or {}).get("loss_id")
    if batch.loss_fn == "custom" and not str(loss_id).startswith(f"{model.session_id}:"):
        raise InvalidInputError(
            f"loss_fn_config['loss_id'] is {loss_id!r:.100}, which is no loss of the session of this model; a loss "
            "belongs to the session that created it",
            field="loss_fn_config['loss_id']",
        )


def _check_optimizer(config: OptimizerConfig, field: str) -> None:
    if not isinstance(config, AdamOptimizerConfig):
        raise _no_optimizer(config.type, field)


def _no_optimizer(name: str, field: str) -> InvalidInputError:
    return InvalidInputError(f"{field}: this server has no optimizer {name!r:.60}; it has adamw only", field=field)
