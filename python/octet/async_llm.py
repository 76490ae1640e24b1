"""AsyncLLM: a model to serve from an asyncio program. vLLM's class under octet's name."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from . import _octet
from .llm import LLM, Message, PromptType, _prompt_value
from .outputs import RequestOutput, from_native
from .sampling_params import RequestOutputKind, SamplingParams
from .tokenizer import Tokenizer


class AsyncEngineArgs:
    """LLM's arguments, kept for AsyncLLM.from_engine_args."""

    def __init__(self, model: str, **arguments: Any) -> None:
        self.model, self.arguments = model, arguments


class AsyncLLM:
    """Takes LLM's arguments; loading blocks.

    ``async for output in engine.generate(prompt, sampling_params, request_id)`` gives the request's state whenever there is
    news since the last one: a slow reader gets fewer and larger pieces, and holds up nobody. All of an engine's requests run
    in one event loop. Ending the loop over ``generate`` early, or cancelling its task, ends the request.
    """

    def __init__(self, model: str, **arguments: Any) -> None:
        self._llm: LLM | None = _ServingLLM(model, **arguments)
        self._mailbox = _octet.OutputMailbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[int, _Stream] = {}
        self._keys = itertools.count()

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs) -> AsyncLLM:
        return cls(engine_args.model, **engine_args.arguments)

    async def generate(self, prompt: PromptType, sampling_params: SamplingParams | None = None, request_id: str | None = None, *,
                       priority: int = 0) -> AsyncGenerator[RequestOutput, None]:
        """Continues a prompt. sampling_params.output_kind says what each output holds: everything so far (the default), what is
        new, or everything once at the end. Raises ValueError for a request that cannot be, OctetError when the engine
        ends it with an error."""
        async for output in self._run(_prompt_value(prompt), None, sampling_params, request_id, priority):
            yield output

    async def chat(self, messages: Sequence[Message], sampling_params: SamplingParams | None = None, request_id: str | None = None, *,
                   add_generation_prompt: bool = True, tools: Sequence[Mapping[str, Any]] | None = None,
                   chat_template_kwargs: Mapping[str, Any] | None = None, priority: int = 0) -> AsyncGenerator[RequestOutput, None]:
        """Answers a conversation, as LLM.chat does. Special tokens spelled in messages stay text."""
        text, ids = self._running()._native.chat_prompt(json.dumps(list(messages)), json.dumps(list(tools)) if tools else "",
                                                add_generation_prompt,
                                                json.dumps(dict(chat_template_kwargs)) if chat_template_kwargs else "")
        async for output in self._run(ids, text, sampling_params, request_id, priority):
            yield output

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """Ends requests: their last output has the finish reason "abort". Unknown ids are of no matter."""
        ids = {request_id} if isinstance(request_id, str) else set(request_id)
        for stream in self._streams.values():
            if stream.request_id in ids:
                self._abort(stream)

    async def check_health(self) -> None:
        """Raises OctetError when the engine has stopped."""
        if fault := _octet.fault(self._running()._native):
            raise _octet.OctetError(f"the engine has stopped: {fault}")

    async def get_tokenizer(self) -> Tokenizer:
        return self._running().get_tokenizer()

    async def reset_prefix_cache(self) -> None:
        self._running().reset_prefix_cache()

    def get_default_sampling_params(self) -> SamplingParams:
        return self._running().get_default_sampling_params()

    def report(self) -> dict[str, Any]:
        return self._running().report()

    @property
    def is_running(self) -> bool:
        return self._llm is not None and _octet.fault(self._llm._native) is None

    def shutdown(self) -> None:
        """Ends the engine, and every request with OctetError. To be called in the event loop's thread, or after it."""
        if self._llm is None:
            return
        for stream in self._streams.values():
            self._abort(stream)
            stream.fail(_octet.OctetError("the engine was shut down"))
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._mailbox.fileno())
        self._loop = self._llm = None

    def __enter__(self) -> AsyncLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    async def _run(self, prompt: str | list[int], text: str | None, sampling_params: SamplingParams | None,
                   request_id: str | None, priority: int) -> AsyncGenerator[RequestOutput, None]:
        llm = self._running()
        self._listen()
        params = sampling_params or self.get_default_sampling_params()
        stream = _Stream(request_id or f"cmpl-{uuid.uuid4().hex}", text, params, llm._decode_token)
        if any(other.request_id == stream.request_id for other in self._streams.values()):
            raise ValueError(f"request_id {stream.request_id!r} is in use")
        key = next(self._keys)
        self._streams[key] = stream
        try:
            # In a thread: tokenising and compiling a grammar take time, and a full queue waits.
            started = asyncio.get_running_loop().run_in_executor(None, _octet.submit, llm._native, self._mailbox, key, prompt,
                                                                 stream.native_params, priority)
            started.add_done_callback(lambda future: self._started(stream, future))
            await asyncio.shield(started)
            while not stream.finished:
                output = await stream.next()
                if stream.kind is not RequestOutputKind.FINAL_ONLY or stream.finished:
                    yield output
        finally:
            self._streams.pop(key, None)
            if not stream.finished:
                self._abort(stream)

    def _running(self) -> LLM:
        if self._llm is None:
            raise _octet.OctetError("the engine was shut down")
        return self._llm

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed() and self._streams:
            raise RuntimeError("AsyncLLM: its requests run in another event loop")
        self._loop = loop
        loop.add_reader(self._mailbox.fileno(), self._take)

    def _take(self) -> None:
        for key, news in self._mailbox.take():
            if stream := self._streams.get(key):
                stream.add(news)

    def _started(self, stream: _Stream, future: asyncio.Future[str]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        stream.engine_id = future.result()
        if stream.aborted:  # while it was being submitted
            self._abort(stream)

    def _abort(self, stream: _Stream) -> None:
        stream.aborted = True
        if self._llm is not None and stream.engine_id is not None:
            _octet.abort(self._llm._native, stream.engine_id)


AsyncLLMEngine = AsyncLLM


class _ServingLLM(LLM):
    _offline = False


class _Stream:
    """One request's outputs between the engine and the reader."""

    def __init__(self, request_id: str, prompt: str | None, params: SamplingParams, decode: Any) -> None:
        self.request_id, self.kind, self.native_params = request_id, params.output_kind, params._native()
        self.engine_id: str | None = None
        self.aborted = self.finished = False
        self._prompt, self._decode = prompt, decode
        self._whole: RequestOutput | None = None
        self._new: list[_octet.RequestOutput] = []
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def add(self, news: _octet.RequestOutput) -> None:
        self._new.append(news)
        self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._news.set()

    async def next(self) -> RequestOutput:
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            self.finished = True
            raise self._error
        news, self._new = self._new, []
        self.finished = news[-1].finished
        delta: RequestOutput | None = None
        for native in news:
            added = from_native(native, self.native_params, self._decode)
            delta = added if delta is None else _joined(delta, added)
        assert delta is not None
        self._whole = delta if self._whole is None else _joined(self._whole, delta)
        result = delta if self.kind is RequestOutputKind.DELTA else self._whole
        return dataclasses.replace(result, request_id=self.request_id, prompt=self._whole.prompt if self._prompt is None else self._prompt,
                                   prompt_token_ids=self._whole.prompt_token_ids)


def _joined(before: RequestOutput, added: RequestOutput) -> RequestOutput:
    outputs = {output.index: output for output in before.outputs}
    for new in added.outputs:
        old = outputs.get(new.index)
        outputs[new.index] = new if old is None else dataclasses.replace(
            new, text=old.text + new.text, token_ids=old.token_ids + new.token_ids,
            logprobs=old.logprobs + new.logprobs if old.logprobs is not None and new.logprobs is not None else None)
    return dataclasses.replace(before, outputs=[outputs[index] for index in sorted(outputs)], finished=added.finished,
                               metrics=added.metrics, num_cached_tokens=added.num_cached_tokens)
