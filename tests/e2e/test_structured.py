"""Structured output and forced tool calls on the real SmolLM2, asked by the real `openai` client."""
import json
import re
import time
from typing import Literal

import pydantic
import pytest
from serving import Server, openai_client

QUESTION = [{"role": "user", "content": "Tell me about the city of Paris."}]
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "get_time", "parameters": {
        "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"], "additionalProperties": False}}}]
# SmolLM2's own, with a form of calls.
HERMES = ("{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}\nCall them as <tool_call>{...}</tool_call><|im_end|>\n{% endif %}"
          "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


class City(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=16)
    kind: Literal["village", "town", "capital"]
    inhabitants: int = pydantic.Field(ge=0, le=99999999)
    rivers: list[Literal["Seine", "Marne"]] = pydantic.Field(max_length=2)


def peak_kib(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 16, "--max-model-len", 1024)
    server.ready_kib = peak_kib(server)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def client(server):
    return openai_client(server)


@pytest.fixture(scope="module")
def hermes(octet, model, tmp_path_factory):
    template = tmp_path_factory.mktemp("structured") / "hermes.jinja"
    template.write_text(HERMES)
    server = Server(octet.program, model, "--max-num-seqs", 4, "--max-model-len", 1024, "--chat-template", template)
    yield openai_client(server)
    assert server.stop() == 0, server.text_of_log()


def chat(client, **options):
    return client.chat.completions.create(**{"model": "smol", "messages": QUESTION, "max_tokens": 300, "seed": 1} | options)


def structured(client, max_tokens=200, **outputs):
    answer = client.completions.create(model="smol", prompt="The answer is", max_tokens=max_tokens, temperature=1.0, seed=3,
                                       extra_body={"structured_outputs": outputs})
    return answer.choices[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_parse_gives_a_pydantic_model(client, temperature):
    answer = client.chat.completions.parse(model="smol", messages=QUESTION, response_format=City, max_tokens=400, seed=5,
                                           temperature=temperature)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, City)


def test_stream_gives_the_same(client):
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema(), "strict": True}}
    whole = chat(client, response_format=form, temperature=0).choices[0]
    chunks = list(chat(client, response_format=form, temperature=0, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    City.model_validate_json(whole.message.content)


def test_json_object(client):
    answer = chat(client, response_format={"type": "json_object"}, temperature=0.8, max_tokens=80)
    if answer.choices[0].finish_reason == "stop":  # else it is the beginning of one
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    assert answer.choices[0].message.content.startswith("{")
    assert not re.search(r"\s{10}", answer.choices[0].message.content)


@pytest.mark.parametrize("pattern", [r"[A-Z]{3}-\d{4}", r"(yes|no), (\d{1,2})%", r"\w{1,8}@\w{1,8}\.(com|org)", "é[äöü]{2}日本"])
def test_regex(client, pattern):
    choice = structured(client, regex=pattern)
    assert choice.finish_reason == "stop"
    assert re.fullmatch(pattern, choice.text), choice.text


def test_choice_and_grammar(client):
    choices = ["positive", "negative", 'a "quoted" \\ one', "line\nbreak"]
    for seed in range(4):
        answer = client.completions.create(model="smol", prompt="I am", max_tokens=20, temperature=1.9, seed=seed,
                                           extra_body={"guided_choice": choices})
        assert answer.choices[0].text in choices and answer.choices[0].finish_reason == "stop"
    ebnf = 'root ::= "SELECT " column (", " column){0,2} " FROM t;"\ncolumn ::= [a-c]'
    assert re.fullmatch(r"SELECT [a-c](, [a-c]){0,2} FROM t;", structured(client, grammar=ebnf).text)


def test_an_end_is_where_the_grammar_ends(client):
    """Not before, whatever min_tokens and ignore_eos say after."""
    answer = client.completions.create(model="smol", prompt="The answer is", max_tokens=50, temperature=1.0,
                                       extra_body={"guided_regex": "[ab]{5}", "min_tokens": 40, "ignore_eos": True})
    assert re.fullmatch("[ab]{5}", answer.choices[0].text) and answer.choices[0].finish_reason == "stop"


def test_each_of_n_has_its_own_place(client):
    answer = client.completions.create(model="smol", prompt="The answer is", max_tokens=60, temperature=1.5, seed=2, n=8, logprobs=2,
                                       extra_body={"guided_regex": "([a-z]{2,5} ){2}[0-9]{1,3}!"})
    texts = [choice.text for choice in answer.choices]
    assert all(re.fullmatch("([a-z]{2,5} ){2}[0-9]{1,3}!", text) for text in texts), texts
    assert len(set(texts)) > 1


@pytest.mark.parametrize("template", ["client", "hermes"])
@pytest.mark.parametrize("choice", ["required", "get_time"])
def test_forced_calls(request, template, choice):
    client = request.getfixturevalue(template)
    named = choice != "required"
    options = {"tools": TOOLS, "temperature": 1.0, "parallel_tool_calls": False,
               "tool_choice": {"type": "function", "function": {"name": choice}} if named else choice}
    whole = chat(client, **options).choices[0]
    assert whole.finish_reason == ("stop" if named else "tool_calls") and not whole.message.content
    (call,) = whole.message.tool_calls
    arguments = json.loads(call.function.arguments)
    if call.function.name == "get_time":
        assert arguments["zone"] in ("UTC", "CET")
    else:
        assert not named and 1 <= arguments["days"] <= 9 and len(arguments["city"]) <= 12
    chunks = [chunk.choices[0] for chunk in chat(client, **options, stream=True)]
    calls = [delta for chunk in chunks for delta in chunk.delta.tool_calls or []]
    assert calls[0].function.name == call.function.name and calls[0].id
    assert all(delta.function.name is None and delta.index == 0 for delta in calls[1:])
    assert "".join(delta.function.arguments for delta in calls) == call.function.arguments
    assert len(calls) > 3  # arguments come while they are written
    assert chunks[-1].finish_reason == whole.finish_reason


def test_several_forced_calls(hermes):
    for seed in range(6):
        answer = chat(hermes, tools=TOOLS, tool_choice="required", temperature=1.5, seed=seed, max_tokens=400).choices[0]
        for call in answer.message.tool_calls[:-1]:
            json.loads(call.function.arguments)
        assert len({call.id for call in answer.message.tool_calls}) == len(answer.message.tool_calls)
        if len(answer.message.tool_calls) > 1:
            return
    pytest.fail("no seed gave two calls")


BAD = {
    "guided_json": [7, "{", {"type": 5}, {"type": "nonsense"}, {"properties": []}, {"$ref": "#/nowhere"}, {"$ref": "http://x"},
                    {"not": {}}, {"type": "array", "uniqueItems": True}, {"type": "string", "pattern": "("}, {"type": "string", "pattern": "(?=x)a"},
                    {"minItems": 10**9}, {"type": "string", "minLength": 10**7}, {"enum": []}],
    "guided_regex": ["(", "[", "a{3,1}", "\\b", "(?<=a)b", "(a)\\1", "((((a{100}){100}){100}){100})", "x" * 20000, ""],
    "guided_grammar": ["root ::=", "nothing", "root ::= missing", "(" * 5000, 'root ::= "a"{1,1000000}', ""],
    "guided_choice": [[], "a", [1], [""]],
    "structured_outputs": [{}, {"json": {}, "regex": "a"}, {"json_object": 1}, 5],
    "response_format": [{"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}, {"type": "x"},
                        {"type": "json_schema", "json_schema": {"schema": {"type": "array", "contains": {}}}},
                        {"type": "structural_tag", "format": {"type": "what"}}, {"type": "structural_tag"}],
}


@pytest.mark.parametrize("field", BAD)
def test_bad_grammars_are_refused_by_name(server, field):
    for value in BAD[field]:
        start = time.monotonic()
        status, body = server.post("/v1/completions", {"prompt": "x", "max_tokens": 4, field: value})
        assert status == 400, (field, str(value)[:200], body)
        assert body["error"]["param"].startswith(field), body
        assert time.monotonic() - start < 1.5, (field, str(value)[:200])
    assert server.get("/health")[0] == 200


HOSTILE = [
    {"guided_regex": "(a|b)*a(a|b){25}"}, {"guided_regex": "(a+)+$"}, {"guided_regex": "((a*)*)*b"}, {"guided_regex": "(.{0,2000}x){3}"},
    {"guided_regex": "[a-z]{1,8000}"}, {"guided_regex": "(" + "|".join(f"w{i}.*" for i in range(800)) + ")"},
    {"guided_json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"guided_json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1500)}}},
    {"guided_json": {"type": "array", "items": {"type": "string", "minLength": 2000, "maxLength": 8000}, "minItems": 500, "maxItems": 2000}},
    {"guided_json": {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {"type": "integer"} for j in range(6)}} for i in range(200)]}},
    {"guided_json": {"type": "array", "items": {"$ref": "#"}}},
    {"guided_grammar": "root ::= root root | \"a\" | \"\""}, {"guided_grammar": "root ::= root"},
    {"guided_grammar": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(40)) + 'a40 ::= "x"'},
    {"guided_grammar": "root ::= a0\n" + "".join(f"a{i} ::= a{i + 1}\n" for i in range(5000)) + 'a5000 ::= "x"'},
    {"guided_choice": [f"choice number {i}" for i in range(5000)]},
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: str(body)[:40])
def test_hostile_grammars_never_hang(server, body):
    start = time.monotonic()
    status, answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 3, **body})
    assert status in (200, 400), answer
    assert time.monotonic() - start < 20, "too long"
    assert server.get("/health")[0] == 200


def test_an_ambiguous_grammar_ends_alone(server, client):
    """Each of its tokens takes a multiple of the one before: its request fails, others go on."""
    grammar = 'root ::= a a a a\na ::= b b b b\nb ::= c c c c\nc ::= "" | [a-z] | d\nd ::= root'
    body = {"prompt": "x", "max_tokens": 400, "guided_grammar": grammar, "seed": 1}
    server.wait_for(lambda: server.post("/v1/completions", body | {"max_tokens": 1})[0] == 200, timeout=60)  # compiled
    start = time.monotonic()
    status, answer = server.post("/v1/completions", body)
    assert status == 500 and "grammar" in answer["error"]["message"], answer
    assert time.monotonic() - start < 20
    assert structured(client, choice=["yes"]).text == "yes"


def test_hostile_grammars_leave_memory_alone(server):
    """After all the tests above."""
    assert peak_kib(server) < server.ready_kib + (1 << 20)
