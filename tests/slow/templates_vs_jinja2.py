#!/usr/bin/env python3
"""Renders about 70 real chat templates with `octet render` and with Python's jinja2: every result must be equal, and
where Python raises, octet must raise.

    pip install jinja2==3.1.6 && python3 tests/slow/templates_vs_jinja2.py --octet build/release/tools/octet

Downloads the source release of llama-cpp-python 0.3.36 (which carries the templates) with pip, or takes --templates DIR.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"))
import record_templates  # noqa: E402

PACKAGE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"


def download(folder):
    """The templates of the source release, unpacked into `folder`."""
    requirements = pathlib.Path(folder) / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "scikit-build-core==1.1.0"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary",
                    "llama-cpp-python", "-r", str(requirements), "-d", folder], check=True)
    for archive in pathlib.Path(folder).glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                    (pathlib.Path(folder) / pathlib.PurePosixPath(member.name).name).write_bytes(tar.extractfile(member).read())
    return folder


class Octet:
    """One `octet render` process per template: a line of JSON in, a line of JSON out."""

    def __init__(self, command, template):
        environment = dict(os.environ, TZ="UTC")
        self.process = subprocess.Popen(command + ["render", "--template", str(template)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def render_all(self, chats):
        lines = "".join(json.dumps({**chat, "now": record_templates.NOW}) + "\n" for chat in chats)
        output, errors = self.process.communicate(lines, timeout=300)
        answers = [json.loads(line) for line in output.split("\n") if line]
        if len(answers) != len(chats):
            # a template that does not parse ends the process; that counts as raising for every chat
            assert self.process.returncode not in (0, None) and self.process.returncode > 0, errors
            answers = [{"error": errors.strip()}] * len(chats)
        return answers


def show(text):
    return repr(text if text is None or len(text) < 1500 else text[:1500] + "...")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--octet", required=True, help="the octet program")
    parser.add_argument("--templates", help="a folder of *.jinja instead of the download")
    options = parser.parse_args()
    os.environ["TZ"] = "UTC"
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(options.templates or download(scratch))
        equal = different = raised = 0
        templates = sorted(folder.glob("*.jinja"))
        for template in templates:
            source = template.read_text()
            answers = Octet([options.octet], template).render_all(list(record_templates.CHATS.values()))
            for (name, chat), answer in zip(record_templates.CHATS.items(), answers):
                expected, reason = record_templates.render(source, record_templates.chat_variables(chat))
                raised += expected is None
                if answer.get("prompt") == expected:
                    equal += 1
                    continue
                different += 1
                print(f"DIFFERS {template.name} / {name}\n  jinja2: {show(expected)} {reason or ''}\n  octet:  "
                      f"{show(answer.get('prompt'))} {answer.get('error', '')}")
    print(f"{len(templates)} templates x {len(record_templates.CHATS)} chats: {equal} equal ({raised} of which raise), {different} different")
    return 1 if different or not templates else 0


if __name__ == "__main__":
    sys.exit(main())
