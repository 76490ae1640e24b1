"""LLM: a model to generate with, offline. vLLM's class under octet's name."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Union

from . import _octet
from .outputs import EmbeddingOutput, EmbeddingRequestOutput, RequestOutput, from_native
from .pooling_params import PoolingParams
from .sampling_params import SamplingParams
from .tokenizer import Tokenizer


class TextPrompt(TypedDict):
    prompt: str


class TokensPrompt(TypedDict):
    prompt_token_ids: Sequence[int]


PromptType = Union[str, Sequence[int], TextPrompt, TokensPrompt]
Message = Mapping[str, Any]

# Arguments of vLLM that mean nothing here: accepted with a warning, so that scripts run unchanged. The value is why.
_IGNORED = {
    "swap_space": "octet never swaps",
    "cpu_offload_gb": "the model is on the CPU",
    "max_context_len_to_capture": "nothing is captured on the CPU",
    "max_seq_len_to_capture": "nothing is captured on the CPU",
    "disable_custom_all_reduce": "ranks share memory",
    "trust_remote_code": "octet never runs code from a model",
    "tokenizer_mode": "there is one tokenizer",
    "disable_log_stats": "LLM logs no statistics",
    "compilation_config": "nothing is compiled",
    "download_dir": "octet downloads nothing",
    "distributed_executor_backend": "ranks are threads",
    "hf_token": "octet downloads nothing",
    "runner": "octet generates and embeds with every model",
    "task": "octet generates and embeds with every model",
}

_ENGINE_ARGUMENTS = ("device", "gpu_memory_utilization", "deterministic", "enforce_eager", "dtype", "kv_cache_dtype", "calculate_kv_scales", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size",
                     "kv_cache_memory_bytes", "enable_prefix_caching", "enable_chunked_prefill", "async_scheduling",
                     "tensor_parallel_size", "enable_expert_parallel", "num_threads", "seed", "quantization_ignore", "quantize_lm_head")


class LLM:
    """A model from a local folder, or from the Hugging Face cache by name (no network is used).

    ``quantization``: None (as the checkpoint is), "fp8", "fp8_channel", "fp8_tensor",
    "fp8_block" or "int8" (quantised while loading).
    ``dtype``: "auto", "bfloat16", "float16", "float32": of weights that are not quantised.
    ``kv_cache_dtype``: "auto" (8 bits where a ModelOpt or compressed-tensors checkpoint says so), "bfloat16", "fp8",
    "fp8_e4m3", "fp8_e5m2".
    ``skip_tokenizer_init``: token ids in, token ids out.
    ``load_format``: "auto", or "dummy" for random weights.
    Further keyword arguments: device ("auto", "cpu", "cuda"), gpu_memory_utilization, deterministic, kv_cache_memory_bytes, async_scheduling, enable_expert_parallel, num_threads (0: all processors),
    pooler_config ({"pooling_type": "LAST" or "MEAN", "normalize": bool}: how embed makes vectors; None: as the model's files say),
    scheduling_policy ("fcfs", "priority"), quantization_ignore, quantize_lm_head, chat_template, calculate_kv_scales,
    kv_cache_dtype_skip_layers (indices, or "sliding_window").
    """

    _offline = True  # nobody waits for single tokens: a GPU's steps may be large

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        skip_tokenizer_init: bool = False,
        revision: str | None = None,
        tensor_parallel_size: int = 1,
        dtype: Any = "auto",
        quantization: str | None = None,
        kv_cache_dtype: str = "auto",
        seed: int = 0,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int | None = None,
        block_size: int = 16,
        enable_prefix_caching: bool = True,
        enable_chunked_prefill: bool = True,
        load_format: str = "auto",
        chat_template: str | None = None,
        scheduling_policy: str = "fcfs",
        **kwargs: Any,
    ) -> None:
        options = _octet.LlmOptions(self._offline)
        options.model = str(model)
        options.revision = revision or ""
        options.tokenizer = str(tokenizer) if tokenizer else ""
        options.chat_template = chat_template
        options.set_skip_tokenizer_init(skip_tokenizer_init)
        options.set_quantization(quantization or "")
        if load_format not in ("auto", "safetensors", "dummy"):
            raise ValueError(f"load_format: expected auto, safetensors or dummy, found {load_format!r}")
        options.set_dummy_weights(load_format == "dummy")
        if scheduling_policy not in ("fcfs", "priority"):
            raise ValueError(f"scheduling_policy: expected fcfs or priority, found {scheduling_policy!r}")
        options.set_priority_scheduling(scheduling_policy == "priority")
        given = dict(kwargs, tensor_parallel_size=tensor_parallel_size, dtype=_dtype_name(dtype), kv_cache_dtype=kv_cache_dtype, seed=seed or 0,
                     max_model_len=max_model_len, max_num_seqs=max_num_seqs, block_size=block_size,
                     enable_prefix_caching=enable_prefix_caching, enable_chunked_prefill=enable_chunked_prefill)
        if max_num_batched_tokens is not None:
            given["max_num_batched_tokens"] = max_num_batched_tokens
        if (pooler := given.pop("pooler_config", None)) is not None:
            options.pooler_config = json.dumps(dict(pooler))
        if skip_layers := given.pop("kv_cache_dtype_skip_layers", None):
            options.set_kv_cache_dtype_skip_layers([str(layer) for layer in skip_layers])
        for name, value in given.items():
            if name in _ENGINE_ARGUMENTS:
                getattr(options, f"set_{name}")(value)
            elif name in _IGNORED:
                warnings.warn(f"LLM: {name} is ignored: {_IGNORED[name]}", stacklevel=2)
            else:
                raise TypeError(f"LLM: unknown argument {name!r}")
        self._native: _octet.Llm = _octet.Llm(options)

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType] | None = None,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        prompt_token_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        use_tqdm: bool = True,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Continues every prompt; results in input order. Without sampling_params the model's own defaults are used."""
        if prompts is None:
            if prompt_token_ids is None:
                raise ValueError("generate needs prompts")
            prompts = prompt_token_ids
        values = [_prompt_value(prompt) for prompt in _prompt_list(prompts)]
        return self._run(values, sampling_params, use_tqdm, priority)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answers one conversation (a list of messages) or several. Special tokens spelled in messages stay text."""
        conversations = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        tools_json = json.dumps(list(tools)) if tools else ""
        kwargs_json = json.dumps(dict(chat_template_kwargs)) if chat_template_kwargs else ""
        rendered = [self._native.chat_prompt(json.dumps(list(conversation)), tools_json, add_generation_prompt, kwargs_json)
                    for conversation in conversations]
        outputs = self._run([ids for _, ids in rendered], sampling_params, use_tqdm, None)
        for output, (text, _) in zip(outputs, rendered):
            output.prompt = text
        return outputs

    def embed(self, prompts: PromptType | Sequence[PromptType], *, pooling_params: PoolingParams | None = None,
              use_tqdm: bool = True) -> list[EmbeddingRequestOutput]:
        """One vector for every prompt, in input order: ``output.outputs.embedding``."""
        values = [_prompt_value(prompt) for prompt in _prompt_list(prompts)]
        params = pooling_params or PoolingParams()
        progress = _Progress(len(values)) if use_tqdm and len(values) > 1 and sys.stderr.isatty() else None
        vectors = self._native.embed(values, progress, params.dimensions or 0, params.normalize)
        if progress:
            progress(len(values))
        return [EmbeddingRequestOutput(str(i), EmbeddingOutput(vector), ids) for i, (ids, vector) in enumerate(vectors)]

    def get_tokenizer(self) -> Tokenizer:
        if not self._native.has_tokenizer():
            raise ValueError("the tokenizer was skipped (skip_tokenizer_init)")
        return Tokenizer(self._native)

    def get_default_sampling_params(self) -> SamplingParams:
        """The model's generation_config.json over SamplingParams' defaults."""
        return SamplingParams._from_native(self._native.default_sampling_params())

    def reset_prefix_cache(self) -> None:
        self._native.reset_prefix_cache()

    def report(self) -> dict[str, Any]:
        """What start-up found: architecture, dtype, bytes of weights, scales and KV cache, seconds."""
        return json.loads(self._native.report())

    def _run(self, values: list[str | list[int]], sampling_params: SamplingParams | Sequence[SamplingParams] | None, use_tqdm: bool,
             priority: Sequence[int] | None) -> list[RequestOutput]:
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        if isinstance(sampling_params, SamplingParams):
            params = [sampling_params._native()] * len(values)
        else:
            params = [one._native() for one in sampling_params]
        progress = _Progress(len(values)) if use_tqdm and len(values) > 1 and sys.stderr.isatty() else None
        outputs = self._native.generate(values, params, progress, list(priority or []))
        if progress:
            progress(len(values))
        return [from_native(output, param, self._decode_token) for output, param in zip(outputs, params)]

    def _decode_token(self, token_id: int) -> str | None:
        return self._native.decode([token_id], False) if self._native.has_tokenizer() else None


class _Progress:
    """One line on the terminal: how many prompts are done."""

    def __init__(self, total: int) -> None:
        self._total, self._start, self._shown = total, time.monotonic(), -1

    def __call__(self, done: int) -> None:
        if done == self._shown:
            return
        self._shown = done
        rate = done / max(time.monotonic() - self._start, 1e-9)
        end = "\n" if done == self._total else ""
        print(f"\rProcessed prompts: {done}/{self._total} [{rate:.2f} prompts/s]", end=end, file=sys.stderr, flush=True)


def _dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")  # a torch.dtype prints as torch.bfloat16


def _prompt_list(prompts: Any) -> list[Any]:
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    items = list(prompts)
    return [items] if items and all(isinstance(item, int) for item in items) else items


def _prompt_value(prompt: Any) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        if prompt.get("prompt_token_ids") is not None:
            return [int(token) for token in prompt["prompt_token_ids"]]
        if isinstance(prompt.get("prompt"), str):
            return prompt["prompt"]
        raise ValueError(f"a prompt needs the key prompt or prompt_token_ids, found {sorted(map(str, prompt))}")
    return [int(token) for token in prompt]
