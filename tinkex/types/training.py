"""What goes into forward, forward_backward and optim_step, and what comes out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, Union, get_args

import attrs

from tinkex._scalars import plain_number
from tinkex.errors import InvalidInputError
from tinkex.types._base import ALWAYS, Value, copied_dict, copied_list, number, optional, since, tag, text, whole
from tinkex.types._numbers import any_negative, shorten
from tinkex.types.custom_loss import CustomLossInput
from tinkex.types.inputs import ModelInput
from tinkex.types.optimizers import DimuonParams
from tinkex.types.provenance import ProvenanceSpans, check_cover, copy_spans
from tinkex.types.tensors import TensorData, TensorDtype
from tinkex.types.unions import Unrecognized

__all__ = [
    "LOSS_INPUTS",
    "AdamParams",
    "Datum",
    "ForwardBackwardInput",
    "ForwardBackwardOutput",
    "ForwardBackwardRequest",
    "ForwardRequest",
    "LossFnType",
    "LossInputs",
    "OptimParams",
    "OptimStepRequest",
    "OptimStepResponse",
]

KnownLoss = Literal["cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo", "stable_reinforce", "custom"]
LossFnType = Union[KnownLoss, str]
"""Name of a loss; a server may have others than those that are known here."""

INPUT_DTYPES: dict[str, TensorDtype] = {
    "target_tokens": "int64",
    "weights": "float32",
    "advantages": "float32",
    "logprobs": "float32",
    "clip_low_threshold": "float32",
    "clip_high_threshold": "float32",
    "sequence_ratio_mask": "float32",
    "values": "float32",
    "returns": "float32",
    "rollout_logprobs": "float32",
}
"""Types of the loss inputs that some loss of some server reads under this name, so that plain lists can be given."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class LossInputs(Value):
    """What a loss reads from ``Datum.loss_fn_inputs`` and from ``loss_fn_config``.

    Attributes:
        required: Inputs that each datum must have.
        optional: Inputs that it may have.
        config: Settings, none of which must be given.
        published: False if the hosted service does not say what it reads. A client then leaves the names to the server,
            and the rest of this is what the embedded server reads.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    published: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All inputs, the required ones first."""
        return self.required + self.optional


_POLICY = ("target_tokens", "logprobs", "advantages")
_CLIP = ("clip_low_threshold", "clip_high_threshold")
LOSS_INPUTS: dict[str, LossInputs] = {
    "cross_entropy": LossInputs(required=("target_tokens",), optional=("weights",)),
    "importance_sampling": LossInputs(required=_POLICY),
    "ppo": LossInputs(required=_POLICY, config=_CLIP),
    "cispo": LossInputs(required=_POLICY, config=_CLIP),
    "dro": LossInputs(required=_POLICY, config=("beta",)),
    "gspo": LossInputs(required=_POLICY, optional=("sequence_ratio_mask",), config=_CLIP),
    "stable_reinforce": LossInputs(required=_POLICY, config=(*_CLIP, "kl_coeff"), published=False),
}
"""The losses with a formula. Each is a plain sum over tokens and datums:

with l the logprob of the target under the current weights, q ``logprobs``, A ``advantages``, w ``weights`` (1
unless given) and r = exp(l - q):

=====================  ==========================================================================
cross_entropy          - sum w l
importance_sampling    - sum r A
ppo                    - sum min(r A, clip(r, low, high) A), low 0.8 and high 1.2
cispo                  - sum stopgrad(clip(r, low, high)) l A, low 0 and high 4
dro                    - sum (l A - beta / 2 (l - q)^2), beta 0.05
gspo                   - sum min(s A, clip(s, low, high) A), low 1 - 3e-4 and high 1 + 4e-4
stable_reinforce       - sum (min(c B, clip(c, low, high) B) - kl_coeff k), as ppo, kl_coeff 0
=====================  ==========================================================================

In ``gspo``, s has the value exp(mean of l - q) of its datum, over the tokens where ``sequence_ratio_mask`` is not 0
(where A is not 0, unless given), and the gradient of s l by l. In ``stable_reinforce``, c is r kept between 1e-3 and
1e3, B is A where it is within 3 of 0, else 0, and k is 1/c + log c - 1 where B is not 0, else 0: the formula of the
paper that has the name, arXiv:2505.02835. The hosted service does not publish its own, which needs the provenance of
sampled tokens besides.
"""
_INPUTS_HERE = frozenset(name for spec in LOSS_INPUTS.values() for name in spec.names)


