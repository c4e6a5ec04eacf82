"""`rawllama info`: the report and its JSON, against rawllama.backend."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rawllama import backend


def info(*arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "rawllama", "info", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status == 0:
        assert not done.stderr
    return done.stdout


def test_json() -> None:
    found = json.loads(info("--json"))
    assert found.keys() == {"devices", "features", "build", "system"}
    assert found["features"] == backend.features()
    assert found["build"] == backend.build()
    assert found["system"] == backend.system()
    steady = [{k: v for k, v in dataclasses.asdict(d).items() if k != "memory_free"} for d in backend.devices()]
    for device, expected in zip(found["devices"], steady, strict=True):
        assert device.pop("memory_free") >= 0
        expected["capabilities"] = list(expected["capabilities"])
        assert device == expected


def test_report() -> None:
    lines = info().splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "devices", "features in use", "build", "system",
    ]  # fmt: skip
    assert all(line == line.rstrip() and len(line) < 1000 for line in lines)
    text = "\n".join(lines)
    for device in backend.devices():
        assert f"    {device.name}: {device.description} (" in text
        assert f" of {device.memory_total / 2**30:.1f} GiB free" in text
    build = backend.build()
    assert f"    commit: {build['commit']}" in lines
    assert f"    compiler: {build['compiler']}" in lines
    for name, features in backend.features().items():
        (line,) = [line for line in lines if line.startswith(f"    {name}: {next(iter(features))}")]
        assert set(line.split()[1:]) >= {feature for feature, value in features.items() if value == "1"}
    for path in backend.system()["libraries"]:
        assert f"        {path}" in lines


def test_usage() -> None:
    assert "--json" in info("--help")
    assert not info("--no-such-option", status=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "rawllama", "info", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode != 0
