"""What was used and what it costs. Amounts are estimates in US dollars before credits, not what is due."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Union

import attrs

from tinkex.types._base import Value, kind
from tinkex.types.unions import Unrecognized

__all__ = [
    "BillingEventInfo",
    "BillingUsageEvent",
    "BillingUsageResponse",
    "BillingUsageSession",
    "CheckpointBillingEvent",
    "CurrentCheckpointStorageUsageItem",
    "CurrentCheckpointStorageUsageResponse",
    "SamplingPrefillBillingEvent",
    "SamplingSampleBillingEvent",
    "StorageBillingEvent",
    "TrainingBillingEvent",
]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class TrainingBillingEvent(Value):
    """Tokens that went through forward and backward passes."""

    token_count: int
    type: Literal["training"] = kind("training")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SamplingPrefillBillingEvent(Value):
    """Prompt tokens of samples; ``cached`` if they were already in a cache, which is cheaper."""

    cached: bool
    token_count: int
    type: Literal["sampling_prefill"] = kind("sampling_prefill")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class SamplingSampleBillingEvent(Value):
    """Tokens that were generated."""

    token_count: int
    type: Literal["sampling_sample"] = kind("sampling_sample")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CheckpointBillingEvent(Value):
    """Checkpoints that were written."""

    count: int
    type: Literal["checkpoint"] = kind("checkpoint")


@attrs.frozen(kw_only=True, slots=True, repr=False)
class StorageBillingEvent(Value):
    """Room that checkpoints took, in gigabytes times hours; ``free`` if it costs nothing."""

    gigabyte_hours: float
    free: bool = False
    type: Literal["storage"] = kind("storage")


BillingEventInfo = Union[
    TrainingBillingEvent,
    SamplingPrefillBillingEvent,
    SamplingSampleBillingEvent,
    CheckpointBillingEvent,
    StorageBillingEvent,
    Unrecognized,
]
"""What was used."""


@attrs.frozen(kw_only=True, slots=True, repr=False)
class BillingUsageEvent(Value):
    """What was used in one hour by one user, model, session and project, as far as these are known.

    Attributes:
        bucket_start: The hour begins, in UTC.
        bucket_end: It ends, exclusive.
        event_info: What was used, and how much.
        base_model: Name of the base model.
        user_id: URN of the user.
        user_name: Name of the user.
        session_id: Which session; more of it is in ``BillingUsageResponse.sessions``.
        project_id: Which project.
        estimated_cost_usd: None where it is not known yet.
        effective_rate_usd_per_million_tokens: Of tokens only.
        effective_rate_usd_per_gigabyte_month: Of storage only; a month is 720 hours.
    """

    bucket_start: datetime
    bucket_end: datetime
    event_info: BillingEventInfo
    base_model: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    session_id: str | None = None
    project_id: str | None = None
    estimated_cost_usd: float | None = None
    effective_rate_usd_per_million_tokens: float | None = None
    effective_rate_usd_per_gigabyte_month: float | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class BillingUsageSession(Value):
    """A session that a bill names."""

    user_metadata: dict[str, str] | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class BillingUsageResponse(Value):
    """The usage of a period.

    Attributes:
        data: What was used, by the hour.
        sessions: The sessions in ``data``, by id.
        cost_data_through: Costs before this time follow invoices, later ones the price list; None for no invoice.
    """

    data: list[BillingUsageEvent]
    sessions: dict[str, BillingUsageSession] = attrs.field(factory=dict)
    cost_data_through: datetime | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CurrentCheckpointStorageUsageItem(Value):
    """The checkpoints of one user in one project; the cost is that of 720 hours."""

    checkpoint_count: int
    size_bytes: int
    size_gigabytes: float
    project_id: str | None = None
    org_user_urn: str | None = None
    user_email: str | None = None
    user_name: str | None = None
    estimated_monthly_cost_usd: float | None = None


@attrs.frozen(kw_only=True, slots=True, repr=False)
class CurrentCheckpointStorageUsageResponse(Value):
    """The room that checkpoints take now, an hour or two late."""

    data: list[CurrentCheckpointStorageUsageItem]
    effective_rate_usd_per_gigabyte_month: float | None = None
