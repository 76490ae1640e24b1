"""What packaging/ holds, by the tools that will read it: the Debian package, the Dockerfile, the manifests, and two servers behind
nginx of which one is drained and one is killed."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGING = ROOT / "packaging"
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from serving import Server  # noqa: E402


def run(*command, **options):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(not shutil.which("dpkg-shlibdeps"), reason="no dpkg-dev here")
def test_the_debian_package_holds_a_program_that_runs(octet, tmp_path):
    build = pathlib.Path(octet.program).resolve().parent.parent
    run("cpack", "-G", "DEB", "-B", tmp_path, cwd=build)
    [package] = tmp_path.glob("octet_*.deb")
    assert re.search(r"^ Depends: .*libc6", run("dpkg-deb", "-I", package), re.M)
    run("dpkg-deb", "-x", package, tmp_path / "root")
    assert run(tmp_path / "root/usr/bin/octet", "--version").startswith("octet ")
    assert (tmp_path / "root/usr/lib/systemd/system/octet.service").is_file()
    assert (tmp_path / "root/usr/share/doc/octet/NOTICE").is_file()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_unit(tmp_path):
    unit = tmp_path / "octet.service"
    unit.write_text((PACKAGING / "octet.service").read_text().replace("/usr/bin/octet", "/bin/true"))
    run("systemd-analyze", "verify", unit)


def test_the_kubernetes_manifests():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    import yaml

    resources = list(yaml.safe_load_all((PACKAGING / "kubernetes/octet.yaml").read_text()))
    assert {resource["kind"] for resource in resources} == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for resource in resources:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_the_dockerfile():
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint here")
    run(hadolint, PACKAGING / "docker/Dockerfile")


def test_the_slurm_script():
    run("bash", "-n", PACKAGING / "slurm/octet.sbatch")


class Nginx:
    """The configuration that packaging/ has, before two servers."""

    def __init__(self, folder, ports):
        self.port = ports[0] + 10000 if ports[0] < 50000 else ports[0] - 10000
        conf = (PACKAGING / "nginx/octet.conf").read_text()
        for before, after in {"listen 8000": f"listen 127.0.0.1:{self.port}", ":8001": f":{ports[0]}", ":8002": f":{ports[1]}"}.items():
            assert before in conf
            conf = conf.replace(before, after)
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{conf}}}\n")
        self.process = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.05)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Load:
    """Threads that ask without pause; what came of it."""

    def __init__(self, nginx, num_threads=6, max_tokens=12):
        self.nginx, self.max_tokens = nginx, max_tokens
        self.done, self.failed, self._stop = 0, [], threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, seed):
        while not self._stop.is_set():
            body = {"prompt": f"{seed} and {self.done} are", "max_tokens": self.max_tokens, "ignore_eos": True, "seed": seed}
            try:
                status, answer = self.nginx.ask("POST", "/v1/completions", body)
                whole = status == 200 and json.loads(answer)["usage"]["completion_tokens"] == self.max_tokens
                problem = None if whole else f"{status} {answer[:200]}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = repr(error)
            with self._lock:
                self.done += problem is None
                self.failed += [problem] if problem else []

    def wait_for(self, count):
        wanted, deadline = self.done + count, time.monotonic() + 60
        while self.done < wanted:
            assert time.monotonic() < deadline, self.failed
            time.sleep(0.02)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def replicas(octet, model, tmp_path):
    if not shutil.which("nginx"):
        pytest.skip("no nginx here")
    servers = [Server(octet.program, model, "--quantization", "fp8", "--max-model-len", "1024", "--kv-cache-memory-bytes", "128M") for _ in range(2)]
    nginx = Nginx(tmp_path, [server.port for server in servers])
    yield nginx, servers
    nginx.stop()
    for server in servers:
        if server.process.poll() is None:
            server.stop()


def test_a_replica_that_drains_loses_nothing(replicas):
    nginx, servers = replicas
    load = Load(nginx)
    load.wait_for(20)
    assert all(server.metric("vllm:generation_tokens_total") > 0 for server in servers)
    servers[0].process.send_signal(signal.SIGTERM)
    assert servers[0].process.wait(60) == 0
    load.wait_for(20)
    load.stop()
    assert load.failed == []


def test_a_replica_that_is_killed_loses_what_it_was_answering(replicas):
    nginx, servers = replicas
    load = Load(nginx, num_threads=6, max_tokens=40)
    load.wait_for(6)
    servers[0].process.kill()
    servers[0].process.wait(10)
    load.wait_for(12)
    load.stop()
    # nginx asks the other replica again, as nothing of these answers had been sent; at worst those under way are lost.
    assert len(load.failed) <= 6, load.failed
    assert nginx.ask("GET", "/health")[0] == 200


def test_streams_come_through_as_they_are_made(replicas):
    nginx, _ = replicas
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "One, two,", "max_tokens": 60, "ignore_eos": True, "stream": True}))
    response = connection.getresponse()
    times = []
    while line := response.readline():
        if line.startswith(b"data: {"):
            times.append(time.monotonic())
    connection.close()
    assert len(times) >= 20 and times[-1] - times[0] > 0.2 and times[len(times) // 2] - times[0] > 0.05
