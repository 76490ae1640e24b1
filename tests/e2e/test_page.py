"""The page at "/" and what it asks for, in plain HTTP; tests/slow/test_page.py shows it to a browser."""
import re
import threading

import pytest

from serving import Server


@pytest.fixture(scope="module")
def server(octet, model):
    server = Server(octet.program, model, "--api-key", "secret")
    yield server
    server.stop()


def test_the_page_needs_no_key_and_nothing_from_elsewhere(server):
    status, headers, page = server.request("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    files = set(re.findall(r'(?:src|href)="(page/[^"]+)"', page))
    assert {"page/style.css", "page/main.js"} <= files
    for name in list(files):
        status, headers, text = server.request("GET", "/" + name)
        assert status == 200 and headers["x-content-type-options"] == "nosniff"
        files |= {f"page/{found}" for found in re.findall(r'from "\./([a-z]+\.js)"', text)}
    assert len(files) >= 4
    for name in files:
        status, headers, text = server.request("GET", "/" + name)
        assert status == 200, name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert server.request("GET", "/" + name, headers={"If-None-Match": headers["etag"]})[0] == 304
    assert server.get("/page/../api_routes.cc")[0] == 404 and server.get("/page/none.js")[0] == 404


def test_the_status(server):
    assert server.get("/api/status")[0] == 401
    key = {"Authorization": "Bearer secret"}
    answer = {}

    def ask():
        body = {"prompt": "One, two, three,", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
        answer["status"] = server.request("POST", "/v1/completions", body, headers=key)[0]

    thread = threading.Thread(target=ask)
    thread.start()
    found = []
    while thread.is_alive():
        status, _, now = server.request("GET", "/api/status", headers=key)
        assert status == 200 and now["state"] == "ready"
        found += now["requests"]
    thread.join()
    assert answer["status"] == 200
    assert any(request["state"] == "decode" and 0 < request["output_tokens"] <= 300 for request in found)
    assert {request["prompt_tokens"] for request in found} == {len("One, two, three,".replace(",", " ,").split())}
    counts = [request["output_tokens"] for request in found]
    assert counts == sorted(counts) and len({request["id"] for request in found}) == 1
    after = server.request("GET", "/api/status", headers=key)[2]
    assert after["requests"] == [] and after["engine"]["running"] == 0 and after["engine"]["generated_tokens"] >= 300
    assert after["model"]["architecture"] == "LlamaForCausalLM" and after["model"]["chat"] is True


def test_without_the_page(octet, model):
    server = Server(octet.program, model, "--no-ui")
    try:
        assert server.get("/")[0] == 404 and server.get("/page/main.js")[0] == 404
        assert server.get("/api/status")[0] == 200
    finally:
        server.stop()
