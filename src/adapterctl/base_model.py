"""The frozen base model: where it is, which one it is, and how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from adapterctl.errors import BaseModelError
from adapterctl.fingerprint import file_hash, fingerprint
from adapterctl.settings import Settings

POCKET = "pocket"
"""The name of the base model that is shipped with the package."""

_IDENTIFYING = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja")
_HUB_DOCUMENTS = ("config.json", "tokenizer.json")
_WHOLLY_HASHED = 256 * 2**20
_NO_LIMIT = 10**30


class BaseModelSettings(Settings):
    """Which base model is served, and how it is loaded.

    Attributes:
        path: ``pocket``, a folder, or a name on the Hugging Face hub such as ``meta-llama/Llama-3.1-8B``.
        revision: Commit, tag or branch of a hub name; pin a commit for production.
        dtype: Number format of the weights in memory.
        quantization: ``nf4`` or ``int8`` load through bitsandbytes, for training (QLoRA) and for evaluation alike.
        prompt_format: ``plain`` text, or ``chat``: prompts become the user's turn of the tokenizer's chat template.
        device: ``auto`` takes the first GPU when there is one.
        fold_adapters: Score adapters added to a copy of the weights instead of beside them: about a third faster, with
            memory for a second copy. Serving engines keep them apart; in float32 the two differ by rounding only.
    """

    path: str = POCKET
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["none", "nf4", "int8"] = "none"
    prompt_format: Literal["plain", "chat"] = "plain"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    fold_adapters: bool = False

    @model_validator(mode="after")
    def _folds_into_plain_weights(self) -> BaseModelSettings:
        if self.fold_adapters and self.quantization != "none":
            raise ValueError("fold_adapters does not go with quantization: adapters cannot be added to such weights")
        return self


@dataclass(frozen=True)
class BaseModel:
    """A base model that has been found.

    Attributes:
        settings: How it is loaded.
        location: What ``from_pretrained`` is given: a folder, or a hub name.
        name: What adapters record as their base: the same for everybody who uses the same settings.
        identity: SHA-256 over configuration, tokenizer and weight files; what cached results depend on.
    """

    settings: BaseModelSettings
    location: str
    name: str
    identity: str

    @property
    def parameters(self) -> int:
        """Number of weights outside the embedding, from the configuration: what a token's operations depend on.

        Raises:
            BaseModelError: The configuration does not tell.
        """
        with _loading(self):
            config = _text_config(self)
            heads = config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // heads
            keys = (getattr(config, "num_key_value_heads", None) or heads) * width
            attention = config.hidden_size * (2 * heads * width + 2 * keys)
            return int(config.num_hidden_layers * (attention + 3 * config.hidden_size * config.intermediate_size))

    @property
    def chat(self) -> bool:
        """Whether prompts are chats."""
        return self.settings.prompt_format == "chat"


def _text_config(base: BaseModel) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.location, revision=base.settings.revision, trust_remote_code=False)
    return config.get_text_config()


def context_of(base: BaseModel) -> int | None:
    """Return how many tokens the base model reads at most, None where its configuration does not say.

    Raises:
        BaseModelError: The configuration cannot be read.
    """
    with _loading(base):
        longest = getattr(_text_config(base), "max_position_embeddings", None)
    return None if longest is None else int(longest)


def _folder_identity(folder: Path) -> str:
    """Hash what makes a model folder the model it is.

    Weight files beyond 256 MiB are known by name, size and header (names, shapes and offsets of their tensors): hashing
    an 8B model takes longer than merging its adapters.
    """
    known: dict[str, Any] = {name: file_hash(folder / name) for name in _IDENTIFYING if (folder / name).is_file()}
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        if size <= _WHOLLY_HASHED:
            known[path.name] = file_hash(path)
        else:
            with path.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                known[path.name] = [size, handle.read(min(length, 2**26)).hex()[:65536]]
    return fingerprint(known)


def _hub_identity(settings: BaseModelSettings) -> str:
    known: dict[str, Any] = {"name": settings.path, "revision": settings.revision}
    for name in _HUB_DOCUMENTS:
        known[name] = file_hash(_hub_file(settings, name))
    return fingerprint(known)


def _hub_file(settings: BaseModelSettings, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(settings.path, name, revision=settings.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseModelError(
            f"base model '{settings.path}' is neither a folder nor to be had from the hub: {error}",
            hint="set base_model.path in adapterctl.yaml to a folder, or log in with: hf auth login",
        ) from error


def document_hashes(base: BaseModel) -> dict[str, str]:
    """Return SHA-256 of the base model's ``config.json`` and ``tokenizer.json``, those of them that it has.

    Raises:
        BaseModelError: The hub cannot give them.
    """
    folder = Path(base.location)
    if folder.is_dir():
        return {name: file_hash(folder / name) for name in _HUB_DOCUMENTS if (folder / name).is_file()}
    return {name: file_hash(_hub_file(base.settings, name)) for name in _HUB_DOCUMENTS}


def find(settings: BaseModelSettings, root: Path) -> BaseModel:
    """Find the base model that the settings name.

    Args:
        settings: The ``base_model`` block.
        root: The workspace's folder; a relative path starts there.

    Raises:
        BaseModelError: There is no such folder, it is not a model, or the hub cannot give it.
    """
    if settings.path == POCKET:
        folder = Path(str(files("adapterctl.pocket").joinpath("assets")))
        return BaseModel(settings, str(folder), POCKET, _folder_identity(folder))
    try:
        folder = (root / Path(settings.path).expanduser()).resolve()
        found = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # A home folder that does not exist, a name too long, a folder above that must not be entered.
        raise BaseModelError(
            f"base model '{settings.path}' cannot be looked for: {error}",
            hint="set base_model.path in adapterctl.yaml to a folder, a hub name, or pocket",
        ) from error
    if found:
        _require_model(folder)
        return BaseModel(settings, str(folder), settings.path, _folder_identity(folder))
    if settings.path.startswith((".", "/", "~")) or settings.path.count("/") != 1:
        raise BaseModelError(
            f"base model '{settings.path}': there is no such folder ({folder})",
            hint="set base_model.path in adapterctl.yaml to a folder, a hub name, or pocket",
        )
    return BaseModel(settings, settings.path, settings.path, _hub_identity(settings))


def _require_model(folder: Path) -> None:
    config = folder / "config.json"
    try:
        if not isinstance(json.loads(config.read_text(encoding="utf-8")), dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"base model folder {folder} has no readable config.json: {error}",
            hint="set base_model.path in adapterctl.yaml to a folder written by save_pretrained",
        ) from error


@contextmanager
def _loading(base: BaseModel) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The libraries raise whatever their parsers do: safetensors and tokenizers bare exceptions of their own.
        raise BaseModelError(
            f"base model '{base.name}' cannot be loaded: {error}",
            hint="check base_model in adapterctl.yaml with: adapterctl doctor",
        ) from error


def device_of(settings: BaseModelSettings) -> str:
    """Return the device the settings mean on this machine."""
    import torch

    if settings.device != "auto":
        return settings.device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def load_tokenizer(base: BaseModel) -> Any:
    """Load the base model's tokenizer; never runs code of the model folder.

    Raises:
        BaseModelError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    with _loading(base):
        tokenizer = AutoTokenizer.from_pretrained(
            base.location, revision=base.settings.revision, trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # What is too long is cut, or refused, and told, where rows become tokens; the tokenizer would warn before that.
    tokenizer.model_max_length = _NO_LIMIT
    return tokenizer


def _quantization(settings: BaseModelSettings) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if settings.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
    )


def load_model(base: BaseModel) -> Any:
    """Load the base model's weights on its device, frozen and in evaluation mode.

    Raises:
        BaseModelError: They cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    settings, device = base.settings, device_of(base.settings)
    options: dict[str, Any] = {}
    if settings.quantization != "none":
        options = {"quantization_config": _quantization(settings), "device_map": {"": device}}
    with _loading(base):
        model, told = AutoModelForCausalLM.from_pretrained(
            base.location,
            revision=settings.revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=getattr(torch, settings.dtype),
            output_loading_info=True,
            **options,
        )
        if told["missing_keys"]:
            # They would be filled with random numbers.
            raise ValueError(f"its files lack the weights {', '.join(sorted(told['missing_keys'])[:3])}")
        if not options:
            model = model.to(device)
    model.requires_grad_(False)
    return model.eval()
