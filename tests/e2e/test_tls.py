"""HTTPS with certificates made here: the real `openai` client, clients that are no TLS, certificates of clients, new files."""
import json
import shutil
import ssl
import subprocess
import time

import openai
import pytest
from serving import Server, http_post


def make_certificate(folder, name, issuer=None):
    """A key and a certificate for 127.0.0.1 in PEM; vouched for by the issuer, or by itself. Returns their paths."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    by = ["-CA", str(issuer[1]), "-CAkey", str(issuer[0])] if issuer else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", *by,
                    "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return key, certificate


def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def certificate(folder):
    return make_certificate(folder, "server")


@pytest.fixture(scope="module")
def server(octet, model, certificate):
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 1024, "--ssl-keyfile", certificate[0],
                    "--ssl-certfile", certificate[1], tls=trusting(certificate[1]))
    yield server
    assert server.stop() == 0, server.text_of_log()


def openai_client(server, context):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60,
                         http_client=openai.DefaultHttpxClient(verify=context))


def test_openai_client(server):
    client = openai_client(server, server.tls)
    options = {"model": "smol", "prompt": "The capital of France is", "max_tokens": 32, "temperature": 0}
    whole = client.completions.create(**options).choices[0].text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**options, stream=True)) == whole
    assert server.url.startswith("https://") and "listening on https://" in server.text_of_log()


def test_the_certificate_is_checked(server, folder):
    other = make_certificate(folder, "other")
    with pytest.raises(openai.APIConnectionError):
        openai_client(server, trusting(other[1])).models.list()


def test_large_bodies_and_answers(server):
    """Many records each way; the second answer to a client that reads late, through a small window."""
    text = "word " * 200_000
    status, answer = server.post("/v1/completions", {"prompt": text, "max_tokens": 1})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    with server.tls.wrap_socket(server.open(receive_buffer=4096), server_hostname="127.0.0.1") as connection:
        connection.sendall(http_post("/v1/embeddings", {"input": [[token] for token in range(64)]}, "Connection: close\r\n"))
        time.sleep(0.5)
        received = b""
        while data := connection.recv(1 << 16):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK") and len(body) > 500_000
    assert [len(item["embedding"]) for item in json.loads(body)["data"]] == [576] * 64


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(server, certificate, version):
    context = trusting(certificate[1])
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(server.open(), server_hostname="127.0.0.1") as connection:
        for part in (b"GET /ver", b"sion HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
            connection.sendall(part)
            time.sleep(0.05)
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert answer.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_versions_are_refused(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(server.open(), server_hostname="127.0.0.1")


@pytest.mark.parametrize("data", [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x00" * 100_000])
def test_what_is_no_tls_ends(server, data):
    connection = server.open()
    try:
        connection.sendall(data)
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    finally:
        connection.close()
    assert server.get("/health")[0] == 200


def test_a_client_that_leaves_ends_its_request(server):
    with server.tls.wrap_socket(server.open(), server_hostname="127.0.0.1") as connection:
        body = b'{"prompt": "Once", "max_tokens": 900, "ignore_eos": true, "stream": true}'
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
    server.wait_for(lambda: server.get("/load") == (200, {"server_load": 0}), timeout=10)
    assert server.metric("vllm:num_requests_running") == 0


def test_idle_connections_hold_nobody_up(server):
    silent = [server.open() for _ in range(50)]  # no handshake
    assert server.get("/health")[0] == 200
    for connection in silent:
        connection.close()


def test_certificates_of_clients_and_new_files(octet, model, folder, certificate):
    authority = make_certificate(folder, "authority")
    ours, stranger = make_certificate(folder, "ours", authority), make_certificate(folder, "stranger")
    key, used = folder / "used.key", folder / "used.pem"
    shutil.copy(certificate[0], key)
    shutil.copy(certificate[1], used)

    def client(own, server_certificate=certificate):
        context = trusting(server_certificate[1])
        if own:
            context.load_cert_chain(own[1], own[0])
        return context

    server = Server(octet.program, model, "--max-num-seqs", 2, "--max-model-len", 64, "--ssl-keyfile", key, "--ssl-certfile", used,
                    "--ssl-ca-certs", authority[1], "--ssl-cert-reqs", 2, "--enable-ssl-refresh", tls=client(ours))
    assert server.get("/health")[0] == 200
    for own in (None, stranger):
        server.tls = client(own)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.get("/health")
    renewed = make_certificate(folder, "renewed")
    for new, path in zip(renewed, (key, used)):
        shutil.copy(new, path)
    time.sleep(1.1)
    server.tls = client(ours, renewed)
    assert server.get("/health")[0] == 200
    used.write_text("half a fi")
    time.sleep(1.1)
    assert server.get("/health")[0] == 200  # as before
    assert "the old certificate stays" in server.text_of_log()
    assert server.stop() == 0, server.text_of_log()


def test_wrong_files_are_named(octet, model, folder, certificate):
    other = make_certificate(folder, "mismatched")
    for flags, words in ((["--ssl-certfile", folder / "none.pem"], "none.pem: expected certificates in PEM"),
                         (["--ssl-certfile", certificate[1]], "server.pem: expected the certificate's private key"),
                         (["--ssl-certfile", certificate[1], "--ssl-keyfile", other[0]], "mismatched.key: "),
                         (["--ssl-keyfile", certificate[0]], "--ssl-keyfile: needs --ssl-certfile"),
                         (["--ssl-certfile", certificate[1], "--ssl-keyfile", certificate[0], "--ssl-cert-reqs", 2], "certificates of clients need"),
                         (["--ssl-certfile", certificate[1], "--ssl-keyfile", certificate[0], "--ssl-ciphers", "NONSENSE"], "--ssl-ciphers")):
        result = octet("serve", model, "--port", 0, *flags)
        assert result.returncode == 2 and words in result.stderr, (flags, result.stderr)
