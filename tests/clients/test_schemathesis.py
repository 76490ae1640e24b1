"""schemathesis over /openapi.json: bodies that fit the document, and bodies that do not, for every route. Nothing may be answered
with a status that the document does not name for it, least of all 500; the server goes on."""
import os
import pathlib
import subprocess
import sys

SEED = os.environ.get("OCTET_TEST_SEED", "1")
EXAMPLES = 60  # of every route and phase


def failures(server):
    return {name: value for name, value in server.metrics().items() if name.startswith("http_requests_total") and 'status="5xx"' in name}


def test_no_answer_outside_of_the_document(tiny_server, tmp_path):
    before = failures(tiny_server)  # of /health, while the model loaded
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    result = subprocess.run(
        [program, "run", f"{tiny_server.url}/openapi.json", "--checks", "not_a_server_error,status_code_conformance,content_type_conformance",
         "--phases", "examples,coverage,fuzzing", "--mode", "all", "--max-examples", str(EXAMPLES), "--seed", SEED, "--request-timeout", "60",
         "--suppress-health-check", "all"],
        capture_output=True, text=True, timeout=1800, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert tiny_server.get("/health")[0] == 200
    tiny_server.wait_for(lambda: tiny_server.get("/load")[1]["server_load"] == 0)
    assert tiny_server.metric("http_requests_total") > 500
    assert failures(tiny_server) == before
