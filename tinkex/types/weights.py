"""Checkpoints: saving, loading, naming, listing."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import ALWAYS, Value, copied_dict, copied_list, optional, since, tag, text, texts, whole
from tinkex.types._console import checkpoint_page, playground_page
from tinkex.types.optimizers import AdamOptimizerConfig, OptimizerConfig

__all__ = [
    "Checkpoint",
    "CheckpointArchiveUrlResponse",
    "CheckpointType",
    "CheckpointsListResponse",
    "CopyWeightsRequest",
    "CopyWeightsResponse",
    "Cursor",
    "ExternalWeightsUrlsResponse",
    "LoadWeightsRequest",
    "LoadWeightsResponse",
    "ParsedCheckpointTinkerPath",
    "SaveWeightsExternalRequest",
    "SaveWeightsExternalResponse",
    "SaveWeightsForSamplerRequest",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsRequest",
    "SaveWeightsResponse",
    "TrainingRun",
    "TrainingRunsResponse",
    "WeightsInfoRequest",
    "WeightsInfoResponse",
]

CheckpointType = Literal["training", "sampler", "external"]

_KINDS: dict[str, CheckpointType] = {
    "weights": "training",
    "sampler_weights": "sampler",
    "external_weights": "external",
}
_FORM = re.compile(rf"tinker://([^/]+)/({'|'.join(_KINDS)})/([^/]+)")
_RUN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/]+)/.+", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_TTL = optional(whole(3600, 10 * 366 * 24 * 3600))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ParsedCheckpointTinkerPath(Value):
    """A path ``tinker://<run>/<kind>/<name>`` in its parts.

    Attributes:
        tinker_path: The whole path.
        training_run_id: Id of the model that was saved.
        checkpoint_type: ``"training"``, ``"sampler"`` or ``"external"``.
        checkpoint_id: ``<kind>/<name>``, with the slash.
    """

    tinker_path: str
    training_run_id: str
    checkpoint_type: CheckpointType
    checkpoint_id: str

    @classmethod
    def from_tinker_path(cls, tinker_path: Any, field: str = "path") -> ParsedCheckpointTinkerPath:
        """Take a path apart.

        Args:
            tinker_path: ``tinker://<run>/weights/<name>``, or ``sampler_weights`` or ``external_weights``.
            field: Name used in the error.

        Raises:
            InvalidInputError: The text does not have that form.
        """
        match = _FORM.fullmatch(tinker_path) if isinstance(tinker_path, str) else None
        if match is None:
            raise InvalidInputError(
                f"{field} {tinker_path!r:.120} is not a checkpoint path; expected "
                "tinker://<run>/weights/<name> or tinker://<run>/sampler_weights/<name>",
                field=field,
            )
        run, kind, name = match.groups()
        return cls(
            tinker_path=tinker_path,
            training_run_id=run,
            checkpoint_type=_KINDS[kind],
            checkpoint_id=f"{kind}/{name}",
        )

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.checkpoint_id.rsplit("/", 1)[-1]


def require_kind(tinker_path: Any, wanted: CheckpointType, field: str = "path") -> ParsedCheckpointTinkerPath:
    """Take a path apart and check that it names the kind of checkpoint that a call needs.

    Raises:
        InvalidInputError: It is no checkpoint path, or one of the other kind.
    """
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path, field)
    if parsed.checkpoint_type != wanted:
        raise InvalidInputError(
            f"{field} {tinker_path!r} is a {parsed.checkpoint_type} checkpoint; {_WAYS_OUT[wanted]}",
            field=field,
        )
    return parsed


_WAYS_OUT: dict[CheckpointType, str] = {
    "training": "training needs one of save_state, tinker://<run>/weights/<name>",
    "sampler": "sampling needs one of save_weights_for_sampler, tinker://<run>/sampler_weights/<name>",
    "external": "this needs one of save_weights_external, tinker://<run>/external_weights/<name>",
}


def parts_of(tinker_path: str) -> ParsedCheckpointTinkerPath | None:
    """Take a path apart; None if it has another form, as some servers write them."""
    return ParsedCheckpointTinkerPath.from_tinker_path(tinker_path) if _FORM.fullmatch(tinker_path) else None


def run_of(tinker_path: str) -> str | None:
    """Return the run that a path of any form names, ``<scheme>://<run>/...``; None if it names none."""
    found = _RUN.fullmatch(tinker_path)
    return found[1] if found else None


