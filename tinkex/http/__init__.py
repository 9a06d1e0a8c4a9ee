"""HTTP: one attempt (transport), attempts until one succeeds (retry), and one call made of both (client)."""

from tinkex.http._statuses import lacks_endpoint
from tinkex.http.body import Body, Pieces
from tinkex.http.client import Answer, ApiClient, CallRules
from tinkex.http.credentials import Credentials, read_claims
from tinkex.http.download import Downloader
from tinkex.http.retry import RetryDetails
from tinkex.http.transport import Response, Sender, Transport

__all__ = [
    "Answer",
    "ApiClient",
    "Body",
    "CallRules",
    "Credentials",
    "Downloader",
    "Pieces",
    "Response",
    "RetryDetails",
    "Sender",
    "Transport",
    "lacks_endpoint",
    "read_claims",
]
