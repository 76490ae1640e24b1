#!/usr/bin/env python3
"""Checks the house rules that a machine can check. Prints one line per check, offences below it; exit 1 on any offence."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 500
MAX_KERNEL_LINES = 700
MAX_MACROS = 3
BANNED_WORDS = "Context Manager Helper Util Utils Impl Data Info Handler Processor".split()
ALLOWED_NAMES = {"BlockManager"}
SOURCES = {".h", ".cc", ".cu", ".cuh"}
CODE = SOURCES | {".py", ".sh", ".cmake", ".in"}


def tracked(suffixes=None):
    """Files of the repository: tracked ones and new ones that git does not ignore."""
    listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, check=True, text=True).stdout
    paths = (ROOT / name for name in listing.split("\0") if name)
    return sorted(p for p in paths if p.is_file() and (suffixes is None or p.suffix in suffixes))


def name_of(path):
    return str(path.relative_to(ROOT))


def is_generated(path):
    return "generated" in path.read_text(errors="replace")[:400].lower() and "do not edit" in path.read_text()[:400].lower()


def file_lengths():
    for path in tracked(CODE):
        lines = path.read_text().count("\n")
        bound = MAX_KERNEL_LINES if name_of(path).startswith("octet/kernels/") else MAX_LINES
        if lines > bound and not path.stem.endswith("_test") and not is_generated(path):
            yield f"{name_of(path)}: {lines} lines, at most {bound}"


def banned_names():
    ends = "|".join(BANNED_WORDS)
    pattern = re.compile(rf"\b(?:class|struct|enum class|enum|using|concept)\s+([A-Z]\w*?(?:{ends})|(?:{ends}))\b(?!\s*::)")
    for path in tracked(SOURCES):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = pattern.search(line.split("//")[0])
            if match and match.group(1) not in ALLOWED_NAMES and not line.strip().startswith("using namespace"):
                yield f"{name_of(path)}:{number}: banned name {match.group(1)}"


def types():
    """Two types of one name are one to the linker, which keeps either's functions for both."""
    places = {}
    for path in tracked({".h"}):
        text = path.read_text()
        for match in re.finditer(r"^(?:class|struct) (\w+)(?: final)?(?: : [^;{]*)? \{", text, re.M):
            space = re.findall(r"^namespace ([\w:]+) \{", text[:match.start()], re.M)
            places.setdefault("::".join(space + [match[1]]), []).append(name_of(path))
    for name, found in places.items():
        if len(found) > 1:
            yield f"{name}: in {', '.join(found)}"


def macros():
    found = []
    for path in tracked(SOURCES):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.match(r"\s*#\s*define\s+\w+\(", line):
                found.append(f"{name_of(path)}:{number}: {line.strip()}")
    if len(found) > MAX_MACROS:
        yield from [f"{len(found)} function-like macros, at most {MAX_MACROS}:"] + found


def headers():
    for path in tracked({".h", ".cuh"}):
        lines = path.read_text().splitlines()
        if "#pragma once" not in lines:
            yield f"{name_of(path)}: no #pragma once"
        if not lines or not lines[0].startswith("//"):
            yield f"{name_of(path)}: opens without a comment that says what it is"


def places():
    """The project stands for itself: no path of the machine that somebody wrote it on."""
    words = re.compile("(?<![\\w.])/" + "(?:work|root|home/\\w+)/|\\.\\./shared")
    for path in tracked():
        if path.suffix not in CODE | {".md", ".txt", ".toml", ".yml", ".json", ""} or path == pathlib.Path(__file__).resolve():
            continue
        if path.stat().st_size > 1 << 20:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if words.search(line):
                yield f"{name_of(path)}:{number}: names a place on somebody's machine"


def pins():
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([\w.]+)", (ROOT / "scripts/pins/python.txt").read_text(), re.M))
    wanted = re.findall(r'"(nanobind|scikit-build-core)==([\w.]+)"', (ROOT / "pyproject.toml").read_text())
    if len(wanted) != 2:
        yield "pyproject.toml: nanobind and scikit-build-core must be pinned with =="
    for name, version in wanted:
        if pinned.get(name) != version:
            yield f"pyproject.toml: {name}=={version}, scripts/pins/python.txt has {pinned.get(name)}"


def licence():
    for name in ("LICENSE", "NOTICE", "CHANGELOG.md", "CONTRIBUTING.md"):
        if not (ROOT / name).is_file():
            yield f"{name} is missing"
    if "Apache License" not in (ROOT / "LICENSE").read_text()[:200]:
        yield "LICENSE: not the Apache License"


CHECKS = {
    "files are short": file_lengths,
    "no banned type names": banned_names,
    "a type has one header": types,
    "few function-like macros": macros,
    "headers say what they are": headers,
    "no path of somebody's machine": places,
    "pinned versions agree": pins,
    "licence files": licence,
}


def main():
    failed = False
    for name, check in CHECKS.items():
        offences = list(check())
        print(f"{'FAILED' if offences else 'ok'}: {name}")
        for offence in offences:
            print(f"  {offence}")
        failed |= bool(offences)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
