"""vendor/fetch.py, with small archives and without network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

VENDOR = Path(__file__).resolve().parents[2] / "vendor"
FETCH = VENDOR / "fetch.py"
STAMP = ".rawllama-pin"
ROOT = "tiny_llama-1.0/vendor/llama.cpp"
PATHS = ["CMakeLists.txt", "src", "vendor/hash"]
WANTED = {
    "CMakeLists.txt": b"project(tiny)",
    "src/llama.c": b"int llama;",
    "src/models/bert.c": b"int bert;",
    "vendor/hash/hash.c": b"int hash;",
}
UNWANTED = {
    "src/.gitignore": b"*.c",
    "src/.cache/index": b"",
    "src2/other.c": b"",
    "vendor/stb/stb.h": b"",
    "docs/README.md": b"long",
}
ELSEWHERE = {"tiny_llama-1.0/src/llama.c": b"shallow", "tiny_llama-1.0/vendor/other/src/other.c": b"beside"}
# A source distribution that pip can prepare without network: its build backend is in its own tree.
BACKEND = {
    "tiny_llama-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n",
    "tiny_llama-1.0/pyproject.toml": (
        b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        b'[project]\nname = "tiny-llama"\nversion = "1.0"\n'
    ),
    "tiny_llama-1.0/backend.py": (
        b"from pathlib import Path\n"
        b"def prepare_metadata_for_build_wheel(folder, config_settings=None):\n"
        b"    info = Path(folder, 'tiny_llama-1.0.dist-info')\n"
        b"    info.mkdir()\n"
        b"    (info / 'METADATA').write_text('Metadata-Version: 2.1\\nName: tiny-llama\\nVersion: 1.0\\n')\n"
        b"    return info.name\n"
    ),
}

needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this environment has no pip")
needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def write_archive(file: Path, members: dict[str, bytes], *special: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_000_000_000
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return file


def inside(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{ROOT}/{name}": content for name, content in files.items()}


def write_pin(file: Path, archive: Path, **changes: object) -> Path:
    """A pin of `archive`; `changes` replace its values."""
    values: dict[str, object] = {
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "size": archive.stat().st_size,
        "commit": "0" * 40,
        "paths": PATHS,
        **changes,
    }
    file.write_text(
        f'[source]\ndistribution = "tiny-llama"\nversion = "1.0"\nsha256 = "{values["sha256"]}"\n'
        f'size = {values["size"]}\nfolder = "vendor/llama.cpp"\n'
        f'[upstream]\nrepository = "tiny/llama.cpp"\ncommit = "{values["commit"]}"\n'
        f"[unpack]\npaths = {json.dumps(values['paths'])}\n",
        encoding="utf-8",
    )
    return file


def contents(tree: Path) -> dict[str, bytes]:
    return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}


@dataclass
class Place:
    """A folder with an archive, its pin, a cache and room for the tree."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tree = self.folder / "tree"
        self.work = self.folder / ".tree.fetch"
        self.cache = self.folder / "cache"
        self.cached = self.cache / "tiny_llama-1.0.tar.gz"
        files = {**inside(WANTED), **inside(UNWANTED), **ELSEWHERE, **BACKEND}
        self.archive = write_archive(self.folder / "tiny_llama-1.0.tar.gz", files)
        self.pin = write_pin(self.folder / "pin.toml", self.archive)

    def command(self, *more: str | Path, pin: Path | None = None) -> list[str]:
        options = ["--destination", self.tree, "--pin", pin or self.pin, *more]
        return [sys.executable, str(FETCH), *map(str, options)]

    def run(self, *more: str | Path, pin: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it offline, with only the cache of this place."""
        return self.execute(self.command(*more, pin=pin))

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        keep = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        ours = {"RAWLLAMA_CACHE": str(self.cache), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        environment = {**keep, **ours, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def fetched(self) -> None:
        done = self.run("--archive", self.archive)
        assert done.returncode == 0, done.stderr

    def leftovers(self) -> list[str]:
        return [
            file.name
            for folder in (self.work, self.cache)
            if folder.exists()
            for file in folder.iterdir()
            if file.name not in {"lock", ".gitignore", self.cached.name}
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One message without a traceback, with all of `words`."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("fetch: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# What is made


def test_pinned_paths_only(place: Place) -> None:
    before = time.time() - 2
    place.fetched()
    files = contents(place.tree)
    stamp = json.loads(files.pop(STAMP))
    assert files == WANTED
    assert (stamp["distribution"], stamp["version"], stamp["files"]) == ("tiny-llama", "1.0", len(WANTED))
    assert all((place.tree / name).stat().st_mtime >= before for name in WANTED), "times come from the archive"
    assert place.leftovers() == []


def test_second_run_writes_nothing(place: Place) -> None:
    place.fetched()
    place.archive.unlink()

    def state() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in place.folder.rglob("*")}

    before = state()
    done = place.run()
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert state() == before


def test_tree_in_a_source_distribution_is_taken_as_it_is(place: Place) -> None:
    """Packing and unpacking changes times and drops the work folder."""
    place.fetched()
    files = contents(place.tree)
    moved = place.folder / "elsewhere"
    for name, content in files.items():
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_bytes(content)
    place.tree = moved
    done = place.run()
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True)
    assert not (place.folder / ".elsewhere.fetch").exists()


def test_comment_in_the_pin_changes_nothing(place: Place) -> None:
    place.fetched()
    place.pin.write_text("# a comment\n" + place.pin.read_text(encoding="utf-8"), encoding="utf-8")
    assert "nothing to do" in place.run().stdout


def test_deleted_file_comes_back(place: Place) -> None:
    place.fetched()
    (place.tree / "src/llama.c").unlink()
    place.fetched()
    assert contents(place.tree).keys() - {STAMP} == WANTED.keys()


def test_edited_and_added_files_stay(place: Place) -> None:
    place.fetched()
    (place.tree / "src/llama.c").write_text("int patched;")
    (place.tree / "src/mine.c").write_text("int mine;")
    (place.tree / "build").mkdir()
    assert "nothing to do" in place.run().stdout
    assert (place.tree / "src/llama.c").read_text() == "int patched;"
    assert (place.tree / "src/mine.c").exists()


def test_build_folder_does_not_hide_a_deleted_file(place: Place) -> None:
    place.fetched()
    (place.tree / "src/llama.c").unlink()
    (place.tree / "build").mkdir()
    (place.tree / "build/llama.o").touch()
    place.fetched()
    assert (place.tree / "src/llama.c").exists()


def test_other_pin_replaces_the_tree_and_keeps_times_of_what_is_the_same(place: Place) -> None:
    place.fetched()
    old = 1_500_000_000
    for name in WANTED:
        os.utime(place.tree / name, (old, old))
    changed = {**WANTED, "src/llama.c": b"int LLAMA;"}  # as long as before
    del changed["vendor/hash/hash.c"]
    place.archive = write_archive(place.folder / "next.tar.gz", inside(changed))
    place.pin = write_pin(place.folder / "next.toml", place.archive, paths=["CMakeLists.txt", "src"])
    place.fetched()
    files = contents(place.tree)
    del files[STAMP]
    assert files == changed
    new = {name for name in changed if (place.tree / name).stat().st_mtime != old}
    assert new == {"src/llama.c"}


def test_path_added_to_the_pin_is_brought(place: Place) -> None:
    place.fetched()
    write_pin(place.pin, place.archive, paths=[*PATHS, "docs"])
    place.fetched()
    assert (place.tree / "docs/README.md").exists()


@pytest.mark.parametrize("stamp", [None, "", "[]", '{"files": 0}', "\0"])
def test_half_tree_is_replaced(place: Place, stamp: str | None) -> None:
    (place.tree / "src").mkdir(parents=True)
    (place.tree / "src/llama.c").write_text("int ll")
    if stamp is not None:
        (place.tree / STAMP).write_text(stamp)
    place.fetched()
    assert (place.tree / "src/llama.c").read_bytes() == WANTED["src/llama.c"]


def test_folder_of_somebody_else_is_refused(place: Place) -> None:
    place.tree.mkdir()
    (place.tree / "thesis.tex").write_text("years of work")
    assert_refused(place.run("--archive", place.archive), "not made by this script", "--destination")
    assert (place.tree / "thesis.tex").exists()


def test_file_in_the_way_is_refused(place: Place) -> None:
    place.tree.write_text("a file")
    assert_refused(place.run("--archive", place.archive), "not made by this script")
    assert place.tree.read_text() == "a file"


# What is wrong with an archive


def test_no_such_archive(place: Place) -> None:
    assert_refused(place.run("--archive", "nowhere.tar.gz"), "nowhere.tar.gz", "pip download")


def test_wrong_hash(place: Place) -> None:
    data = bytearray(place.archive.read_bytes())
    data[-1] ^= 1
    place.archive.write_bytes(data)
    assert_refused(place.run("--archive", place.archive), "sha256", "pip download", "--archive")
    assert not place.tree.exists()


def test_truncated_archive(place: Place) -> None:
    place.archive.write_bytes(place.archive.read_bytes()[:-100])
    assert_refused(place.run("--archive", place.archive), "bytes", "cut short", "pip download")
    assert not place.tree.exists()


@pytest.mark.parametrize("damage", ["text", "half"])
def test_pinned_file_is_no_archive(place: Place, damage: str) -> None:
    data = place.archive.read_bytes()
    place.archive.write_bytes(b"hello" if damage == "text" else data[: len(data) // 2])
    write_pin(place.pin, place.archive)
    assert_refused(place.run("--archive", place.archive), "cannot be read as tar.gz", "Correct the pin")
    assert not place.tree.exists()
    assert place.leftovers() == []


def test_path_that_the_archive_lacks(place: Place) -> None:
    write_pin(place.pin, place.archive, paths=[*PATHS, "src/gone.c", "../../backend.py"])
    assert_refused(place.run("--archive", place.archive), "../../backend.py, src/gone.c", "paths")
    assert not place.tree.exists()


@pytest.mark.parametrize("name", ["src/../../../evil.c", "src/../evil.c"])
def test_member_that_leaves_the_folder(place: Place, name: str) -> None:
    write_archive(place.archive, inside({**WANTED, name: b"evil"}))
    write_pin(place.pin, place.archive)
    assert_refused(place.run("--archive", place.archive), name, "Do not use")
    assert not list(place.folder.rglob("evil.c"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_member_that_is_no_file(place: Place, kind: bytes) -> None:
    link = tarfile.TarInfo(f"{ROOT}/src/link.c")
    link.type, link.linkname = kind, "/etc/passwd"
    write_archive(place.archive, inside(WANTED), link)
    write_pin(place.pin, place.archive)
    assert_refused(place.run("--archive", place.archive), "link.c", "Do not use")
    assert not place.tree.exists()


# What is wrong with a pin


def test_no_pin_file(place: Place) -> None:
    assert_refused(place.run(pin=place.folder / "none.toml"), "none.toml", "--pin")


@pytest.mark.parametrize("text", ["[source", "[source]\nversion = 1", "source = 1", "\udcff"])
def test_pin_that_cannot_be_read(place: Place, text: str) -> None:
    place.pin.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert_refused(place.run(), "pin.toml", "Compare it")


def test_the_pin_of_this_repository() -> None:
    fetch = runpy.run_path(str(FETCH))
    pin = fetch["read_pin"](VENDOR / "llama.cpp.toml")
    assert pin.archive == f"llama_cpp_python-{pin.version}.tar.gz"
    assert len(pin.sha256) == 64
    assert int(pin.sha256, 16)
    assert len(pin.commit) == 40
    assert pin.repository == "ggml-org/llama.cpp"
    assert pin.size > 10_000_000
    needed = {"LICENSE", "CMakeLists.txt", "include", "src", "ggml", "common", "examples/embedding"}
    assert needed <= {str(path) for path in pin.paths}
    with (VENDOR / "llama.cpp.toml").open("rb") as file:
        assert tomllib.load(file).keys() == {"source", "upstream", "unpack"}


# Download and cache


def test_cached_archive_needs_no_network(place: Place) -> None:
    place.cache.mkdir()
    place.archive.rename(place.cached)
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert (place.tree / STAMP).exists()
    assert [file.name for file in place.cache.iterdir()] == [place.cached.name], "a good cache is only read"


@needs_pip
def test_offline(place: Place) -> None:
    done = place.run()
    assert_refused(done, "  | ", "No matching distribution", "--archive", str(place.cached))
    assert "pip download --no-deps --no-binary tiny-llama tiny-llama==1.0" in done.stderr
    assert place.leftovers() == []
    assert not place.tree.exists()


@needs_pip
def test_download_by_hash_over_a_damaged_cache(place: Place) -> None:
    """The whole way, with a folder for an index."""
    place.environment["PIP_FIND_LINKS"] = str(place.folder)
    place.cache.mkdir()
    place.cached.write_bytes(place.archive.read_bytes()[:-1] + b"?")
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stdout
    assert "downloading" in done.stdout
    assert place.cached.read_bytes() == place.archive.read_bytes()
    assert place.leftovers() == []


@needs_pip
def test_index_with_another_file(place: Place) -> None:
    place.environment["PIP_FIND_LINKS"] = str(place.folder)
    write_pin(place.pin, place.archive, sha256="0" * 64)
    assert_refused(place.run(), "DO NOT MATCH", "correct its sha256")
    assert not place.cached.exists()


def test_without_pip(place: Place) -> None:
    venv.create(place.folder / "venv", with_pip=False)
    binary = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    python = str(place.folder / "venv" / binary)
    done = place.execute([python, *place.command()[1:]])
    assert_refused(done, "has no pip", "ensurepip", "--archive", str(place.cached))


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("linux", "xdg/rawllama"), ("darwin", "home/Library/Caches/rawllama"), ("win32", "local/rawllama")],
)
def test_cache_folder(monkeypatch: pytest.MonkeyPatch, platform: str, expected: str) -> None:
    cache_folder = runpy.run_path(str(FETCH))["cache_folder"]
    monkeypatch.delenv("RAWLLAMA_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/x/home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/xdg")
    monkeypatch.setenv("LOCALAPPDATA", "/x/local")
    assert cache_folder() == Path("/x", expected)
    monkeypatch.setenv("RAWLLAMA_CACHE", "/own")
    assert cache_folder() == Path("/own")


# The operating system says no. Tests run as root too, so the refusal is put in by hand.

FAILING = """
import errno, os, runpy, sys, tarfile
code = getattr(errno, sys.argv[1])
def fail(*arguments, **options):
    raise OSError(code, os.strerror(code), "/some/place")
tarfile.TarFile.extract = fail
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ENOSPC", ["No space left", "/some/place", "Make room"]),
        ("EACCES", ["Permission denied", "/some/place", "RAWLLAMA_CACHE", "--destination"]),
        ("EIO", ["/some/place"]),
    ],
)
def test_error_of_the_operating_system(place: Place, code: str, words: list[str]) -> None:
    python, *command = place.command("--archive", place.archive)
    assert_refused(place.execute([python, "-c", FAILING, code, *command]), *words)
    assert place.leftovers() == []
    assert not place.tree.exists()


