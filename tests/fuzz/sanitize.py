"""Run tests with csrc and the cffi module under a sanitizer; libllama stays as it is, so that this takes no hour.

    python -m tests.fuzz.sanitize                              # address and undefined behaviour: what exercises csrc
    python -m tests.fuzz.sanitize --with thread                # data races instead
    python -m tests.fuzz.sanitize --leaks tests/api            # also what csrc and libllama allocate and never free
    python -m tests.fuzz.sanitize tests/raw -k guard           # pytest's arguments
    python -m tests.fuzz.sanitize -m tests.fuzz.campaign --operations 20000

It needs an installed rawllama, whose headers and libraries it uses, and GCC with its sanitizers. CMake builds into
build/sanitize/, again only what has changed. Reports of all processes are printed at the end; of leaks, those with a
frame of ours or libllama's: Python itself frees little when it exits.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "sanitize"
LIBRARIES = {"address,undefined": "libasan.so", "thread": "libtsan.so"}
# Which libraries are where, and how they stand beside others, is not for here: ASan comes between.
ELSEWHERE = ("tests/raw/test_collisions.py", "tests/raw/test_libraries.py", "tests/api/test_backend.py")
SUITE = ("tests/raw", "tests/api", "tests/lifetime", "tests/fuzz/test_operations.py")
OURS = re.compile(r"_libllama\.|librawllama-")


def build(sanitizers: str, jobs: int = 2) -> Path:
    """Build the module; return the folder to put on PYTHONPATH."""
    folder = BUILD / sanitizers.replace(",", "-")
    site, prefix = folder / "site", folder / "llama"
    _as_system_llama(installed(), prefix)
    options = {
        "RAWLLAMA_SANITIZE": sanitizers,
        "RAWLLAMA_LLAMA": "system",
        "SKBUILD_PROJECT_VERSION": "0.0.0",
        "CMAKE_PREFIX_PATH": prefix,
        "CMAKE_INSTALL_PREFIX": site,
        "CMAKE_BUILD_TYPE": "None",  # cffi's wrappers are long and need no optimizer
        "Python_EXECUTABLE": sys.executable,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    cmake("-G", "Ninja", "-S", ROOT, "-B", folder / "cmake", *defines)
    cmake("--build", folder / "cmake", "--parallel", jobs)
    cmake("--install", folder / "cmake", "--component", "rawllama")
    package = site / "rawllama"
    for source in (ROOT / "python" / "rawllama").iterdir():
        _link(package / source.name, source)
    _link(package / "lib", installed() / "lib")
    return site


def installed() -> Path:
    """The folder of the installed package."""
    spec = importlib.util.find_spec("rawllama")
    if spec is None or spec.origin is None:
        sys.exit("rawllama is not installed here: its libraries are what the sanitized module is linked with")
    return Path(spec.origin).parent


def cmake(*arguments: object) -> None:
    program = shutil.which("cmake", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    done = subprocess.run(
        [program or "cmake", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")


def _as_system_llama(package: Path, prefix: Path) -> None:
    """The installed libraries under libllama's own names, as RAWLLAMA_LLAMA=system looks for them."""
    for name in ("include", "lib"):
        (prefix / name).mkdir(parents=True, exist_ok=True)
    for library in (package / "lib").iterdir():
        _link(prefix / "lib" / library.name, library)
        _link(prefix / "lib" / library.name.replace("rawllama-", ""), library)
    for header in (package / "include").glob("*.h"):
        if not header.name.startswith("rawllama"):  # those are made again
            shutil.copy2(header, prefix / "include")  # no link, which bindgen would follow


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def environment(sanitizers: str, site: Path, reports: Path, leaks: bool) -> dict[str, str]:
    """What a Python that runs under the sanitizer needs; reports become files that begin with `reports`."""
    # C++'s library must be there when the sanitizer begins: it stands in front of `throw`.
    libraries = [_compilers(name) for name in (LIBRARIES[sanitizers], "libstdc++.so.6")]
    # Memory that is not there is C++'s to handle, and some tests want to see a signal as Python does.
    common = f"log_path={reports}:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:allocator_may_return_null=1"
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))),
        "ASAN_OPTIONS": f"{common}:detect_leaks={leaks:d}",
        "LSAN_OPTIONS": "exitcode=0",
        "UBSAN_OPTIONS": f"log_path={reports}:print_stacktrace=1",
        "TSAN_OPTIONS": f"{common}:halt_on_error=1",
        "GGML_NO_BACKTRACE": "1",
    }


def _compilers(name: str) -> Path:
    """Where the compiler has a library."""
    compiler = os.environ.get("CC", "cc")
    path = Path(subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip())
    if not path.is_absolute():
        sys.exit(f"{compiler} has no {name}; install GCC's sanitizers")
    return path.resolve()


def leaked(report: str) -> Iterator[str]:
    """The stacks of leaks, without addresses, that have one of our frames."""
    for block in report.split("\n\n"):
        if block.startswith(("Direct leak", "Indirect leak")) and OURS.search(block):
            yield re.sub(r"0x[0-9a-f]+ ", "", block.split("\n", 1)[1])


def found(folder: Path) -> Counter[str]:
    """What the sanitizers report: how often which stack of a leak, and each other report."""
    counts: Counter[str] = Counter()
    for path in folder.iterdir():
        report = path.read_text(errors="replace")
        counts.update(leaked(report) if "LeakSanitizer" in report else [report])
    return counts


def run(sanitizers: str, arguments: list[str], *, leaks: bool = False) -> int:
    """Build and run Python with these arguments; return its exit code, or 1 for reports."""
    site = build(sanitizers)
    with tempfile.TemporaryDirectory() as folder:
        env = environment(sanitizers, site, Path(folder, "report"), leaks)
        code = subprocess.run([sys.executable, *arguments], env=env, cwd=ROOT, check=False).returncode
        reports = found(Path(folder))
    for report, times in reports.most_common():
        print(f"{times} times:\n{report}\n")
    print(f"exit code {code}, {len(reports)} kinds of reports")
    return code or bool(reports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="sanitizers", choices=["address", "thread"], default="address")
    parser.add_argument("--leaks", action="store_true")
    options, rest = parser.parse_known_args()
    sanitizers = next(name for name in LIBRARIES if name.startswith(options.sanitizers))
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"--ignore={path}" for path in ELSEWHERE)]
    arguments = rest if rest[:1] == ["-m"] else [*pytest, *(rest or SUITE)]
    sys.exit(run(sanitizers, arguments, leaks=options.leaks))


if __name__ == "__main__":
    main()
