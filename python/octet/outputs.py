"""What generation returns, under vLLM's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from . import _octet


@dataclasses.dataclass
class Logprob:
    """Of one token at one position; rank 1 is the most likely."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclasses.dataclass
class RequestMetrics:
    """Seconds on the steady clock; 0 when it did not happen."""

    arrival_time: float
    first_scheduled_time: float
    first_token_time: float
    last_token_time: float


@dataclasses.dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclasses.dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics
    num_cached_tokens: int = 0


@dataclasses.dataclass
class EmbeddingOutput:
    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


@dataclasses.dataclass
class EmbeddingRequestOutput:
    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    finished: bool = True


Decode = Callable[[int], "str | None"]


def _positions(positions: list[list[_octet.TokenLogprob]], decode: Decode) -> list[dict[int, Logprob] | None]:
    return [
        {t.token_id: Logprob(t.logprob, t.rank, decode(t.token_id)) for t in position} if position else None
        for position in positions
    ]


def _completion(native: _octet.CompletionOutput, with_logprobs: bool, decode: Decode) -> CompletionOutput:
    if native.finish_reason == "error":
        raise _octet.OctetError(native.error)
    return CompletionOutput(
        index=native.index,
        text=native.text,
        token_ids=native.token_ids,
        cumulative_logprob=native.cumulative_logprob if with_logprobs else None,
        logprobs=[position or {} for position in _positions(native.logprobs, decode)] if with_logprobs else None,
        finish_reason=native.finish_reason or None,
        stop_reason=native.stop_reason,
    )


def from_native(native: _octet.RequestOutput, params: _octet.SamplingParams, decode: Decode) -> RequestOutput:
    """The Python form of a finished request. Raises OctetError when the engine ended it with an error."""
    return RequestOutput(
        request_id=native.request_id,
        prompt=native.prompt,
        prompt_token_ids=native.prompt_token_ids,
        prompt_logprobs=_positions(native.prompt_logprobs, decode) if params.prompt_logprobs is not None else None,
        outputs=[_completion(output, params.logprobs is not None, decode) for output in native.outputs],
        finished=native.finished,
        metrics=RequestMetrics(native.arrival_us / 1e6, native.first_scheduled_us / 1e6, native.first_token_us / 1e6,
                               native.last_token_us / 1e6),
        num_cached_tokens=native.num_cached_tokens,
    )
