"""The command `rawllama`: one module a subcommand, each with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from rawllama import LlamaError, __version__

from . import embed

_COMMANDS = (embed,)


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 1 for an error that was said, 2 for wrong usage."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently when `| head` has seen enough
    parser = argparse.ArgumentParser(prog="rawllama", description="llama.cpp's C API for Python, and embeddings on top.")
    parser.add_argument("--version", action="version", version=f"rawllama {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    if options.verbose:
        logging.getLogger("rawllama").setLevel(logging.INFO)
    try:
        return int(options.run(options))
    except (LlamaError, OSError, ValueError, ImportError) as error:
        print(f"rawllama: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
