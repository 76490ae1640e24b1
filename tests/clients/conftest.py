"""Real clients of other projects against `octet serve`: run by ./test.sh --all in an environment of their own, whose packages
scripts/pins/counterparties.txt pins. The fixtures are those of the end-to-end tests."""
import importlib.util
import pathlib
import sys

import pytest

E2E = pathlib.Path(__file__).resolve().parent.parent / "e2e"
sys.path.insert(0, str(E2E))
spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
octet, model = e2e.octet, e2e.model

from serving import Server, make_tiny_model  # noqa: E402


@pytest.fixture(scope="module")
def tiny_server(octet, model, tmp_path_factory):
    """Random weights: for what does not depend on what is said."""
    server = Server(octet.program, make_tiny_model(model, tmp_path_factory.mktemp("clients") / "tiny"), "--load-format", "dummy",
                    "--threads", 1, "--max-num-seqs", 16, "--max-model-len", 512, "--no-access-log")
    yield server
    assert server.stop() == 0, server.text_of_log()


@pytest.fixture(scope="module")
def real_server(octet, model):
    server = Server(octet.program, model, "--max-num-seqs", 8, "--max-model-len", 1024)
    yield server
    assert server.stop() == 0, server.text_of_log()
