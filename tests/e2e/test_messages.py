"""POST /v1/messages on the real SmolLM2, asked by the real `anthropic` client."""
import json

import anthropic
import pytest
from serving import Server
from test_structured import HERMES

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS = [{"name": "get_weather", "description": "The weather of a city", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"], "additionalProperties": False}},
         {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}},
                                               "required": ["zone"], "additionalProperties": False}}]
# A template that opens reasoning, for a model that never closes it by itself.
THINKING = HERMES.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")


@pytest.fixture(scope="module")
def server(octet, model, tmp_path_factory):
    template = tmp_path_factory.mktemp("messages") / "hermes.jinja"
    template.write_text(HERMES)
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 1024, "--chat-template", template,
                    "--api-key", "secret")
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def client(server):
    return anthropic.Anthropic(base_url=server.url, api_key="secret", max_retries=0, timeout=60)


def arguments(more=None, **options):
    """Greedy, unless `more` (fields that this client has no arguments for) says otherwise."""
    return {"model": "smol", "messages": QUESTION, "max_tokens": 24, "extra_body": {"temperature": 0} | (more or {})} | options


def ask(client, more=None, **options):
    return client.messages.create(**arguments(more, **options))


def chat(server, **body):
    """What the same request says as a chat completion."""
    status, answer = server.post("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 24, "temperature": 0} | body,
                                 headers={"Authorization": "Bearer secret"})
    assert status == 200, answer
    return answer


def test_says_what_the_chat_route_says(client, server):
    answer, same = ask(client), chat(server)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == same["choices"][0]["message"]["content"]
    assert answer.id.startswith("msg_") and answer.role == "assistant" and answer.model == "smol"
    assert answer.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[same["choices"][0]["finish_reason"]]
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens == same["usage"]["prompt_tokens"]
    assert answer.usage.output_tokens == same["usage"]["completion_tokens"]
    assert answer._request_id


def test_system_and_blocks(client, server):
    system = [{"type": "text", "text": "Answer in one word.", "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}, {"role": "assistant", "content": "Hi!"}, *QUESTION]
    same = chat(server, messages=[{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Hello"},
                                  {"role": "assistant", "content": "Hi!"}, *QUESTION])
    assert ask(client, system=system, messages=messages).content[0].text == same["choices"][0]["message"]["content"]


def test_streams_the_same(client):
    whole = ask(client)
    with client.messages.stream(**arguments()) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.id[:4]) == (whole.stop_reason, "msg_")
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert (final.usage.input_tokens + final.usage.cache_read_input_tokens ==
            whole.usage.input_tokens + whole.usage.cache_read_input_tokens)
    raw = [event for event in events if event != "text"]  # the client's own, beside each delta
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(raw[2:-3]) == {"content_block_delta"} and len(raw) > 8


def test_stop_sequences(client):
    text = ask(client).content[0].text
    stop = text[8:11]
    answer = ask(client, stop_sequences=[stop])
    assert answer.content[0].text == text[:text.index(stop)]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert ask(client, max_tokens=2).stop_reason == "max_tokens"


def test_goes_on_with_the_last_message(client, server):
    messages = [*QUESTION, {"role": "assistant", "content": "The capital of France"}]
    same = chat(server, messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert ask(client, messages=messages).content[0].text == same["choices"][0]["message"]["content"]


def check_call(block):
    assert block.type == "tool_use" and block.id.startswith("toolu_")
    if block.name == "get_time":
        assert block.input["zone"] in ("UTC", "CET")
    else:
        assert block.name == "get_weather" and 1 <= block.input["days"] <= 9 and set(block.input) == {"city", "days"}


@pytest.mark.parametrize("choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "get_time"}])
def test_calls_tools(client, choice):
    options = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 200, "more": {"temperature": 1.0}}
    answer = ask(client, **options)
    assert answer.stop_reason == "tool_use" and len(answer.content) == 1
    check_call(answer.content[0])
    with client.messages.stream(**arguments(**options)) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    check_call(final.content[0])
    assert final.stop_reason == "tool_use" and "input_json" in kinds
    if choice["type"] == "tool":
        assert answer.content[0].name == "get_time"
    # The results of a turn come back in the next one.
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "12:00"} for block in answer.content]
    messages = [*QUESTION, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert ask(client, tools=TOOLS, messages=messages).usage.output_tokens > 0


def test_answers_in_a_form(client):
    schema = {"type": "object", "properties": {"capital": {"enum": ["Paris", "Rome"]}}, "required": ["capital"], "additionalProperties": False}
    answer = ask(client, {"output_config": {"format": {"type": "json_schema", "schema": schema}}})
    assert json.loads(answer.content[0].text)["capital"] in ("Paris", "Rome")


def test_thinking(octet, model, tmp_path):
    (tmp_path / "thinking.jinja").write_text(THINKING)
    server = Server(octet.program, model, "--max-num-seqs", 4, "--max-model-len", 512, "--chat-template", tmp_path / "thinking.jinja")
    try:
        client = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60)
        answer = ask(client)
        assert [block.type for block in answer.content] == ["thinking"] and answer.content[0].thinking
        with client.messages.stream(**arguments()) as stream:
            assert stream.get_final_message().content[0].thinking == answer.content[0].thinking
        assert ask(client, thinking={"type": "disabled"}).content == []
    finally:
        assert server.stop() == 0


def test_counts_tokens(client, server):
    counted = client.messages.count_tokens(model="smol", messages=QUESTION, system="Be brief.", tools=TOOLS)
    used = ask(client, system="Be brief.", tools=TOOLS, max_tokens=1).usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens


def test_errors(client, server):
    for error, options, kind, param in (
            (anthropic.NotFoundError, {"model": "other"}, "not_found_error", "model"),
            (anthropic.BadRequestError, {"more": {"temperature": 3}}, "invalid_request_error", "temperature"),
            (anthropic.BadRequestError, {"messages": []}, "invalid_request_error", "messages"),
            (anthropic.BadRequestError, {"max_tokens": 5000}, "invalid_request_error", "prompt"),
            (anthropic.BadRequestError, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
             "invalid_request_error", "tools[0].type")):
        with pytest.raises(error) as caught:
            ask(client, **options)
        assert caught.value.body["type"] == "error", options
        assert caught.value.body["error"]["type"] == kind and caught.value.body["error"]["param"] == param
    with pytest.raises(anthropic.AuthenticationError) as caught:
        ask(anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0))
    assert caught.value.body["error"]["type"] == "authentication_error"
