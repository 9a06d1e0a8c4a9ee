"""The modules of the official SDK that programs import from, and what is in each."""

from __future__ import annotations

import re

import attrs

import tinkex
from tinkex import errors, types
from tinkex.compat import names

__all__ = ["LEFT_OUT", "Namespace", "table"]

_TYPE_NAMES = (
    "EventType",
    "FutureRetrieveResponse",
    "LossFnInputs",
    "LossFnOutput",
    "ModelID",
    "RequestErrorCategory",
    "RequestID",
    "SamplingClientKind",
    "SaveWeightsExternalResponseInternal",
    "SaveWeightsForSamplerResponseInternal",
)
"""Those of :mod:`tinkex.compat.names` that are types of values."""

_TWICE = (
    "Datum",
    "ForwardBackwardInput",
    "ForwardBackwardOutput",
    "ForwardBackwardRequest",
    "ForwardRequest",
    "GetInfoResponse",
    "GetSamplerResponse",
    "LoadWeightsResponse",
    "ModelInput",
    "OptimStepResponse",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "SaveWeightsExternalResponse",
    "SaveWeightsForSamplerResponse",
    "StopReason",
    "TensorData",
)
"""What the official SDK also has as a class of pydantic, in a folder of its own."""

_INTERFACES: dict[str, tuple[str, ...]] = {
    "admin_client": ("AdminClient",),
    "api_future": ("APIFuture", "AwaitableConcurrentFuture"),
    "backcompat_sampling_client_future": ("BackcompatSamplingClientFuture",),
    "backcompat_training_client_future": ("BackcompatTrainingClientFuture",),
    "custom_loss": ("LossHandle", "PerDatumLossFn"),
    "rest_client": ("RestClient",),
    "sampling_client": ("SamplingClient",),
    "service_client": ("ServiceClient",),
    "training_client": ("TrainingClient",),
}
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "tinker._exceptions": (
        *errors.__all__,
        "TinkerError",
        "SidecarDiedError",
        "SidecarError",
        "SidecarIPCError",
        "SidecarStartupError",
    ),
    "tinker._version": ("__title__", "__version__"),
    "tinker.lib": (),
    "tinker.lib.api_future_impl": ("QueueState", "QueueStateObserver"),
    "tinker.lib.experimental": ("ExperimentalWarning",),
    "tinker.lib.public_interfaces": tuple(name for listed in _INTERFACES.values() for name in listed),
    **{f"tinker.lib.public_interfaces.{module}": listed for module, listed in _INTERFACES.items()},
    "tinker.lib.retry_handler": ("RetryConfig",),
    "tinker.lib.sidecar": ("SidecarDiedError", "SidecarError", "SidecarIPCError", "SidecarStartupError"),
    "tinker.types._pydantic_types": (),
    "tinker.types.optimizer": (
        "AdamOptimizerConfig",
        "AdamParams",
        "DimuonOptimizerConfig",
        "DimuonParams",
        "OptimParams",
        "OptimizerConfig",
    ),
}

SDK_VERSION = "0.38.0"
"""The newest version of the official SDK whose names are all here: what programs that ask for it are told."""
_VERSION = {"__title__": "tinker", "__version__": SDK_VERSION}

_BODY = "the body of a request, which its method writes"
LEFT_OUT = {
    "ClientConfigRequest": _BODY,
    "GetBillingUsageRequest": _BODY,
    "GetCurrentCheckpointStorageUsageRequest": _BODY,
    "TelemetryBatch": _BODY,
}
"""Public names of the official SDK that make no sense here, and what to do instead."""


@attrs.frozen
class Namespace:
    """The names of one module.

    Attributes:
        public: The names that ``from module import *`` gives.
        hidden: Names that are there besides.
    """

    public: tuple[str, ...]
    hidden: frozenset[str] = frozenset()

    def find(self, name: str, module: str) -> object:
        """Return the object of a name.

        Raises:
            AttributeError: The module has no such name.
        """
        if name in _VERSION:
            return _VERSION[name]
        if name in self.public or name in self.hidden:
            return getattr(names, name) if name in names.__all__ else getattr(tinkex, name)
        raise AttributeError(f"{module!r} by tinkex has no {name!r}" + _advice(name))


def _advice(name: str) -> str:
    return f": {LEFT_OUT[name]}" if name in LEFT_OUT else ""


def table() -> dict[str, Namespace]:
    """Return each module with its names; a module stands after the one that it is in."""
    types_here = (*types.__all__, *_TYPE_NAMES)
    everything = frozenset(types_here)
    top = Namespace(tuple(dict.fromkeys((*dir(tinkex), *names.__all__, *_VERSION))))
    found = {"tinker": top, "tinker.types": Namespace(types_here), "tinker.types.shared": Namespace((), everything)}
    for name in types_here:
        # The official SDK has a module for each type, such as tinker.types.tensor_data for TensorData.
        where = "tinker.types.shared." if name == "UntypedAPIFuture" else "tinker.types."
        found[where + _snake(name)] = Namespace((name,), everything)
    # Programs import from where the official SDK itself imports, such as RetryConfig from sampling_client.
    found |= {module: Namespace(listed, frozenset(top.public)) for module, listed in _ELSEWHERE.items()}
    found |= {f"tinker.types._pydantic_types.{_snake(name)}": Namespace((name,), everything) for name in _TWICE}
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
