#!/usr/bin/env python3
"""The stages of test.sh, after its packages are installed. Counts every GoogleTest and pytest case and every check; the
last line is "N passed, N failed". Usage: run_tests.py [--all]"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PYTHON = BUILD / "venv" / "bin" / "python"
CLIENTS_PYTHON = BUILD / "clients-venv" / "bin" / "python"  # what tests/clients needs does not go together with the rest
JOBS = str(os.cpu_count() or 1)
FUZZ_SECONDS = 60


class Tally:
    def __init__(self):
        self.passed = 0
        self.skipped = 0
        self.failures = []

    def check(self, name, passed):
        if passed:
            self.passed += 1
        else:
            self.failures.append(name)
            print(f"FAILED: {name}")
        return passed

    def add_junit(self, path, prefix):
        """Adds the cases of a JUnit report (pytest's or GoogleTest's). Returns how many of them failed."""
        failed = 0
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            name = f"{prefix}: {case.get('classname')}.{case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None:
                self.check(name, False)
                failed += 1
            elif case.find("skipped") is not None or case.get("status") == "notrun":
                self.skipped += 1
                print(f"skipped: {name}")
            else:
                self.passed += 1
        return failed


def stage(title):
    print(f"\n== {title} ({time.strftime('%H:%M:%S')})", flush=True)


def run(*command, env=None, **options):
    """Runs a command with its output going through; True when it succeeded."""
    return subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **(env or {})}, **options).returncode == 0


def house_checks(tally):
    stage("House checks")
    tally.check("check_layers.py", run(sys.executable, "scripts/check_layers.py"))
    result = subprocess.run([sys.executable, "scripts/check_house.py"], cwd=ROOT, capture_output=True, text=True)
    print(result.stdout + result.stderr, end="")
    names = re.findall(r"^(ok|FAILED): (.*)$", result.stdout, re.M)
    for outcome, name in names:
        tally.check(f"check_house.py: {name}", outcome == "ok")
    if result.returncode not in (0, 1) or not names:
        tally.check("check_house.py ran to its end", False)
    if subprocess.run(["which", "clang-format-14"], capture_output=True).returncode == 0:
        tally.check("clang-format", run("scripts/format.sh", "--check"))


def build(tally, preset, folder, *options, targets=()):
    """Configures and builds; where something does not compile the rest is still built, to be tested."""
    binary = BUILD / folder
    configured = run("cmake", "--preset", preset, "-B", binary, *options, stdout=subprocess.DEVNULL)
    if not tally.check(f"configure {folder}", configured):
        return False
    more = ["--target", *targets] if targets else []
    return tally.check(f"build {folder}", run("cmake", "--build", binary, "--parallel", JOBS, *more, "--", "-k", "0"))


def ctest(tally, folder, env=None, wrapper=()):
    """Runs the quick tests of a build. Each GoogleTest case counts; a program without cases (a fuzz replay) counts as one."""
    binary = BUILD / folder
    reports = binary / "reports"
    subprocess.run(["rm", "-rf", str(reports)], check=True)
    reports.mkdir()
    summary = reports / "ctest.junit"
    run(*wrapper, "ctest", "--test-dir", binary, "-L", "quick", "--parallel", min(int(JOBS), 4), "--output-on-failure",
        "--timeout", "1500", "--output-junit", summary, env={"GTEST_OUTPUT": f"xml:{reports}/", **(env or {})})
    if not tally.check(f"{folder}: ctest wrote its report", summary.is_file()):
        return
    programs = list(ElementTree.parse(summary).getroot().iter("testcase"))
    tally.check(f"{folder}: there are tests", bool(programs))
    for program in programs:
        name = program.get("name")
        succeeded = program.get("status") == "run"
        report = reports / f"{name}.xml"
        if not report.is_file():
            tally.check(f"{folder}: {name}", succeeded)
        elif tally.add_junit(report, folder) == 0 and not succeeded:
            tally.check(f"{folder}: {name} (the program itself)", False)


def pytest(tally, title, folder, env=None, timeout=None, python=PYTHON):
    report = BUILD / "reports" / f"{title}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    succeeded = run(python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junit-xml={report}", folder,
                    env=env, timeout=timeout)
    if not report.is_file():
        tally.check(f"{title}: pytest wrote its report", False)
    elif tally.add_junit(report, title) == 0 and not succeeded:
        tally.check(f"{title}: pytest (exit status)", False)


def pip_install(*arguments, python=PYTHON):
    return run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments,
               env={"CMAKE_BUILD_PARALLEL_LEVEL": JOBS})


def python_tests(tally, model):
    stage("Python package")
    if not PYTHON.is_file():
        run("/usr/bin/python3", "-m", "venv", "--clear", BUILD / "venv")
    if not tally.check("pinned Python packages", pip_install("--require-hashes", "-r", "scripts/pins/python.txt")):
        return
    # Without a cache: pip keeps wheels of folders named like "octet-main" and would install a stale one.
    installed = pip_install("--no-cache-dir", "--no-build-isolation", "--no-deps", "--force-reinstall", ".")
    if tally.check("pip install .", installed):
        pytest(tally, "python", "python/tests", env=model)


def model_environment(tally):
    """What the tests that run the real model read: the program and SmolLM2's folder."""
    stage("The real model")
    octet = BUILD / "test" / "tools" / "octet"
    fetched = subprocess.run(["scripts/fetch_model.sh", str(octet), "--fresh"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if not tally.check("scripts/fetch_model.sh", fetched.returncode == 0):
        return {"OCTET": str(octet)}
    return {"OCTET": str(octet), "OCTET_TEST_MODEL": fetched.stdout.strip()}


def sanitizer_runs(tally):
    for preset, env in {
        "asan": {"ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
        "tsan": {"TSAN_OPTIONS": "halt_on_error=1"},
    }.items():
        stage(f"Sanitizer build: {preset}")
        build(tally, preset, preset)
        stage(f"Quick tests under {preset}")
        # Address space layout randomisation of recent kernels is more than ThreadSanitizer of GCC 12 can map.
        ctest(tally, preset, env=env, wrapper=["setarch", os.uname().machine, "-R"] if preset == "tsan" else [])


def fuzz_runs(tally):
    stage(f"Fuzzers, {FUZZ_SECONDS} s each")
    build(tally, "fuzz", "fuzz")
    sources = sorted([*ROOT.glob("octet/**/*_fuzz.cc"), *ROOT.glob("tools/*_fuzz.cc")])
    tally.check("there are fuzzers", bool(sources))
    for source in sources:
        name = source.stem
        program = BUILD / "fuzz" / name
        corpus = BUILD / "fuzz" / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        print(f"  {name}", flush=True)
        log = BUILD / "fuzz" / f"{name}.log"
        with log.open("w") as out:
            clean = program.is_file() and run(program, f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=2048",
                                              f"-artifact_prefix={BUILD}/fuzz/{name}-", corpus, ROOT / "tests/fuzz" / name,
                                              stdout=out, stderr=out)
        if not tally.check(f"fuzz {name}", clean) and log.is_file():
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))


def slow_runs(tally, model):
    sanitizer_runs(tally)
    fuzz_runs(tally)
    stage("Headers compile alone")
    tally.check("headers compile alone", run(sys.executable, "scripts/check_headers.py", BUILD / "test"))
    stage("clang-tidy")
    tally.check("clang-tidy", run("run-clang-tidy", "-quiet", "-p", BUILD / "test", "-j", JOBS, rf"{ROOT}/(octet|tools)/.*\.cc$"))
    stage("Slow tests: real counterparties, soak")
    if tally.check("packages of the slow tests", pip_install("--no-deps", "--require-hashes", "-r", "scripts/pins/slow.txt")):
        for program in sorted(ROOT.glob("tests/slow/*_vs_*.py")):
            tally.check(f"slow: {program.name}", run(PYTHON, program, "--octet", model["OCTET"]))
        pytest(tally, "slow", "tests/slow", env=model)
    client_runs(tally, model)


def client_runs(tally, model):
    stage("Real clients: schemathesis, LangChain, LiteLLM")
    if sys.version_info[:2] != (3, 11):
        print("their packages are pinned for Python 3.11: skipped")
        return
    if not CLIENTS_PYTHON.is_file():
        run("/usr/bin/python3", "-m", "venv", "--clear", BUILD / "clients-venv")
    if tally.check("packages of the real clients", pip_install("--require-hashes", "-r", "scripts/pins/counterparties.txt", python=CLIENTS_PYTHON)):
        pytest(tally, "clients", "tests/clients", env=model, python=CLIENTS_PYTHON)


def main():
    os.environ.update(CCACHE_BASEDIR=str(ROOT), CCACHE_NOHASHDIR="1", PIP_ROOT_USER_ACTION="ignore")
    tally = Tally()
    started = time.monotonic()
    house_checks(tally)
    cuda = shutil.which("nvcc") is not None
    stage("Build: build/test" + (", with the GPU's kernels" if cuda else ""))
    if not cuda:
        print("no nvcc here: the CUDA device and the GPU's kernels are not compiled")
    build(tally, "release", "test", "-DOCTET_TESTS=ON", f"-DOCTET_CUDA={'ON' if cuda else 'OFF'}")
    if os.uname().machine == "x86_64":
        tally.check("check_vector_code.py", run(sys.executable, "scripts/check_vector_code.py", BUILD / "test"))
    model = model_environment(tally)  # before the tests, some of which run it
    stage("Quick tests")
    ctest(tally, "test")
    python_tests(tally, model)
    stage("End to end, with the real model")
    tally.check("packages of the clients", pip_install("--no-deps", "--require-hashes", "-r", "scripts/pins/clients.txt"))
    pytest(tally, "e2e", "tests/e2e", env=model)
    if "--all" in sys.argv[1:]:
        slow_runs(tally, model)
    stage(f"Done in {(time.monotonic() - started) / 60:.1f} minutes")
    if tally.skipped:
        print(f"{tally.skipped} skipped")
    for failure in tally.failures:
        print(f"FAILED: {failure}")
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    sys.exit(1 if tally.failures else 0)


if __name__ == "__main__":
    main()
