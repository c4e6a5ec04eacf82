"""The command `rawllama`: one module a subcommand, each with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from importlib import import_module
from importlib.metadata import version
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from rawllama.errors import LlamaError

_COMMANDS = ("embed", "search", "cache", "corpus_plan", "inspect", "layers", "plot", "bench", "info", "doctor", "wheel")
# These run where libllama does not load, and load no other.
_WITHOUT_LIBRARY = ("doctor", "wheel")


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        The exit status: 0; 1 for an error, which was said; 2 for wrong usage; 130 after Ctrl-C.
    """
    _occupy_closed_streams()
    _set_signals()
    held: MemoryHandler | None = None
    try:
        options = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
        held = _start_log(options.verbose)
        return int(options.run(options))
    except (LlamaError, OSError, ValueError, ImportError, MemoryError) as error:
        if held is not None:
            held.buffer.clear()  # an error of the library's has these lines in it
        print(f"rawllama: {_words(error)}", *_notes(error), sep="\n", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit) as end:
        if notes := _notes(end):
            print(*notes, sep="\n", file=sys.stderr)
        if isinstance(end, SystemExit):
            raise
        return 130


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    about = "llama.cpp's C API for Python, and embeddings on top."
    parser = argparse.ArgumentParser(prog="rawllama", description=about)
    parser.add_argument("--version", action="version", version=f"rawllama {version('rawllama')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    alone = bool(argv) and argv[0] in _WITHOUT_LIBRARY
    for command in _WITHOUT_LIBRARY if alone else _COMMANDS:
        import_module(f".{command}", __name__).add_parser(commands)
    return parser


def _occupy_closed_streams() -> None:
    """Let no file that is opened later take the number of a standard stream that the caller closed."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (print() would take None for standard output)


def _set_signals() -> None:
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently when `| head` has seen enough
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _: Any) -> None:
    """End as a signal would, but with what is unfinished cleared away."""
    sys.exit(128 + number)


def _start_log(verbose: bool) -> MemoryHandler:
    """Show libllama's log on standard error: at once if wanted, else its errors, when all is done."""
    stream = logging.StreamHandler()
    held = MemoryHandler(1000, flushLevel=logging.CRITICAL + 1, target=stream)
    logging.basicConfig(format="%(message)s", handlers=[stream if verbose else held])
    if verbose:
        logging.getLogger("rawllama").setLevel(logging.INFO)
    return held


def _notes(error: BaseException) -> list[str]:
    """What became of the work that an exception has ended."""
    return getattr(error, "__notes__", [])


def _words(error: BaseException) -> str:
    """What an exception says, as commands say it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
