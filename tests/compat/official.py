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


CONSTRUCTORS = """
APIConnectionError: request message=
APIError: message request * body
APIResponseValidationError: response body message=
APIStatusError: message response body
APITimeoutError: request
AccessibleSearchOwner: * type=
ActiveSessionStatusQuery: * type=
AdamOptimizerConfig: * type=
AdamParams: * learning_rate= beta1= beta2= eps= weight_decay= grad_clip_norm=
AdminClient: * base_url= api_key=
AuditLogEntry: * timestamp event event_details= model_id= tinker_path= purpose=
AuditLogResponse: * entries
AuthTokenResponse: * jwt
AuthenticationError: message response body
AwaitableConcurrentFuture: future
BackcompatSamplingClientFuture: future
BackcompatTrainingClientFuture: future
BadRequestError: message response body
BillingError: message response body
BillingUsageEvent: * bucket_start bucket_end base_model= user_id= user_name= session_id= project_id=
    estimated_cost_usd= effective_rate_usd_per_million_tokens= effective_rate_usd_per_gigabyte_month= event_info
BillingUsageResponse: * data sessions= cost_data_through=
BillingUsageSession: * user_metadata=
CancelledSessionStatusQuery: * type=
Checkpoint: * checkpoint_id checkpoint_type time tinker_path size_bytes= public= user_metadata= expires_at=
CheckpointBillingEvent: * type= count
CheckpointsListResponse: * checkpoints cursor=
ClientConfigResponse: * pjwt_auth_enabled= credential_default_source= sample_dispatch_bytes_semaphore_size=
    inflight_response_bytes_semaphore_size= parallel_fwdbwd_chunks= proto_compress_fwdbwd= fwdbwd_max_chunk_len=
    fwdbwd_max_chunk_bytes_count= fwdbwd_dispatch_bytes_semaphore_size= billing_exception_max_pause_duration_sec=
    sample_no_retries= sample_enable_stuck_detection= sample_max_concurrent_requests= use_pyqwest_transport=
    sample_use_retrieve_futures= custom_loss_server_side= sample_join_sampling_session=
ClientDynamicConfigResponse: * refresh_interval_sec= sample_cancel_enabled= sample_cancel_max_batch_size=
ClientFinishedSessionStatusQuery: * type= reasons=
ClientSessionFinishErrored: * type=
ClientSessionFinishInterrupted: * type=
ClientSessionFinishSuccess: * type=
ClientSessionFinished: * type= reason detail=
ConflictError: message response body
CopyWeightsRequest: * session_id= model_seq_id= destination_project_id= source_path ttl_seconds= weights_access_token=
CopyWeightsResponse: * tinker_path
CreateCustomLossRequest: * session_id custom_loss_seq_id name inputs graph type=
CreateCustomLossResponse: * loss_id type=
CreateModelRequest: * session_id model_seq_id base_model user_metadata= lora_config= optimizer_config= type=
CreateModelResponse: * model_id type=
CreateSamplingSessionRequest: * session_id sampling_session_seq_id base_model= model_path= type=
CreateSamplingSessionResponse: * type= sampling_session_id
CreateSessionRequest: * tags user_metadata sdk_version project_id= display_name= type=
CreateSessionResponse: * type= info_message= warning_message= error_message= session_id
CurrentCheckpointStorageUsageItem: * project_id= org_user_urn= user_email= user_name= checkpoint_count size_bytes
    size_gigabytes estimated_monthly_cost_usd=
CurrentCheckpointStorageUsageResponse: * effective_rate_usd_per_gigabyte_month= data
Cursor: * offset limit total_count
CustomLossGraph: * format= nodes
CustomLossInput: * name rank
CustomLossNode: * op name target args= kwargs=
Datum: model_input loss_fn_inputs= model_input_spans= loss_fn_input_spans=
DimuonOptimizerConfig: * type= version=
DimuonParams: * type= learning_rate grad_clip_norm= beta1=
DmelChunk: * dmel type=
EncodedTextChunk: * tokens type=
ExternalWeightsUrlsResponse: * urls expires
FailedSessionStatusQuery: * type=
ForwardBackwardInput: data loss_fn loss_fn_config=
ForwardBackwardOutput: loss_fn_output_type loss_fn_outputs metrics=
ForwardBackwardRequest: forward_backward_input model_id seq_id=
ForwardRequest: forward_input model_id seq_id=
FutureFailed: * state= request_id
FutureFinished: * state= request_id response_payload_uncompressed_size=
FutureRetrieveRequest: * request_id allow_metadata_only=
FuturesRetrieveRequest: * target prev_cursor= timeout= retrieved_request_ids=
FuturesRetrieveResponse: * completions cursor
GetInfoRequest: * model_id type=
GetInfoResponse: * type= model_data model_id optimizer_config= is_lora= lora_rank= model_name=
GetSamplerResponse: * sampler_id base_model model_path=
GetServerCapabilitiesResponse: * supported_models
GetSessionResponse: * training_run_ids sampler_ids user_metadata= display_name=
HealthResponse: * status
ImageAssetPointerChunk: * format location expected_tokens= type=
ImageChunk: * data format expected_tokens= type=
InternalServerError: message response body
JoinSamplingSessionRequest: * sampling_session_id type=
JoinSamplingSessionResponse: * type= client_counter
ListSessionsResponse: * sessions
LoadWeightsRequest: * model_id= seq_id= session_id= model_seq_id= base_model= user_metadata= path optimizer
    optimizer_config= weights_access_token= type=
LoadWeightsResponse: * path= model_id= type=
LoraConfig: * rank seed= train_unembed= train_mlp= train_attn=
LossHandle: name inputs session_id graph loss_id=
ModelData: * arch= model_name= tokenizer_id=
ModelInput: * chunks
NotFoundError: message response body
OptimStepRequest: * optim_params model_id seq_id= type=
OptimStepResponse: * metrics=
OwnSearchOwner: * type=
ParsedCheckpointTinkerPath: * tinker_path training_run_id checkpoint_type checkpoint_id
PermissionDeniedError: message response body
PromptAltTokens: tokens logprobs
PromptProvenanceSpan: * sequence_id offset= length
RateLimitError: message response body
RequestFailedError: message request_id category
RequestFailedResponse: * error category
RestClient: * base_url= api_key=
RetryConfig: max_connections= progress_timeout= retry_delay_base= retry_delay_max= jitter_factor= enable_retry_logic=
    enable_stuck_detection= retryable_exceptions=
SampleRequest: * num_samples= prompt sampling_params base_model= model_path= sampling_session_id= seq_id=
    prompt_logprobs= topk_prompt_logprobs= topk_sample_logprobs= target_prompt_logprobs= prompt_alt_tokens_k=
    prompt_logprobs_last_n= record_stability_info= type=
SampleResponse: sequences prompt_logprobs_np= topk_prompt_logprobs_np= target_prompt_logprobs=
    prompt_cache_hit_tokens= prompt_alt_tokens=
SampledProvenanceSpan: * sequence_id offset= length
SampledSequence: stop_reason sequence_id tokens_np= logprobs_np= topk_logprobs_np=
SamplingClient: holder * sampling_session_id base_model shadow= retry_config= record_stability_info=
SamplingParams: * max_tokens= seed= stop= temperature= top_k= top_p=
SamplingPrefillBillingEvent: * type= cached token_count
SamplingSampleBillingEvent: * type= token_count
SamplingSessionFuturesTarget: * type= sampling_session_id cloned_sampler_id=
SaveWeightsExternalRequest: * model_id path seq_id= ttl_seconds= age_encryption_recipients= type=
SaveWeightsExternalResponse: * path type=
SaveWeightsForSamplerRequest: * model_id path= sampling_session_seq_id= kind= seq_id= ttl_seconds= user_metadata=
    type=
SaveWeightsForSamplerResponse: * path type=
SaveWeightsRequest: * model_id path= seq_id= ttl_seconds= overwrite= user_metadata= type=
SaveWeightsResponse: * path type=
ServiceClient: user_metadata= project_id= * display_name= base_url= api_key= default_headers_overrides= **
SessionActive: * type=
SessionCancelled: * type= detail=
SessionEndEvent: * duration event event_id event_session_index severity timestamp
SessionFailed: * type= category reason message
SessionFailedRequestReason: * type= request_id request_type
SessionFailedSamplingSessionReason: * type= sampling_session_id
SessionFailedTrainingRunReason: * type= training_run_id
SessionHeartbeatRequest: * session_id type=
SessionHeartbeatResponse: * type=
SessionSearchCursor: * last_created_at last_session_id
SessionSearchRequest: * session_id= project_ids= user_metadata= display_name= owner= statuses= limit= cursor=
SessionSearchResponse: * sessions next_cursor=
SessionStartEvent: * event event_id event_session_index severity timestamp
SessionSummary: * session_id created_at owner project_id status= checkpoints_count display_name= user_metadata=
    checkpoint_storage_bytes=
StorageBillingEvent: * type= free= gigabyte_hours
SupportedModel: * model_name= max_context_length= trainable= sampleable=
TelemetryResponse: * status
TelemetrySendRequest: * events platform sdk_version session_id process_uuid
TensorData: data= dtype= shape= sparse_crow_indices= sparse_col_indices=
Timeout: timeout= * connect= read= write= pool=
TrainingBillingEvent: * type= token_count
TrainingClient: holder model_seq_id model_id * info
TrainingRun: * training_run_id base_model model_owner is_lora corrupted= lora_rank= last_request_time last_checkpoint=
    last_sampler_checkpoint= user_metadata=
TrainingRunsResponse: * training_runs cursor
UnhandledExceptionEvent: * error_message error_type event event_id event_session_index severity timestamp traceback=
UnloadModelRequest: * model_id type=
UnloadModelResponse: * model_id type=
UnprocessableEntityError: message response body
UntypedAPIFuture: * request_id model_id= sample_sequence_ids=
UserSearchOwner: * type= owner_urns
WeightsInfoResponse: * base_model optimizer_config= is_lora lora_rank= train_unembed= train_mlp= train_attn=
WhoamiResponse: * user_urn org_urn email=
"""
"""The arguments of the constructors of 0.38.0; those after ``*`` by name only, ``=`` marks what may be left out."""