@dataclasses.dataclass(frozen=True)
class Datum:
    """One training example.

    A dataclass, not an attrs class, because programs written for the official SDK call
    ``dataclasses.replace`` on it.

    Attributes:
        model_input: What the model reads, N tokens long.
        loss_fn_inputs: What the loss reads, by name. Arrays and lists are turned into :class:`TensorData` at
            construction; ``target_tokens`` (the token that follows each position), ``weights``,
            ``advantages`` and ``logprobs`` have N values, or N x K for K candidate targets. A position that
            does not count has any token, such as 0, and the weight or advantage 0. The dict is yours to change.
        model_input_spans: Which sampled sequences the tokens of ``model_input`` come from; see
            :meth:`with_provenance`.
        loss_fn_input_spans: The same for ``target_tokens``; both are given or neither.
    """

    model_input: ModelInput
    loss_fn_inputs: dict[str, TensorData]
    model_input_spans: ProvenanceSpans | None = None
    loss_fn_input_spans: ProvenanceSpans | None = None

    def __post_init__(self) -> None:
        """Copy the dict and turn its values into tensors.

        Raises:
            InvalidInputError: An input cannot be read as numbers, or only one list of spans is given.
        """
        if not isinstance(self.model_input, ModelInput):
            raise InvalidInputError(
                f"model_input must be a ModelInput, got {self.model_input!r:.80}; "
                "for token ids use ModelInput.from_ints(tokens)",
                field="model_input",
            )
        inputs = {
            name: TensorData.coerce(value, INPUT_DTYPES.get(name), _key(name))
            for name, value in self.loss_fn_inputs.items()
        }
        object.__setattr__(self, "loss_fn_inputs", inputs)
        for name in ("model_input_spans", "loss_fn_input_spans"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, copy_spans(given, name))
        if (self.model_input_spans is None) != (self.loss_fn_input_spans is None):
            raise InvalidInputError(
                "model_input_spans and loss_fn_input_spans are given together or not at all", field="model_input_spans"
            )

    def __copy__(self) -> Datum:
        """Return the same datum with a dict of its own."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__, loss_fn_inputs=dict(self.loss_fn_inputs))
        return copied

    def with_provenance(self, model_input: ProvenanceSpans, loss_fn_inputs: ProvenanceSpans) -> Datum:
        """Return this datum with a note of where its tokens were sampled.

        Args:
            model_input: Runs that cover the tokens of ``model_input``, in order.
            loss_fn_inputs: Runs that cover the rows of ``loss_fn_inputs["target_tokens"]``, in order.

        Returns:
            A new datum.

        Raises:
            InvalidInputError: The runs of a field do not cover it, or there are no ``target_tokens``.
        """
        targets = self.loss_fn_inputs.get("target_tokens")
        if targets is None:
            _refuse(_key("target_tokens"), "is missing: the spans of the loss inputs cover it")
        made = dataclasses.replace(self, model_input_spans=model_input, loss_fn_input_spans=loss_fn_inputs)
        check_cover(made.model_input_spans or [], self.model_input.length, "model_input_spans")
        check_cover(made.loss_fn_input_spans or [], targets.full_shape[0], "loss_fn_input_spans")
        return made


def to_data(value: Any) -> list[Datum]:
    """Make a list of a batch.

    Raises:
        InvalidInputError: It is none, or something in it is no datum; the error has the index.
    """
    if isinstance(value, Datum):
        _refuse("data", "is a single Datum: pass a list, [datum]")
    if not isinstance(value, Iterable):
        _refuse("data", f"must be a list of Datum, got {value!r:.80}")
    data = list(value)
    for index, datum in enumerate(data):
        if not isinstance(datum, Datum):
            field = f"data[{index}]"
            raise InvalidInputError(f"{field} must be a Datum, got {datum!r:.80}", field=field, index=index)
    return data


def _to_config(value: Mapping[str, Any] | None) -> dict[str, float | str] | None:
    if not isinstance(value, (Mapping, type(None))):
        _refuse("loss_fn_config", f"must be a dict of numbers by name, got {value!r:.60}")
    return None if value is None else {name: plain_number(item) for name, item in value.items()}


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ForwardBackwardInput(Value):
    """A batch and the loss to compute on it."""

    data: list[Datum] = attrs.field(converter=to_data, repr=shorten)
    loss_fn: str = attrs.field(validator=text)
    loss_fn_config: dict[str, float | str] | None = attrs.field(default=None, converter=_to_config, metadata=ALWAYS)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ForwardBackwardOutput(Value):
    """What a forward or forward_backward returns.

    Attributes:
        loss_fn_output_type: Name that the server gives to the kind of output.
        loss_fn_outputs: One dict for each datum, in order; ``logprobs`` has the shape of ``target_tokens``.
        metrics: Sums and means over the batch; ``loss:sum`` is the loss.
    """

    loss_fn_output_type: str
    loss_fn_outputs: list[dict[str, TensorData]] = attrs.field(converter=copied_list, repr=shorten)
    metrics: dict[str, float] = copied_dict(factory=dict)


@attrs.frozen(kw_only=True, slots=True, repr=False)
class AdamParams(Value):
    """Hyper-parameters of one AdamW step.

    They are sent with each step, so a schedule is a matter of passing other numbers.

    Attributes:
        learning_rate: Step size, at least 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the denominator, at least 0.
        weight_decay: Decoupled decay (Loshchilov & Hutter, arXiv:1711.05101), at least 0.
        grad_clip_norm: Largest global norm of the gradient; 0 does not clip.
    """

    learning_rate: float = attrs.field(default=1e-4, converter=plain_number, validator=number(minimum=0))
    beta1: float = attrs.field(default=0.9, converter=plain_number, validator=number(minimum=0, below=1))
    beta2: float = attrs.field(default=0.95, converter=plain_number, validator=number(minimum=0, below=1))
    eps: float = attrs.field(default=1e-12, converter=plain_number, validator=number(minimum=0))
    weight_decay: float = attrs.field(default=0.0, converter=plain_number, validator=number(minimum=0))
    grad_clip_norm: float = attrs.field(default=0.0, converter=plain_number, validator=number(minimum=0))


OptimParams = Union[AdamParams, DimuonParams, Unrecognized]
"""Hyper-parameters of one step of any optimizer."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class OptimStepResponse(Value):
    """What an optim_step returns; ``metrics`` may be None."""

    metrics: dict[str, float] | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ForwardRequest(Value):
    """Body of ``POST forward``; it has no ``type`` field."""

    forward_input: ForwardBackwardInput
    model_id: str = attrs.field(validator=text)
    seq_id: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(1)))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ForwardBackwardRequest(Value):
    """Body of ``POST forward_backward``; it has no ``type`` field."""

    forward_backward_input: ForwardBackwardInput
    model_id: str = attrs.field(validator=text)
    seq_id: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(1)))


