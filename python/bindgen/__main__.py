"""`python -m bindgen generate ...` (called by CMake) and `python -m bindgen --check`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from .check import CheckError, check
from .exports import ExportsError
from .generate import Inputs, MismatchError, Outputs, generate
from .parse import ParseError
from .preprocess import PreprocessError


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = _parser().parse_args(argv)
    try:
        return _generate(options) if options.command == "generate" else _check(options)
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
    for name in ("header", "define", "compiled-in"):
        make.add_argument(f"--{name}", action="append", default=[])
    for name in ("include", "library", "plugin"):
        make.add_argument(f"--{name}", action="append", default=[], type=Path)
    for name in ("source", "stub", "record"):
        make.add_argument(f"--{name}", required=True, type=Path)
    return parser


def _generate(options: argparse.Namespace) -> int:
    inputs = Inputs(shlex.split(options.compiler), options.nm, options.header, options.include, options.define,
                    options.library, options.plugin, options.compiled_in)
    outputs = Outputs(options.source, options.stub, options.record)
    print(generate(options.module, inputs, outputs, strict=options.strict))
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
