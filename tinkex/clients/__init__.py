"""What people hold: the clients, the handle of a loss, and the hook for tokenizers."""

from tinkex.clients.admin import AdminClient
from tinkex.clients.loss_handle import LossHandle
from tinkex.clients.rest import RestClient
from tinkex.clients.sampling import SamplingClient
from tinkex.clients.service import ServiceClient
from tinkex.clients.tokenizers import register_tokenizer
from tinkex.clients.training import TrainingClient

__all__ = [
    "AdminClient",
    "LossHandle",
    "RestClient",
    "SamplingClient",
    "ServiceClient",
    "TrainingClient",
    "register_tokenizer",
]
