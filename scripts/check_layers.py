#!/usr/bin/env python3
"""Checks that every #include "octet/..." goes only where LAYERS allows. Exit 1 and one line per offence otherwise."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read_layers():
    layers = {}
    for line in (ROOT / "LAYERS").read_text().splitlines():
        match = re.match(r"^([a-z_]+):\s*(.*)$", line)
        if match:
            allowed = match.group(2).split()
            unknown = [a for a in allowed if a not in layers]
            if unknown:
                sys.exit(f"LAYERS: {match.group(1)} lists {unknown}, which no row above names")
            layers[match.group(1)] = set(allowed) | {match.group(1)}
    return layers


def main():
    layers = read_layers()
    offences = []
    for path in sorted((ROOT / "octet").rglob("*")):
        if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
            continue
        folder = path.relative_to(ROOT / "octet").parts[0]
        if folder not in layers:
            offences.append(f"{path.relative_to(ROOT)}: folder {folder} has no row in LAYERS")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"octet/([a-z_0-9]+)/(.*)"', line)
            if not match:
                continue
            target, rest = match.groups()
            place = f"{path.relative_to(ROOT)}:{number}"
            if target not in layers[folder]:
                offences.append(f"{place}: {folder} may not include {target}")
            elif target == "kernels" and folder != "kernels" and rest != "backends.h":
                offences.append(f"{place}: kernels are reached through octet/kernels/backends.h only")
    print("\n".join(offences) if offences else f"layers hold: {len(layers)} folders")
    sys.exit(1 if offences else 0)


if __name__ == "__main__":
    main()
