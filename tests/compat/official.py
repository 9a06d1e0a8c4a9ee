"""The public names of the official SDK, 0.7.0 to 0.38.0, and the modules that programs import them from."""

TOP = """
APIConnectionError APIError APIFuture APIResponseValidationError APIStatusError APITimeoutError AdamOptimizerConfig
AdamParams AdminClient AuthenticationError BackcompatSamplingClientFuture BackcompatTrainingClientFuture
BadRequestError BillingError Checkpoint CheckpointType ConflictError Datum DimuonOptimizerConfig DimuonParams DmelChunk
EncodedTextChunk ExperimentalWarning ForwardBackwardOutput InternalServerError LoraConfig LossHandle ModelID ModelInput
ModelInputChunk NotFoundError OptimParams OptimStepRequest OptimStepResponse ParsedCheckpointTinkerPath PerDatumLossFn
PermissionDeniedError PromptProvenanceSpan RateLimitError RequestFailedError RequestOptions RestClient SampleRequest
SampleResponse SampledProvenanceSpan SampledSequence SamplingClient SamplingParams ServiceClient SidecarDiedError
SidecarError SidecarIPCError SidecarStartupError StopReason TensorData TensorDtype Timeout TinkerError TrainingClient
TrainingRun UnprocessableEntityError __version__ auth types
""".split()

TYPES = """
AccessibleSearchOwner ActiveSessionStatusQuery AdamOptimizerConfig AdamParams AuditLogEntry AuditLogResponse
AuthTokenResponse BillingEventInfo BillingUsageEvent BillingUsageResponse BillingUsageSession
CancelledSessionStatusQuery Checkpoint CheckpointArchiveUrlResponse CheckpointBillingEvent CheckpointType
CheckpointsListResponse ClientConfigRequest ClientConfigResponse ClientDynamicConfigResponse
ClientFinishedSessionStatusQuery ClientSessionFinishErrored ClientSessionFinishInterrupted ClientSessionFinishReason
ClientSessionFinishReasonType ClientSessionFinishSuccess ClientSessionFinished CopyWeightsRequest CopyWeightsResponse
CreateCustomLossRequest CreateCustomLossResponse CreateModelRequest CreateModelResponse CreateSamplingSessionRequest
CreateSamplingSessionResponse CreateSessionRequest CreateSessionResponse CurrentCheckpointStorageUsageItem
CurrentCheckpointStorageUsageResponse Cursor CustomLossGraph CustomLossInput CustomLossInputRank CustomLossNode Datum
DimuonOptimizerConfig DimuonParams DmelChunk EncodedTextChunk EventType ExternalWeightsUrlsResponse
FailedSessionStatusQuery ForwardBackwardInput ForwardBackwardOutput ForwardBackwardRequest ForwardRequest
FutureCompletion FutureFailed FutureFinished FutureRetrieveRequest FutureRetrieveResponse FuturesRetrieveRequest
FuturesRetrieveResponse GenericEvent GetBillingUsageRequest GetCurrentCheckpointStorageUsageRequest GetInfoRequest
GetInfoResponse GetSamplerResponse GetServerCapabilitiesResponse GetSessionResponse HealthResponse
ImageAssetPointerChunk ImageChunk JoinSamplingSessionRequest JoinSamplingSessionResponse ListSessionsResponse
LoadWeightsRequest LoadWeightsResponse LoraConfig LossFnInputs LossFnOutput LossFnType ModelData ModelID ModelInput
ModelInputChunk OptimParams OptimStepRequest OptimStepResponse OptimizerConfig OwnSearchOwner
ParsedCheckpointTinkerPath PromptAltTokens PromptProvenanceSpan ProvenanceSpans RequestErrorCategory
RequestFailedResponse RequestID SampleRequest SampleResponse SampledProvenanceSpan SampledSequence SamplingClientKind
SamplingParams SamplingPrefillBillingEvent SamplingSampleBillingEvent SamplingSessionFuturesTarget
SaveWeightsExternalRequest SaveWeightsExternalResponse SaveWeightsExternalResponseInternal SaveWeightsForSamplerRequest
SaveWeightsForSamplerResponse SaveWeightsForSamplerResponseInternal SaveWeightsRequest SaveWeightsResponse SearchOwner
SessionActive SessionCancelled SessionEndEvent SessionFailed SessionFailedReason SessionFailedRequestReason
SessionFailedSamplingSessionReason SessionFailedTrainingRunReason SessionHeartbeatRequest SessionHeartbeatResponse
SessionSearchCursor SessionSearchRequest SessionSearchResponse SessionStartEvent SessionStatus SessionStatusQuery
SessionSummary Severity StopReason StorageBillingEvent SupportedModel TelemetryBatch TelemetryEvent TelemetryResponse
TelemetrySendRequest TensorData TensorDtype TopkLogprobs TrainingBillingEvent TrainingRun TrainingRunsResponse
TryAgainResponse UnhandledExceptionEvent UnloadModelRequest UnloadModelResponse UntypedAPIFuture UserSearchOwner
WeightsInfoResponse WhoamiResponse
""".split()

