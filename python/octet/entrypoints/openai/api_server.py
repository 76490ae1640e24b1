"""``python -m octet.entrypoints.openai.api_server --model MODEL ...``: `octet serve MODEL ...` as vLLM's scripts call it."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig


def serve_arguments(arguments: list[str]) -> list[str]:
    """The arguments of `octet serve`: --model MODEL, in either spelling, becomes its positional argument."""
    rest: list[str] = []
    model: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == "--model":
            model = [value for value in (next(given, None),) if value is not None]
        elif argument.startswith("--model="):
            model = [argument.removeprefix("--model=")]
        else:
            rest.append(argument)
    return model + rest


def main() -> None:
    program = os.path.join(sysconfig.get_path("scripts"), "octet")
    if not os.access(program, os.X_OK):
        program = shutil.which("octet") or ""
    if not program:
        sys.exit("octet: the program `octet` is neither beside this Python nor in PATH")
    os.execv(program, [program, "serve", *serve_arguments(sys.argv[1:])])


if __name__ == "__main__":
    main()
