"""SamplingParams: how a request's tokens are chosen, with vLLM's names and defaults."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence

from . import _octet
from .structured_outputs import StructuredOutputsParams


class RequestOutputKind(enum.Enum):
    """What each output of AsyncLLM.generate holds."""

    CUMULATIVE = 0  # everything so far
    DELTA = 1  # what is new since the last
    FINAL_ONLY = 2  # everything, once


@dataclasses.dataclass
class SamplingParams:
    """Values are checked against the model's vocabulary when a request is made (ValueError names the field).

    ``temperature`` below 1e-5 is greedy. ``top_k`` 0 or -1 means all. ``logprobs`` k reports the sampled token and the k
    most likely ones; -1 the whole vocabulary. ``max_tokens`` None goes on to the end of the context.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None  # vLLM's older name of it
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE  # AsyncLLM's; LLM returns everything at the end

    def _native(self) -> _octet.SamplingParams:
        native = _octet.SamplingParams()
        for name in ("n", "presence_penalty", "frequency_penalty", "repetition_penalty", "temperature", "top_p", "top_k", "min_p",
                     "seed", "include_stop_str_in_output", "ignore_eos", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs",
                     "detokenize", "skip_special_tokens"):
            try:
                setattr(native, name, getattr(self, name))
            except TypeError as error:
                raise TypeError(f"SamplingParams.{name}: {getattr(self, name)!r} has the wrong type") from error
        native.stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        native.stop_token_ids = list(self.stop_token_ids or [])
        native.logit_bias = {int(token): float(bias) for token, bias in (self.logit_bias or {}).items()}
        native.allowed_token_ids = list(self.allowed_token_ids or [])
        if self.structured_outputs and self.guided_decoding:
            raise ValueError("SamplingParams: structured_outputs and guided_decoding are one thing; give one of them")
        if form := self.structured_outputs or self.guided_decoding:
            form._apply(native)
        return native

    @classmethod
    def _from_native(cls, native: _octet.SamplingParams) -> SamplingParams:
        return cls(temperature=native.temperature, top_p=native.top_p, top_k=native.top_k, min_p=native.min_p,
                   repetition_penalty=native.repetition_penalty, max_tokens=native.max_tokens)
