#!/usr/bin/env python3
"""Writes NOTICE: octet's own line and the licence texts of what its programs link, taken from where the packages install
them. Run on Debian 12 with the build's packages installed, by a Python that has nanobind (test.sh makes one):
    build/venv/bin/python scripts/make_notice.py [--check]
With --check it writes nothing and fails when NOTICE is not what it would write."""
import importlib.metadata
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEBIAN = ["libcli11-dev", "libfmt-dev", "nlohmann-json3-dev", "libpcre2-dev", "libutf8proc-dev", "libcurl4-openssl-dev", "libssl-dev", "prometheus-cpp-dev"]
HEAD = """octet
Copyright 2026 the octet authors. Licensed under the Apache License, Version 2.0 (see LICENSE).

octet's programs link the libraries below. Each section is that library's own text: for Debian packages the machine-readable
copyright file that the package installs (whose paragraphs also cover files that octet does not use).
"""


def nanobind_texts():
    files = importlib.metadata.files("nanobind")
    licence = next(f for f in files if f.name == "LICENSE").read_text()
    robin = next(f for f in files if f.name == "robin_map.h").read_text()
    return licence, robin[robin.index("/**") + 3:robin.index("*/")].replace("\n * ", "\n").replace("\n *", "\n")


def boost_text():
    """The licence of Asio and Beast. Debian's file on Boost has 47,000 lines about the parts that octet does not use."""
    text = pathlib.Path("/usr/share/doc/libboost1.74-dev/copyright").read_text()
    stanza = text[text.rindex("License: BSL-1.0\n Boost Software License"):].split("\n\n")[0]
    return "\n".join("" if line.strip() == "." else line[1:] for line in stanza.splitlines()[1:])


def xgrammar_sections():
    """Of its source, which cmake/xgrammar.cmake has brought, and of the headers that stand in it."""
    source = next((ROOT / ".cache").glob("xgrammar-*.*"))
    picojson = (source / "3rdparty/picojson/picojson.h").read_text()
    yield "xgrammar", (source / "NOTICE").read_text() + "\n" + (source / "LICENSE").read_text()
    yield "picojson (part of xgrammar)", picojson[picojson.index("/*") + 2:picojson.index("*/")].replace("\n * ", "\n").replace("\n *", "\n")
    yield "DLPack (part of xgrammar)", (source / "3rdparty/dlpack/LICENSE").read_text()


def notice():
    sections = [(f"{name} (Debian)", (pathlib.Path("/usr/share/doc") / name / "copyright").read_text()) for name in DEBIAN]
    sections.append(("Boost.Asio, Boost.Beast", boost_text()))
    sections.extend(xgrammar_sections())
    licence, robin = nanobind_texts()
    sections.append(("nanobind (Python package)", licence))
    sections.append(("tsl::robin_map (part of nanobind)", robin))
    rule = "=" * 80
    body = "".join(f"\n{rule}\n{title}\n{rule}\n\n{text.strip()}\n" for title, text in sections)
    return "\n".join(line.rstrip() for line in (HEAD + body).splitlines()) + "\n"


def main():
    path = ROOT / "NOTICE"
    text = notice()
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if path.read_text() == text else "NOTICE is not what scripts/make_notice.py writes")
    path.write_text(text)


if __name__ == "__main__":
    main()
