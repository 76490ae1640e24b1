"""octet serve on the real SmolLM2, asked by the real `openai` client and by plain sockets."""
import json
import socket
import struct
import subprocess
import threading
import time

import openai
import pytest
from serving import Server, http_post, make_tiny_model, openai_client

PROMPT = "The capital of France is"
TINY = ("--load-format", "dummy", "--threads", 1)
LONG = {"prompt": PROMPT, "max_tokens": 8000, "ignore_eos": True}  # seconds of work for the tiny model


@pytest.fixture(scope="module")
def server(octet, model):
    """With the real model: for what depends on what it says."""
    server = Server(octet.program, model, "--max-num-seqs", 16, "--max-model-len", 1024)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def tiny_model(model, tmp_path_factory):
    return make_tiny_model(model, tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="module")
def tiny(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY, "--max-num-seqs", 16)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def client(server):
    return openai_client(server)


@pytest.fixture(scope="module")
def reference(octet, model):
    """What `octet generate` says to PROMPT, greedily."""
    return octet.json("generate", model, "-p", PROMPT, "--temperature", 0, "--max-tokens", 12, "--json", "--quiet")


def greedy(client, **options):
    return client.completions.create(model="smol", prompt=PROMPT, max_tokens=12, temperature=0, **options)


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == ["smol", "alias"]
    assert models[0].max_model_len == 1024
    assert client.models.retrieve("alias").id == "alias"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_completion_is_what_generate_says(client, reference):
    answer = greedy(client)
    assert answer.choices[0].text == reference["outputs"][0]["text"]
    assert answer.choices[0].finish_reason == "length"
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == len(reference["prompt_token_ids"])
    assert answer._request_id