METHODS = """
AwaitableConcurrentFuture.coroutine:
AwaitableConcurrentFuture.future:
AwaitableConcurrentFuture.result: timeout=
Datum.with_provenance: model_input loss_fn_inputs
ModelInput.append: chunk
ModelInput.append_int: token
ModelInput.empty:
ModelInput.from_ints: tokens
ModelInput.to_ints:
ParsedCheckpointTinkerPath.from_tinker_path: tinker_path
SaveWeightsForSamplerResponse.get_console_url:
SaveWeightsForSamplerResponse.get_playground_url:
SaveWeightsResponse.get_console_url:
TensorData.from_numpy: array
TensorData.from_torch: tensor
TensorData.from_torch_sparse: tensor pad_value=
TensorData.to_numpy: pad_value=
TensorData.to_torch: pad_value=
TensorData.tolist: pad_value=
Timeout.as_dict:
"""
"""The same of the methods of its values."""

TYPE_MODULES = """
_pydantic_types.datum _pydantic_types.forward_backward_input _pydantic_types.get_info_response
_pydantic_types.get_sampler_response _pydantic_types.load_weights_response _pydantic_types.model_input
_pydantic_types.optim_step_response _pydantic_types.sampling_params _pydantic_types.save_weights_external_response
_pydantic_types.save_weights_for_sampler_response _pydantic_types.stop_reason _pydantic_types.tensor_data
audit_log_entry audit_log_response auth_token_response billing_usage_response checkpoint checkpoints_list_response
copy_weights_request copy_weights_response create_custom_loss_request create_custom_loss_response create_model_request
create_model_response create_sampling_session_request create_sampling_session_response create_session_request
create_session_response current_checkpoint_storage_usage_response cursor custom_loss_graph custom_loss_input datum
dmel_chunk encoded_text_chunk event_type external_weights_urls_response forward_backward_input forward_backward_output
forward_backward_request forward_request future_completion future_retrieve_request future_retrieve_response
futures_retrieve_request futures_retrieve_response generic_event get_info_request get_info_response
get_sampler_response get_server_capabilities_response get_session_response health_response image_asset_pointer_chunk
image_chunk join_sampling_session_request join_sampling_session_response list_sessions_response load_weights_request
load_weights_response lora_config loss_fn_inputs loss_fn_output loss_fn_type model_id model_input model_input_chunk
optim_step_request optim_step_response optimizer prompt_alt_tokens provenance_spans request_error_category
request_failed_response request_id sample_request sample_response sampled_sequence sampling_client_kind
sampling_params save_weights_external_request save_weights_external_response save_weights_for_sampler_request
save_weights_for_sampler_response save_weights_request save_weights_response search_owner session_end_event
session_heartbeat_request session_heartbeat_response session_search_cursor session_search_request
session_search_response session_start_event session_status session_status_query session_summary severity shared
shared.untyped_api_future stop_reason telemetry_event telemetry_response telemetry_send_request tensor_data
tensor_dtype training_run training_runs_response unhandled_exception_event unload_model_request unload_model_response
weights_info_response whoami_response
""".split()
"""The modules below ``tinker.types`` of 0.38.0, but for those of bodies of requests that LEFT_OUT lists."""