PATHS = {
    "tinker.types.tensor_data": "TensorData",
    "tinker.types.image_chunk": "ImageChunk",
    "tinker.types.loss_fn_type": "LossFnType",
    "tinker.types.model_id": "ModelID",
    "tinker.types.shared.untyped_api_future": "UntypedAPIFuture",
    "tinker.types.optimizer": "OptimizerConfig",
    "tinker.lib.public_interfaces": "APIFuture",
    "tinker.lib.public_interfaces.admin_client": "AdminClient",
    "tinker.lib.public_interfaces.api_future": "AwaitableConcurrentFuture",
    "tinker.lib.public_interfaces.rest_client": "RestClient",
    "tinker.lib.public_interfaces.sampling_client": "SamplingClient",
    "tinker.lib.public_interfaces.service_client": "ServiceClient",
    "tinker.lib.public_interfaces.training_client": "TrainingClient",
    "tinker.lib.retry_handler": "RetryConfig",
    "tinker._exceptions": "APIStatusError",
    "tinker.auth": "get_tinker_token",
}

SIGNATURES = {
    "AdminClient.get_audit_log": "event_type day",
    "AdminClient.get_billing_usage": "starting_on ending_before",
    "AdminClient.get_current_checkpoint_storage_usage": "project_id",
    "RestClient.assign_session_project": "session_id project_id",
    "RestClient.copy_weights": "path destination_project_id * ttl_seconds weights_access_token",
    "RestClient.delete_checkpoint": "training_run_id checkpoint_id",
    "RestClient.delete_checkpoint_from_tinker_path": "tinker_path",
    "RestClient.export_session_trace": "session_id",
    "RestClient.get_audit_log": "event_type day",
    "RestClient.get_billing_usage": "starting_on ending_before",
    "RestClient.get_checkpoint_archive_url": "training_run_id checkpoint_id",
    "RestClient.get_checkpoint_archive_url_from_tinker_path": "tinker_path",
    "RestClient.get_current_checkpoint_storage_usage": "project_id",
    "RestClient.get_external_weights_urls": "tinker_path",
    "RestClient.get_sampler": "sampler_id",
    "RestClient.get_server_capabilities": "",
    "RestClient.get_session": "session_id access_scope",
    "RestClient.get_training_run": "training_run_id access_scope",
    "RestClient.get_training_run_by_tinker_path": "tinker_path access_scope",
    "RestClient.get_weights_info_by_tinker_path": "tinker_path",
    "RestClient.list_checkpoints": "training_run_id",
    "RestClient.list_sessions": "limit offset access_scope",
    "RestClient.list_training_runs": "limit offset access_scope project_id",
    "RestClient.list_user_checkpoints": "limit offset",
    "RestClient.publish_checkpoint_from_tinker_path": "tinker_path",
    "RestClient.search_sessions": "request",
    "RestClient.set_checkpoint_ttl_from_tinker_path": "tinker_path ttl_seconds",
    "RestClient.unpublish_checkpoint_from_tinker_path": "tinker_path",
    "RestClient.whoami": "",
    "SamplingClient.compute_logprobs": "prompt prompt_logprobs_last_n",
    "SamplingClient.from_sampler_handle": "handle * api_key",
    "SamplingClient.get_base_model": "",
    "SamplingClient.get_sampler_handle": "",
    "SamplingClient.get_tokenizer": "",
    "SamplingClient.sample": (
        "prompt num_samples sampling_params include_prompt_logprobs "
        "topk_prompt_logprobs topk_sample_logprobs target_prompt_logprobs prompt_alt_tokens_k prompt_logprobs_last_n"
    ),
    "ServiceClient.close": "status detail",
    "ServiceClient.copy_weights": "path * ttl_seconds weights_access_token",
    "ServiceClient.create_lora_training_client": (
        "base_model rank seed train_mlp train_attn train_unembed user_metadata optimizer"
    ),
    "ServiceClient.create_rest_client": "",
    "ServiceClient.create_sampling_client": "model_path base_model retry_config record_stability_info",
    "ServiceClient.create_training_client_from_state": "path base_model user_metadata weights_access_token optimizer",
    "ServiceClient.create_training_client_from_state_with_optimizer": (
        "path base_model user_metadata weights_access_token"
    ),
    "ServiceClient.get_console_url": "",
    "ServiceClient.get_server_capabilities": "",
    "TrainingClient.create_sampling_client": "model_path retry_config record_stability_info",
    "TrainingClient.forward": "data loss_fn loss_fn_config",
    "TrainingClient.forward_backward": "data loss_fn loss_fn_config",
    "TrainingClient.forward_backward_custom": "data loss_fn * loss_type_input",
    "TrainingClient.get_console_url": "",
    "TrainingClient.get_info": "",
    "TrainingClient.get_tokenizer": "",
    "TrainingClient.load_state": "path weights_access_token",
    "TrainingClient.load_state_with_optimizer": "path weights_access_token",
    "TrainingClient.optim_step": "optim_params * adam_params",
    "TrainingClient.save_state": "name ttl_seconds overwrite user_metadata",
    "TrainingClient.save_weights_and_get_sampling_client": "name retry_config record_stability_info kind",
    "TrainingClient.save_weights_external": "name ttl_seconds age_encryption_recipients",
    "TrainingClient.save_weights_for_sampler": "name ttl_seconds user_metadata",
    "AdminClient.get_telemetry": "",
    "RestClient.get_telemetry": "",
    "SamplingClient.get_telemetry": "",
    "ServiceClient.get_telemetry": "",
    "TrainingClient.get_telemetry": "",
}
"""The arguments of the public methods of 0.38.0, and of those that only 0.7.0 has; after ``*`` by name only."""
