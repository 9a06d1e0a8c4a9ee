"""What a model must be like that a checkpoint is loaded into, from whatever a server can be asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from tinkex.errors import APIResponseValidationError, APIStatusError, ConfigurationError
from tinkex.http import lacks_endpoint
from tinkex.resources import TinkexAPI
from tinkex.types import GetInfoRequest, LoraConfig, WeightsInfoRequest, WeightsInfoResponse
from tinkex.types.weights import run_of

__all__ = ["base_model_of", "lora_of", "needs_of"]

logger = logging.getLogger("tinkex")


def needs_of(api: TinkexAPI, path: str, token: str | None) -> WeightsInfoResponse:
    """Ask what a checkpoint needs: about the checkpoint, or about its run where a server knows no other way.

    Args:
        api: Asks the server.
        path: The checkpoint.
        token: Key of the account that owns it, if it is another's.

    Raises:
        ConfigurationError: The server cannot be asked.
        APIError: The server could not be reached, or refused.
    """
    # The owner's key stands for the caller here: these servers know no other way to ask about another's weights.
    headers = None if token is None else {"X-API-Key": token}
    try:
        return api.weights.weights_info(WeightsInfoRequest(tinker_path=path), extra_headers=headers)
    except APIStatusError as error:
        run_id = run_of(path)
        if not lacks_endpoint(error):
            raise
        if run_id is None:
            raise _untold(path) from error
    try:
        run = api.models.get_training_run(run_id, extra_headers=headers)
    except APIStatusError as error:
        if error.status_code != HTTPStatus.NOT_FOUND and not lacks_endpoint(error):
            raise
        raise _untold(path) from error
    return WeightsInfoResponse(base_model=run.base_model, is_lora=run.is_lora, lora_rank=run.lora_rank)


def lora_of(path: str, needs: WeightsInfoResponse) -> LoraConfig:
    """Return the adapter that a checkpoint is loaded into.

    Raises:
        ConfigurationError: It is not an adapter, or the server does not say its rank.
    """
    if not needs.is_lora:
        raise ConfigurationError(f"{path} is not a LoRA checkpoint, and only those can be trained")
    if needs.lora_rank is None:
        raise _untold(path)
    flags = {"train_mlp": needs.train_mlp, "train_attn": needs.train_attn, "train_unembed": needs.train_unembed}
    # A server that does not say leaves the flags out; then they were all on.
    return LoraConfig(rank=needs.lora_rank, **{name: value for name, value in flags.items() if value is not None})


def base_model_of(api: TinkexAPI, model_id: str, path: str, token: str | None, given: str | None) -> str:
    """Return the base model of a model that was made of a checkpoint; an empty text if the server does not tell.

    The model is there and can be trained, so no answer of the server about its name is a failure.

    Args:
        api: Asks the server.
        model_id: The model.
        path: The checkpoint.
        token: Key of the account that owns it, if it is another's.
        given: The base model that the caller asked for.
    """
    asked: list[Callable[[], str | None]] = [
        lambda: _name_of(api, model_id),
        lambda: given or needs_of(api, path, token).base_model,
    ]
    for ask in asked:
        try:
            name = ask()
        except (APIStatusError, APIResponseValidationError, ConfigurationError) as error:
            logger.info("the server did not tell the base model of %s: %s", model_id, error)
            continue
        if name:
            return name
    return ""


def _name_of(api: TinkexAPI, model_id: str) -> str | None:
    info = api.models.get_info(GetInfoRequest(model_id=model_id))
    return info.model_data.model_name or info.model_name


def _untold(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"the server does not tell base model and LoRA rank of {path}; make the model with "
        "create_lora_training_client(base_model, rank=...) and load the checkpoint with its load_state"
    )
