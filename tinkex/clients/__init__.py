"""What people hold: the five clients."""

from tinkex.clients.admin import AdminClient
from tinkex.clients.rest import RestClient
from tinkex.clients.sampling import SamplingClient
from tinkex.clients.service import ServiceClient
from tinkex.clients.training import TrainingClient

__all__ = ["AdminClient", "RestClient", "SamplingClient", "ServiceClient", "TrainingClient"]
