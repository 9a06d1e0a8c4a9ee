"""What the embedded server refuses, how long it waits and how much it keeps: one frozen value."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]

_MIB = 1 << 20


@attrs.frozen(kw_only=True, slots=True)
class Limits:
    """Every number of the server that somebody may want to change. Times are seconds, sizes are bytes.

    Attributes:
        body_bytes: Largest request body.
        data: Most datums in one request.
        tokens: Most input tokens in one training request.
        num_samples: Most sequences in one sample request.
        topk: Largest ``topk_prompt_logprobs`` and ``topk_sample_logprobs``.
        rank: Largest LoRA rank.
        live_models: Most models that the engine holds at once.
        kept_snapshots: Most weights kept for samplers that have no name; the oldest go first.
        open_futures: Most promises that have no result yet.
        kept_results: Most results kept that were read before.
        kept_result_bytes: Size of all results kept; those that were read go first.
        large_result_bytes: A larger result is announced by its size first, to clients that allow it.
        kept_result_s: How long a result is kept.
        batch_rows: Most sequences sampled as one batch.
        checkpoint_bytes: Size of all checkpoints in the data folder together.
        hold_s: How long a poll is held open before "not yet" is answered.
        gap_s: How long an operation waits for the sequence numbers before its own.
        stop_s: How long ``stop`` waits for the running operation, or for a step of it.
        session_s: A session silent for this long gives up its models when others need the room; and if it has sent
            heartbeats before, its operations are dropped when their turn comes.
        archive_s: How long the link to an archive, or to a file of a checkpoint, works.
        token_s: How long the tokens live that clients are told to exchange the key for; 0 for none.
        bulk_retrieval: Offer ``retrieve_futures``, which tells of many samples at once, and tell clients to use it.
    """

    body_bytes: int = 64 * _MIB
    data: int = 1024
    tokens: int = 1_000_000
    num_samples: int = 256
    topk: int = 20
    rank: int = 128
    live_models: int = 32
    kept_snapshots: int = 256
    open_futures: int = 10_000
    kept_results: int = 1000
    kept_result_bytes: int = 512 * _MIB
    large_result_bytes: int = 1 * _MIB
    kept_result_s: float = 24 * 3600.0
    batch_rows: int = 64
    checkpoint_bytes: int = 20_000 * _MIB
    hold_s: float = 20.0
    gap_s: float = 60.0
    stop_s: float = 30.0
    session_s: float = 60.0
    archive_s: float = 900.0
    token_s: float = 0.0
    bulk_retrieval: bool = False
