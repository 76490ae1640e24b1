"""A real Prometheus scrapes `octet serve`; every query of the Grafana dashboard gives series, and the alert rules are such."""
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from serving import Server, make_tiny_model  # noqa: E402

DASHBOARD = json.loads((ROOT / "packaging/grafana/octet.json").read_text())
ALERTS = ROOT / "packaging/prometheus/alerts.yaml"
SCRAPES_S = 12

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus here")


def test_rules_and_configuration_are_valid(tmp_path):
    shutil.copytree(ALERTS.parent, tmp_path, dirs_exist_ok=True)
    subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def query(octet, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    server = Server(octet.program, make_tiny_model(model, folder / "tiny"), "--load-format", "dummy", "--threads", 1, "--max-model-len", 256)
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(ALERTS)],
              "scrape_configs": [{"job_name": "octet", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}]}
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                                f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path, **parameters):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    for _ in range(SCRAPES_S):
        for prompt in ["The capital of France is", "A letter"]:
            assert server.post("/v1/completions", {"prompt": prompt, "max_tokens": 20, "ignore_eos": True})[0] == 200
        time.sleep(1)
    yield ask
    process.terminate()
    process.wait(30)
    assert server.stop() == 0, server.text_of_log()


def test_the_server_is_scraped(query):
    (target,) = query("targets")["activeTargets"]
    assert target["health"] == "up", target["lastError"]


EXPRESSIONS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_query_of_the_dashboard_gives_numbers(query, title, expression):
    expression = expression.replace("$__rate_interval", "1m").replace("$model_name", ".*")
    result = query("query", query=expression)["result"]
    values = [float(series["value"][1]) for series in result]
    assert values and all(value == value for value in values), (title, expression, result)  # NaN is none


def test_no_alert_fires_on_a_server_at_work(query):
    rules = [rule for group in query("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 7
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule["state"] == "firing"] == []