def check_path(tinker_path: Any, wanted: CheckpointType | None = None, field: str = "path") -> str:
    """Check a path that is only passed on, before anything is sent.

    How a path looks is up to the server that made it, so only what is surely wrong is refused.

    Args:
        tinker_path: The path.
        wanted: The kind of checkpoint that the call needs; None for any.
        field: Name used in the error.

    Returns:
        The path.

    Raises:
        InvalidInputError: It is no text or an empty one, or it says that the checkpoint is of another kind.
    """
    if not isinstance(tinker_path, str) or not tinker_path.strip():
        raise InvalidInputError(
            f"{field} must be the path of a checkpoint as the server returned it, got {tinker_path!r:.80}", field=field
        )
    if wanted is not None and parts_of(tinker_path) is not None:
        require_kind(tinker_path, wanted, field)
    return tinker_path


def require_run(tinker_path: Any, wanted: CheckpointType | None = None, field: str = "tinker_path") -> str:
    """Check the path of a request that needs its parts, and return the run that it names.

    Raises:
        InvalidInputError: It names none, or a checkpoint of another kind than ``wanted``.
    """
    run = run_of(check_path(tinker_path, wanted, field))
    if run is None:
        raise unlocatable(tinker_path, "it names no training run", field)
    return run


def unlocatable(tinker_path: str, reason: str, field: str = "tinker_path") -> InvalidInputError:
    """Build the error for a path that does not say which checkpoint of which run it names."""
    return InvalidInputError(
        f"{field} {tinker_path!r:.120} is not of the form tinker://<run>/<kind>/<name> that this request needs, and "
        f"{reason}; list_checkpoints(run) has the paths of a run",
        field=field,
    )


def _parts_for_page(tinker_path: Any) -> ParsedCheckpointTinkerPath:
    parsed = parts_of(tinker_path) if isinstance(tinker_path, str) else None
    if parsed is None:
        reason = (
            "weights that were saved without a name have no path"
            if tinker_path is None
            else f"the path {tinker_path!r:.120} is of another server: there they are tinker://<run>/<kind>/<name>"
        )
        raise InvalidInputError(f"only checkpoints of the hosted service have a page, and {reason}", field="path")
    return parsed


