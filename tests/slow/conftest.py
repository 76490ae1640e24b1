"""The program and the model as the end-to-end tests have them, and a generator whose seed is printed so that a failure can
be repeated (OCTET_TEST_SEED)."""
import importlib.util
import os
import pathlib
import random

import pytest

spec = importlib.util.spec_from_file_location("e2e_conftest", pathlib.Path(__file__).resolve().parent.parent / "e2e" / "conftest.py")
e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(e2e)
octet, model = e2e.octet, e2e.model


@pytest.fixture
def generator():
    seed = int(os.environ.get("OCTET_TEST_SEED", random.randrange(1 << 32)))
    print(f"OCTET_TEST_SEED={seed}")
    return random.Random(seed)
