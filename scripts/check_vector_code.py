#!/usr/bin/env python3
"""Checks that the CPU's vector instructions stay in the kernels of their instruction set: in the objects of avx2.cc, avx512.cc and avx512_vnni.cc
only functions that are made for the set may hold VEX or EVEX instructions. Others run before it is known what the processor can
do, or are copies of inline functions that the linker may keep for the whole program.

Usage: scripts/check_vector_code.py BUILD_DIR
"""
import pathlib
import re
import subprocess
import sys

SETS = {"avx2.cc.o": "Avx2", "avx512.cc.o": "Avx512", "avx512_vnni.cc.o": "Avx512Vnni"}


def vector_functions(object_file):
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", "-C", object_file], capture_output=True, text=True, check=True).stdout
    name = ""
    for line in listing.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.*)>:$", line)
        if head:
            name = head.group(1)
        elif re.match(r"^\s+[0-9a-f]+:\s+v[a-z0-9]+\s", line):
            yield name


def main():
    build = pathlib.Path(sys.argv[1])
    wrong = 0
    for file, mark in SETS.items():
        objects = list(build.glob(f"CMakeFiles/octet_kernels.dir/octet/kernels/cpu/{file}"))
        if not objects:
            sys.exit(f"{build} has no {file}: build octet_kernels first")
        names = set(vector_functions(objects[0]))
        if not any(mark in name for name in names):
            sys.exit(f"{objects[0]}: no function of {mark} holds vector instructions; is this an x86-64 build?")
        for name in sorted(name for name in names if mark not in name):
            wrong += 1
            print(f"{file}: vector instructions in {name}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
