"""Models in several files, and files that only look like parts of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from rawllama import Embedder, _splits
from rawllama.jobs import identity
from rawllama.ray.actors import Task

from ..models import splits, tiny


def test_names() -> None:
    assert _splits.all_of("a-00002-of-00003.gguf") == [f"a-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for whole in ("a.gguf", "a-00001-of-00000.gguf", "a-00004-of-00003.gguf", "a-00001-of-00002"):
        assert _splits.all_of(whole) == [whole]
    names = ("a-00002-of-00003.gguf", "a.gguf", "a-00001-of-00000.gguf")
    assert [_splits.number_of(name) for name in names] == [2, None, None]


def test_each_file_counts(tmp_path: Path) -> None:
    files = splits.write("bert", tmp_path)
    before = identity.sha256([str(files[0])])
    files[-1].write_bytes(files[-1].read_bytes()[:-1] + b"x")
    assert identity.sha256([str(files[0])]) != before


@pytest.mark.parametrize("name", ["x-00001-of-00000.gguf", "x-00001-of-00003.gguf"])
def test_a_whole_file_with_the_name_of_a_part(name: str, tmp_path: Path) -> None:
    """It is hashed as it is: two of them are two models."""
    first = tiny.write("bert", tmp_path / name)
    second = tiny.write("bert", tmp_path / "y-00001-of-00000.gguf")
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    assert _splits.files_of([str(first)]) == [first]
    assert identity.sha256([str(first)]) != identity.sha256([str(second)])
    with Embedder(str(first)) as embedder:
        assert embedder.encode("text").shape == (32,)


def test_actors_get_the_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    """As in huggingface_hub's folder, where files have their hash for a name."""
    blob = tiny.write("bert", tmp_path / "blob")
    link = tmp_path / "model.gguf"
    link.symlink_to(blob)
    assert Task.of(link, "text", "embedding", None, "error", {}).model == str(link)
