"""Losses made of terms: a base loss and regularizers, each with its weight and its own line in the metrics.

::

    from tinkex.recipes.regularizers import combine_losses, cross_entropy, entropy, kl

    loss_fn = combine_losses(cross_entropy, kl("reference_logprobs", 0.1), entropy(0.01))
    train.forward_backward_custom(batch, loss_fn)       # metrics: base:sum, kl:sum, entropy:sum, loss:sum

A term sees what a custom loss sees: the logprobs l of the target tokens of each datum, ``[N]`` or ``[N, K]`` for K
candidates at each position, float32 with gradients on. Positions whose ``weights`` are 0 do not count; without
``weights`` all do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from tinkex.clients.custom_loss import CustomLossFn, import_torch
from tinkex.errors import InvalidInputError
from tinkex.types import Datum

if TYPE_CHECKING:
    import torch

__all__ = [
    "Regularizer",
    "combine_losses",
    "consistency",
    "cross_entropy",
    "elastic_net",
    "entropy",
    "gradient_penalty",
    "kl",
    "l1",
    "l2",
    "orthogonality",
]

Term = Callable[[list[Datum], "list[torch.Tensor]"], "torch.Tensor"]
"""Takes the datums and the logprobs of the targets of each; returns a scalar tensor."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_BASE = "base"


