"""A running `octet serve` for tests: starts it on a free port, talks to it in plain HTTP, ends it."""
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

START_TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 60


def openai_client(server):
    """The real client, which neither retries nor waits for long."""
    import openai  # not needed by those who speak plain HTTP

    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)


class Server:
    def __init__(self, program, model, *flags, tls=None):
        """tls: the ssl.SSLContext of clients, where the flags ask for HTTPS."""
        self.tls = tls
        self.process = subprocess.Popen(
            [program, "serve", str(model), "--port", "0", "--served-model-name", "smol", "alias", *map(str, flags)],
            stderr=subprocess.PIPE, text=True)
        self.log = []
        self._listening = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        assert self._listening.wait(START_TIMEOUT_S), self.text_of_log()
        self.wait_until_ready()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"listening on https?://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    def text_of_log(self):
        return "".join(self.log)

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.get("/health")[0] != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text_of_log()
            time.sleep(0.05)

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, headers=None):
        """(status, headers, parsed body or text)."""
        if self.tls:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S, context=self.tls)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        is_json = response.getheader("Content-Type", "").startswith("application/json")
        return response.status, response.headers, json.loads(text) if is_json and text else text

    def get(self, path, **options):
        status, _, body = self.request("GET", path, **options)
        return status, body

    def post(self, path, body, **options):
        status, _, answer = self.request("POST", path, body=body, **options)
        return status, answer

    def metrics(self):
        """Series of /metrics without histograms' buckets: {"name{labels}": value}."""
        _, text = self.get("/metrics")
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def metric(self, name):
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def open(self, data=b"", receive_buffer=None):
        """A socket on which `data` has been sent."""
        connection = socket.socket()
        connection.settimeout(ANSWER_TIMEOUT_S)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(data)
        return connection

    def wait_for(self, condition, timeout=30):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.text_of_log()[-3000:]
            time.sleep(0.05)

    def stop(self, signal_number=signal.SIGTERM, timeout=60):
        """Ends it and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def make_tiny_model(model, folder):
    """The model's tokenizer beside the config of a tiny one, to be served with random weights (--load-format dummy): for what
    does not depend on what is said."""
    folder.mkdir()
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
               "num_key_value_heads": 1, "head_dim": 32}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def http_post(path, body, extra=""):
    """A request's bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(data)}\r\n\r\n".encode() + data
