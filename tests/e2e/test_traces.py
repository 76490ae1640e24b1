"""Spans by OTLP/HTTP, taken by a small collector that reads them with OpenTelemetry's own schema (opentelemetry-proto)."""
import base64
import http.server
import json
import threading
import time

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from serving import Server, openai_client

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def parse(body):
    """OTLP's JSON is protobuf's but for its ids, which are hexadecimal; fields that the schema does not have are an error."""
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


class Collector:
    """Keeps the spans of every POST to /v1/traces; `block` makes it wait, `status` is what it answers."""

    def __init__(self):
        self.spans, self.resources, self.block, self.status = [], [], threading.Event(), 200
        self.block.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                outer.block.wait(30)
                if outer.status == 200:
                    for resource in parse(body).resource_spans:
                        outer.resources.append(resource.resource)
                        outer.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(outer.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, count):
        deadline = time.monotonic() + 20
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} spans of {count}"
            time.sleep(0.02)
        spans, self.spans = self.spans, []
        assert len(spans) == count
        return spans


@pytest.fixture(scope="module")
def collector():
    collector = Collector()
    yield collector
    collector.server.shutdown()


@pytest.fixture(scope="module")
def server(octet, model, collector):
    server = Server(octet.program, model, "--max-num-seqs", 4, "--max-model-len", 512, "--otlp-traces-endpoint", collector.url)
    yield server
    assert server.stop() == 0, server.text_of_log()


def attributes(span):
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def test_a_span_of_a_request(server, collector):
    before = time.time_ns()
    answer = openai_client(server).chat.completions.create(
        model="smol", messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0.5, top_p=0.9,
        extra_headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"})
    [span] = collector.take(1)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, CALLER, "vendor=1")
    assert (span.name, span.kind, len(span.span_id)) == ("llm_request", Span.SPAN_KIND_SERVER, 8)
    assert before <= span.start_time_unix_nano < span.end_time_unix_nano <= time.time_ns()
    found = attributes(span)
    assert found["gen_ai.request.id"] == answer.id and found["gen_ai.response.model"] == "smol"
    assert (found["gen_ai.request.max_tokens"], found["gen_ai.request.temperature"], found["gen_ai.request.top_p"]) == (8, 0.5, 0.9)
    assert (found["gen_ai.request.n"], found["gen_ai.usage.num_sequences"]) == (1, 1)
    assert found["gen_ai.usage.prompt_tokens"] == answer.usage.prompt_tokens
    assert found["gen_ai.usage.completion_tokens"] == answer.usage.completion_tokens
    latency = {key.removeprefix("gen_ai.latency."): value for key, value in found.items() if key.startswith("gen_ai.latency.")}
    assert set(latency) == {"e2e", "time_in_queue", "time_to_first_token", "time_in_model_prefill", "time_in_model_decode", "time_in_model_inference"}
    assert 0 <= latency["time_in_queue"] <= latency["time_to_first_token"] <= latency["e2e"] < 60
    assert latency["time_in_model_inference"] == pytest.approx(latency["time_in_model_prefill"] + latency["time_in_model_decode"], abs=1e-4)
    assert latency["e2e"] == pytest.approx((span.end_time_unix_nano - span.start_time_unix_nano) / 1e9, abs=1e-4)
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert {item.key: item.value.string_value for item in collector.resources[-1].attributes}["service.name"] == "octet"


def test_whose_trace_it_is(server, collector):
    body = {"prompt": ["Hello", "World"], "max_tokens": 2, "n": 2}
    for header in (None, "nonsense"):
        server.post("/v1/completions", body, headers={"traceparent": header} if header else {})
    server.post("/v1/completions", body, headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})  # not recorded
    server.post("/v1/completions", {"prompt": ""})  # no request of the model
    spans = collector.take(2)
    assert {span.parent_span_id for span in spans} == {b""} and len({span.trace_id for span in spans}) == 2
    assert all(attributes(span)["gen_ai.usage.num_sequences"] == 4 for span in spans)


def test_streams_and_embeddings_have_spans(server, collector):
    for chunk in openai_client(server).completions.create(model="smol", prompt="Hello", max_tokens=4, stream=True):
        assert chunk
    openai_client(server).embeddings.create(model="smol", input="Hello")
    first, second = map(attributes, collector.take(2))
    assert first["gen_ai.usage.completion_tokens"] > 0 and second["gen_ai.usage.completion_tokens"] == 0
    assert "gen_ai.latency.time_to_first_token" not in second


def test_a_slow_collector_holds_nobody_up(server, collector):
    body = {"prompt": "Hello", "max_tokens": 1}
    exported = server.metric("octet:trace_spans_exported_total")
    collector.block.clear()
    begin = time.monotonic()
    for _ in range(20):
        assert server.post("/v1/completions", body)[0] == 200
    assert time.monotonic() - begin < 10 and server.get("/health")[0] == 200
    collector.block.set()
    collector.take(20)
    server.wait_for(lambda: server.metric("octet:trace_spans_exported_total") == exported + 20)
    assert server.metric("octet:trace_spans_dropped_total") == 0
    collector.status = 503
    assert server.post("/v1/completions", body)[0] == 200
    server.wait_for(lambda: server.metric("octet:trace_spans_dropped_total") == 1)
    collector.status = 200
    assert "traces are lost" in server.text_of_log() and "HTTP status 503" in server.text_of_log()


def test_ends_beside_a_collector_that_hangs(octet, model):
    collector = Collector()
    server = Server(octet.program, model, "--max-num-seqs", 2, "--max-model-len", 64, "--otlp-traces-endpoint", collector.url)
    collector.block.clear()
    assert server.post("/v1/completions", {"prompt": "Hello", "max_tokens": 1})[0] == 200
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 8
    collector.block.set()
    collector.server.shutdown()


def test_a_wrong_endpoint_is_refused(octet, model):
    result = octet("serve", model, "--port", 0, "--otlp-traces-endpoint", "localhost:4317")
    assert result.returncode == 2 and "--otlp-traces-endpoint: expected http://HOST:PORT" in result.stderr
