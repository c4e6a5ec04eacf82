"""hf:// names, against a server that speaks the Hub's protocol, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rawllama.errors import InvalidArgumentError
from rawllama.hub import is_name, resolve
from rawllama.huggingface import Address

from ..models import splits as split_models
from ..models import tiny as tiny_models
from ..tools import ROOT, run_python
from .hub_server import Hub, Repository, serving

# Prints the path of each name, or its error.
RESOLVE = """
import json, sys
from rawllama.errors import LlamaError
from rawllama.hub import resolve
found = []
for name in sys.argv[1:]:
    try:
        found.append(str(resolve(name)))
    except (LlamaError, ValueError) as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""
EMBED = """
import sys
from rawllama import Embedder
print(*(Embedder(name).encode(["some text", "other"]).tolist() for name in sys.argv[1:]), sep="\\n")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert", tmp_path_factory.mktemp("whole") / "tiny.gguf")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same model in several files."""
    return split_models.write("bert", tmp_path_factory.mktemp("splits"))


@pytest.fixture
def hub(whole: Path, splits: list[Path]) -> Iterator[Hub]:
    data = whole.read_bytes()
    with serving() as hub:
        hub.repositories = {
            "ann/one": Repository({"main": {"README.md": b"#", "tiny.gguf": data}}),
            "ann/many": Repository({
                "main": {"tiny.gguf": data, "sub/other.gguf": data[:-1], "notes.gguf": b"no model"},
                "v1": {"sub/old.gguf": data},
                "refs/pr/1": {"sub/proposed.gguf": data},
            }),
            "ann/split": Repository({"main": {f"q/{path.name}": path.read_bytes() for path in splits}}),
            "ann/none": Repository({"main": {"model.safetensors": b""}}),
            "ann/private": Repository({"main": {"tiny.gguf": data}}, token="secret"),
            "ann/gated": Repository({"main": {"tiny.gguf": data}}, token="secret", gated=True),
        }  # fmt: skip
        yield hub


@pytest.fixture
def ask(hub: Hub, tmp_path: Path) -> Callable[..., list[str]]:
    """Resolve names in a process; by default with this test's own cache."""

    def ask(*names: str, **env: str) -> list[str]:
        return json.loads(run_python(RESOLVE, *names, **environment(hub, tmp_path, **env)).stdout)  # type: ignore[no-any-return]

    return ask


def environment(hub: Hub, folder: Path, **more: str) -> dict[str, str]:
    none = {"HF_TOKEN": "", "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), **none, **more}


def test_names_and_paths() -> None:
    assert [is_name(name) for name in ("minilm", "hf://a/b/c.gguf", "hf.gguf", "./minilm", Path("minilm"))] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("hf://a/b/c.gguf", Address("a/b", None, "c.gguf")),
        ("hf://a/b/c/d e.gguf", Address("a/b", None, "c/d e.gguf")),
        ("hf://a/b@v1.0/c.gguf", Address("a/b", "v1.0", "c.gguf")),
        ("hf://a/b@feature%2Fx/c.gguf", Address("a/b", "feature/x", "c.gguf")),
        ("hf://a/b@refs%2Fpr%2F3/c.gguf", Address("a/b", "refs/pr/3", "c.gguf")),
        ("hf://a/b", Address("a/b", None, "")),
        ("hf://a/b@v1", Address("a/b", "v1", "")),
    ],
)
def test_addresses(name: str, address: Address) -> None:
    assert Address.parse(name) == address
    assert str(address) == name


def test_a_pull_request_needs_no_quotes() -> None:
    assert Address.parse("hf://a/b@refs/pr/3/c/d.gguf") == Address("a/b", "refs/pr/3", "c/d.gguf")


@pytest.mark.parametrize("name", ["hf://", "hf://a", "hf:///a/b.gguf", "hf://a/b@/c.gguf", "hf://a/b/c.safetensors"])
def test_malformed_names(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"is not of the form hf://owner/repository/file\.gguf; hf://owner"):
        resolve(name)


def test_a_file(hub: Hub, ask: Callable[..., list[str]], whole: Path) -> None:
    names = ["hf://ann/many/tiny.gguf", "hf://ann/many@v1/sub/old.gguf", "hf://ann/many@refs/pr/1/sub/proposed.gguf"]
    paths = ask(*names)
    for path in paths:
        assert Path(path).read_bytes() == whole.read_bytes()
    assert paths[1].endswith("/sub/old.gguf")
    downloads = len(hub.asked("GET", "/bytes/"))
    assert ask(*names) == paths
    assert len(hub.asked("GET", "/bytes/")) == downloads, "they are here already"


