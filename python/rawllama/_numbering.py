"""Messages that name a text, where only some of the caller's texts were computed."""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import LlamaError

_TEXT = re.compile(r"texts\[(\d+)\]")


def renumber(error: LlamaError, number: Callable[[int], int | None]) -> None:
    """Let the message of `error` have the caller's number of the text that it begins with."""
    words = str(error)
    if (said := _TEXT.match(words)) and (row := number(int(said[1]))) is not None:
        error.args = (f"texts[{row}]{words[said.end() :]}", *error.args[1:])
