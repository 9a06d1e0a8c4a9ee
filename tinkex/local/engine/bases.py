"""A base model on this machine, and the LoRA adapters inside it."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from peft import LoraConfig as PeftConfig
from peft import LoraModel
from safetensors import SafetensorError
from transformers.pytorch_utils import Conv1D

from tinkex.errors import ConfigurationError, InvalidInputError
from tinkex.local.engine.checks import Limits
from tinkex.types import LoraConfig

__all__ = ["ALPHA", "SMALL", "Adapter", "BaseModel", "fitting"]

ALPHA = 32
"""Scale of every adapter (times 1 / rank): not on the wire, and the same in other servers of this API."""

SMALL = 50_000_000
"""Most parameters of a small model: its matrices are not worth sharing out among threads."""

# Names of the projections in the families of transformers: Llama, Qwen, Gemma, Mistral, Phi, OPT, GPT-NeoX,
# Falcon, GPT-2, GPT-J, BLOOM. A name with a dot also fixes the parent, where attention and MLP share a name.
_ATTENTION = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value", "c_attn"),
    *("attn.c_proj", "attn.dense", "attention.dense", "self_attn.dense", "self_attention.dense"),
)
_MLP = (
    *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out"),
    *("dense_h_to_4h", "dense_4h_to_h", "c_fc", "mlp.c_proj"),
)


@attrs.define(kw_only=True, slots=True)
class Adapter:
    """A LoRA adapter that stands in a base model.

    Attributes:
        name: PEFT's name for it within the base model.
        lora: What it was made from.
        parameters: Its tensors by the path they have in a PEFT file, in sorted order.
        peft_config: Its settings for ``adapter_config.json``.
    """

    name: str
    lora: LoraConfig
    parameters: dict[str, torch.nn.Parameter]
    peft_config: PeftConfig

    def flat(self) -> torch.Tensor:
        """Return a copy of all parameters as one vector."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters.values()])

    def assign(self, flat: torch.Tensor) -> None:
        """Set all parameters from one vector."""
        with torch.no_grad():
            for path, part in self.named(flat).items():
                self.parameters[path].copy_(part)

    def joined(self, named: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Join tensors of the names and shapes of the parameters to one vector.

        Raises:
            InvalidInputError: Names or shapes are others.
        """
        fitting(self.parameters, named)
        parts = [named[path].reshape(-1).to(place) for path, place in self.parameters.items()]
        return torch.cat(parts).detach()

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cut a vector into pieces of the names and shapes of the parameters."""
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        pieces = zip(self.parameters.items(), flat.split(sizes), strict=True)
        return {path: piece.view_as(parameter) for (path, parameter), piece in pieces}


class BaseModel:
    """A causal language model of transformers, frozen, with adapters of which at most one is active.

    Not thread-safe: everything but the attributes set by the constructor belongs to one thread.
    """

    def __init__(self, name: str, folder: Path, device: torch.device) -> None:
        """Load the model.

        Args:
            name: What the API calls it.
            folder: A folder that ``AutoModelForCausalLM.from_pretrained`` reads. Nothing is downloaded, no
                code in it is run.
            device: Where to compute. Weights are float32.

        Raises:
            ConfigurationError: The folder is missing, or holds no causal language model.
        """
        self.name = name
        self.folder = folder
        self.device = device
        self.model = _load(name, folder).to(device).eval().requires_grad_(False)
        config = self.model.config.get_text_config()
        self.limits = Limits(
            base_model=name,
            context=getattr(config, "max_position_embeddings", None) or 2048,
            vocab=self.model.get_input_embeddings().num_embeddings,
            has_tokenizer=(folder / "tokenizer_config.json").is_file(),
        )
        self.arch = (self.model.config.architectures or [self.model.config.model_type])[0]
        # transformers 5.24 gave it a new name, and warns of the old one.
        takes = inspect.signature(self.model.forward).parameters
        self.cache_argument = "cache" if "cache" in takes else "past_key_values"
        self.size = sum(parameter.numel() for parameter in self.model.parameters())
        self._names = (f"m{number}" for number in itertools.count())
        self._linear = {path: size for path, module in self.model.named_modules() if (size := _size(module))}
        self._unembed = _name_of(self.model, self.model.get_output_embeddings())
        self._tuner: LoraModel | None = None
        self._active: str | None = None

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer in the model's folder, loaded at first use."""
        with _quiet():
            return transformers.AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a sequence unless a request says otherwise."""
        for config in (self.model.generation_config, self.model.config.get_text_config()):
            ids = getattr(config, "eos_token_id", None)
            if ids is not None:
                return frozenset([ids] if isinstance(ids, int) else ids)
        return frozenset()

    def targets(self, lora: LoraConfig) -> list[str]:
        """Return which modules an adapter changes, as PEFT's ``target_modules``.

        Raises:
            InvalidInputError: A part that should be trained has no module of a known name.
        """
        found: list[str] = []
        for flag, names in (("train_attn", _ATTENTION), ("train_mlp", _MLP), ("train_unembed", (self._unembed,))):
            if not getattr(lora, flag):
                continue
            part = [name for name in names if name and any(_ends_in(path, name) for path in self._linear)]
            if not part:
                linear = sorted({path.rsplit(".", 1)[-1] for path in self._linear})
                raise InvalidInputError(
                    f"lora_config.{flag} is true, but no module of {self.name} has a name known for that; "
                    f"its linear modules are {', '.join(linear)}. Set {flag} to false",
                    field=f"lora_config.{flag}",
                )
            found += part
        return found

    def places(self, lora: LoraConfig) -> dict[str, torch.Tensor]:
        """Return a tensor without data for each weight of an adapter, by its path in a PEFT file, sorted.

        Raises:
            InvalidInputError: A part that should be trained has no module of a known name.
        """
        targets = self.targets(lora)
        found = {}
        for path, (inputs, outputs) in self._linear.items():
            if any(_ends_in(path, target) for target in targets):
                found[_file_path(path, "lora_A")] = torch.empty(lora.rank, inputs, device="meta")
                found[_file_path(path, "lora_B")] = torch.empty(outputs, lora.rank, device="meta")
        return dict(sorted(found.items()))

    def add(self, lora: LoraConfig, tensors: Mapping[str, torch.Tensor] | None = None) -> Adapter:
        """Put a new adapter into the model.

        Args:
            lora: What it changes. Without ``tensors``, ``seed`` alone decides the initial weights.
            tensors: Weights by the path they have in a PEFT file; None for initial ones.

        Returns:
            The adapter, not yet active.

        Raises:
            InvalidInputError: A part to be trained has no known module, or ``tensors`` are those of another adapter.
        """
        places = self.places(lora)
        values = _initial(places, lora.seed) if tensors is None else fitting(places, tensors)
        name = next(self._names)
        config = PeftConfig(
            r=lora.rank,
            lora_alpha=ALPHA,
            target_modules=self.targets(lora),
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.name,
        )
        try:
            self._inject(name, config)
            parameters = {}
            for path in places:
                layer = self.model.get_submodule(f"{_module_path(path)}.{name}")
                own = values[path].to(self.device, torch.float32, copy=True)
                layer.weight = parameters[path] = torch.nn.Parameter(own)
        except BaseException:
            self.remove(name)
            raise
        return Adapter(name=name, lora=lora, parameters=parameters, peft_config=config)

    def remove(self, name: str) -> None:
        """Take an adapter out of the model."""
        if self._tuner is not None and name in self._tuner.peft_config:
            self.activate(None)
            self._tuner.delete_adapter(name)

    def activate(self, adapter: Adapter | None) -> None:
        """Let ``adapter`` and no other take part in what the model computes."""
        name = adapter.name if adapter else None
        if self._tuner is not None and name != self._active:
            self._tuner.set_adapter([name] if name else [])
        self._active = name

    @contextlib.contextmanager
    def frozen(self, lora: LoraConfig | None, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Compute with saved weights and no other adapter for as long as the context lasts.

        In a small model they are added to the base's own, which makes sampling faster. A large model has no memory
        to spare for changed copies of its weights, so it gets an adapter for the while.

        Args:
            lora: What the weights belong to, None for the base alone.
            tensors: The weights by the path they have in a PEFT file.
        """
        if lora is None or self.size <= SMALL:
            self.activate(None)
            with self._changed({} if lora is None else _deltas(lora, tensors)):
                yield
            return
        adapter = self.add(lora, tensors)
        try:
            self.activate(adapter)
            yield
        finally:
            self.remove(adapter.name)

    @contextlib.contextmanager
    def _changed(self, deltas: Mapping[str, torch.Tensor]) -> Iterator[None]:
        layers = {path: self.model.get_submodule(path) for path in deltas}
        layers = {path: getattr(layer, "base_layer", layer) for path, layer in layers.items()}
        weights = {path: layer.weight for path, layer in layers.items()}
        try:
            # New parameters instead of new data: an embedding may share the old one.
            for path, layer in layers.items():
                delta = deltas[path].T if isinstance(layer, Conv1D) else deltas[path]
                layer.weight = torch.nn.Parameter(weights[path] + delta.to(self.device), requires_grad=False)
            yield
        finally:
            for path, layer in layers.items():
                layer.weight = weights[path]

    def _inject(self, name: str, config: PeftConfig) -> None:
        # On the meta device, PEFT draws no initial weights: they come from _initial, and torch's global
        # generator, which may be the user's, is left alone. PEFT warns of tied embeddings, which matter only
        # when merging, and of GPT-2's transposed layers, which it handles itself.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._tuner is None:
                self._tuner = LoraModel(self.model, {name: config}, name, low_cpu_mem_usage=True)
            else:
                self._tuner.peft_config[name] = config
                self._tuner.inject_adapter(self.model, name, low_cpu_mem_usage=True)
            self._tuner.set_adapter([])
        self._active = None


def fitting(places: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return ``tensors`` if they are as many, of the same names and shapes as ``places``.

    Raises:
        InvalidInputError: They are not.
    """
    wanted = {path: tuple(tensor.shape) for path, tensor in places.items()}
    given = {path: tuple(tensor.shape) for path, tensor in tensors.items()}
    if wanted != given:
        path = min(path for path in wanted.keys() | given.keys() if wanted.get(path) != given.get(path))
        raise InvalidInputError(
            f"the saved adapter does not fit this model: {path} has shape {given.get(path)} in the checkpoint "
            f"and {wanted.get(path)} in the model",
            field="path",
        )
    return tensors


def _load(name: str, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"base model {name!r}: {folder} is not the folder of a model (it has no config.json); give a folder "
            "that transformers' save_pretrained wrote, or that was downloaded from a hub"
        )
    try:
        with _quiet():
            return transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(f"base model {name!r} in {folder} cannot be loaded: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and advice off the terminal."""
    logging = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _name_of(model: torch.nn.Module, wanted: torch.nn.Module | None) -> str:
    return next((path for path, module in model.named_modules() if module is wanted), "")


def _size(module: torch.nn.Module) -> tuple[int, int] | None:
    """Return inputs and outputs of a linear module, None for any other."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    return tuple(module.weight.shape) if isinstance(module, Conv1D) else None


def _ends_in(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)


def _file_path(module: str, half: str) -> str:
    """Return the path in a PEFT file of one half of the weights that change a module."""
    return f"base_model.model.{module}.{half}.weight"


def _module_path(file_path: str) -> str:
    """Return the path in the model of what has a path in a PEFT file."""
    return file_path.removeprefix("base_model.model.").removesuffix(".weight")


def _deltas(lora: LoraConfig, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Multiply out the change to each module's weight, ``[outputs, inputs]``."""
    deltas = {}
    for path, tensor in tensors.items():
        module, half = _module_path(path).rsplit(".", 1)
        if half == "lora_B":
            deltas[module] = tensor @ tensors[_file_path(module, "lora_A")] * (ALPHA / lora.rank)
    return deltas


def _initial(empty: Mapping[str, torch.Tensor], seed: int | None) -> dict[str, torch.Tensor]:
    """Draw PEFT's default: A uniform as in ``torch.nn.Linear``; B zero, so that at first nothing changes."""
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed % 2**63)
    values = {}
    for path, place in empty.items():
        values[path] = torch.zeros(place.shape)
        if ".lora_A." in path:
            torch.nn.init.kaiming_uniform_(values[path], a=math.sqrt(5), generator=generator)
    return values