@attrs.frozen(kw_only=True, slots=True, repr=False)
class OptimStepRequest(Value):
    """Body of ``POST optim_step``: ``adam_params`` for AdamW, ``optimizer_params`` for any other optimizer."""

    adam_params: AdamParams | None = None
    optimizer_params: DimuonParams | Unrecognized | None = attrs.field(default=None, metadata=since("0.30"))
    model_id: str = attrs.field(validator=text)
    seq_id: int | None = attrs.field(default=None, converter=plain_number, validator=optional(whole(1)))
    type: Literal["optim_step"] = tag("optim_step")

    def __attrs_post_init__(self) -> None:
        """Refuse a step of no optimizer, or of two."""
        if (self.adam_params is None) == (self.optimizer_params is None):
            raise InvalidInputError(
                "optim_step needs either adam_params or optimizer_params, whichever optimizer the model has",
                field="adam_params",
            )

    @classmethod
    def of(cls, params: OptimParams, *, model_id: str, seq_id: int | None = None) -> OptimStepRequest:
        """Make a request with the parameters where they belong."""
        if isinstance(params, AdamParams):
            return cls(adam_params=params, model_id=model_id, seq_id=seq_id)
        return cls(optimizer_params=params, model_id=model_id, seq_id=seq_id)


def check_loss(loss_fn: Any, loss_fn_config: Mapping[str, Any] | None, *, here: bool = False) -> None:
    """Check the name of a loss and its settings before anything is sent.

    A loss that is not known here may be one of the server's.

    Args:
        loss_fn: The name.
        loss_fn_config: The settings.
        here: The embedded server will compute it, so it must be known, and so is what it reads even if that is not
            published.

    Raises:
        InvalidInputError: The name is no text, or unknown to the embedded server; or the config has a key or a value
            that the loss cannot have.
    """
    if not isinstance(loss_fn, str) or not loss_fn or (here and loss_fn not in get_args(KnownLoss)):
        names = ", ".join(LOSS_INPUTS)
        _refuse(
            "loss_fn",
            f"{loss_fn!r:.60} is unknown; use one of {names}, or forward_backward_custom for a loss of your own",
        )
    if not isinstance(loss_fn_config, (Mapping, type(None))):
        _refuse("loss_fn_config", f"must be a dict of numbers by name, got {loss_fn_config!r:.60}")
    spec = _inputs_of(loss_fn, here)
    for name, value in (loss_fn_config or {}).items():
        field = f"loss_fn_config[{name!r}]"
        if spec is not None and name not in spec.config:
            allowed = ", ".join(spec.config) or "no settings"
            _refuse(field, f"is unknown to {loss_fn}, which takes {allowed}")
        if not _is_setting(value, text_too=spec is None):
            _refuse(field, f"must be a finite number, got {value!r:.60}")


