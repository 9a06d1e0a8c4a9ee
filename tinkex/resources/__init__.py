"""The seven resources of the API: one blocking, typed method per endpoint, and nothing else.

::

    with TinkexAPI(ClientConfig.from_env()) as api:
        api.service.get_server_capabilities().supported_models
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import Self

from tinkex.config import ClientConfig, RetryPolicy
from tinkex.http import ApiClient, Credentials, RetryDetails, Sender
from tinkex.resources import futures, models, sampling, service, telemetry, training, weights
from tinkex.resources._base import APIResponse, Endpoint, ReadOptions, WriteOptions
from tinkex.resources.futures import FuturesResource
from tinkex.resources.models import ModelsResource
from tinkex.resources.sampling import SamplingResource
from tinkex.resources.service import ServiceResource
from tinkex.resources.telemetry import TelemetryResource
from tinkex.resources.training import TrainingResource, Wire
from tinkex.resources.weights import WeightsResource

__all__ = [
    "ENDPOINTS",
    "APIResponse",
    "Endpoint",
    "FuturesResource",
    "ModelsResource",
    "ReadOptions",
    "SamplingResource",
    "ServiceResource",
    "TelemetryResource",
    "TinkexAPI",
    "TrainingResource",
    "WeightsResource",
    "Wire",
    "WriteOptions",
]

ENDPOINTS: Mapping[str, Endpoint[Any]] = {
    endpoint.name: endpoint
    for module in (service, models, weights, training, sampling, futures, telemetry)
    for endpoint in module.ENDPOINTS
}
"""Every endpoint by ``<resource>.<method>``."""


class TinkexAPI:
    """The whole HTTP API over one set of connections; safe for any number of threads.

    Attributes:
        config: The settings.
        service: What the server offers, and sessions.
        models: Creating, describing and unloading models.
        weights: Checkpoints.
        training: Forward passes, gradients, optimizer steps.
        sampling: Drawing samples.
        futures: Results of submitted operations.
        telemetry: What the client met with.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        transport: Sender | None = None,
        stop: threading.Event | None = None,
        on_retry: Callable[[RetryDetails], None] | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            config: Address, key, timeouts, retry policy.
            transport: Makes the attempts; by default one over ``requests``.
            stop: Ends every wait between attempts; :meth:`close` sets it.
            on_retry: Told of each wait between attempts.

        Raises:
            ConfigurationError: The settings cannot be used.
        """
        self._use(ApiClient(config, transport=transport, stop=stop, on_retry=on_retry))

    def _use(self, client: ApiClient) -> None:
        self._client = client
        self.config = client.config
        self.service = ServiceResource(client)
        self.models = ModelsResource(client)
        self.weights = WeightsResource(client)
        self.training = TrainingResource(client)
        self.sampling = SamplingResource(client)
        self.futures = FuturesResource(client)
        self.telemetry = TelemetryResource(client)

    @property
    def credentials(self) -> Credentials:
        """What each request carries; shared with the APIs that :meth:`with_options` makes."""
        return self._client.credentials

    def new_key(self) -> str:
        """Return an idempotency key for one call; for those that send the same request in several calls."""
        return self._client.new_key()

    @property
    def stop(self) -> threading.Event:
        """Set when there shall be no further attempts; wait on it instead of sleeping."""
        return self._client.stop

    def exchange_tokens(self, *, prefer_command: bool = False) -> None:
        """From now on, exchange the credential for short-lived tokens (``POST auth/token``) and send those.

        Args:
            prefer_command: ``credential_cmd`` goes before ``api_key``, unless that is a JWT itself.

        Raises:
            ConfigurationError: The command is wanted, and there is none.
        """
        # Where an old token is still good, one attempt is enough: the next request tries again.
        once = self.with_options(retry=RetryPolicy.none())

        def exchange(credential: str, worth_waiting: bool) -> str:
            return (self if worth_waiting else once).service.auth_token(credential).jwt

        self.credentials.exchange_with(exchange, prefer_command=prefer_command)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
    ) -> TinkexAPI:
        """Make an API with other settings over the same connections, which closing either of the two closes.

        Args:
            timeout: Seconds to wait for bytes of one answer.
            retry: When to try again.
            default_headers: Headers of every call.
            stop: Ends waits between attempts, instead of the event of this object: give a new one for calls
                that must still be possible while this object is closing.

        Returns:
            The other API; what is None is as in this one.
        """
        options = {"timeout": timeout, "retry": retry, "default_headers": default_headers, "stop": stop}
        other = TinkexAPI.__new__(TinkexAPI)
        other._use(self._client.with_options(**options))  # type: ignore[arg-type]
        return other

    def close(self) -> None:
        """End waits between attempts and close all connections; may be called again, and from any thread."""
        self._client.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()
