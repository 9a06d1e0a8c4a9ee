"""What a server tells its clients to do: settings that are asked for once, and settings that may change."""

from __future__ import annotations

import attrs

from tinkex.types._base import Value

__all__ = ["ClientConfigResponse", "ClientDynamicConfigResponse"]


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientConfigResponse(Value):
    """Answer of ``POST client/config``; what a server leaves out has the value below. Sizes are bytes.

    Attributes:
        pjwt_auth_enabled: The credential is exchanged for short-lived tokens.
        credential_default_source: ``credential_cmd`` if the output of the command goes before the key.
        sample_dispatch_bytes_semaphore_size: Samples being submitted at once.
        inflight_response_bytes_semaphore_size: Results being fetched at once.
        parallel_fwdbwd_chunks: The requests of one batch may be sent side by side.
        proto_write_fwdbwd: Training requests may be in the binary form.
        proto_compress_fwdbwd: And compressed.
        fwd_via_fwdbwd: There is no ``forward``; ``forward_backward`` is told to compute no gradient.
        fwdbwd_max_chunk_len: Datums in one training request.
        fwdbwd_max_chunk_bytes_count: Size of one training request.
        fwdbwd_dispatch_bytes_semaphore_size: Training requests being sent at once.
        billing_exception_max_pause_duration_sec: How long a 402 may be waited out.
        sample_no_retries: Samples that fail are not drawn again.
        sample_enable_stuck_detection: Samples of which none ends for two hours are given up.
        sample_max_concurrent_requests: Samples of one sampler under way at once.
        use_pyqwest_transport: Means nothing to this client.
        create_model_via_load_weights: A model is made of a checkpoint with one call.
        sample_use_retrieve_futures: There is ``retrieve_futures``.
        custom_loss_server_side: There is ``create_custom_loss``.
        sample_join_sampling_session: There is ``join_sampling_session``.
    """

    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    sample_dispatch_bytes_semaphore_size: int = 10_485_760
    inflight_response_bytes_semaphore_size: int = 52_428_800
    parallel_fwdbwd_chunks: bool = True
    proto_write_fwdbwd: bool = False
    proto_compress_fwdbwd: bool = False
    fwd_via_fwdbwd: bool = False
    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    fwdbwd_dispatch_bytes_semaphore_size: int = 50_000_000
    billing_exception_max_pause_duration_sec: int = 3600
    sample_no_retries: bool = False
    sample_enable_stuck_detection: bool = True
    sample_max_concurrent_requests: int = 2000
    use_pyqwest_transport: bool = True
    create_model_via_load_weights: bool = False
    sample_use_retrieve_futures: bool = False
    custom_loss_server_side: bool = False
    sample_join_sampling_session: bool = False


@attrs.frozen(kw_only=True, slots=True, repr=False)
class ClientDynamicConfigResponse(Value):
    """Answer of ``POST client/dynamic_config``; what a server leaves out has the value below.

    Attributes:
        refresh_interval_sec: How often to ask again.
        sample_cancel_enabled: There is ``cancel_future``.
        sample_cancel_max_batch_size: Cancellations being sent at once.
    """

    refresh_interval_sec: int = 300
    sample_cancel_enabled: bool = False
    sample_cancel_max_batch_size: int = 64