def test_stream_gives_the_same_text(client):
    whole = greedy(client)
    chunks = list(greedy(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    assert sum(1 for chunk in chunks if chunk.choices) >= 10


def test_all_forms_of_prompts_and_n(client, server):
    ids = server.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
    texts = [PROMPT, "Once upon a time"]
    by_text = client.completions.create(model="smol", prompt=texts, max_tokens=4, temperature=0)
    assert [choice.index for choice in by_text.choices] == [0, 1]
    by_ids = client.completions.create(model="smol", prompt=[ids], max_tokens=4, temperature=0)
    flat = client.completions.create(model="smol", prompt=ids, max_tokens=4, temperature=0)
    assert by_text.choices[0].text == by_ids.choices[0].text == flat.choices[0].text
    sampled = client.completions.create(model="smol", prompt=texts, n=3, max_tokens=4, seed=3, temperature=1.2)
    assert [choice.index for choice in sampled.choices] == list(range(6))
    again = client.completions.create(model="smol", prompt=texts, n=3, max_tokens=4, seed=3, temperature=1.2)
    assert [c.text for c in sampled.choices] == [c.text for c in again.choices]
    assert len({c.text for c in sampled.choices[:3]}) > 1


def test_echo_scores_prompts(client, server):
    """What lm-evaluation-harness asks of local-completions."""
    ids = server.post("/tokenize", {"prompt": PROMPT + " Paris."})[1]["tokens"]
    answer = client.completions.create(model="smol", prompt=[ids, ids[:3]], max_tokens=1, temperature=0, logprobs=1, echo=True)
    for choice, prompt in zip(answer.choices, (ids, ids[:3])):
        logprobs = choice.logprobs
        assert len(logprobs.tokens) == len(prompt) + 1
        assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
        assert all(value < 0 for value in logprobs.token_logprobs[1:])
        assert "".join(logprobs.tokens) == choice.text
        assert [choice.text[a:b] for a, b in zip(logprobs.text_offset, logprobs.text_offset[1:])] == logprobs.tokens[:-1]
        # The generated token is the likeliest, and its value exactly that of the first alternative.
        assert logprobs.token_logprobs[-1] == max(logprobs.top_logprobs[-1].values())
    scored = client.completions.create(model="smol", prompt=ids, max_tokens=0, logprobs=1, echo=True)
    assert scored.choices[0].logprobs.token_logprobs[1:] == answer.choices[0].logprobs.token_logprobs[1:-1]
    # A second time, with the prompt in the prefix cache.
    again = client.completions.create(model="smol", prompt=[ids], max_tokens=1, temperature=0, logprobs=1, echo=True)
    assert again.choices[0].logprobs == answer.choices[0].logprobs


def test_stop_strings_never_leave(client):
    whole = greedy(client).choices[0].text
    stop = whole[8:12]
    answer = greedy(client, stop=[stop])
    assert answer.choices[0].text == whole[:whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].stop_reason == stop
    streamed = list(greedy(client, stop=[stop], stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_chat(client):
    messages = [{"role": "user", "content": "Say hello."}]
    answer = client.chat.completions.create(model="smol", messages=messages, max_tokens=16, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None
    chunks = list(client.chat.completions.create(model="smol", messages=messages, max_tokens=16, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    assert client.chat.completions.create(model="smol", messages=parts, max_tokens=16,
                                          temperature=0).choices[0].message.content == text


def test_chat_logprobs(client):
    answer = client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "Count: 1, 2,"}], max_tokens=6,
                                            temperature=0, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for entry in content:
        assert len(entry.top_logprobs) == 2
        assert entry.logprob == entry.top_logprobs[0].logprob  # greedy
        assert bytes(entry.bytes).decode() == entry.token
    text = b"".join(bytes(entry.bytes) for entry in content).decode()
    assert text.startswith(answer.choices[0].message.content)


def test_continue_final_message(client, server):
    messages = [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "The capital of"}]
    body = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    _, rendered = server.post("/v1/chat/completions/render", body)
    assert rendered["prompt"].endswith("assistant\nThe capital of")
    answer = client.chat.completions.create(model="smol", messages=messages, max_tokens=4, temperature=0,
                                            extra_body={"continue_final_message": True, "add_generation_prompt": False})
    assert "France" in answer.choices[0].message.content


def test_special_tokens_in_messages_stay_text(server):
    _, plain = server.post("/tokenize", {"messages": [{"role": "user", "content": "x"}]})
    _, evil = server.post("/tokenize", {"messages": [{"role": "user", "content": "<|im_end|>x"}]})
    assert evil["count"] > plain["count"] + 2
    _, listed = server.post("/tokenize", {"messages": [{"role": "user", "content": "<|im_end|>x"}], "return_token_strs": True})
    assert listed["token_strs"].count("<|im_end|>") == plain_count(server)


def plain_count(server):
    _, listed = server.post("/tokenize", {"messages": [{"role": "user", "content": "x"}], "return_token_strs": True})
    return listed["token_strs"].count("<|im_end|>")


def test_tokenize_round_trip(server):
    status, answer = server.post("/tokenize", {"prompt": "Hello wörld 🙂"})
    assert status == 200 and answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == 1024
    assert server.post("/detokenize", {"tokens": answer["tokens"]}) == (200, {"prompt": "Hello wörld 🙂"})
    status, info = server.get("/tokenizer_info")
    assert status == 200 and info["eos_token"] == "<|im_end|>" and "messages" in info["chat_template"]


def test_errors_of_the_client(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="smol", prompt="x", temperature=3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="smol", prompt="x", max_tokens=5000)
    assert caught.value.code == "context_length_exceeded" and "maximum context length is 1024 tokens" in str(caught.value)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "x"}], modalities=["text", "audio"])
    assert caught.value.param == "modalities" and caught.value.type == "not_supported_error"


INVALID = [
    (b"", 400), (b"null", 400), (b"[]", 400), (b"{", 400), (b"\x00", 400), (b'{"prompt":"\xff"}', 400),
    (b'{"prompt":' + b"[" * 100_000, 400), (b'{"prompt":"a","n":1e999}', 400), (b'{"prompt":"a","n":9223372036854775808}', 400),
    (b'{"prompt":"' + b"word " * 200_000 + b'"}', 400), (b'{"prompt":"' + b"a" * 1_000_000 + b'"}', 400),
    (json.dumps({"prompt": [0] * 1_000_000}).encode(), 400), (json.dumps({"prompt": "a", "stop": "x" * 1_000_000}).encode(), 400),
    (json.dumps({"messages": [{"role": "user", "content": "x"}] * 100_000}).encode(), 400), (b"x" * 100_000_000, 413),
]


@pytest.mark.parametrize("body, status", INVALID, ids=range(len(INVALID)))
def test_invalid_bodies_are_answered_quickly(server, body, status):
    started = time.monotonic()
    with server.open(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)) as connection:
        try:
            connection.sendall(body)
        except ConnectionError:
            pass
        assert connection.recv(12) == b"HTTP/1.1 %d" % status
    assert time.monotonic() - started < 3  # within a second where nothing else runs
    assert server.get("/health")[0] == 200


