"""`python -m bindgen guard ...` and `generate ...` (called by CMake) and `python -m bindgen --check`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from .check import CheckError, check
from .exports import ExportsError
from .generate import Inputs, MismatchError, Outputs, generate, generate_guard
from .parse import ParseError
from .preprocess import PreprocessError


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = _parser().parse_args(argv)
    commands = {"generate": _generate, "guard": _guard}
    try:
        return commands.get(options.command, _check)(options)
    except (CheckError, ExportsError, MismatchError, ParseError, PreprocessError) as error:
        print(f"bindgen: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bindgen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the built module with its headers and libraries")
    parser.add_argument("--package", default="rawllama", help="what --check imports (default: rawllama)")
    parser.add_argument("--path", action="append", default=[], type=Path,
                        help="folder that holds the package, for one that is not installed")
    parser.add_argument("--compiler", default=os.environ.get("CC", "cc"), help="command of a C compiler")
    parser.add_argument("--nm", default=os.environ.get("NM", "nm"), help="command that lists symbols")
    commands = parser.add_subparsers(dest="command")
    make = commands.add_parser("generate", help="write the C source, the stub and the record")
    make.add_argument("--module", required=True, help="dotted name of the module")
    make.add_argument("--strict", action="store_true", help="fail if header and library name different functions")
    for name in ("source", "stub", "record"):
        make.add_argument(f"--{name}", required=True, type=Path)
    guard = commands.add_parser("guard", help="write the guarded twins of a header's functions")
    guard.add_argument("--to", required=True, type=Path, help="folder for the twins' header and source")
    for command in (make, guard):
        for name in ("header", "define", "compiled-in"):
            command.add_argument(f"--{name}", action="append", default=[])
        for name in ("include", "library", "plugin"):
            command.add_argument(f"--{name}", action="append", default=[], type=Path)
    return parser


def _inputs(options: argparse.Namespace) -> Inputs:
    return Inputs(shlex.split(options.compiler), options.nm, options.header, options.include, options.define,
                  options.library, options.plugin, options.compiled_in)


def _generate(options: argparse.Namespace) -> int:
    outputs = Outputs(options.source, options.stub, options.record)
    print(generate(options.module, _inputs(options), outputs, strict=options.strict))
    return 0


def _guard(options: argparse.Namespace) -> int:
    print(generate_guard(_inputs(options), options.to))
    return 0


def _check(options: argparse.Namespace) -> int:
    if not options.check:
        _parser().print_help()
        return 2
    report = check(options.package, shlex.split(options.compiler), options.nm, options.path)
    print(report.text)
    for fault in report.faults:
        print(f"DRIFT: {fault}")
    print(f"{len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
