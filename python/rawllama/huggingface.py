"""Models of the Hugging Face Hub by name: hf://owner/repository/file.gguf, brought and kept by huggingface_hub.

Endpoint, token, cache folder and offline use are huggingface_hub's own: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from . import _splits
from .errors import DownloadError, InvalidArgumentError, LlamaError, MissingExtraError

__all__ = ["FORM", "SCHEME", "Address", "fetch"]

SCHEME = "hf://"
#: How these names look.
FORM = "hf://owner/repository/file.gguf"
_ADDRESS = re.compile(r"hf://([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.*))?")
# So many files are listed in a message.
_LISTED = 20


@dataclass(frozen=True)
class Address:
    """A file on the Hub; `revision` is a branch, a tag or a commit, None for the main branch."""

    repository: str
    revision: str | None
    file: str

    @classmethod
    def parse(cls, name: str) -> Address:
        """Take a name to pieces; in a revision, `/` may be written as `%2F`.

        Raises
        ------
        InvalidArgumentError
            It does not look like `FORM`.
        """
        found = _ADDRESS.fullmatch(name)
        file = (found[3] or "") if found else ""
        is_odd = any(part in ("", ".", "..") for part in file.split("/")) if file else False
        if not found or is_odd or (file and not file.endswith(".gguf")):
            asked = "hf://owner/repository@revision/folder/file.gguf asks for a revision"
            raise InvalidArgumentError(f"model: {name!r} is not of the form {FORM}; {asked}")
        return cls(found[1], unquote(found[2]) if found[2] else None, file)

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}/{self.file}".rstrip("/")

    @property
    def files(self) -> list[str]:
        """The file, and where it is one of several splits, all of them."""
        return _splits.all_of(self.file)


def fetch(name: str) -> Path:
    """The path of a model on the Hub, which is downloaded unless it is on this machine already.

    Parameters
    ----------
    name
        As `FORM`. Of a model in several splits, any one brings all. Without a file, the repository must have one model.

    Returns
    -------
    Path
        The file, the first of several splits, in huggingface_hub's cache. Where the Hub cannot be asked, the one that
        was brought last under this name.

    Raises
    ------
    InvalidArgumentError
        The name does not look like `FORM`.
    MissingExtraError
        huggingface_hub is not installed.
    DownloadError
        There is no such model, the Hub does not give it, or cannot be reached, and it is not on this machine.
    """
    address = Address.parse(name)
    hub = _library()
    with _explained(hub, address):
        if not address.file:
            address = replace(address, file=_only_model(hub, address))
        first, *others = address.files
        path = Path(hub.hf_hub_download(address.repository, first, revision=address.revision))
        commit = path.parents[first.count("/")].name  # so that all splits are of one
        for other in others:
            hub.hf_hub_download(address.repository, other, revision=commit)
    return path


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise MissingExtraError("huggingface_hub is not installed: pip install 'rawllama[hub]'") from None
    return huggingface_hub


def _only_model(hub: Any, address: Address) -> str:
    """The file of a repository that has one model."""
    models = _models(hub, address)
    if len(models) != 1:
        words = "it has several; name one of" if models else "it has no GGUF file; name another repository"
        raise DownloadError(f"{address}: {words}{_list(address, models)}")
    return models[0]


def _models(hub: Any, address: Address) -> list[str]:
    """GGUF files of a repository; of splits only the first."""
    files = hub.HfApi().list_repo_files(address.repository, revision=address.revision)
    return [file for file in sorted(files) if file.endswith(".gguf") and _splits.number_of(file) in (None, 1)]


def _list(address: Address, files: list[str]) -> str:
    """Names of these files, one a line."""
    lines = [f"\n  {replace(address, file=file)}" for file in files[:_LISTED]]
    more = len(files) - _LISTED
    return "".join([*lines, f"\n  and {more} more"] if more > 0 else lines)


@contextmanager
def _explained(hub: Any, address: Address) -> Iterator[None]:
    """What went wrong, in words that say what to do.

    huggingface_hub lets errors of the HTTP library through that it uses, and has changed it twice: all are taken.
    """
    try:
        yield
    except LlamaError:
        raise
    except Exception as error:
        if type(error).__name__ == "HFValidationError":
            raise InvalidArgumentError(f"model: {address}: {error}") from None
        raise DownloadError(f"{address}: {_remedy(hub, address, error)}") from error


def _remedy(hub: Any, address: Address, error: Exception) -> str:
    """What is wrong, and what to do."""
    errors = hub.errors
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        where = f"{hub.constants.ENDPOINT}/{address.repository}"
        return f"the model is gated: accept its terms at {where}, and give your token by `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        token = "give a token that may read it, by `hf auth login` or HF_TOKEN"
        return f"there is no such model, or it is private: correct the name, or {token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the model has no branch, tag or commit {address.revision!r}: correct it, or leave it out"
    if status in (401, 403):
        return f"the Hub refuses it ({status}): give a token that may read it, by `hf auth login` or HF_TOKEN"
    missing = isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled)
    if missing or re.search("Connect|Timeout", type(error).__name__):  # of whatever HTTP library it is
        return _unreachable(hub, address, cause)
    if isinstance(error, errors.EntryNotFoundError):
        return _other_files(hub, address)
    if isinstance(error, OSError) and error.filename:
        return f"it cannot be kept ({_words(error)}): set HF_HOME to a folder that can be written and has room"
    return f"it could not be brought ({_words(error)}): try again"


def _unreachable(hub: Any, address: Address, cause: BaseException) -> str:
    if hub.constants.HF_HUB_OFFLINE:
        why, remedy = "HF_HUB_OFFLINE is set", "unset it"
    else:
        why, remedy = f"{hub.constants.ENDPOINT} cannot be reached ({_words(cause)})", "connect to it"
    if not address.file:
        return f"{why}, and only the Hub knows its files: {remedy}, or name the file"
    by_hand = f"hf download {address.repository} {' '.join(address.files)}"
    revision = f" --revision {address.revision}" if address.revision else ""
    return f"it is not on this machine, and {why}: {remedy}, or bring the model from where you can: {by_hand}{revision}"


def _other_files(hub: Any, address: Address) -> str:
    with suppress(Exception):
        if models := _models(hub, address):
            return f"there is no such file; name one of{_list(address, models)}"
    return "there is no such file: correct the name"


def _words(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(str(error).split()) or type(error).__name__
