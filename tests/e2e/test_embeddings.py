"""POST /v1/embeddings on the real SmolLM2, asked by the real `openai` client; values are those of transformers
(scripts/make_golden.py embeddings)."""
import base64
import json
import math
import pathlib
import struct

import openai
import pytest
from serving import Server, openai_client

GOLDEN = json.loads((pathlib.Path(__file__).resolve().parent.parent / "golden/models/smollm2_embeddings.json").read_text())["texts"]
TOLERANCE = 2e-5  # of the largest value: F32 against F32 in another order of summation
TOLERANCE_BF16 = 1e-2  # with keys and values in BF16, which have 8 bits
SIZE = 576
F32 = ("--kv-cache-dtype", "float32")


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 512, "--max-num-batched-tokens", 64, *F32)
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def client(server):
    return openai_client(server)


def unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def assert_close(found, expected, tolerance=TOLERANCE):
    assert len(found) == len(expected) == SIZE
    bound = tolerance * max(map(abs, expected))
    assert max(abs(a - b) for a, b in zip(found, expected)) < bound


def test_last_token_of_transformers_whatever_the_form(client):
    texts, ids = [row["text"] for row in GOLDEN], [row["input_ids"] for row in GOLDEN]
    for given in (texts, ids):
        answer = client.embeddings.create(model="smol", input=given)  # the client asks for base64
        assert (answer.object, answer.model) == ("list", "smol")
        assert [item.index for item in answer.data] == list(range(len(GOLDEN)))
        for item, row in zip(answer.data, GOLDEN):
            assert_close(item.embedding, unit(row["last"]))
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))
    for one in (texts[2], ids[2]):
        answer = client.embeddings.create(model="smol", input=one, encoding_format="float")
        assert_close(answer.data[0].embedding, unit(GOLDEN[2]["last"]))
        assert answer.usage.prompt_tokens == len(ids[2])


def test_not_normalised(client):
    answer = client.embeddings.create(model="smol", input=GOLDEN[0]["text"], extra_body={"normalize": False})
    assert_close(answer.data[0].embedding, GOLDEN[0]["last"])


def test_mean_of_transformers(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 512, "--max-num-batched-tokens", 64,
                    "--pooler-config", '{"pooling_type": "MEAN"}')
    client = openai_client(server)
    for _ in range(2):  # the second time the prefix cache holds the texts
        answer = client.embeddings.create(model="smol", input=[row["text"] for row in GOLDEN])
        for item, row in zip(answer.data, GOLDEN):
            assert_close(item.embedding, unit(row["mean"]), TOLERANCE_BF16)
    assert server.stop() == 0, server.text_of_log()


def test_base64_is_the_same_floats(server):
    ask = {"model": "smol", "input": "a"}
    _, text = server.post("/v1/embeddings", ask | {"encoding_format": "base64"})
    _, numbers = server.post("/v1/embeddings", ask)
    values = struct.unpack(f"<{SIZE}f", base64.b64decode(text["data"][0]["embedding"]))
    assert list(values) == numbers["data"][0]["embedding"]
    assert numbers["id"].startswith("embd-")


def test_truncation_keeps_the_last_tokens(client):
    ids = GOLDEN[2]["input_ids"]
    cut = client.embeddings.create(model="smol", input=ids, extra_body={"truncate_prompt_tokens": 5})
    same = client.embeddings.create(model="smol", input=ids[-5:])
    assert cut.data[0].embedding == same.data[0].embedding
    assert cut.usage.prompt_tokens == 5
    whole = client.embeddings.create(model="smol", input=(ids * 4)[:512])  # the context's length
    assert whole.usage.prompt_tokens == 512
    fits = client.embeddings.create(model="smol", input="word " * 600, extra_body={"truncate_prompt_tokens": -1})
    assert fits.usage.prompt_tokens == 512


def test_errors(client, server):
    for fields, status, code, param in [
            ({"input": ""}, 400, "invalid_value", "input"),
            ({"input": []}, 400, "invalid_value", "input"),
            ({"input": "a", "model": "other"}, 404, "model_not_found", "model"),
            ({"input": "a", "dimensions": 64}, 400, "not_supported_error", "dimensions"),
            ({"input": [[1] * 513]}, 400, "context_length_exceeded", "input[0]"),
            ({"input": "word " * 600}, 400, "context_length_exceeded", "input")]:
        with pytest.raises(openai.APIStatusError) as caught:
            client.embeddings.create(**{"model": "smol"} | fields)
        assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param), fields
    assert server.get("/load") == (200, {"server_load": 0})


def test_beside_completions(client, server):
    """Texts are embedded in the same steps in which others are written."""
    before = client.completions.create(model="smol", prompt="The capital of France is", max_tokens=24, temperature=0).choices[0].text
    stream = client.completions.create(model="smol", prompt="The capital of France is", max_tokens=24, temperature=0, stream=True)
    text = next(stream).choices[0].text
    answer = client.embeddings.create(model="smol", input=[row["text"] for row in GOLDEN])
    text += "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == before
    assert_close(answer.data[1].embedding, unit(GOLDEN[1]["last"]))
    server.wait_for(lambda: server.metric("vllm:num_requests_running") == 0)
