#!/usr/bin/env python3
"""Compiles every header of octet/ by itself, with the flags of a configured build. Usage: check_headers.py BUILD_FOLDER"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def flags_by_folder(build):
    """The compiler's arguments for a source of each folder of octet/, without its input and output."""
    flags = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"])
        if not path.is_relative_to(ROOT / "octet") or path.stem.endswith("_test"):
            continue
        words = shlex.split(entry["command"])
        start = 1 if pathlib.Path(words[0]).name == "ccache" else 0
        kept = words[start:words.index("-o")]
        flags.setdefault(path.relative_to(ROOT / "octet").parts[0], kept)
    return flags


def compile_alone(arguments):
    command, header = arguments
    result = subprocess.run([*command, "-fsyntax-only", "-x", "c++", "-"], input=f'#include "{header}"\n', cwd=ROOT,
                            capture_output=True, text=True)
    return header, result.returncode == 0, result.stderr


def main():
    flags = flags_by_folder(pathlib.Path(sys.argv[1]).resolve())
    fallback = flags["base"]
    headers = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "octet").rglob("*.h"))
    work = [(flags.get(header.split("/")[1], fallback), header) for header in headers]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for header, compiles, errors in pool.map(compile_alone, work):
            if not compiles:
                failed += 1
                print(f"{header} does not compile alone:\n{errors}")
    print(f"{len(headers) - failed} of {len(headers)} headers compile alone")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
