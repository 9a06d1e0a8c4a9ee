"""Every value of the API: frozen, checked at construction, copied from what is handed in."""

from tinkex.types import (
    audit,
    auth,
    billing,
    custom_loss,
    futures,
    inputs,
    models,
    optimizers,
    provenance,
    sampling,
    service,
    sessions,
    settings,
    telemetry,
    tensors,
    training,
    unions,
    weights,
)
from tinkex.types.audit import *  # noqa: F403
from tinkex.types.auth import *  # noqa: F403
from tinkex.types.billing import *  # noqa: F403
from tinkex.types.custom_loss import *  # noqa: F403
from tinkex.types.futures import *  # noqa: F403
from tinkex.types.inputs import *  # noqa: F403
from tinkex.types.models import *  # noqa: F403
from tinkex.types.optimizers import *  # noqa: F403
from tinkex.types.provenance import *  # noqa: F403
from tinkex.types.sampling import *  # noqa: F403
from tinkex.types.service import *  # noqa: F403
from tinkex.types.sessions import *  # noqa: F403
from tinkex.types.settings import *  # noqa: F403
from tinkex.types.telemetry import *  # noqa: F403
from tinkex.types.tensors import *  # noqa: F403
from tinkex.types.training import *  # noqa: F403
from tinkex.types.unions import *  # noqa: F403
from tinkex.types.weights import *  # noqa: F403

__all__: list[str] = [
    *audit.__all__,
    *auth.__all__,
    *billing.__all__,
    *custom_loss.__all__,
    *futures.__all__,
    *inputs.__all__,
    *models.__all__,
    *optimizers.__all__,
    *provenance.__all__,
    *sampling.__all__,
    *service.__all__,
    *sessions.__all__,
    *settings.__all__,
    *telemetry.__all__,
    *tensors.__all__,
    *training.__all__,
    *unions.__all__,
    *weights.__all__,
]
