"""The installed package on the real SmolLM2; OCTET_TEST_MODEL is its folder (test.sh sets it)."""
import os

import pytest

from octet import LLM


@pytest.fixture(scope="session")
def model() -> str:
    return os.environ["OCTET_TEST_MODEL"]


@pytest.fixture(scope="session")
def llm(model) -> LLM:
    return LLM(model, max_model_len=2048)