def test_the_bytes_of_another_host_are_asked_for_without_the_token(hub: Hub, ask: Callable[..., list[str]]) -> None:
    (path,) = ask("hf://ann/private/tiny.gguf", HF_TOKEN="secret")
    assert Path(path).is_file()
    assert {request[3] for request in hub.asked("HEAD", "/resolve/")} == {"Bearer secret"}
    assert {request[3] for request in hub.asked("GET", "/bytes/")} == {None}


def test_a_new_version_is_brought(hub: Hub, ask: Callable[..., list[str]], whole: Path) -> None:
    before = ask("hf://ann/one/tiny.gguf")
    hub.repositories["ann/one"].revisions["main"] = {"tiny.gguf": whole.read_bytes() + b"\0"}
    after = ask("hf://ann/one/tiny.gguf")
    assert Path(after[0]).read_bytes() == whole.read_bytes() + b"\0"
    assert Path(before[0]).read_bytes() == whole.read_bytes(), "the old one stays for those who have it open"


def test_the_embedder_and_the_commands_take_it(hub: Hub, whole: Path, splits: list[Path], tmp_path: Path) -> None:
    assert len(splits) > 2
    names = ["hf://ann/one/tiny.gguf", "hf://ann/one", f"hf://ann/split/q/{splits[-1].name}", "hf://ann/split"]
    env = environment(hub, tmp_path)
    rows = run_python(EMBED, whole, *names, **env).stdout.splitlines()
    assert rows[0] == rows[1] == rows[2]
    assert rows[3] == rows[4]
    np.testing.assert_allclose(json.loads(rows[3]), json.loads(rows[0]), atol=1e-6)
    code = "import sys; from rawllama.cli import main; sys.exit(main(sys.argv[1:]))"
    said = run_python(code, "embed", "--model", names[0], "--format", "jsonl", "some text", **env).stdout
    assert len(said.splitlines()) == 1
    failed = run_python(code, "embed", "--model", "hf://ann/no/x.gguf", "some text", fails=True, **env)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("rawllama: hf://ann/no/x.gguf: there is no such model")


def test_any_split_brings_all(hub: Hub, ask: Callable[..., list[str]], splits: list[Path]) -> None:
    (path,) = ask(f"hf://ann/split/q/{splits[1].name}")
    assert Path(path).name == splits[0].name
    assert sorted(file.name for file in Path(path).parent.iterdir()) == [split.name for split in splits]
    revisions = [request[1].split("/resolve/")[1].split("/")[0] for request in hub.asked("HEAD", "/resolve/")]
    assert revisions == ["main", *[Path(path).parents[1].name] * (len(splits) - 1)], "all are of one commit"
    del hub.repositories["ann/split"].revisions["main"][f"q/{splits[1].name}"]
    (said,) = ask(f"hf://ann/split/q/{splits[0].name}", HF_HOME=str(Path(path).parents[5] / "other"))
    assert "there is no such file; name one of\n  hf://ann/split/q/" in said


def test_a_repository_with_several_models(ask: Callable[..., list[str]]) -> None:
    many, old, none = ask("hf://ann/many", "hf://ann/many@v1", "hf://ann/none")
    assert many.splitlines() == [
        "DownloadError: hf://ann/many: it has several; name one of",
        "  hf://ann/many/notes.gguf",
        "  hf://ann/many/sub/other.gguf",
        "  hf://ann/many/tiny.gguf",
    ]
    assert old.endswith("/sub/old.gguf"), "this revision has one"
    assert none == "DownloadError: hf://ann/none: it has no GGUF file; name another repository"


def test_what_is_not_there(hub: Hub, ask: Callable[..., list[str]]) -> None:
    model, revision, file, private, gated, characters, content = ask(
        "hf://ann/no/tiny.gguf", "hf://ann/one@v9/tiny.gguf", "hf://ann/one/no.gguf", "hf://ann/private/tiny.gguf",
        "hf://ann/gated/tiny.gguf", "hf://ann/on e/tiny.gguf", "hf://ann/many/notes.gguf",
    )  # fmt: skip
    token = "correct the name, or give a token that may read it, by `hf auth login` or HF_TOKEN"
    words = f"there is no such model, or it is private: {token}"
    assert model == f"DownloadError: hf://ann/no/tiny.gguf: {words}"
    assert private == f"DownloadError: hf://ann/private/tiny.gguf: {words}"
    assert revision == (
        "DownloadError: hf://ann/one@v9/tiny.gguf: the model has no branch, tag or commit 'v9': "
        "correct it, or leave it out"
    )
    assert file == ("DownloadError: hf://ann/one/no.gguf: there is no such file; name one of\n  hf://ann/one/tiny.gguf")
    assert gated == (
        "DownloadError: hf://ann/gated/tiny.gguf: the model is gated: accept its terms at "
        f"{hub.endpoint}/ann/gated, and give your token by `hf auth login` or HF_TOKEN"
    )
    assert characters.startswith("InvalidArgumentError: model: hf://ann/on e/tiny.gguf: ")
    assert re.match(r"ValueError: .*notes\.gguf is not a GGUF file", content)


