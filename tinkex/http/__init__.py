"""HTTP: one attempt (transport), attempts until one succeeds (retry), and one call made of both (client)."""

from tinkex.http.client import Answer, ApiClient, CallRules, Sender
from tinkex.http.retry import RetryDetails
from tinkex.http.transport import Response, Transport

__all__ = ["Answer", "ApiClient", "CallRules", "Response", "RetryDetails", "Sender", "Transport"]