def _name(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in (_BASE, "loss"):
        raise InvalidInputError(
            f"the name of a regularizer must be letters, digits and underscores, not 'base' or 'loss', got {value!r}",
            field=attribute.name,
        )


@attrs.frozen(slots=True)
class Regularizer:
    """One term of a loss.

    Attributes:
        fn: Computes it, unweighted.
        weight: Multiplies it.
        name: Begins its metrics.
    """

    fn: Term
    weight: float
    name: str = attrs.field(validator=_name)

    def __call__(self, data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        """Compute the weighted term.

        Raises:
            InvalidInputError: The function did not return a scalar tensor.
        """
        value = self.fn(data, logprobs)
        if not isinstance(value, import_torch().Tensor) or value.numel() != 1:
            raise InvalidInputError(
                f"regularizer {self.name!r} must return a scalar tensor, got {value!r:.80}", field=self.name
            )
        return self.weight * value.reshape(())


def combine_losses(base: CustomLossFn, *regularizers: Regularizer, gradient_norms: bool = False) -> CustomLossFn:
    """Add regularizers to a loss.

    Args:
        base: A loss as ``forward_backward_custom`` takes it; :func:`cross_entropy` is one.
        *regularizers: The terms to add, each with a name of its own.
        gradient_norms: Also measure how hard each term pulls: the L2 norm of its gradient with respect to all logprobs.
            Costs one more backward pass through each term, on this machine.

    Returns:
        The sum as a loss for ``forward_backward_custom``. Besides the metrics of ``base`` it reports what each term
        contributes, ``base:sum`` and ``<name>:sum`` (with the weight), which add up to ``loss:sum``; and on request
        ``base_grad_norm:sum`` and ``<name>_grad_norm:sum``.

    Raises:
        InvalidInputError: Two terms have the same name.
    """
    names = [regularizer.name for regularizer in regularizers]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidInputError(
            f"each regularizer needs a name of its own for its metrics; {', '.join(repeated)} came twice", field="name"
        )

    def loss_fn(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, float]]:
        loss, metrics = base(data, logprobs)
        terms = {_BASE: loss, **{term.name: term(data, logprobs) for term in regularizers}}
        report = {f"{name}:sum": float(term.detach()) for name, term in terms.items()}
        if gradient_norms:
            report |= {f"{name}_grad_norm:sum": _gradient_norm(term, logprobs) for name, term in terms.items()}
        total = loss
        for regularizer in regularizers:
            total = total + terms[regularizer.name]
        return total, {**metrics, **report}

    return loss_fn


def cross_entropy(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    """Return - sum of w l over all targets, as the loss of that name; w is ``weights``, or 1 without them."""
    torch = import_torch()
    parts = [(_weights(datum, own) * own).sum() for datum, own in zip(data, logprobs, strict=True)]
    return -torch.stack(parts).sum(), {}


def l1(weight: float, name: str = "l1") -> Regularizer:
    """Return the mean of abs(l) over the targets that count: pulls all of them towards certainty alike."""
    return Regularizer(lambda data, logprobs: _mean(data, [own.abs() for own in logprobs]), weight, name)


def l2(weight: float, name: str = "l2") -> Regularizer:
    """Return the mean of l squared over the targets that count: pulls hardest at the most surprising ones."""
    return Regularizer(lambda data, logprobs: _mean(data, [own.square() for own in logprobs]), weight, name)


def elastic_net(weight: float, l1_ratio: float = 0.5, name: str = "elastic_net") -> Regularizer:
    """Return l1 and l2 together: the mean of a abs(l) + (1 - a) l squared over the targets that count.

    The penalty of Zou and Hastie, "Regularization and Variable Selection via the Elastic Net", 2005, section 3.1, on
    logprobs instead of weights.

    Args:
        weight: Multiplies it.
        l1_ratio: The share a of l1, from 0 to 1.
        name: Begins its metrics.

    Raises:
        InvalidInputError: ``l1_ratio`` is not from 0 to 1.
    """
    if not 0 <= l1_ratio <= 1:
        raise InvalidInputError(
            f"l1_ratio must be from 0 (all l2) to 1 (all l1), got {l1_ratio!r:.40}", field="l1_ratio"
        )

    def term(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        return _mean(data, [l1_ratio * own.abs() + (1 - l1_ratio) * own.square() for own in logprobs])

    return Regularizer(term, weight, name)


def entropy(weight: float, name: str = "entropy") -> Regularizer:
    """Return minus the entropy, so that a positive weight keeps the model from becoming too certain.

    The mean over positions of the sum of exp(l) l over the candidates of a position. That is the whole entropy if the
    candidates are the whole vocabulary, most of it with the K likeliest tokens, and with one target per position only
    the share of that token.
    """

    def term(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        return _mean(data, [own.exp() * own for own in logprobs], by_row=True)

    return Regularizer(term, weight, name)


def kl(reference: str, weight: float, name: str = "kl") -> Regularizer:
    """Return the divergence from a reference model, KL(model || reference).

    With K candidates per position the mean over positions of the sum of exp(l) (l - r). With one target per position,
    which should have been sampled from the model, the estimate exp(r - l) - (r - l) - 1 (Schulman, "Approximating KL
    Divergence", 2020, its k3): never negative, and unbiased.

    Args:
        reference: Name of the entry of ``loss_fn_inputs`` with the reference's logprobs r, in the shape of
            ``target_tokens``. ``SamplingClient.compute_logprobs`` gives them; drop its first entry.
        weight: Multiplies it.
        name: Begins its metrics.
    """

    def term(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        values = []
        for index, (datum, own) in enumerate(zip(data, logprobs, strict=True)):
            ratio = _input(datum, reference, own, index) - own
            values.append(-own.exp() * ratio if own.ndim == 2 else ratio.exp() - ratio - 1)
        return _mean(data, values, by_row=True)

    return Regularizer(term, weight, name)


def consistency(weight: float, reference: str | None = None, name: str = "consistency") -> Regularizer:
    """Return how far two views of the same targets are apart: the mean of (l - v) squared over those that count.

    The distance of Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017, on logprobs: of two passes
    (their Pi-model), or of a pass and what an earlier one said.

    Args:
        weight: Multiplies it.
        reference: Name of the entry of ``loss_fn_inputs`` with the other view's logprobs v, in the shape of
            ``target_tokens``; only l moves. Without it the datums are pairs, the first with the second, the third with
            the fourth and so on, such as one answer to two wordings of a question; both views move towards each other.
            The inputs of a pair may differ, in length too: the targets that count are compared, in order, and must be
            the same tokens.
        name: Begins its metrics.
    """

    def to_reference(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        pairs = enumerate(zip(data, logprobs, strict=True))
        return _mean(data, [(own - _input(datum, str(reference), own, at)).square() for at, (datum, own) in pairs])

    def within_pairs(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        _require_pairs(data, logprobs)
        torch = import_torch()
        views = [own[_counts(datum, own)] for datum, own in zip(data, logprobs, strict=True)]
        apart = torch.cat(views[::2]) - torch.cat(views[1::2])
        return apart.square().sum() / max(len(apart), 1)

    return Regularizer(within_pairs if reference is None else to_reference, weight, name)


def orthogonality(weight: float, name: str = "orthogonality") -> Regularizer:
    """Return how alike the predictions at different positions are, so that a positive weight keeps it from repeating.

    The mean over all pairs of positions i, j of a datum of p_i . p_j, where p = exp(l) as a vector over the vocabulary,
    0 outside of the candidates. That is the chance that both positions draw the same token, counting candidates only:
    all of it if they are the whole vocabulary, else a lower bound, and with one target per position only tokens that
    come twice. It is 0 exactly if the vectors are orthogonal. Bansal et al., "Can We Gain More from Orthogonality
    Regularizations in Training Deep CNNs?", 2018, penalize the same entries of a Gram matrix, squared; these are never
    negative, so they need no square, and their sum takes no matrix. Candidates of weight 0 are left out; those of one
    position must differ.
    """

    def term(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        alike, pairs = [], 0
        for datum, own in zip(data, logprobs, strict=True):
            counts = _counts(datum, own)
            positions = int(counts.reshape(len(own), -1).any(-1).sum())
            alike.append(_sum_of_products(datum.loss_fn_inputs["target_tokens"].to_torch()[counts], own[counts].exp()))
            pairs += positions * (positions - 1) // 2
        return import_torch().stack(alike).sum() / max(pairs, 1)

    return Regularizer(term, weight, name)


def gradient_penalty(weight: float, name: str = "gradient_penalty") -> Regularizer:
    """Return how hard :func:`cross_entropy` pulls at the logits: the mean over positions of the squared gradient.

    As l is a log-softmax, the gradient of - sum of w l with respect to the logit of candidate k is W p_k - w_k, with
    p = exp(l) and W the sum of the w of its position. So no gradient has to be asked of the server, and the term is the
    mean over the positions that count of the sum of (W p_k - w_k) squared over all candidates, those of weight 0 too.
    With w = 1 for one token of the whole vocabulary that is the squared EL2N score (Paul et al., "Deep Learning on a
    Data Diet", 2021), which is the score of Brier (1950). With fewer candidates it is a lower bound; with one target
    for each position, (w (1 - p)) squared, which is at least half of it.
    """

    def term(data: list[Datum], logprobs: list[torch.Tensor]) -> torch.Tensor:
        squares, count = [], 0
        for datum, own in zip(data, logprobs, strict=True):
            weights = _weights(datum, own).reshape(len(own), -1)
            pull = weights.sum(-1, keepdim=True) * own.reshape(len(own), -1).exp() - weights
            squares.append(pull.square().sum())
            count += int((weights != 0).any(-1).sum())
        return import_torch().stack(squares).sum() / max(count, 1)

    return Regularizer(term, weight, name)


def _require_pairs(data: list[Datum], logprobs: list[torch.Tensor]) -> None:
    """Refuse datums that are not two views of the same targets, one after the other."""
    if len(data) % 2:
        raise InvalidInputError(
            f"data has {len(data)} datums, but consistency compares them in pairs; put each beside its other view, or "
            "give the name of an entry with the logprobs of that",
            field="data",
        )
    targets = [
        datum.loss_fn_inputs["target_tokens"].to_torch()[_counts(datum, own)].tolist()
        for datum, own in zip(data, logprobs, strict=True)
    ]
    for index in range(1, len(data), 2):
        if targets[index] != targets[index - 1]:
            field = f"data[{index}].loss_fn_inputs['target_tokens']"
            raise InvalidInputError(
                f"{field} differ from those of data[{index - 1}] where weights are not 0; both are views of one datum",
                field=field,
                index=index,
            )


def _sum_of_products(tokens: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Return the sum of p_i . p_j over pairs of positions, as (square of the sum - sum of the squares) / 2."""
    torch = import_torch()
    found, where = torch.unique(tokens, return_inverse=True)
    total = chances.new_zeros(len(found)).index_add(0, where, chances)
    return (total.square().sum() - chances.square().sum()) / 2


def _input(datum: Datum, name: str, like: torch.Tensor, index: int) -> torch.Tensor:
    """Return an entry of a datum as a tensor."""
    given = datum.loss_fn_inputs.get(name)
    field = f"data[{index}].loss_fn_inputs[{name!r}]"
    if given is None:
        raise InvalidInputError(f"{field} is missing: a regularizer reads it", field=field, index=index)
    tensor = given.to_torch().to(like)
    if tensor.shape != like.shape:
        raise InvalidInputError(
            f"{field} has shape {list(tensor.shape)}, the targets have {list(like.shape)}", field=field, index=index
        )
    return tensor


def _weights(datum: Datum, like: torch.Tensor) -> torch.Tensor:
    given = datum.loss_fn_inputs.get("weights")
    return import_torch().ones_like(like) if given is None else given.to_torch().to(like)


def _counts(datum: Datum, like: torch.Tensor) -> torch.Tensor:
    """Return which targets count, as booleans in the shape of ``like``."""
    return _weights(datum, like) != 0


def _mean(data: list[Datum], values: Iterable[torch.Tensor], *, by_row: bool = False) -> torch.Tensor:
    """Return the mean of the values that count; ``by_row`` counts positions instead of candidates."""
    torch = import_torch()
    total, count = [], 0
    for datum, value in zip(data, values, strict=True):
        counts = _counts(datum, value)
        total.append(torch.where(counts, value, 0.0).sum())
        count += int((counts.any(-1) if by_row and counts.ndim == 2 else counts).sum())
    return torch.stack(total).sum() / max(count, 1)


def _gradient_norm(term: torch.Tensor, logprobs: list[torch.Tensor]) -> float:
    """Return the L2 norm of the gradient of one term; 0 if it does not depend on the logprobs."""
    torch = import_torch()
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, logprobs, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None))
