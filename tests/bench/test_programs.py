"""C programs are built in a folder that outlives environments and versions of rawllama."""

from __future__ import annotations

from pathlib import Path

import pytest
from rawllama.bench import programs


def project(folder: Path, text: str = "project(nothing NONE)") -> Path:
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.21)\n{text}\n")
    return folder


def test_a_build_folder_of_another_project_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    programs._configure("nothing", project(tmp_path / "old"), folder, "Release")
    (folder / "left").touch()
    programs._configure("nothing", project(tmp_path / "new"), folder, "Release")
    assert not (folder / "left").exists()
    assert str(tmp_path / "new") in (folder / "CMakeCache.txt").read_text()


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    with pytest.raises(programs.BuildError, match=r"(?s)thing could not be built; cmake says:.*no such luck"):
        programs._configure(
            "thing", project(tmp_path / "old", "message(FATAL_ERROR [[no such luck]])"), tmp_path / "b", "Release"
        )