# Kills and several runs at once


@dataclass
class Rivals:
    """Two pins for one destination, and how to tell whose tree is there."""

    place: Place
    archives: list[Path]
    pins: list[Path]
    files: list[dict[str, bytes]]

    def command(self, which: int) -> list[str]:
        return self.place.command("--archive", self.archives[which], pin=self.pins[which])

    def owner(self) -> int | None:
        """Whose whole tree is there, as an index; None where there is none; fails for anything between."""
        if not self.place.tree.exists():
            return None
        files = contents(self.place.tree)
        assert STAMP in files, "a tree without its stamp"
        commit = json.loads(files.pop(STAMP))["commit"]
        which = int(commit[0])
        assert files == self.files[which], "a stamped tree that is not whole"
        return which


def make_rivals(place: Place, count: int) -> Rivals:
    rivals = Rivals(place, [], [], [])
    for which in range(2):
        many = {f"src/{number}.c": f"{number} of {which}".encode() for number in range(count)}
        rivals.files.append({**WANTED, **many})
        archive = write_archive(place.folder / f"{which}.tar.gz", inside(rivals.files[which]))
        rivals.archives.append(archive)
        rivals.pins.append(write_pin(place.folder / f"{which}.toml", archive, commit=str(which) * 40))
    return rivals


