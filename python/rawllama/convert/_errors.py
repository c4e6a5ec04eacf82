"""The converter's warning, and the check for the packages it needs."""

from __future__ import annotations

import importlib.util

from rawllama.errors import ConvertError, MissingExtraError

__all__ = ["ConvertError", "ConvertWarning", "MissingExtraError", "require"]


class ConvertWarning(UserWarning):
    """A model that converts as upstream does it, and then computes something else than Hugging Face."""


def require(*packages: str) -> None:
    """Check that `packages` can be imported, without importing them.

    Raises
    ------
    MissingExtraError
        One of them is not installed.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{', '.join(missing)} not installed: pip install 'rawllama[minilm]'")
