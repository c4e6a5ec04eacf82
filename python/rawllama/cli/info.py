"""`rawllama info`: devices, and how this copy was built."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from rawllama import backend

_HAS = "1"  # how backends say that they use a feature


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    parser: argparse.ArgumentParser = commands.add_parser("info", help="devices, build and system")
    parser.add_argument("--json", action="store_true", help="for programs: one object in JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="libllama's log on standard error")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; return the exit status."""
    facts = {
        "devices": [dataclasses.asdict(device) for device in backend.devices()],
        "features": backend.features(),
        "build": backend.build(),
        "system": backend.system(),
    }
    print(json.dumps(facts, indent=2) if options.json else _report(facts))
    return 0


def _report(facts: dict[str, Any]) -> str:
    features = {name: _enumerate(found) for name, found in facts["features"].items()}
    build = {name: fact for name, fact in facts["build"].items() if fact and name != "system_info"}
    system = {name.replace("_", " "): _words(fact) for name, fact in facts["system"].items() if fact != []}
    parts = [
        "devices\n" + "\n".join(map(_device, facts["devices"])),
        _table("features in use", features),
        _table("build", build),
        _table("system", system),
    ]
    return "\n\n".join(parts)


def _device(device: dict[str, Any]) -> str:
    memory = f"{_gib(device['memory_free'])} of {_gib(device['memory_total'])} GiB free"
    where = f", {device['device_id']}" if device["device_id"] else ""
    kind = device["kind"] if device["kind"] == device["backend"].lower() else f"{device['kind']}, {device['backend']}"
    return f"    {device['name']}: {device['description']} ({kind}{where}), {memory}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _enumerate(features: dict[str, str]) -> str:
    return " ".join(name if value == _HAS else f"{name}={value}" for name, value in features.items())


def _words(fact: Any) -> str:
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    return "".join(f"\n        {one}" for one in fact) if isinstance(fact, list) else str(fact)


def _table(title: str, rows: dict[str, str]) -> str:
    return "\n".join([title, *(f"    {name}: {row}".replace(": \n", ":\n") for name, row in rows.items())])
