"""Every value of the API: frozen, checked at construction, copied from what is handed in."""

from tinkex.types import futures, inputs, models, sampling, service, telemetry, tensors, training, weights
from tinkex.types.futures import *  # noqa: F403
from tinkex.types.inputs import *  # noqa: F403
from tinkex.types.models import *  # noqa: F403
from tinkex.types.sampling import *  # noqa: F403
from tinkex.types.service import *  # noqa: F403
from tinkex.types.telemetry import *  # noqa: F403
from tinkex.types.tensors import *  # noqa: F403
from tinkex.types.training import *  # noqa: F403
from tinkex.types.weights import *  # noqa: F403

__all__: list[str] = [
    *futures.__all__,
    *inputs.__all__,
    *models.__all__,
    *sampling.__all__,
    *service.__all__,
    *telemetry.__all__,
    *tensors.__all__,
    *training.__all__,
    *weights.__all__,
]