def _page_of(tinker_path: Any) -> str:
    parsed = _parts_for_page(tinker_path)
    return checkpoint_page(parsed.training_run_id, parsed.checkpoint_id)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class LoadWeightsRequest(Value):
    """Body of ``POST load_weights``.

    Either ``model_id`` (with ``seq_id``) to load into a model, or ``session_id`` and ``model_seq_id`` to make
    one.
    """

    path: str = attrs.field(validator=text)
    optimizer: bool = attrs.field(default=False, metadata=ALWAYS)
    model_id: str | None = None
    seq_id: int | None = None
    session_id: str | None = attrs.field(default=None, metadata=since("0.24.1"))
    model_seq_id: int | None = attrs.field(default=None, metadata=since("0.24.1"))
    base_model: str | None = attrs.field(default=None, metadata=since("0.24.1"))
    user_metadata: dict[str, Any] | None = copied_dict(default=None, metadata=since("0.24.1"))
    optimizer_config: OptimizerConfig | None = attrs.field(default=None, metadata=since("0.30"))
    weights_access_token: str | None = attrs.field(default=None, repr=False, metadata=since("0.18"))
    type: Literal["load_weights"] = tag("load_weights")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class LoadWeightsResponse(Value):
    """Result of load_weights."""

    path: str | None = None
    model_id: str | None = None
    type: Literal["load_weights"] | None = tag("load_weights")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsRequest(Value):
    """Body of ``POST save_weights``; ``path`` is the name of the checkpoint, not a URI."""

    model_id: str = attrs.field(validator=text)
    path: str | None = attrs.field(default=None, metadata=ALWAYS)
    seq_id: int | None = None
    ttl_seconds: int | None = attrs.field(default=None, converter=plain_number, validator=_TTL, metadata=since("0.9"))
    overwrite: bool = attrs.field(default=False, metadata=since("0.20"))
    user_metadata: dict[str, str] | None = copied_dict(default=None, validator=optional(texts), metadata=since("0.28"))
    type: Literal["save_weights"] = tag("save_weights")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsResponse(Value):
    """Result of save_weights: the path ``tinker://<run>/weights/<name>``."""

    path: str
    type: Literal["save_weights"] | None = tag("save_weights")

    def get_console_url(self) -> str:
        """Return the page of the checkpoint in the console of the hosted service.

        Raises:
            InvalidInputError: The path does not have the form of the hosted service.
        """
        return _page_of(self.path)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsForSamplerRequest(Value):
    """Body of ``POST save_weights_for_sampler``.

    ``path`` is the name of the checkpoint; with ``sampling_session_seq_id`` instead it has none.
    """

    model_id: str = attrs.field(validator=text)
    path: str | None = None
    sampling_session_seq_id: int | None = None
    seq_id: int | None = None
    kind: Literal["snapshot", "inflight"] = attrs.field(default="snapshot", metadata=since("0.38"))
    ttl_seconds: int | None = attrs.field(default=None, converter=plain_number, validator=_TTL, metadata=since("0.9"))
    user_metadata: dict[str, str] | None = copied_dict(default=None, validator=optional(texts), metadata=since("0.28"))
    type: Literal["save_weights_for_sampler"] = tag("save_weights_for_sampler")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsForSamplerResponse(Value):
    """Result of save_weights_for_sampler: ``path`` of a named save, else ``sampling_session_id``."""

    path: str | None = None
    sampling_session_id: str | None = None
    type: Literal["save_weights_for_sampler"] | None = tag("save_weights_for_sampler")

    def get_console_url(self) -> str:
        """Return the page of the checkpoint in the console of the hosted service.

        Raises:
            InvalidInputError: The weights were saved without a name, or the path does not have the form of the hosted
                service.
        """
        return _page_of(self.path)

    def get_playground_url(self) -> str:
        """Return the page of the hosted service to talk to these weights.

        Raises:
            InvalidInputError: The weights were saved without a name, or the path does not have the form of the hosted
                service.
        """
        return playground_page(_parts_for_page(self.path).tinker_path)


def _to_recipients(value: Any) -> list[str] | None:
    if isinstance(value, str):
        raise InvalidInputError(
            f"age_encryption_recipients must be a list of texts, got the text {value!r:.60}",
            field="age_encryption_recipients",
        )
    return None if value is None else copied_list(value)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsExternalRequest(Value):
    """Body of ``POST save_weights_external``.

    Attributes:
        model_id: Which model.
        path: Name of the checkpoint.
        seq_id: Number of the operation in its model.
        ttl_seconds: Delete it after this long, 3600 seconds to ten years; None keeps it.
        age_encryption_recipients: Encrypt each file for these keys of age (``age1...`` or SSH public keys).
    """

    model_id: str = attrs.field(validator=text)
    path: str = attrs.field(validator=text)
    seq_id: int | None = None
    ttl_seconds: int | None = attrs.field(default=None, converter=plain_number, validator=_TTL)
    age_encryption_recipients: list[str] | None = attrs.field(
        default=None, converter=_to_recipients, metadata=since("0.33")
    )
    type: Literal["save_weights_external"] = tag("save_weights_external")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SaveWeightsExternalResponse(Value):
    """Result of save_weights_external: the path ``tinker://<run>/external_weights/<name>``, and its size."""

    path: str
    size_bytes: int | None = None
    type: Literal["save_weights_external"] | None = tag("save_weights_external")


