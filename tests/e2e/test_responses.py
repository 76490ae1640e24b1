"""POST /v1/responses on the real SmolLM2, asked by the real `openai` client; bodies and events are validated by its models."""
import json
from typing import Literal, get_args

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from serving import Server, openai_client
from test_structured import HERMES

QUESTION = "What is the capital of France?"
TOOLS = [{"type": "function", "name": "get_weather", "description": "The weather of a city", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}},
         {"type": "function", "name": "get_time", "strict": False, "parameters": {
             "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"], "additionalProperties": False}}]
THINKING = HERMES.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
EVENTS = {get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(ResponseStreamEvent)[0])}


class Capital(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    capital: Literal["Paris", "Rome"]


@pytest.fixture(scope="module")
def server(octet, model, tmp_path_factory):
    template = tmp_path_factory.mktemp("responses") / "hermes.jinja"
    template.write_text(HERMES)
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 1024, "--chat-template", template)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def client(server):
    return openai_client(server)


def ask(client, **options):
    return client.responses.create(**{"model": "smol", "input": QUESTION, "max_output_tokens": 24, "temperature": 0} | options)


def chat(client, messages, **options):
    return client.chat.completions.create(**{"model": "smol", "messages": messages, "max_tokens": 24, "temperature": 0} | options)


def user(text):
    return {"role": "user", "content": text}


def test_says_what_the_chat_route_says(client):
    answer, same = ask(client), chat(client, [user(QUESTION)])
    assert answer.output_text == same.choices[0].message.content
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.model == "smol"
    assert [item.type for item in answer.output] == ["message"]
    assert answer.status == {"stop": "completed", "length": "incomplete"}[same.choices[0].finish_reason]
    assert answer.usage.input_tokens == same.usage.prompt_tokens
    assert answer.usage.output_tokens == same.usage.completion_tokens
    assert answer.usage.total_tokens == same.usage.total_tokens
    assert answer._request_id


def test_is_cut_off(client):
    answer = ask(client, max_output_tokens=3)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete" and answer.usage.output_tokens == 3


def test_body_is_as_the_client_defines_it(server):
    status, body = server.post("/v1/responses", {
        "model": "smol", "input": QUESTION, "max_output_tokens": 5, "temperature": 0, "instructions": "Be brief.", "metadata": {"a": "b"},
        "store": True, "tools": TOOLS, "tool_choice": "none", "reasoning": {"effort": "low"}, "user": "u", "unheard_of": 1,
        "include": ["message.output_text.logprobs"], "top_logprobs": 2})
    assert status == 200, body
    answer = Response.model_validate(body, strict=True)
    assert (answer.instructions, answer.metadata, answer.max_output_tokens) == ("Be brief.", {"a": "b"}, 5)
    assert (body["store"], answer.previous_response_id, answer.tool_choice) == (False, None, "none")
    assert [tool.name for tool in answer.tools] == ["get_weather", "get_time"] and answer.reasoning.effort == "low"
    logprobs = answer.output[0].content[0].logprobs
    assert len(logprobs) == 5 and all(len(token.top_logprobs) == 2 for token in logprobs)
    assert "".join(token.token for token in logprobs) == answer.output_text


def test_items_are_the_messages_of_a_chat(client):
    items = [{"role": "developer", "content": "Answer in one word."},
             {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
             {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
              "content": [{"type": "output_text", "text": "Hi!", "annotations": []}]},
             user(QUESTION)]
    messages = [{"role": "system", "content": "Be kind."}, {"role": "system", "content": "Answer in one word."}, user("Hello"),
                {"role": "assistant", "content": "Hi!"}, user(QUESTION)]
    assert ask(client, input=items, instructions="Be kind.").output_text == chat(client, messages).choices[0].message.content


def test_streams_the_same(client, server):
    whole = ask(client)
    with client.responses.stream(model="smol", input=QUESTION, max_output_tokens=24, temperature=0) as stream:
        kinds = [event.type for event in stream]
    raw = list(ask(client, stream=True))
    ends = {"completed": "response.completed", "incomplete": "response.incomplete"}[whole.status]
    assert raw[-1].type == ends and raw[-1].response.output_text == whole.output_text
    assert raw[-1].response.usage.output_tokens == whole.usage.output_tokens
    assert "".join(event.delta for event in raw if event.type == "response.output_text.delta") == whole.output_text
    assert [event.sequence_number for event in raw] == list(range(len(raw)))
    without_deltas = [event.type for event in raw if not event.type.endswith(".delta")]
    assert without_deltas == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                              "response.output_text.done", "response.content_part.done", "response.output_item.done", ends]
    assert [kind for kind in kinds if not kind.endswith(".delta")] == without_deltas
    assert len({raw[0].response.id, raw[-1].response.id}) == 1