def check_data(data: Sequence[Datum], loss_fn: str, *, here: bool = False) -> None:
    """Check a batch against its loss before anything is sent.

    Everything is looked at again, because the dict of a datum may have changed since it was made.

    Args:
        data: The batch.
        loss_fn: Name of the loss.
        here: As for :func:`check_loss`.

    Raises:
        InvalidInputError: The batch is empty, a datum lacks an input of the loss or has one that no loss is known to
            read, its sizes do not agree, or a target is no token id. The error names the field and the index of the
            datum.
    """
    datums = to_data(data)
    if not datums:
        _refuse("data", "is empty: pass at least one Datum")
    for index, datum in enumerate(datums):
        try:
            _check_datum(datum, loss_fn, here)
        except InvalidInputError as error:
            where = f"data[{index}]."
            raise InvalidInputError(where + error.message, field=f"{where}{error.field}", index=index) from None


def check_custom_inputs(data: Sequence[Datum], inputs: Sequence[CustomLossInput], name: str) -> None:
    """Check that each datum has what a custom loss reads, each of its rank.

    Args:
        data: The batch, after :func:`check_data`.
        inputs: What the loss reads; ``logprobs`` have the shape of ``target_tokens``.
        name: What the loss is called.

    Raises:
        InvalidInputError: An input is missing or has another rank; the error names it and the datum.
    """
    for index, datum in enumerate(data):
        for item in inputs:
            key = "target_tokens" if item.name == "logprobs" else item.name
            problem = _custom_problem(datum, key, item.rank)
            if problem is not None:
                field = f"data[{index}].loss_fn_inputs[{key!r}]"
                message = f"{field} {problem}: the custom loss {name!r:.80} takes {item.name} as {_RANKS[item.rank]}"
                raise InvalidInputError(message, field=field, index=index)


_RANKS = ("a single number", "a number for each token", "a row for each token")
# The binary form has no tensors without a dimension: a single number arrives with one.
_SINGLE: tuple[tuple[int, ...], ...] = ((), (1,))


