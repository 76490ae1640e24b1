"""The model's tokenizer, as LLM.get_tokenizer() gives it."""

from __future__ import annotations

from collections.abc import Sequence

from . import _octet


class Tokenizer:
    """Text to token ids and back, with the ids that Hugging Face's tokenizers give."""

    def __init__(self, native: _octet.Llm) -> None:
        self._native = native

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._native.encode(text, add_special_tokens)

    def decode(self, token_ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        return self._native.decode(ids, skip_special_tokens)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self._native.token_to_id(token)

    @property
    def vocab_size(self) -> int:
        return self._native.vocab_size()

    def __len__(self) -> int:
        return self._native.vocab_size()
