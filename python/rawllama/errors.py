"""The exceptions: each names what was wrong and what to change."""

from __future__ import annotations


class LlamaError(Exception):
    """Base of everything that rawllama raises on its own account."""


class InvalidArgumentError(LlamaError, ValueError):
    """An argument that C would have crashed on, or that has no meaning; the message names it."""


class ModelLoadError(LlamaError, OSError):
    """The model file was refused; the message holds the library's own words."""


class ContextCreateError(LlamaError, RuntimeError):
    """The context could not be made, mostly for want of memory."""


class DecodeError(LlamaError, RuntimeError):
    """llama_decode or llama_encode failed; `code` is what it returned."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class NativeAssertError(LlamaError):
    """A check inside the library failed, or it threw; the object concerned has been closed."""


class ConvertError(LlamaError, ValueError):
    """A model folder that cannot be converted; the message names what is wrong and what to do."""


class MissingExtraError(LlamaError, ImportError):
    """A package of an extra, such as `rawllama[minilm]`, is not installed."""


class DownloadError(LlamaError, OSError):
    """A model that is known by name could not be brought."""
