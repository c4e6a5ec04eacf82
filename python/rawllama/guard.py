"""`guarded`: libllama's functions, with a failed assert or a C++ exception as `NativeAssertError`.

`guarded.llama_decode(...)` is `lib.llama_decode(...)` inside csrc/guard.hpp, for every function of llama.h that is not
deprecated. Asserts on ggml's worker threads still end the process: arguments are checked before the call for those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .errors import NativeAssertError, failure
from .raw import ffi, lib

if TYPE_CHECKING:
    from ._libllama import Lib


class _Guarded:
    """Makes each guarded function when it is first asked for, and keeps it as an attribute."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(lib, f"rawllama_guarded_{name}")
        message = lib.rawllama_guard_message

        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            if message():
                raise caught(name)
            return result

        call.__name__ = name
        setattr(self, name, call)
        return call


def caught(name: str) -> NativeAssertError:
    """The exception for what the guard has caught in the function `name`."""
    words = ffi.string(lib.rawllama_guard_message()).decode("utf-8", "backslashreplace")
    return failure(NativeAssertError, name, f"{name} failed inside the library: {words}")


# Typed as lib, whose functions these are.
guarded = cast("Lib", _Guarded())
