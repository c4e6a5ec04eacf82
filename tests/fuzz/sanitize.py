"""Run tests with csrc and the cffi module under a sanitizer; libllama stays as it is, so that this takes no hour.

    python -m tests.fuzz.sanitize                              # address and undefined behaviour: what exercises csrc
    python -m tests.fuzz.sanitize --with thread                # data races instead
    python -m tests.fuzz.sanitize --leaks tests/api            # also what csrc and libllama allocate and never free
    python -m tests.fuzz.sanitize tests/raw -k guard           # pytest's arguments
    python -m tests.fuzz.sanitize -m tests.fuzz.campaign --operations 20000

It needs an installed rawllama, whose headers and libraries it uses, and GCC with its sanitizers. CMake builds into
build/sanitize/, again only what has changed. Every report ends its process, so that a test fails; leaks are counted at
the end, and only those with a frame of ours or libllama's: Python itself frees little when it exits.
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
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build" / "sanitize"
LIBRARIES = {"address,undefined": "libasan.so", "thread": "libtsan.so"}
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
            shutil.copy2(header, prefix / "include")  # with its time, so that nothing is compiled again; bindgen follows links


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def environment(sanitizers: str, site: Path, leaks: str = "") -> dict[str, str]:
    """What a Python that runs under the sanitizer needs; `leaks` is where reports of leaks go."""
    compiler = os.environ.get("CC", "cc")
    name = LIBRARIES[sanitizers]
    library = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
    if library == name:
        sys.exit(f"{compiler} has no {name}; install GCC's sanitizers")
    common = "handle_segv=0:allocator_may_return_null=1"  # ours to test are what C++ makes of no memory, and faulthandler
    leak = f"detect_leaks=1:log_path={leaks}" if leaks else "detect_leaks=0"
    return {
        **os.environ,
        "LD_PRELOAD": str(Path(library).resolve()),
        "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))),
        "ASAN_OPTIONS": f"{common}:{leak}",
        "LSAN_OPTIONS": "exitcode=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"{common}:halt_on_error=1",
        "GGML_NO_BACKTRACE": "1",
    }


def leaked(reports: Path) -> Counter[str]:
    """Leaks with one of our frames: how often which stack, without addresses."""
    stacks: Counter[str] = Counter()
    for path in reports.iterdir():
        for block in path.read_text(errors="replace").split("\n\n"):
            if block.startswith(("Direct leak", "Indirect leak")) and OURS.search(block):
                stacks[re.sub(r"0x[0-9a-f]+ ", "", block.split("\n", 1)[1])] += 1
    return stacks


def run(sanitizers: str, arguments: list[str], leaks: bool = False) -> int:
    """Build and run Python with these arguments; return its exit code, or 1 for leaks."""
    site = build(sanitizers)
    with tempfile.TemporaryDirectory() as folder:
        reports = str(Path(folder, "leaks")) if leaks else ""
        command = [sys.executable, *arguments]
        code = subprocess.run(command, env=environment(sanitizers, site, reports), cwd=ROOT, check=False).returncode
        stacks = leaked(Path(folder))
    for stack, times in stacks.most_common():
        print(f"leaked {times} times:\n{stack}\n")
    return code or bool(stacks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="sanitizers", choices=["address", "thread"], default="address")
    parser.add_argument("--leaks", action="store_true")
    options, rest = parser.parse_known_args()
    sanitizers = next(name for name in LIBRARIES if name.startswith(options.sanitizers))
    arguments = rest if rest[:1] == ["-m"] else ["-m", "pytest", "-x", "-p", "no:cacheprovider", *(rest or SUITE)]
    sys.exit(run(sanitizers, arguments, options.leaks))


if __name__ == "__main__":
    main()
