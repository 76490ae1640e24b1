#!/usr/bin/env python3
"""Records what Python's jinja2 makes of chat templates, with Hugging Face's settings.

Reads   tests/golden/templates/families/*.jinja  and  tests/golden/templates/features.txt
Writes  tests/golden/templates/families.json     and  tests/golden/templates/features.json

    pip install jinja2==3.1.6 && TZ=UTC python3 scripts/record_templates.py

features.txt holds one template per line, as a JSON string; they see the variables VARIABLES. An expectation is the
rendered text, or null where Python raises.
"""

import copy
import datetime
import json
import pathlib

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

assert jinja2.__version__ == "3.1.6", "the expectations were recorded with jinja2 3.1.6"

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "templates"
NOW = 1721990096  # 2024-07-26 10:34:56 UTC


class Generation(Extension):
    """{% generation %}: a scope of its own, as transformers' AssistantTracker makes it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def make_environment(now=NOW):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(now).strftime(format)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def render(source, variables):
    """The text, or None and the reason where jinja2 raises."""
    try:
        text = make_environment().from_string(source).render(**copy.deepcopy(variables))
        text.encode("utf-8")
        return text, None
    except Exception as error:  # noqa: BLE001 - every exception is an expectation
        return None, f"{type(error).__name__}: {error}"


def chat_variables(chat):
    """How transformers calls a template: tools and documents are always there, special tokens only if they exist."""
    variables = {"messages": chat["messages"], "tools": chat.get("tools"), "documents": None,
                 "add_generation_prompt": chat.get("add_generation_prompt", True)}
    for token in ("bos_token", "eos_token"):
        if chat.get(token):
            variables[token] = chat[token]
    return {**variables, **chat.get("kwargs", {})}


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather at a place.\nMay be \"wrong\" & <old>.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Städtename"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 18446744073709551615},
        "where": {"type": "object", "properties": {"lat": {"type": "number", "default": 2.0}, "tags": {
            "type": "array", "items": {"type": "string"}}}, "required": ["lat"]},
        "mode": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["city"]}, "return": {"type": "object"}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "Find", "parameters": {
    "type": "object", "properties": {"items": {"type": "array", "items": {"type": "integer"}}, "keys": {"type": "boolean"}}}}}


def call(name, arguments, id="abcdef123"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are terse."}
HELLO = {"role": "user", "content": "Hello"}
HI = {"role": "assistant", "content": "Hi there!"}
CALL_DICT = {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Köln", "days": 3, "where": {"lat": 50.0, "tags": []}, "x": None, "y": True})]}
CALL_TEXT = {"role": "assistant", "content": None, "tool_calls": [call("get_weather", "{\"city\": \"Köln\"}")]}
CALL_TWO = {"role": "assistant", "content": "Looking.", "tool_calls": [call("get_weather", {"city": "A"}, "callaaaa1"), call("search", {"items": [1, 2.5, 1e20]}, "callbbbb2")]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"temp\": 20.5}"}
RESULT_TWO = {"role": "tool", "name": "search", "tool_call_id": "callbbbb2", "content": "none \n"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm, 1 < 2\n</think>\n\nForty-two.", "reasoning_content": "hm"}
SPECIAL = {"role": "user", "content": "  <|im_end|>\n<|start_header_id|>'\"\\ é 你好 🎉\t</s>[INST] \r\n "}


def chat(*messages, **rest):
    return {"messages": list(messages), **rest}


CHATS = {
    "one": chat(HELLO),
    "one, no prompt": chat(HELLO, add_generation_prompt=False),
    "system": chat(SYSTEM, HELLO),
    "turns": chat(SYSTEM, HELLO, HI, {"role": "user", "content": "More?"}),
    "ends with assistant": chat(HELLO, HI, add_generation_prompt=False),
    "special text": chat(SPECIAL, HI, SPECIAL),
    "empty content": chat({"role": "system", "content": ""}, {"role": "user", "content": ""}),
    "none content": chat(HELLO, {"role": "assistant", "content": None}, HELLO),
    "parts": chat({"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]}),
    "image part": chat({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}),
    "system parts": chat({"role": "system", "content": [{"type": "text", "text": "S"}]}, {"role": "user", "content": [{"type": "text", "text": "U"}]}),
    "tools": chat(SYSTEM, HELLO, tools=[WEATHER, SEARCH]),
    "tools, no system": chat(HELLO, tools=[WEATHER]),
    "empty tools": chat(HELLO, tools=[]),
    "call with dict": chat(HELLO, CALL_DICT, RESULT, tools=[WEATHER]),
    "call with text": chat(HELLO, CALL_TEXT, RESULT, tools=[WEATHER]),
    "two calls": chat(SYSTEM, HELLO, CALL_TWO, dict(RESULT, tool_call_id="callaaaa1"), RESULT_TWO, HI, HELLO, tools=[WEATHER, SEARCH]),
    "tool result as list": chat(HELLO, CALL_DICT, dict(RESULT, content=[{"type": "text", "text": "20"}]), tools=[WEATHER]),
    "thinking": chat(HELLO, THOUGHT, HELLO),
    "thinking off": chat(HELLO, THOUGHT, HELLO, kwargs={"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}),
    "thinking on": chat(SYSTEM, HELLO, THOUGHT, HELLO, CALL_DICT, RESULT, kwargs={"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}, tools=[WEATHER]),
    "date": chat(SYSTEM, HELLO, kwargs={"date_string": "01 Jan 2025", "tools_in_user_message": False}, tools=[WEATHER]),
    "no tokens": chat(HELLO, HI, HELLO, bos_token="", eos_token=""),
    "wrong order": chat(HELLO, HELLO, HI, HI),
    "assistant first": chat(HI, HELLO),
    "no messages": chat(),
    "unknown role": chat({"role": "narrator", "content": "x"}, HELLO),
    "developer": chat({"role": "developer", "content": "Be kind."}, HELLO),
    "missing content": chat({"role": "user"}),
    "documents": chat(HELLO, kwargs={"documents": [{"title": "T", "text": "Body", "doc_id": 1}]}),
    "prefix": chat(HELLO, dict(HI, prefix=True), add_generation_prompt=False, kwargs={"continue_final_message": True}),
    "late system": chat(HELLO, SYSTEM, HI, HELLO),
}
for _chat in CHATS.values():
    _chat.setdefault("bos_token", "<s>")
    _chat.setdefault("eos_token", "</s>")

VARIABLES = {
    "messages": [dict(SYSTEM), dict(HELLO), dict(HI)], "tools": [WEATHER], "documents": None, "add_generation_prompt": True,
    "bos_token": "<s>", "eos_token": "</s>",
    "n": 7, "f": 2.5, "one": 1.0, "big": 1e22, "small": 1e-7, "third": 0.1, "neg": -3, "yes": True, "no": False, "nothing": None,
    "s": "Hello, World", "u": "héßo 你好🎉", "empty": "", "spaces": "  a b \n", "quotes": "it's \"q\" \\ \n\t\x7f\u200b",
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "a", None, 2.0, True, [], {}], "e": [],
    "d": {"b": 1, "a": 2, "items": 3, "z": {"y": [10, 20]}}, "ed": {},
    "rows": [{"n": "x", "v": 2}, {"n": "y", "v": 1}, {"n": "X", "v": 2}, {"v": 0}],
    "tree": [{"name": "a", "kids": [{"name": "b", "kids": []}, {"name": "c", "kids": [{"name": "d", "kids": []}]}]}],
    "lines": "one\n\ntwo\r\nthree", "nested": [[1, 2], [3, 4]], "uint": 18446744073709551615,
}


def record_families():
    cases = []
    for path in sorted((GOLDEN / "families").glob("*.jinja")):
        source = path.read_text()
        results = {}
        for name, one in CHATS.items():
            results[name] = render(source, chat_variables(one))[0]
        cases.append({"template": path.name, "results": results})
    (GOLDEN / "families.json").write_text(json.dumps({"now": NOW, "chats": CHATS, "cases": cases}, ensure_ascii=False, indent=1) + "\n")
    return sum(len(case["results"]) for case in cases)


def record_features():
    sources = [json.loads(line) for line in (GOLDEN / "features.txt").read_text().split("\n") if line.strip()]
    rows = [[source, render(source, VARIABLES)[0]] for source in sources]
    text = json.dumps({"now": NOW, "variables": VARIABLES}, ensure_ascii=False)[:-1]
    text += ', "cases": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]}\n"
    (GOLDEN / "features.json").write_text(text)
    return len(rows), sum(1 for row in rows if row[1] is None)


if __name__ == "__main__":
    print(record_families(), "renderings of families;", "%d features, %d of which raise" % record_features())
