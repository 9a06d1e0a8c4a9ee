"""Where ``base_url="local"`` leads: the only place of the client that knows the embedded server."""

from __future__ import annotations

from typing import Any

import attrs

from tinkex.clients.logs import follow_environment
from tinkex.config import DEFAULT_BASE_URL, ClientConfig
from tinkex.errors import ConfigurationError

__all__ = ["console_page", "resolve"]


def resolve(config: ClientConfig | None, **given: Any) -> ClientConfig:
    """Return the settings that a client was made with, pointing at a server that is there.

    Args:
        config: All settings at once.
        **given: Single settings instead; None means "not given".

    Raises:
        ConfigurationError: Both were given, or there is neither a key nor a base URL.
    """
    follow_environment()
    if config is None:
        config = ClientConfig.from_env(**given)
    elif any(value is not None for value in given.values()):
        raise ConfigurationError("pass either config= or single settings, not both; attrs.evolve changes a config")
    if not config.is_local:
        return config
    from tinkex.local import shared_local_server

    server = shared_local_server()
    return attrs.evolve(config, base_url=server.base_url, api_key=server.api_key, credential_cmd=None)


def console_page(config: ClientConfig, page: str) -> str:
    """Return a page of the hosted service's console, if that is where these settings lead.

    Raises:
        ConfigurationError: It is another server, which has no console.
    """
    if config.base_url != DEFAULT_BASE_URL:
        raise ConfigurationError(f"only the hosted service has a console, and {config.base_url} is another server")
    return page
