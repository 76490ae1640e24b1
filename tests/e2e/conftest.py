"""Drives the built program on the real SmolLM2. test.sh sets OCTET (the program) and OCTET_TEST_MODEL (the model's folder)."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

TIMEOUT_S = 300


class Octet:
    """Runs one command of the program and returns its CompletedProcess, with text output."""

    def __init__(self, program):
        self.program = program

    def __call__(self, *arguments, stdin="", env=None):
        return subprocess.run([self.program, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              timeout=TIMEOUT_S, env={**os.environ, **(env or {})})

    def text(self, *arguments, **options):
        result = self(*arguments, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def json(self, *arguments, **options):
        return json.loads(self.text(*arguments, **options))

    def json_lines(self, *arguments, lines):
        """Sends JSON lines, returns as many parsed answers."""
        out = self.text(*arguments, stdin="".join(json.dumps(line) + "\n" for line in lines))
        answers = [json.loads(line) for line in out.splitlines()]
        assert len(answers) == len(lines)
        return answers


@pytest.fixture(scope="session")
def octet():
    return Octet(os.environ["OCTET"])


@pytest.fixture(scope="session")
def model():
    return pathlib.Path(os.environ["OCTET_TEST_MODEL"])


@pytest.fixture
def broken(model, tmp_path):
    """A copy of the model that a test may damage: small files copied, the weights left out."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    return folder