@contextlib.contextmanager
def killed_at(step: int, folder: Path) -> Iterator[None]:
    """SIGKILL this process at the step-th thing it does to the file system, once it has touched `folder`."""
    left = step + 1
    begun = False

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left, begun
        if event == "open" or event.startswith(("os.", "shutil.", "tempfile.", "fcntl.")):
            begun = begun or any(str(folder) in str(argument) for argument in arguments)
            left -= begun
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    yield


def survives(step: int, command: list[str], folder: Path) -> bool:
    """Run the command in a fork that is killed at `step`; whether it came to its end before."""
    child = os.fork()
    if not child:
        sys.argv = command[1:]
        with Path(os.devnull).open("w") as sys.stdout, killed_at(step, folder):
            with contextlib.suppress(BaseException):
                runpy.run_path(str(FETCH), run_name="__main__")
                os._exit(0)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return not os.WIFSIGNALED(status)


@needs_sigkill
@needs_fork
@pytest.mark.parametrize("before", [None, 0])
def test_killed_at_every_step(place: Place, before: int | None) -> None:
    rivals = make_rivals(place, 0)
    seen = set()
    for step in range(1000):
        if before is not None and rivals.owner() != before:
            assert place.execute(rivals.command(before)).returncode == 0
        ended = survives(step, rivals.command(1), place.work)
        seen.add(rivals.owner())
        if ended:
            break
        if before is None and place.tree.exists():
            shutil.rmtree(place.tree)  # begin the next step without a tree again
    assert ended
    assert step > 30, "the steps were not counted"
    assert seen == {before, None, 1}
    assert rivals.owner() == 1
    assert place.leftovers() == []


@needs_sigkill
def test_killed_at_random_moments(place: Place) -> None:
    rivals = make_rivals(place, 150)
    chance = random.Random(2)
    killed = 0
    for turn in range(15):
        stale = set(place.work.glob("unpack-*"))
        child = subprocess.Popen(rivals.command(turn % 2), stdout=subprocess.DEVNULL)
        while child.poll() is None and not set(place.work.glob("unpack-*")) - stale:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.15))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        rivals.owner()
    assert killed, "each run ended before it could be killed"
    assert place.execute(rivals.command(1)).returncode == 0
    assert rivals.owner() == 1
    assert place.leftovers() == []


def test_runs_at_once_make_one_tree(place: Place) -> None:
    rivals = make_rivals(place, 300)
    children = [
        subprocess.Popen(rivals.command(0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)
    ]
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * 5, said
    assert sum(" files" in out for out, _ in said) == 1, "more than one made it"
    assert rivals.owner() == 0
    assert place.leftovers() == []


def test_rivals_at_once_leave_a_whole_tree(place: Place) -> None:
    rivals = make_rivals(place, 100)
    children = [
        subprocess.Popen(rivals.command(number % 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * 6, said
    assert rivals.owner() in {0, 1}
    assert place.leftovers() == []
