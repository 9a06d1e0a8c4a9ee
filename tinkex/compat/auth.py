"""What the official SDK has in ``tinker.auth``: questions about the credential of whoever runs the program."""

from __future__ import annotations

import attrs

from tinkex.clients import ServiceClient
from tinkex.config import ClientConfig, RetryPolicy
from tinkex.errors import ConfigurationError

__all__ = ["get_tinker_token", "raise_if_tinker_not_accessible", "tinker_has_credentials"]


def _settings() -> ClientConfig | None:
    try:
        return ClientConfig.from_env()
    except ConfigurationError:
        return None


def get_tinker_token() -> str | None:
    """Return the key of the environment or of the stored login, or None; no command is run and nothing is sent."""
    config = _settings()
    return None if config is None or config.api_key is None else config.api_key.reveal()


def tinker_has_credentials() -> bool:
    """Tell whether there is a key, or a command that prints one; it is not run and nothing is sent."""
    config = _settings()
    return config is not None and (config.api_key is not None or config.credential_cmd is not None)


def raise_if_tinker_not_accessible() -> None:
    """Ask the server once for what it offers.

    Raises:
        TinkexError: It cannot be asked, or refuses: there is no credential, or a wrong one, or no billing.
    """
    config = attrs.evolve(ClientConfig.from_env(), retry=RetryPolicy.none(), telemetry=False)
    with ServiceClient(config=config) as service:
        service.get_server_capabilities()