def test_events_are_as_the_client_defines_them(server):
    for more in ({}, {"tools": TOOLS, "tool_choice": "required", "max_output_tokens": 200},
                 {"include": ["message.output_text.logprobs"], "top_logprobs": 1}):
        body = {"model": "smol", "input": QUESTION, "max_output_tokens": 8, "temperature": 0, "stream": True} | more
        status, text = server.post("/v1/responses", body)
        assert status == 200, text
        for block in text.strip().split("\n\n"):
            name, data = block.split("\n")
            kind = name.removeprefix("event: ")
            assert EVENTS[kind].model_validate_json(data.removeprefix("data: ")).type == kind


def test_answers_in_a_form(client):
    answer = client.responses.parse(model="smol", input=QUESTION, text_format=Capital, max_output_tokens=40, temperature=0)
    assert answer.output_parsed.capital in ("Paris", "Rome") and answer.status == "completed"
    with client.responses.stream(model="smol", input=QUESTION, text_format=Capital, max_output_tokens=40, temperature=0) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == answer.output_parsed
    loose = ask(client, text={"format": {"type": "json_object"}}, max_output_tokens=200)
    if loose.status == "completed":
        json.loads(loose.output_text)


def check_call(item):
    assert item.type == "function_call" and item.call_id.startswith("call_") and item.status == "completed"
    given = json.loads(item.arguments)
    if item.name == "get_time":
        assert given["zone"] in ("UTC", "CET")
    else:
        assert item.name == "get_weather" and 1 <= given["days"] <= 9 and set(given) == {"city", "days"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_time"}])
def test_calls_tools(client, choice):
    options = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False, "max_output_tokens": 200, "temperature": 1.0}
    answer = ask(client, **options)
    assert answer.status == "completed" and len(answer.output) == 1
    check_call(answer.output[0])
    with client.responses.stream(model="smol", input=QUESTION, **options) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    check_call(final.output[0])
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
    if isinstance(choice, dict):
        assert answer.output[0].name == "get_time"
    # The items of a turn come back in the next one, with their results.
    results = [{"type": "function_call_output", "call_id": item.call_id, "output": "12:00"} for item in answer.output]
    again = ask(client, input=[user(QUESTION), *answer.output, *results], tools=TOOLS)
    assert again.usage.input_tokens > answer.usage.input_tokens


def test_reasoning(octet, model, tmp_path):
    (tmp_path / "thinking.jinja").write_text(THINKING)
    server = Server(octet.program, model, "--max-num-seqs", 4, "--max-model-len", 512, "--chat-template", tmp_path / "thinking.jinja")
    try:
        client = openai_client(server)
        answer = ask(client)
        assert [item.type for item in answer.output] == ["reasoning"] and answer.output[0].content[0].text
        assert answer.usage.output_tokens_details.reasoning_tokens > 0
        events = list(ask(client, stream=True))
        assert events[-1].response.output[0].content[0].text == answer.output[0].content[0].text
        assert "response.reasoning_text.delta" in {event.type for event in events}
        assert ask(client, input=[user(QUESTION), answer.output[0], {"role": "assistant", "content": "Paris."}, user("Sure?")]).output
    finally:
        assert server.stop() == 0


def test_errors(client, server):
    item = {"type": "message", "role": "user"}
    for options, status, code, param in [
            ({"model": "other"}, 404, "model_not_found", "model"),
            ({"temperature": 3}, 400, "invalid_value", "temperature"),
            ({"input": []}, 400, "invalid_value", "input"),
            ({"input": [item]}, 400, "missing_required_parameter", "input[0].content"),
            ({"input": [item | {"content": [{"type": "input_image", "image_url": "x"}]}]}, 400, "not_supported_error", "input[0].content[0]"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "not_supported_error", "input[0]"),
            ({"previous_response_id": "resp_1"}, 400, "not_supported_error", "previous_response_id"),
            ({"background": True}, 400, "not_supported_error", "background"),
            ({"tools": [{"type": "web_search"}]}, 400, "not_supported_error", "tools[0].type"),
            ({"tools": [{"type": "function", "name": "not a name"}]}, 400, "invalid_value", "tools[0].name"),
            ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 7}}}}, 400, "invalid_schema", "text.format.schema"),
            ({"max_output_tokens": 5000}, 400, "context_length_exceeded", "prompt")]:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, **options)
        assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param), options
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    assert server.get("/load") == (200, {"server_load": 0})
