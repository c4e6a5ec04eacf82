"""`rawllama doctor`: what is here, what is installed, what is wrong, and what to do about it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from rawllama.doctor.examination import Examination, Fault, examine


def add_parser(commands: Any) -> None:
    """Say what the command takes."""
    text = "what is here, what is installed, what is wrong"
    about = "Works where libllama does not load. The exit status is 1 where that, or a device, is at fault."
    parser: argparse.ArgumentParser = commands.add_parser("doctor", help=text, description=about)
    parser.add_argument("--json", action="store_true", help="for programs: one object in JSON")
    parser.set_defaults(run=run, verbose=False)


def run(options: argparse.Namespace) -> int:
    """Print what was found; return the exit status."""
    found = examine()
    print(json.dumps(found.as_dict(), indent=2) if options.json else "\n".join(_report(found)))
    return 1 if found.faults else 0


def _report(found: Examination) -> Iterator[str]:
    processor = found.processor
    yield "this machine"
    yield f"    processor: {processor.name}, {processor.cores} cores{', ' + processor.level if processor.level else ''}"
    for gpu in found.gpus:
        facts = {"arch": gpu.arch, "driver": gpu.driver, "CUDA": gpu.cuda}
        words = [f"{name} {fact}" for name, fact in facts.items() if fact]
        yield f"    GPU: {', '.join([gpu.name, *words])}"
    if not found.gpus:
        yield "    GPU: none"
    for tool in found.tools:
        where = f"{tool.version or 'of unknown version'}, {tool.path}" if tool.path else "not here"
        yield f"    {tool.name} ({tool.purpose}): {where}"
    yield ""
    yield "this rawllama"
    for key in ("rawllama", "llama", "commit", "backends", "cpu_features", "compiler", "cuda"):
        if found.build.get(key):
            yield f"    {key.replace('_', ' ')}: {found.build[key]}"
    loaded = [library for library in found.libraries if not library.fault]
    yield f"    libraries: {len(loaded)} of {len(found.libraries)} load"
    for library in found.libraries:
        if library.fault:
            yield f"        {library.path.name}{' (a plugin)' if library.plugin else ''}: {library.fault}"
    for device in found.devices:
        yield f"    device: {device['name']} ({device['kind']}), {device['description']}"
    yield ""
    yield "faults" if found.faults else "faults: none"
    for number, fault in enumerate(found.faults, 1):
        yield from _fault(number, fault)
    yield ""
    yield f"best build here: {found.advice.command}"
    yield f"    {found.advice.why}"
    if found.advice.needs:
        yield f"    install first: {found.advice.needs}"


def _fault(number: int, fault: Fault) -> Iterator[str]:
    yield f"    {number}. {fault.what}{'' if fault.fatal else ' (the rest works)'}"
    if fault.remedy:
        yield f"       {fault.remedy}"