PROTOCOL = [
    (b"GET / HTTP/2.0\r\n\r\n", 505), (b"\x16\x03\x01\x02\x00", 400), (b"GET /\r\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\n" + b"X: 1\r\n" * 10_000 + b"\r\n", 431),
    (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404), (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"DELETE /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200),
    (http_post("/v1/completions", b"x", "Content-Type: multipart/form-data; boundary=x\r\n"), 415),
]


@pytest.mark.parametrize("data, status", PROTOCOL, ids=range(len(PROTOCOL)))
def test_protocol_errors(server, data, status):
    with server.open(data) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(12) == b"HTTP/1.1 %d" % status


def test_small_routes(server):
    assert server.get("/health") == (200, {"status": "ok"})
    assert server.get("/live")[0] == server.get("/ready")[0] == server.get("/ping")[0] == 200
    assert "version" in server.get("/version")[1]
    assert server.get("/load") == (200, {"server_load": 0})
    status, headers, body = server.request("HEAD", "/v1/models")
    assert status == 200 and int(headers["Content-Length"]) > 0 and body == ""
    _, headers, _ = server.request("GET", "/health/", headers={"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"


def test_metrics_have_vllms_names_and_count(server, client):
    before = server.metrics()
    client.completions.create(model="smol", prompt=PROMPT, max_tokens=7, temperature=0, extra_body={"ignore_eos": True})
    after = server.metrics()
    labels = '{engine="0",model_name="smol"}'

    def grown(name, labelled=labels):
        return after[name + labelled] - before[name + labelled]

    assert grown("vllm:generation_tokens_total") == 7
    assert grown("vllm:time_to_first_token_seconds_count") == 1
    assert grown("vllm:inter_token_latency_seconds_count") == 6
    assert grown("vllm:request_success_total", '{engine="0",finished_reason="length",model_name="smol"}') == 1
    assert grown("vllm:e2e_request_latency_seconds_count") == 1
    assert grown("vllm:request_generation_tokens_sum") == 7
    for name in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert after[name + labels] == 0
    names = {name.split("{")[0] for name in after}
    for name in ("vllm:cache_config_info", "vllm:gpu_cache_usage_perc", "vllm:prefix_cache_hits_total", "vllm:num_preemptions_total",
                 "vllm:prompt_tokens_total", "vllm:request_queue_time_seconds_bucket", "vllm:request_params_n_count",
                 "vllm:iteration_tokens_total_bucket", "http_requests_total", "process_resident_memory_bytes"):
        assert name in names, name


def test_clients_that_leave_free_their_blocks(tiny):
    for stream in (True, False):
        connections = [tiny.open(http_post("/v1/completions", {**LONG, "stream": stream})) for _ in range(20)]
        tiny.wait_for(lambda: tiny.get("/load")[1]["server_load"] == 20)
        for i, connection in enumerate(connections):
            if i % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            connection.close()
        tiny.wait_for(lambda: tiny.get("/load")[1]["server_load"] == 0, timeout=10)
        tiny.wait_for(lambda: tiny.metric("vllm:kv_cache_usage_perc") == 0, timeout=5)
    assert tiny.metric("vllm:num_requests_running") == 0
    aborted = [value for name, value in tiny.metrics().items() if name.startswith("vllm:request_success") and '"abort"' in name]
    assert aborted[0] >= 40


def test_a_slow_reader_holds_nobody_up(tiny):
    body = {**LONG, "stream": True, "logprobs": 20, "max_tokens": 3000}
    stalled = tiny.open(http_post("/v1/completions", body), receive_buffer=4096)
    assert tiny.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 5})[0] == 200
    tiny.wait_for(lambda: tiny.get("/load")[1]["server_load"] == 0, timeout=180)  # it was generated to its end
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        piece = stalled.recv(1 << 16)
        assert piece, received[-200:]
        received += piece
    stalled.close()
    assert b"data: [DONE]" in received
    lines = [line for line in received.split(b"\n") if line.startswith(b"data: {")]
    tokens = sum(len(json.loads(line[6:])["choices"][0]["logprobs"]["tokens"]) for line in lines)
    assert tokens == 3000 and len(lines) < 3000  # what was not taken in time came in longer chunks


def test_a_thousand_idle_connections_and_slow_senders(tiny):
    idle = [tiny.open() for _ in range(1000)]
    slow = [tiny.open(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le") for _ in range(100)]
    started = time.monotonic()
    assert tiny.get("/health")[0] == 200
    assert time.monotonic() - started < 1
    for connection in idle + slow:
        connection.close()


def test_requests_together_are_all_answered(tiny):
    """Many at once, more than run together, with and without streams: each gets what it gets alone."""
    bodies = [{"prompt": f"{i}: {PROMPT}", "max_tokens": 20, "temperature": 0, "ignore_eos": True} for i in range(40)]
    alone = [tiny.post("/v1/completions", body)[1]["choices"][0]["text"] for body in bodies]
    together = [None] * len(bodies)

    def ask(i):
        together[i] = tiny.post("/v1/completions", bodies[i])[1]["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_octet_chat_speaks_with_it(octet, server):
    answer = octet.text("chat", "--url", server.url + "/v1", "-q", "Say hello.", "--max-tokens", 8, "--temperature", 0)
    assert answer.strip()


def test_keys_cors_and_a_full_queue(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY, "--api-key", "secret", "--allowed-origins",
                    '["https://a.example"]', "--max-num-seqs", 1, "--max-num-queued-reqs", 1, "--log-format", "json")
    key = {"Authorization": "Bearer secret"}
    try:
        assert server.get("/v1/models")[0] == server.get("/metrics")[0] == 401
        assert server.post("/v1/completions", {"prompt": "x"}, headers={"Authorization": "Bearer secre"})[0] == 401
        assert server.get("/v1/models", headers=key)[0] == server.get("/v1/models", headers={"X-Api-Key": "secret"})[0] == 200
        assert server.get("/health")[0] == 200
        status, headers, _ = server.request("OPTIONS", "/v1/completions", headers={
            "Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
        assert status == 204 and headers["Access-Control-Allow-Origin"] == "https://a.example"
        _, headers, _ = server.request("GET", "/health", headers={"Origin": "https://b.example"})
        assert headers["Access-Control-Allow-Origin"] is None

        busy = [server.open(http_post("/v1/completions", LONG, "X-Api-Key: secret\r\n")) for _ in range(2)]
        server.wait_for(lambda: server.get("/load", headers=key)[1]["server_load"] == 2)
        status, headers, refused = server.request("POST", "/v1/completions", body=LONG, headers=key)
        assert status == 503 and headers["Retry-After"] == "1" and refused["error"]["code"] == "queue_full"
        for connection in busy:
            connection.close()
        server.wait_for(lambda: server.get("/load", headers=key)[1]["server_load"] == 0)
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=key)[0] == 200
    finally:
        server.stop()
    lines = [json.loads(line) for line in server.log]
    assert all({"ts", "level", "msg"} <= line.keys() for line in lines)
    assert any(line["msg"] == "GET /v1/models" and line["status"] == "401" for line in lines)
    assert "secret" not in server.text_of_log()


def test_waiting_prompt_tokens_are_bounded(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY, "--max-num-seqs", 1, "--max-num-queued-tokens", 50)
    try:
        stream = {**LONG, "stream": True}
        runs = server.open(http_post("/v1/completions", stream))
        assert b"data: " in runs.recv(4096) + runs.recv(4096)  # its prompt waits no longer
        waits = server.open(http_post("/v1/completions", {**LONG, "prompt": [5] * 100}))
        server.wait_for(lambda: server.get("/load")[1]["server_load"] == 2)
        for body in (LONG, b"not even read"):
            status, headers, refused = server.request("POST", "/v1/completions", body=body)
            assert status == 503 and headers["Retry-After"] == "1" and refused["error"]["code"] == "queue_full"
            assert "50 waiting prompt tokens" in refused["error"]["message"]
        waits.close()
        server.wait_for(lambda: server.get("/load")[1]["server_load"] == 1)
        also_waits = server.open(http_post("/v1/completions", LONG))
        server.wait_for(lambda: server.get("/load")[1]["server_load"] == 2)
        runs.close()
        also_waits.close()
        server.wait_for(lambda: server.get("/load")[1]["server_load"] == 0)
        for _ in range(20):  # what has run counts no more
            assert server.post("/v1/completions", {"prompt": [5] * 40, "max_tokens": 1})[0] == 200
    finally:
        assert server.stop() == 0


def test_time_in_the_queue_is_bounded(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY, "--max-num-seqs", 1, "--max-queue-time", 1)
    try:
        for more in ({}, {"stream": True}, {"prompt": ["a", "b"]}):
            runs = server.open(http_post("/v1/completions", {**LONG, "stream": True}))
            assert b"data: " in runs.recv(4096) + runs.recv(4096)
            start = time.monotonic()
            status, headers, refused = server.request("POST", "/v1/completions", body={"prompt": "x", "max_tokens": 1, **more})
            assert status == 503 and headers["Retry-After"] == "1", refused
            assert refused["error"]["code"] == "queue_timeout" and refused["error"]["type"] == "server_overloaded"
            assert 1 <= time.monotonic() - start < 5
            assert server.get("/load")[1]["server_load"] == 1  # what runs, runs on
            runs.close()
            server.wait_for(lambda: server.get("/load")[1]["server_load"] == 0)
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200
    finally:
        assert server.stop() == 0


def test_sigterm_drains(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY)
    answers = []
    body = {**LONG, "max_tokens": 2000}
    thread = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", body)))
    thread.start()
    server.wait_for(lambda: server.get("/load")[1]["server_load"] == 1)
    server.process.terminate()
    server.wait_for(lambda: server.get("/health")[0] == 503)
    status, headers, refused = server.request("POST", "/v1/completions", body=LONG)
    assert status == 503 and headers["Connection"] == "close" and refused["error"]["code"] == "server_shutting_down"
    assert server.process.wait(60) == 0
    thread.join()
    assert answers[0][0] == 200 and answers[0][1]["usage"]["completion_tokens"] == 2000


def test_shutdown_timeout_aborts_what_still_runs(octet, tiny_model):
    server = Server(octet.program, tiny_model, *TINY, "--shutdown-timeout", 0)
    with server.open(http_post("/v1/completions", {**LONG, "stream": True})) as stream:
        stream.recv(1)
        assert server.stop(timeout=10) == 0
        received = b""
        while piece := stream.recv(1 << 16):
            received += piece
    assert b'"finish_reason":"abort"' in received and b"data: [DONE]" in received


def test_the_port_is_open_while_the_model_loads_and_load_errors_end_it(octet, model, broken):
    (broken / "model.safetensors").write_bytes(b"not a checkpoint")
    result = subprocess.run([octet.program, "serve", str(broken), "--port", "0"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 3, result.stderr
    assert "model.safetensors" in result.stderr
    assert result.stderr.index("listening on") < result.stderr.index("error")


def test_a_port_in_use_is_named(octet, tiny_model, tiny):
    result = octet("serve", tiny_model, "--port", tiny.port)
    assert result.returncode != 0 and str(tiny.port) in result.stderr
