"""Fuzz libllama's loading of GGUF files: `python tests/fuzz/gguf/campaign.py --minutes 15 --jobs 2`.

It needs clang with libFuzzer (Debian: apt-get install clang libclang-rt-dev) and an installed rawllama. CMake builds
libllama with coverage counters and AddressSanitizer into build/gguf-fuzz/, once and for minutes, and the fuzzer there.
What the fuzzer finds is then used from Python (use.py), which refuses some damaged files before libllama sees them:
only what ends that process counts. Findings are printed by their stack, with a file for each in build/gguf-fuzz/found/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import gguf

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.models import tiny, vocabularies  # noqa: E402 (found only now)

BUILD = ROOT / "build" / "gguf-fuzz"
SOURCE = ROOT / "vendor" / "llama.cpp" / "src"
LIMITS = ("-timeout=25", "-rss_limit_mb=4096", "-malloc_limit_mb=2048", "-max_len=400000")
SECONDS = 60  # for Python with one file
FRAME = re.compile(r"#\d+ 0x[0-9a-f]+ in (.+?) (?:\(|/?\S*/)([^/\s]+)$", re.MULTILINE)
#: Where every stack begins or ends.
NOISE = re.compile(r"^(__asan|__sanitizer|__interceptor|raise|abort|gsignal|operator |mem(cpy|move|set)$|std::|on_abort"
                   r"|ggml_abort|fuzzer::|free|malloc|\(anonymous namespace\)::on_abort)")  # fmt: skip


# ---- building


def names(source: Path) -> str:
    """What the mutator puts into files, as C++: read from llama.cpp, so that nothing is forgotten."""
    arch, vocab = ((source / file).read_text(encoding="utf-8") for file in ("llama-arch.cpp", "llama-vocab.cpp"))
    lists = {
        "architectures": re.findall(r'\{ LLM_ARCH_\w+,\s*"([^"]+)"', arch),
        "key_names": re.findall(r'\{ LLM_KV_\w+,\s*"([^"]+)"', arch),
        "tensor_names": re.findall(r'\{ LLM_TENSOR_\w+,\s*"([^"]+)"', arch),
        "tokenizers": re.findall(r'tokenizer_model == "([^"]+)"', vocab),
        "pre_tokenizers": re.findall(r'tokenizer_pre\s*==\s*"([^"]+)"', vocab),
    }
    assert all(lists.values()), {name: len(found) for name, found in lists.items()}
    quoted = {name: ", ".join(f'"{one}"' for one in dict.fromkeys(found)) for name, found in lists.items()}
    return "".join(f"static const char * const {name}[] = {{ {ones} }};\n" for name, ones in quoted.items())


def build() -> Path:
    """Build the fuzzer; return its path."""
    # Resolved: ninja does not find the headers that a clang in /bin, a link to /usr/bin, names.
    folders = [Path(folder).resolve() for folder in os.environ["PATH"].split(os.pathsep)]
    clang = sorted(path for folder in folders for path in folder.glob("clang++*"))
    if not clang:
        sys.exit("clang was not found (Debian: apt-get install clang libclang-rt-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    text, path = names(SOURCE), BUILD / "names.inc"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    compilers = (f"-DCMAKE_CXX_COMPILER={clang[0]}", f"-DCMAKE_C_COMPILER={str(clang[0]).replace('++', '')}")
    cmake("-G", "Ninja", "-S", HERE, "-B", BUILD, "-DCMAKE_BUILD_TYPE=None", *compilers)
    cmake("--build", BUILD, "--target", "load", "--parallel", 2)
    return BUILD / "load"


def cmake(*arguments: object) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run([shutil.which("cmake", path=path) or "cmake", *map(str, arguments)], check=True)


# ---- what it begins with


def write_seeds(folder: Path) -> None:
    """The tests' tiny models with few words, and their vocabularies alone."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {"WORDS": ("the", "cat"), "CHARACTERS": tuple("acdehilorstw12345")}
    for name, value in small.items():
        setattr(vocabularies, name, value)
    for name, model in tiny.MODELS.items():
        tiny.write(name, folder / f"{name}.gguf")
        writer = gguf.GGUFWriter(folder / f"{name}-vocabulary.gguf", model.architecture)
        model.fill(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


# ---- fuzzing


def fuzz(fuzzer: Path, minutes: float, jobs: int) -> None:
    corpus, found, seeds = (BUILD / name for name in ("corpus", "found", "seeds"))
    for path in (corpus, found):
        path.mkdir(exist_ok=True)
    write_seeds(seeds)
    options = [
        f"-fork={jobs}", "-ignore_crashes=1", "-ignore_ooms=1", "-ignore_timeouts=1", *LIMITS,
        f"-max_total_time={minutes * 60:.0f}", f"-artifact_prefix={found}{os.sep}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([fuzzer, *options, corpus, seeds], env=environment(), cwd=folder, check=False)


def environment() -> dict[str, str]:
    sanitizer = "detect_leaks=0:allocator_may_return_null=1:handle_abort=1:detect_stack_use_after_return=0"
    return {**os.environ, "ASAN_OPTIONS": sanitizer, "GGML_NO_BACKTRACE": "1"}


# ---- judging


def stack(fuzzer: Path, path: Path) -> tuple[str, ...]:
    """The innermost frames, or what libFuzzer says where there are none."""
    done = subprocess.run(
        [fuzzer, *LIMITS, path], env=environment(), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode == 0:
        return ("not again",)
    frames = [f"{name.split('(')[0]} {place}" for name, place in FRAME.findall(done.stderr) if not NOISE.match(name)]
    summary = re.findall(r"^SUMMARY: (.*?)(?: /.*)?$", done.stderr, re.MULTILINE)
    return (*summary[:1], *frames[:4])


def kills_python(path: Path) -> str:
    """How a Python process ended that used the file; empty if it survived."""
    command = [sys.executable, str(HERE / "use.py"), str(path)]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return ""
    return f"{done.returncode}: {done.stderr.strip().splitlines()[-1:]}"


def judge(fuzzer: Path) -> int:
    """Print each stack once, with whether Python dies of it; return how many do."""
    stacks: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted((BUILD / "found").iterdir(), key=lambda path: path.stat().st_size):
        if not path.name.startswith("slow-unit"):
            stacks[stack(fuzzer, path)].append(path)
    deadly = 0
    for frames, paths in sorted(stacks.items(), key=lambda item: -len(item[1])):
        ends = [(end, path) for path in paths[:10] if (end := kills_python(path))]
        deadly += bool(ends)
        print(f"{len(paths)} files, Python {ends[0][0] if ends else 'survives'}: {(ends or [('', paths[0])])[0][1]}")
        print("".join(f"    {frame}\n" for frame in frames), flush=True)
    print(f"{len(stacks)} stacks, {deadly} of which end Python")
    return deadly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15, help="0 only judges again what was found before")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    fuzzer = build()
    if options.minutes:
        fuzz(fuzzer, options.minutes, options.jobs)
    sys.exit(judge(fuzzer) > 0)


if __name__ == "__main__":
    main()
