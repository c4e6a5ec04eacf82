"""`rawllama cache`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from rawllama.cache import Cache
from rawllama.cli import cache as command
from rawllama.errors import InvalidArgumentError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["cache", *map(str, arguments)])
    return int(options.run(options))


def test_stats_limit_and_clear(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Cache(folder) as cache:
        cache.put_many([b"a", b"b"], np.zeros((2, 8), np.uint8))
    assert run(folder) == 0
    assert capsys.readouterr().out.startswith("2 rows, 0.0 MB of 10737.4 MB\n")
    assert run(folder, "--size-limit", 100) == 0
    assert capsys.readouterr().out == "2 rows, 0.0 MB of 100.0 MB\n"
    assert run(folder, "--clear") == 0
    assert capsys.readouterr().out.startswith("0 rows, ")
    with Cache(folder) as cache:
        assert cache.size_limit == 100_000_000


def test_no_cache(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (folder, tmp_path):
        with pytest.raises(InvalidArgumentError, match="is no cache: name the folder of one"):
            run(path)
    assert not folder.exists()
    for limit in ("0", "-1", "1 GB"):
        with pytest.raises(SystemExit):
            run(tmp_path, f"--size-limit={limit}")
    assert "is not a number of megabytes" in capsys.readouterr().err
