"""StructuredOutputsParams: what form an answer must have, under vLLM's names."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Mapping, Sequence
from typing import Any

from . import _octet


@dataclasses.dataclass
class StructuredOutputsParams:
    """Exactly one of the fields. The answer then has that form, unless it is cut off by max_tokens.

    ``json``: a JSON schema, as a mapping, as text, or as a pydantic model. ``regex``: the whole answer matches. ``choice``: it is
    one of these. ``grammar``: EBNF as GBNF writes it, the first rule "root". ``json_object``: any JSON object.
    ``structural_tag``: xgrammar's, as text or a mapping.
    """

    json: str | Mapping[str, Any] | type | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name)]
        if self.json is not None and "json" not in given:
            given.append("json")  # {} allows any JSON
        if len(given) != 1:
            raise ValueError("StructuredOutputsParams: give exactly one of json, regex, choice, grammar, json_object, structural_tag; "
                             f"found {', '.join(given) or 'none'}")

    def _apply(self, native: _octet.SamplingParams) -> None:
        if self.json is not None:
            native.set_grammar("json_schema", _schema_text(self.json))
        elif self.regex:
            native.set_grammar("regex", self.regex)
        elif self.choice:
            native.set_choice([str(choice) for choice in self.choice])
        elif self.grammar:
            native.set_grammar("ebnf", self.grammar)
        elif self.structural_tag:
            native.set_grammar("structural_tag", _schema_text(self.structural_tag))
        else:
            native.set_grammar("json", "")


def _schema_text(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    return json_module.dumps(dict(schema))


GuidedDecodingParams = StructuredOutputsParams  # vLLM's older name