def test_a_token_that_is_not_admitted(ask: Callable[..., list[str]]) -> None:
    gated, listed, private = ask(
        "hf://ann/gated/tiny.gguf", "hf://ann/gated", "hf://ann/private/tiny.gguf", HF_TOKEN="wrong"
    )
    assert "the model is gated: accept its terms at" in gated
    assert "the model is gated: accept its terms at" in listed
    assert "there is no such model, or it is private" in private
    admitted = ask("hf://ann/gated/tiny.gguf", "hf://ann/private/tiny.gguf", "hf://ann/private", HF_TOKEN="secret")
    assert all(Path(path).is_file() for path in admitted)


def test_the_hub_refuses(hub: Hub, ask: Callable[..., list[str]]) -> None:
    hub.refuse = 403
    (said,) = ask("hf://ann/one/tiny.gguf")
    assert said.startswith("DownloadError: hf://ann/one/tiny.gguf: the Hub refuses it (403): give a token")


def test_offline(hub: Hub, ask: Callable[..., list[str]]) -> None:
    (path,) = ask("hf://ann/one/tiny.gguf")
    asked = len(hub.requests)
    here, other, unnamed = ask("hf://ann/one/tiny.gguf", "hf://ann/many/tiny.gguf", "hf://ann/one", HF_HUB_OFFLINE="1")
    assert here == path
    assert other == (
        "DownloadError: hf://ann/many/tiny.gguf: it is not on this machine, and HF_HUB_OFFLINE is set: unset it, or "
        "bring the model from where you can: hf download ann/many tiny.gguf"
    )
    known = "only the Hub knows its files: unset it, or name the file"
    assert unnamed == f"DownloadError: hf://ann/one: HF_HUB_OFFLINE is set, and {known}"
    assert len(hub.requests) == asked


def test_no_network(hub: Hub, ask: Callable[..., list[str]], tmp_path: Path) -> None:
    (path,) = ask("hf://ann/one/tiny.gguf")
    nowhere = "http://127.0.0.1:9"
    env = environment(hub, tmp_path, HF_ENDPOINT=nowhere)
    code = f"import time\ntime.sleep = lambda seconds: None  # huggingface_hub tries for 20 s\n{RESOLVE}"
    said = run_python(code, "hf://ann/one/tiny.gguf", "hf://ann/many/tiny.gguf", "hf://ann/many", **env).stdout
    here, other, unnamed = json.loads(said)
    assert here == path
    assert other.startswith(
        f"DownloadError: hf://ann/many/tiny.gguf: it is not on this machine, and {nowhere} cannot be reached ("
    )
    assert other.endswith("connect to it, or bring the model from where you can: hf download ann/many tiny.gguf")
    assert unnamed.startswith(f"DownloadError: hf://ann/many: {nowhere} cannot be reached (")
    assert unnamed.endswith("only the Hub knows its files: connect to it, or name the file")


def test_a_download_that_breaks_off_goes_on(hub: Hub, ask: Callable[..., list[str]], whole: Path) -> None:
    """What huggingface_hub has written, in pieces of 10 MiB, is not asked for again."""
    data = whole.read_bytes() + bytes(range(256)) * 100_000
    hub.repositories["ann/one"].revisions["main"] = {"tiny.gguf": data}
    hub.cut = [len(data) // 2]
    (path,) = ask("hf://ann/one/tiny.gguf")
    assert Path(path).read_bytes() == data
    assert [request[2] for request in hub.asked("GET", "/bytes/")] == [None, f"bytes={10 << 20}-"]


def test_killed_while_downloading(hub: Hub, ask: Callable[..., list[str]], whole: Path, tmp_path: Path) -> None:
    hub.slow = 0.5
    env = {**os.environ, **environment(hub, tmp_path), "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", RESOLVE, "hf://ann/one/tiny.gguf"], env=env)
    while not hub.asked("GET", "/bytes/"):
        time.sleep(0.01)
        assert child.poll() is None
    child.kill()
    assert child.wait() == -signal.SIGKILL
    hub.slow = 0
    (path,) = ask("hf://ann/one/tiny.gguf")
    assert Path(path).read_bytes() == whole.read_bytes()


def test_without_huggingface_hub() -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
from rawllama.errors import MissingExtraError
from rawllama.hub import resolve
try:
    resolve("hf://ann/one/tiny.gguf")
except MissingExtraError as error:
    print(error)
"""
    assert run_python(code).stdout == "huggingface_hub is not installed: pip install 'rawllama[hub]'\n"
    assert "huggingface_hub" not in run_python("import sys, rawllama.hub; print(*sys.modules)").stdout.split()
