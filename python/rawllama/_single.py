"""One text to its row, in little time: a query waits for each step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._pipeline import Options, Pipeline
from .errors import Interrupted
from .raw import ffi
from .rows import buffers

if TYPE_CHECKING:
    from .rows import Rows


class Single:
    """The short way for one text: one call into C, with arguments that are made once.

    The weights go through the processor's caches at each computation, so that Python finds its own code and objects in
    none of them: the way of many texts, 0.05 ms when called again at once, takes 0.4 ms after a computation.

    Parameters
    ----------
    pipeline
        What computes it.
    options
        What each call wants.
    """

    def __init__(self, pipeline: Pipeline, options: Options) -> None:
        self._pipeline = pipeline
        self._row_of = options.target
        self._prefix = options.prefix
        self._how = ffi.new("struct rawllama_tokenizing *", pipeline.sequencer.tokenizing(options.prefix))
        self._target = ffi.new("struct rawllama_rows *", options.target.c(options.target.empty(1)))
        self._max_tokens = pipeline.sequencer.max_tokens

    def encode(self, text: str) -> Rows | None:
        """Its row, as the only one; None where C gave none: the way of many texts tells why, or can do more.

        Raises
        ------
        LlamaError
            As `Context.decode`.
        Interrupted
            Ctrl-C, on the main thread.

        Calls: rawllama_embed_text
        """
        try:
            utf8 = text.encode()
        except UnicodeEncodeError:
            return None
        rows = self._row_of.empty(1)
        try:
            with self._pipeline.turn:
                code = self._run(utf8, rows)
        except KeyboardInterrupt:
            raise Interrupted(rows, np.zeros(1, np.bool_)) from None
        return rows if code == 0 else None

    def _run(self, text: bytes, rows: Rows) -> int:
        self._pipeline.require_open()
        self._target.values, self._target.scales = _kept = buffers(rows)
        return self._pipeline.engine.run_text(self._how, text, self._max_tokens, self._target)
