"""Ten minutes of the server's soak; for longer ones run soak_serve.py by hand."""
import pathlib
import subprocess
import sys

MINUTES = 10


def test_ten_minutes_of_mixed_load(octet, model):
    program = pathlib.Path(__file__).with_name("soak_serve.py")
    result = subprocess.run([sys.executable, program, "--octet", octet.program, "--model", model, "--minutes", str(MINUTES)],
                            capture_output=True, text=True, timeout=MINUTES * 60 + 300)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
