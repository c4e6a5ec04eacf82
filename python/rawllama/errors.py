"""The exceptions, and the one place where C's answers become exceptions.

LlamaError
InvalidArgumentError (ValueError)   InvalidBatchError
ClosedError (ValueError)            ConcurrentUseError, ForkedError (RuntimeError)   BorrowedError (BufferError)
ModelLoadError (OSError)            ContextCreateError (RuntimeError)
LibraryLoadError (ImportError)
DecodeError (RuntimeError)          ContextFullError   DecodeAborted (InterruptedError)
NativeAssertError                   ConvertError (ValueError)
MissingExtraError (ImportError)     DownloadError (OSError)
Interrupted (KeyboardInterrupt), no LlamaError      TruncationWarning (UserWarning)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LlamaError(Exception):
    """Base of everything that rawllama raises on its own account.

    Attributes
    ----------
    function
        The C function that failed, or an empty string.
    code
        What it returned, or None.
    log
        The library's own last lines before it failed.
    rows, done
        Where an Embedder's call failed after it began to compute: what it would have returned, and for which texts that
        is computed (bool, shape (n,)). Else None.
    """

    function: str = ""
    code: int | None = None
    log: tuple[str, ...] = ()
    rows: Any = None
    done: NDArray[np.bool_] | None = None


class InvalidArgumentError(LlamaError, ValueError):
    """An argument that C would have crashed on, or that has no meaning; the message names it."""


class InvalidBatchError(InvalidArgumentError):
    """A batch that the context cannot take."""


class ClosedError(LlamaError, ValueError):
    """The object, or one that it belongs to, has been closed."""


class ConcurrentUseError(LlamaError, RuntimeError):
    """Two threads used one object at once; give each thread its own, or a lock."""


class ForkedError(LlamaError, RuntimeError):
    """The object was made before a fork; threads and locks of the library do not survive one."""


class BorrowedError(LlamaError, BufferError):
    """A view of the object's memory is still lent out."""


class LibraryLoadError(LlamaError, ImportError):
    """libllama, or a library that it needs, does not load; the message holds the remedy."""


class ModelLoadError(LlamaError, OSError):
    """The model file was refused; the message holds the library's own words."""


class ContextCreateError(LlamaError, RuntimeError):
    """The context could not be made, mostly for want of memory."""


class DecodeError(LlamaError, RuntimeError):
    """llama_decode or llama_encode failed; `code` is what it returned."""


class ContextFullError(DecodeError):
    """The context's memory has no room for the batch; remove sequences or make n_ctx larger."""


class DecodeAborted(DecodeError, InterruptedError):
    """The computation was interrupted; ubatches done before stay in the memory."""


class NativeAssertError(LlamaError):
    """A check inside the library failed, or it threw; the object concerned has been closed."""


class ConvertError(LlamaError, ValueError):
    """A model folder that cannot be converted; the message names what is wrong and what to do."""


class MissingExtraError(LlamaError, ImportError):
    """A package of an extra, such as `rawllama[minilm]`, is not installed."""


class DownloadError(LlamaError, OSError):
    """A model that is known by name could not be brought."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while an Embedder computed.

    Attributes
    ----------
    rows
        What the call would have returned; NaN, or 0 in integers, where a text was not computed.
    done
        Which texts were: bool, shape (n,).
    """

    def __init__(self, rows: Any, done: NDArray[np.bool_]) -> None:
        super().__init__(f"{int(done.sum())} of {done.size} texts were computed, see rows and done")
        self.rows = rows
        self.done = done


class TruncationWarning(UserWarning):
    """Texts were cut to the tokens that the model takes."""


Error = TypeVar("Error", bound=LlamaError)


def failure(kind: type[Error], function: str, message: str, code: int | None = None) -> Error:
    """An exception with C's function, its code, and the library's own last lines."""
    from . import log  # which needs the library; the exceptions do not

    lines = tuple(log.take_recent())
    error = kind(f"{message}: {'; '.join(lines)}" if lines else message)
    error.function, error.code, error.log = function, code, lines
    return error


# What llama_decode and llama_encode return.
_DECODE = {
    1: (ContextFullError, "the memory has no room for the batch; remove sequences, or make n_ctx larger"),
    2: (DecodeAborted, "it was interrupted; ubatches done before stay in the memory"),
    -1: (InvalidBatchError, "the library refused the batch"),
}


def decode_failure(function: str, code: int) -> LlamaError:
    """The exception for what llama_decode or llama_encode returned, which is not 0."""
    kind, words = _DECODE.get(code, (DecodeError, "the computation failed"))
    return failure(kind, function, f"{function} returned {code}: {words}", code)