def _files_only(urls: dict[str, str]) -> str:
    return f"{{{', '.join(f'{name!r}: ...' for name in urls)}}}"


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ExternalWeightsUrlsResponse(Value):
    """Where to download each file of an external checkpoint, and until when; a file is named by its path."""

    urls: dict[str, str] = copied_dict(repr=_files_only)
    expires: datetime


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CopyWeightsRequest(Value):
    """Body of ``POST copy_weights``.

    The copy belongs to a project, or to a session, in which it takes the number of a model.

    Attributes:
        source_path: Which checkpoint, of any kind.
        destination_project_id: The project.
        session_id: The session.
        model_seq_id: A number that no model of the session has.
        ttl_seconds: Delete the copy after this long, 3600 seconds to ten years; None keeps it.
        weights_access_token: Key of the account that owns the checkpoint, if it is another's.
    """

    source_path: str = attrs.field(validator=text)
    destination_project_id: str | None = attrs.field(default=None, metadata=since("0.34"))
    session_id: str | None = None
    model_seq_id: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(0)))
    ttl_seconds: int | None = attrs.field(default=None, converter=plain_number, validator=_TTL)
    weights_access_token: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Refuse a copy to nowhere, or to two places."""
        to_session = self.session_id is not None and self.model_seq_id is not None
        if to_session == (self.destination_project_id is not None):
            raise InvalidInputError(
                "copy_weights needs either destination_project_id, or session_id and model_seq_id",
                field="destination_project_id",
            )


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CopyWeightsResponse(Value):
    """The path of the copy."""

    tinker_path: str


@attrs.frozen(kw_only=True, slots=True, repr=False)
class Cursor(Value):
    """Where a page of a list lies."""

    offset: int
    limit: int
    total_count: int


@attrs.frozen(kw_only=True, slots=True, repr=False)
class Checkpoint(Value):
    """A saved checkpoint.

    Attributes:
        checkpoint_id: ``<kind>/<name>``.
        checkpoint_type: ``"training"``, ``"sampler"`` or ``"external"``.
        time: When it was saved.
        tinker_path: ``tinker://<run>/<kind>/<name>``.
        size_bytes: Size on disk, if known.
        public: True if published.
        expires_at: When it will be deleted, None for never.
        user_metadata: What was given when it was saved.
    """

    checkpoint_id: str
    checkpoint_type: CheckpointType
    time: datetime
    tinker_path: str
    size_bytes: int | None = None
    public: bool = False
    expires_at: datetime | None = None
    user_metadata: dict[str, str] | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CheckpointsListResponse(Value):
    """Checkpoints, and where the page lies if the list is paged."""

    checkpoints: list[Checkpoint]
    cursor: Cursor | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CheckpointArchiveUrlResponse(Value):
    """Where to download a checkpoint as a tar.gz, and until when."""

    url: str = attrs.field(repr=lambda url: repr(url.split("?", 1)[0]))
    expires: datetime


@attrs.frozen(kw_only=True, slots=True, repr=False)
class WeightsInfoRequest(Value):
    """Body of ``POST weights_info``."""

    tinker_path: str = attrs.field(validator=text)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class WeightsInfoResponse(Value):
    """What a checkpoint needs of the model it is loaded into."""

    base_model: str
    is_lora: bool
    lora_rank: int | None = None
    train_unembed: bool | None = None
    train_mlp: bool | None = None
    train_attn: bool | None = None
    optimizer_config: OptimizerConfig = attrs.field(factory=AdamOptimizerConfig)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TrainingRun(Value):
    """A model that was created, with its latest checkpoints."""

    training_run_id: str
    base_model: str
    model_owner: str
    is_lora: bool
    last_request_time: datetime
    corrupted: bool = False
    lora_rank: int | None = None
    last_checkpoint: Checkpoint | None = None
    last_sampler_checkpoint: Checkpoint | None = None
    user_metadata: dict[str, str] | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TrainingRunsResponse(Value):
    """A page of training runs."""

    training_runs: list[TrainingRun]
    cursor: Cursor


def check_name(name: Any) -> None:
    """Check the name of a checkpoint before anything is sent.

    Raises:
        InvalidInputError: It is not a name, or it is a whole path.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        hint = "; give the last part only, without tinker://" if isinstance(name, str) and "/" in name else ""
        raise InvalidInputError(
            f"name must be 1 to 255 letters, digits, dots, dashes or underscores, got {name!r:.80}{hint}",
            field="name",
        )
