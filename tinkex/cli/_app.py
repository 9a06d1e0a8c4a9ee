"""What all commands share: which server they talk to, and the options that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from tinkex.cli._login import credential_source
from tinkex.config import DEFAULT_BASE_URL, LOCAL, ClientConfig
from tinkex.errors import ConfigurationError

if TYPE_CHECKING:
    from tinkex.clients import ServiceClient

__all__ = ["App", "choose_model", "server_options", "wire_option"]

F = TypeVar("F", bound=Callable[..., Any])


FIRST_CONTACT_ATTEMPTS = 6
"""How often to try to reach a server at first, within a second or so. Later failures are retried for minutes."""


def _connect(base_url: str | None, **settings: Any) -> ServiceClient:
    """Make a client; whoever mistyped an address or a key is told at once."""
    from tinkex.clients import ServiceClient

    config = ClientConfig.from_env(base_url=base_url, **settings)
    if not config.is_local:
        few = attrs.evolve(config.retry, max_attempts=FIRST_CONTACT_ATTEMPTS)
        with ServiceClient(config=attrs.evolve(config, retry=few)) as first:
            first.get_server_capabilities()
    return ServiceClient(config=config)


def _revoke(key: str) -> None:
    """Delete a key on the hosted service, whatever server and credential the environment names."""
    from tinkex.resources import TinkexAPI

    config = ClientConfig.from_env(api_key=key, base_url=DEFAULT_BASE_URL)
    few = attrs.evolve(config.retry, max_attempts=FIRST_CONTACT_ATTEMPTS)
    with TinkexAPI(attrs.evolve(config, credential_cmd=None, retry=few)) as api:
        api.service.delete_api_key()


def _serve(**options: Any) -> None:
    from tinkex.local import serve

    serve(**options)


@attrs.define(kw_only=True, slots=True)
class App:
    """The object of the click context; its callables are what tests replace.

    Attributes:
        connect: Makes a client for a base URL, and settings of the client that options have given.
        serve: Runs a server until it is interrupted.
        revoke: Deletes a key on the hosted service.
        debug: Show tracebacks.
    """

    connect: Callable[..., ServiceClient] = _connect
    serve: Callable[..., None] = _serve
    revoke: Callable[[str], None] = _revoke
    debug: bool = False

    def open(self, base_url: str | None, **settings: Any) -> ServiceClient:
        """Connect to the server that the options and the environment name; a setting that is None is not given.

        With neither a key nor a base URL that is the embedded one; a line on stderr says so.
        """
        if not base_url and credential_source() is None:
            base_url = LOCAL
            click.echo(
                "TINKER_API_KEY is not set: using the embedded server on this machine. "
                "Set it or run 'tinkex auth login' for the hosted service, or give --base-url.",
                err=True,
            )
        return self.connect(base_url, **{name: value for name, value in settings.items() if value is not None})


def server_options(command: F) -> F:
    """Add ``--base-url`` to a command."""
    return click.option(
        "--base-url",
        envvar="TINKER_BASE_URL",
        metavar="URL",
        help="The server; 'local' is the embedded one. Default: TINKER_BASE_URL; else the hosted service if "
        "TINKER_API_KEY is set or a key is stored; else local.",
    )(command)


def wire_option(command: F) -> F:
    """Add ``--wire`` to a command that trains."""
    return click.option(
        "--wire",
        type=click.Choice(["auto", "json", "proto"]),
        help="Form of training requests. Default: TINKEX_WIRE; else auto, which finds out what the server takes.",
    )(command)


def choose_model(service: ServiceClient, wanted: str | None, option: str = "--base-model") -> str:
    """Return the base model to use: the wanted one, or the only one that the server offers.

    Args:
        service: Who is asked for its models.
        wanted: The one that was given.
        option: The option to give it with.

    Raises:
        ConfigurationError: None is wanted and the server offers several; lists them.
    """
    if wanted:
        return wanted
    offered = [model.model_name for model in service.get_server_capabilities().supported_models if model.model_name]
    if len(offered) == 1:
        return offered[0]
    raise ConfigurationError(
        f"choose a base model with {option}; this server offers {', '.join(sorted(offered)) or 'none'}"
    )