def _custom_problem(datum: Datum, key: str, rank: int) -> str | None:
    if key not in datum.loss_fn_inputs:
        return "is missing"
    shape, length = datum.loss_fn_inputs[key].full_shape, _input_length(datum.model_input)
    if rank == 0 and shape in _SINGLE:
        return None
    right = rank > 0 and len(shape) == rank and length in (None, shape[0])
    return None if right else f"has shape {list(shape)}"


def _inputs_of(loss_fn: str, here: bool) -> LossInputs | None:
    spec = LOSS_INPUTS.get(loss_fn)
    return spec if spec is None or spec.published or here else None


def _check_datum(datum: Datum, loss_fn: str, here: bool) -> None:
    length = _input_length(datum.model_input)
    inputs = datum.loss_fn_inputs
    spec = _inputs_of(loss_fn, here)
    if spec is not None:
        _check_names(inputs, spec, loss_fn, here)
    for name, tensor in inputs.items():
        if not isinstance(tensor, TensorData):
            _refuse(_key(name), f"must be a TensorData, got {tensor!r:.60}")
    wanted = None if spec is None else inputs["target_tokens"].full_shape
    for name, tensor in inputs.items():
        if _has_length(name, tensor.full_shape, loss_fn):
            is_read = spec is not None and name in spec.names
            _check_shape(_key(name), tensor.full_shape, length, wanted if is_read else None)
    if "target_tokens" in inputs:
        _check_targets(inputs["target_tokens"])


def _has_length(name: str, shape: tuple[int, ...], loss_fn: str) -> bool:
    """Tell whether the first dimension of an input is surely that of the tokens."""
    if loss_fn == "custom":  # says itself how many dimensions it wants of each
        return name == "target_tokens"
    return loss_fn in LOSS_INPUTS or name in INPUT_DTYPES or shape not in _SINGLE


def _check_names(inputs: Mapping[str, Any], spec: LossInputs, loss_fn: str, here: bool) -> None:
    for name in spec.required:
        if name not in inputs:
            _refuse(_key(name), f"is missing: {loss_fn} needs {', '.join(spec.required)}")
    # What another loss reads is no mistake: one batch may be used for both. A server leaves it unread.
    taken = _INPUTS_HERE if here else INPUT_DTYPES
    for name in inputs:
        if name not in spec.names and name not in taken:
            _refuse(_key(name), f"is unknown to {loss_fn}, which reads {', '.join(spec.names)}; remove it")


def _check_shape(field: str, shape: tuple[int, ...], length: int | None, wanted: tuple[int, ...] | None) -> None:
    if length is not None and shape[:1] != (length,):
        rule = f"its first dimension must be the length of model_input, which is {length} tokens"
        _refuse(field, f"has shape {list(shape)}; {rule}")
    if wanted is not None and shape != wanted:
        _refuse(field, f"has shape {list(shape)}; it must have the shape of target_tokens, {list(wanted)}")


def _check_targets(targets: TensorData) -> None:
    field = _key("target_tokens")
    if targets.dtype != "int64":
        _refuse(field, f"is {targets.dtype}; token ids are int64")
    if any_negative(targets.buffer):
        at, token = next((at, token) for at, token in enumerate(targets.data) if token < 0)
        _refuse(
            f"{field}[{at}]",
            f"is {token}, which is no token id; a position that does not count has any token, such as 0, and the "
            "weight or advantage 0",
        )


def _input_length(model_input: ModelInput) -> int | None:
    """Return how many tokens the input has, or None if an image leaves that to the server."""
    try:
        length = model_input.length
    except InvalidInputError:
        return None
    return length or _refuse("model_input", "is empty: it needs at least one token")


def _is_setting(value: Any, text_too: bool) -> bool:
    if isinstance(value, str):
        return text_too
    number = plain_number(value)
    return isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < math.inf


def _key(name: str) -> str:
    return f"loss_fn_inputs[{name!r}]"


def _refuse(field: str, problem: str) -> NoReturn:
    raise InvalidInputError(f"{field} {problem}", field=field)
