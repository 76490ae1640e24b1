"""AutoFP8's classes on octet's quantiser: scripts that import auto_fp8 run with this module in its place.

    from transformers import AutoTokenizer
    from octet.auto_fp8 import AutoFP8ForCausalLM, BaseQuantizeConfig

    tokenizer = AutoTokenizer.from_pretrained(path)
    examples = tokenizer(["auto_fp8 is an easy-to-use model quantization library"], return_tensors="pt")
    model = AutoFP8ForCausalLM.from_pretrained(path, BaseQuantizeConfig(quant_method="fp8", activation_scheme="dynamic"))
    model.quantize(examples)
    model.save_quantized("Meta-Llama-3-8B-Instruct-FP8/")

Takes what a tokenizer gives (a BatchEncoding or dict), tensors of torch or numpy, and lists; imports none of them.
Padding is left out by the attention mask. Nothing is held in memory: the work is done in save_quantized.
"""

import json
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _octet
from .quantize import quantize as _quantize

__all__ = ["AutoFP8ForCausalLM", "BaseQuantizeConfig"]


class BaseQuantizeConfig:
    """What to quantise and how. `ignore_patterns`: names of modules, or "re:" and a regular expression that is searched
    for. `kv_cache_quant_targets`: ("k_proj", "v_proj") writes scales of an FP8 KV cache."""

    def __init__(
        self,
        quant_method: str = "fp8",
        activation_scheme: str = "static",
        ignore_patterns: Sequence[str] = ("re:.*lm_head",),
        kv_cache_quant_targets: Sequence[str] | None = None,
    ) -> None:
        if quant_method != "fp8":
            raise ValueError(f'quant_method "{quant_method}": only "fp8" is supported')
        if activation_scheme not in ("static", "dynamic"):
            raise ValueError(f'activation_scheme "{activation_scheme}": expected "static" or "dynamic"')
        self.quant_method = quant_method
        self.activation_scheme = activation_scheme
        self.ignore_patterns = [ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns)
        self.kv_cache_quant_targets = None if kv_cache_quant_targets is None else tuple(kv_cache_quant_targets)


class AutoFP8ForCausalLM:
    """A checkpoint to be quantised. `seqlen`: the longest sequence that the model takes."""

    def __init__(self, folder: str, quantize_config: BaseQuantizeConfig) -> None:
        self.folder = folder
        self.quantize_config = quantize_config
        self.config = json.loads((Path(folder) / "config.json").read_text())
        lengths = (self.config.get(key) for key in ("max_position_embeddings", "seq_length", "n_positions"))
        self.seqlen: int = next((length for length in lengths if length), 2048)
        self._samples: list[list[int]] | None = None
        self._check_kv_targets()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, quantize_config: BaseQuantizeConfig, **model_init_kwargs: Any
    ) -> "AutoFP8ForCausalLM":
        """`revision` and `subfolder` are heeded; what only says how to hold the model in memory (torch_dtype, device_map,
        ...) has nothing to do here."""
        name = os.fspath(pretrained_model_name_or_path)
        folder = _octet.resolve_model(name, model_init_kwargs.get("revision") or "")
        return cls(os.path.join(folder, model_init_kwargs.get("subfolder") or ""), quantize_config)

    def quantize(self, calibration_tokens: Any = None) -> None:
        """The text that static activations and scales of the KV cache are found on: what a tokenizer gives, a matrix of
        token ids, or a list of sequences. With dynamic activations there may be none."""
        samples = [] if calibration_tokens is None else _samples(calibration_tokens)
        config = self.quantize_config
        if not samples and config.activation_scheme == "static":
            raise ValueError("static activations need calibration tokens")
        if not samples and config.kv_cache_quant_targets:
            raise ValueError("scales of the KV cache need calibration tokens")
        self._samples = samples

    def save_quantized(self, save_dir: str | os.PathLike) -> dict[str, Any]:
        """Quantises, writes the checkpoint with its tokenizer, and returns the report."""
        if self._samples is None:
            raise ValueError("nothing is quantised yet: call quantize() first")
        config = self.quantize_config
        needs_text = config.activation_scheme == "static" or bool(config.kv_cache_quant_targets)
        return _quantize(
            self.folder,
            save_dir,
            scheme="fp8",
            activation_scheme=config.activation_scheme,
            dialect="autofp8",
            ignore=config.ignore_patterns,
            calibration=self._samples if needs_text else None,
            num_samples=max(1, len(self._samples)),
            kv_cache_scheme="tensor" if config.kv_cache_quant_targets else None,
        )

    def _check_kv_targets(self) -> None:
        targets = self.quantize_config.kv_cache_quant_targets
        if not targets:
            return
        modules = {name.removesuffix(".weight") for name in _tensor_names(Path(self.folder)) if name.endswith(".weight")}
        for target in targets:
            if target.startswith("re:"):
                found = any(re.search(target[3:], module) for module in modules)
            else:
                found = any(module == target or module.endswith("." + target) for module in modules)
            if not found:
                raise ValueError(f'kv_cache_quant_targets: no module of the model is called "{target}"')
        if len(targets) != 2 or not (targets[0].endswith("k_proj") and targets[1].endswith("v_proj")):
            raise ValueError(f'kv_cache_quant_targets {targets}: expected the projections of keys and values, ("k_proj", "v_proj")')


def _plain(value: Any) -> Any:
    """A tensor's numbers as lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _rows(value: Any) -> list[list[int]]:
    value = _plain(value)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise ValueError(f"calibration tokens: expected sequences of token ids, found {type(value).__name__}")
    rows = [_plain(row) for row in value]
    if rows and all(isinstance(row, int) for row in rows):
        rows = [rows]
    for row in rows:
        if not isinstance(row, list | tuple) or not all(isinstance(token, int) for token in row):
            raise ValueError("calibration tokens: expected sequences of token ids; tokenize the text first")
    return [list(row) for row in rows]


def _samples(tokens: Any) -> list[list[int]]:
    """Sequences of token ids without padding."""
    mask = None
    if isinstance(tokens, Mapping) or hasattr(tokens, "input_ids"):
        fields = tokens if isinstance(tokens, Mapping) else vars(tokens)
        mask = fields.get("attention_mask")
        tokens = fields["input_ids"] if "input_ids" in fields else tokens.input_ids
    rows = _rows(tokens)
    if mask is not None:
        masks = _rows(mask)
        if [len(row) for row in masks] != [len(row) for row in rows]:
            raise ValueError("calibration tokens: attention_mask and input_ids differ in shape")
        rows = [[token for token, real in zip(row, reals) if real] for row, reals in zip(rows, masks)]
    return [row for row in rows if row]


def _tensor_names(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            names.update(json.loads(file.read(length)))
    return names
