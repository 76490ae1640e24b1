"""Routes for those who run the server: who may use them, and what they do."""
import threading
import time

import pytest
from serving import Server

USER, ADMIN = {"Authorization": "Bearer user"}, {"Authorization": "Bearer admin"}
ADMIN_ROUTES = (("POST", "/abort_requests", {"abort_all": True}), ("POST", "/reset_prefix_cache", None))


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 4, "--max-model-len", 2048, "--api-key", "user", "--admin-api-key", "admin")
    yield server
    assert server.stop() == 0, server.text_of_log()


def test_who_may_use_them(server):
    for method, path, body in ADMIN_ROUTES:
        for headers, status, kind in ((USER, 403, "permission_error"), ({}, 401, "authentication_error"),
                                      ({"X-Api-Key": "wrong"}, 401, "authentication_error")):
            found, _, answer = server.request(method, path, body=body, headers=headers)
            assert (found, answer["error"]["type"]) == (status, kind), (path, headers)
        assert server.request(method, path, body=body, headers=ADMIN)[0] == 200
    assert server.get("/v1/models", headers=ADMIN)[0] == 200  # the admin may what others may


def test_are_not_there_without_their_key(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 2, "--max-model-len", 64)
    for method, path, body in ADMIN_ROUTES:
        assert server.request(method, path, body=body)[0] == 404
    assert server.stop() == 0


def test_aborts_by_id(server):
    answers = {}

    def ask(name):
        body = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}
        answers[name] = server.post("/v1/completions", body, headers=USER | {"X-Request-Id": name})

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    server.wait_for(lambda: server.get("/load", headers=USER)[1]["server_load"] == 3)
    for ids, count in ((["unknown"], 0), (["one"], 1), (["cmpl-two", "one"], 1)):
        deadline = time.monotonic() + 10
        while (found := server.post("/abort_requests", {"request_ids": ids}, headers=ADMIN)) != (200, {"num_aborted": count}):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        server.wait_for(lambda: server.get("/load", headers=USER)[1]["server_load"] <= 3 - len(answers))
        server.wait_for(lambda: len(answers) == {"unknown": 0, "one": 1, "cmpl-two": 2}[ids[0]])
    assert server.post("/abort_requests", {"abort_all": True}, headers=ADMIN) == (200, {"num_aborted": 1})
    for thread in threads:
        thread.join(30)
    assert {status for status, _ in answers.values()} == {200}
    assert {answer["choices"][0]["finish_reason"] for _, answer in answers.values()} == {"abort"}
    status, answer = server.post("/abort_requests", {"request_ids": "one"}, headers=ADMIN)
    assert (status, answer["error"]["param"]) == (400, "request_ids")
    assert server.post("/abort_requests", {}, headers=ADMIN)[0] == 400


def test_aborted_vectors_are_an_error(server):
    """There is no part of a vector that could be given."""
    answers = []
    body = {"input": [[token] * 300 for token in range(64)]}
    thread = threading.Thread(target=lambda: answers.append(server.post("/v1/embeddings", body, headers=USER)))
    thread.start()
    server.wait_for(lambda: server.get("/load", headers=USER)[1]["server_load"] == 1)
    server.wait_for(lambda: server.post("/abort_requests", {"abort_all": True}, headers=ADMIN)[1]["num_aborted"] == 1)
    thread.join(30)
    assert answers[0][0] == 503 and answers[0][1]["error"]["code"] == "request_aborted"
    server.wait_for(lambda: server.get("/load", headers=USER)[1]["server_load"] == 0)


def test_resets_the_prefix_cache(server):
    def cached():
        status, answer = server.post("/v1/completions", {"prompt": "A prompt of some length, " * 8, "max_tokens": 1}, headers=USER)
        assert status == 200
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    cached()
    assert cached() > 0
    assert server.post("/reset_prefix_cache", None, headers=ADMIN)[0] == 200
    assert cached() == 0


def test_says_what_it_is(server):
    status, info = server.get("/server_info", headers=USER)
    assert status == 200 and info["served_model_name"] == ["smol", "alias"] and info["max_model_len"] == 2048
    assert info["engine"]["max_num_seqs"] == 4 and info["limits"]["max_logprobs"] == 20 and info["needs_api_key"] is True
    text = str(info)
    assert "'user'" not in text and "'admin'" not in text
    assert server.get("/server_info")[0] == 401


def test_generates_to_be_healthy(server):
    assert server.get("/health_generate", headers=USER) == (200, {"status": "ok"})
