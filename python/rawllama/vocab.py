"""A model's vocabulary: text to tokens and back, and what each token is."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntFlag
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ._handle import Handle
from ._params import enum_name
from ._params import text as c_text
from .arrays import pointer, view
from .errors import InvalidArgumentError, LlamaError, NativeAssertError, failure
from .guard import caught, guarded
from .interrupt import interruptible, on_main_thread
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_BYTES = 2**31 - 1
MAX_THREADS = lib.GGML_MAX_N_THREADS
# So many tokens have less text than MAX_BYTES, if none is longer than 2 kB.
_MANY_TOKENS = 2**20


class TokenAttr(IntFlag):
    """What a token is: `enum llama_token_attr`."""

    UNDEFINED = lib.LLAMA_TOKEN_ATTR_UNDEFINED
    UNKNOWN = lib.LLAMA_TOKEN_ATTR_UNKNOWN
    UNUSED = lib.LLAMA_TOKEN_ATTR_UNUSED
    NORMAL = lib.LLAMA_TOKEN_ATTR_NORMAL
    CONTROL = lib.LLAMA_TOKEN_ATTR_CONTROL
    USER_DEFINED = lib.LLAMA_TOKEN_ATTR_USER_DEFINED
    BYTE = lib.LLAMA_TOKEN_ATTR_BYTE
    NORMALIZED = lib.LLAMA_TOKEN_ATTR_NORMALIZED
    LSTRIP = lib.LLAMA_TOKEN_ATTR_LSTRIP
    RSTRIP = lib.LLAMA_TOKEN_ATTR_RSTRIP
    SINGLE_WORD = lib.LLAMA_TOKEN_ATTR_SINGLE_WORD


class Vocab:
    """The vocabulary of a model, which it borrows: it ends with the model. Several threads may use it.

    Text goes to libllama as UTF-8, with its NUL characters. A string with surrogates from Python's `surrogateescape`
    stands for the bytes that it was decoded from. What then becomes of bytes that are no UTF-8 is up to the kind of
    vocabulary, `type`:

    ======= ================================================================================================
    spm     kept: each is a byte token, and `detokenize_bytes` gives it back
    bpe     each is U+FFFD
    wpm     left out, as are NUL, U+FFFD and control characters
    ugm     each is U+FFFD, which most have as the unknown token; several of these in a row are one
    rwkv    kept, where the vocabulary has a token for them
    ======= ================================================================================================

    Two things look like UTF-8 to libllama: surrogates written as three bytes, and characters written with more bytes
    than they need. `bpe` and `wpm` refuse what would be above U+10FFFF (bytes F4 90 to F7 BF, with three bytes that
    continue it) with InvalidArgumentError.

    `spm` writes a space as U+2581: U+2581 in a text comes back as a space, and a space that follows an incomplete
    character as U+2581. `bpe` vocabularies leave out characters for which they have no token, and `wpm` ones that have
    no unknown token give -1.

    Parameters
    ----------
    model
        The model, open.

    Raises
    ------
    ClosedError
        In all members: the model is closed.
    InvalidArgumentError
        In those that take tokens: a token is not between 0 and `n_tokens` - 1, or the model has no vocabulary.

    Calls: llama_model_get_vocab
    """

    def __init__(self, model: Handle) -> None:
        self._model = model
        self._n_tokens = self.n_tokens
        self._type = self.type

    def __repr__(self) -> str:
        return f"<Vocab {self._type}, {self._n_tokens} tokens>"

    def __len__(self) -> int:
        return self._n_tokens

    # The vocabulary ---------------------------------------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Number of tokens; ids are below it. Calls: llama_vocab_n_tokens."""
        return int(self._value("n_tokens"))

    @property
    def type(self) -> str:
        """Kind of tokenizer: `spm`, `bpe`, `wpm`, `ugm`, `rwkv`, `plamo2` or `none`. Calls: llama_vocab_type."""
        return enum_name("LLAMA_VOCAB_TYPE_", self._value("type"))

    @property
    def add_bos(self) -> bool:
        """Whether `add_special` puts `bos` before a text; `wpm` does in any case. Calls: llama_vocab_get_add_bos."""
        return bool(self._value("get_add_bos"))

    @property
    def add_eos(self) -> bool:
        """Whether `add_special` puts `eos` after a text. Calls: llama_vocab_get_add_eos."""
        return bool(self._value("get_add_eos"))

    @property
    def add_sep(self) -> bool:
        """Whether the model wants `sep` between two texts. Calls: llama_vocab_get_add_sep."""
        return bool(self._value("get_add_sep"))

    @property
    def suppress_tokens(self) -> NDArray[np.int32]:
        """Tokens that a generation should not choose: int32, shape (n,). Calls: llama_vocab_get_suppress_tokens."""
        if not hasattr(lib, "llama_vocab_get_suppress_tokens"):  # in a llama.cpp of one's own that is older
            return np.empty(0, np.int32)
        count = ffi.new("int32_t *")
        with self._model._used as model:
            tokens = guarded.llama_vocab_get_suppress_tokens(guarded.llama_model_get_vocab(model), count)
            return view(tokens, count[0]).copy() if count[0] else np.empty(0, np.int32)

    @property
    def bos(self) -> int | None:
        """Beginning of sequence; [CLS] of BERT. Calls: llama_vocab_bos."""
        return self._token("bos")

    @property
    def eos(self) -> int | None:
        """End of sequence. Calls: llama_vocab_eos."""
        return self._token("eos")

    @property
    def eot(self) -> int | None:
        """End of turn. Calls: llama_vocab_eot."""
        return self._token("eot")

    @property
    def sep(self) -> int | None:
        """Between sentences. Calls: llama_vocab_sep."""
        return self._token("sep")

    @property
    def nl(self) -> int | None:
        """Newline; the same as `pad` where there is none. Calls: llama_vocab_nl."""
        return self._token("nl")

    @property
    def pad(self) -> int | None:
        """Padding. Calls: llama_vocab_pad."""
        return self._token("pad")

    @property
    def mask(self) -> int | None:
        """What a masked language model fills in. Calls: llama_vocab_mask."""
        return self._token("mask")

    @property
    def fim_pre(self) -> int | None:
        """Fill in the middle: prefix. Calls: llama_vocab_fim_pre."""
        return self._token("fim_pre")

    @property
    def fim_suf(self) -> int | None:
        """Fill in the middle: suffix. Calls: llama_vocab_fim_suf."""
        return self._token("fim_suf")

    @property
    def fim_mid(self) -> int | None:
        """Fill in the middle: middle. Calls: llama_vocab_fim_mid."""
        return self._token("fim_mid")

    @property
    def fim_pad(self) -> int | None:
        """Fill in the middle: padding. Calls: llama_vocab_fim_pad."""
        return self._token("fim_pad")

    @property
    def fim_rep(self) -> int | None:
        """Fill in the middle: name of the repository. Calls: llama_vocab_fim_rep."""
        return self._token("fim_rep")

    @property
    def fim_sep(self) -> int | None:
        """Fill in the middle: between files. Calls: llama_vocab_fim_sep."""
        return self._token("fim_sep")

    # One token --------------------------------------------------------------------------------------------------------

    def is_eog(self, token: int) -> bool:
        """Whether a generation ends with it. Calls: llama_vocab_is_eog."""
        return bool(self._value("is_eog", token))

    def is_control(self, token: int) -> bool:
        """Whether it is a control token, which has no text. Calls: llama_vocab_is_control."""
        return bool(self._value("is_control", token))

    def text(self, token: int) -> str:
        """The token as the file spells it, e.g. with U+2581 for a space; see `piece` for its text.

        Bytes that are not UTF-8 are surrogates. Calls: llama_vocab_get_text
        """
        return c_text(self._value("get_text", token)) or ""

    def score(self, token: int) -> float:
        """The token's score in the file, 0.0 if it has none. Calls: llama_vocab_get_score."""
        return float(self._value("get_score", token))

    def attr(self, token: int) -> TokenAttr:
        """What the token is. Calls: llama_vocab_get_attr."""
        return TokenAttr(self._value("get_attr", token))

    def piece(self, token: int, *, lstrip: int = 0, special: bool = True) -> bytes:
        """The token's text, exactly: it may be a part of a UTF-8 character.

        Parameters
        ----------
        token
            A token's id.
        lstrip
            How many spaces to leave out at the beginning, if they are there.
        special
            Off: control and unknown tokens have no text.

        Calls: llama_token_to_piece
        """
        number = self._checked(token)
        strip = _integer("lstrip", lstrip)
        if not 0 <= strip <= MAX_BYTES:
            raise InvalidArgumentError(f"lstrip: {lstrip} is not between 0 and {MAX_BYTES}")
        with self._model._used as model:
            return _piece(guarded.llama_model_get_vocab(model), number, strip, special)

    def pieces(self, tokens: ArrayLike, *, special: bool = True) -> list[bytes]:
        """`piece` of each of many tokens. Calls: llama_token_to_piece."""
        numbers: list[int] = self._checked_all(tokens).tolist()
        with self._model._used as model:
            vocab = guarded.llama_model_get_vocab(model)
            return [_piece(vocab, number, 0, special) for number in numbers]

    # Texts ------------------------------------------------------------------------------------------------------------

    def tokenize(
        self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False
    ) -> NDArray[np.int32]:
        """Tokens of one text.

        Parameters
        ----------
        text
            Any text of at most 2 GiB, empty too; bytes are taken as UTF-8. See the class for bytes that are not.
        add_special
            Put the special tokens around it that the model was trained with, e.g. [CLS] and [SEP].
        parse_special
            Whether the names of special tokens in the text, e.g. `[SEP]`, are these tokens; off, they are text. Names
            of user-defined tokens (`TokenAttr.USER_DEFINED`) are these tokens in any case.

        Returns
        -------
        ndarray
            int32, shape (n,).

        Raises
        ------
        InvalidArgumentError
            The text is too long, has surrogates that stand for no byte, or is refused as the class says.
        NativeAssertError
            The library failed, e.g. because the vocabulary lacks a token that it needs.

        Notes
        -----
        One text is not interrupted by Ctrl-C. Time grows with the square of the number of special tokens that are found
        in a text, and for some kinds of vocabulary with the square of a run of characters that they do not know (`spm`)
        or of one kind (some `bpe`). For long texts, `bpe` vocabularies may take 320 bytes of memory for each
        character of a run of letters, digits or spaces.

        Calls: llama_tokenize
        """
        texts = _Texts.joined([_encode("text", text)], lambda _: "text")
        return self._tokenize(texts, add_special=add_special, parse_special=parse_special, n_threads=1)[0]

    def tokenize_many(
        self,
        texts: Sequence[str | bytes],
        *,
        add_special: bool = True,
        parse_special: bool = False,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of many texts, in threads, each as `tokenize` does.

        Parameters
        ----------
        texts
            The texts, also none.
        add_special, parse_special
            As in `tokenize`.
        n_threads
            At most so many threads, 1 to 512; by default one a core. Few texts take fewer.

        Returns
        -------
        tokens : ndarray
            int32, shape (n,): those of all texts.
        offsets : ndarray
            int64, shape (len(texts) + 1,): text i has `tokens[offsets[i]:offsets[i + 1]]`.

        Raises
        ------
        InvalidArgumentError, NativeAssertError
            As in `tokenize`; the message names the first text concerned.
        KeyboardInterrupt
            Ctrl-C, on the main thread.

        Calls: llama_tokenize
        """
        if isinstance(texts, (str, bytes)):
            raise InvalidArgumentError("texts: it is one text; pass a list, e.g. [text]")
        threads = _cores() if n_threads is None else _integer("n_threads", n_threads)
        if not 1 <= threads <= MAX_THREADS:
            raise InvalidArgumentError(f"n_threads: {n_threads} is not between 1 and {MAX_THREADS}")
        data = [_encode(f"texts[{index}]", text) for index, text in enumerate(texts)]
        encoded = _Texts.joined(data, "texts[{}]".format)
        return self._tokenize(encoded, add_special=add_special, parse_special=parse_special, n_threads=threads)

    def detokenize(self, tokens: ArrayLike, *, remove_special: bool = False, unparse_special: bool = False) -> str:
        """The text of tokens; bytes that are not UTF-8 are surrogates (`surrogateescape`), so that nothing is lost.

        Parameters, errors and the rest: see `detokenize_bytes`. Calls: llama_detokenize
        """
        data = self.detokenize_bytes(tokens, remove_special=remove_special, unparse_special=unparse_special)
        return data.decode("utf-8", "surrogateescape")

    def detokenize_bytes(
        self, tokens: ArrayLike, *, remove_special: bool = False, unparse_special: bool = False
    ) -> bytes:
        """The text of tokens, exactly: the first and the last character may be incomplete.

        It is `tokenize`'s text only where the vocabulary keeps it: `wpm` has no upper case and puts a space before each
        word, also the first one, and libllama removes spaces before punctuation where the model's file says so.

        Parameters
        ----------
        tokens
            Integers, shape (n,).
        remove_special
            Leave out `bos` at the beginning and `eos` at the end, where `add_bos` and `add_eos` say that `tokenize`
            adds them. The [SEP] of BERT stays, but has no text unless `unparse_special` is on.
        unparse_special
            Give the names of control and unknown tokens, e.g. `[SEP]`; off, they have no text.

        Raises
        ------
        InvalidArgumentError
            A token is out of range, or the text would be longer than 2 GiB.

        Calls: llama_detokenize
        """
        numbers = self._checked_all(tokens)
        if numbers.size > _MANY_TOKENS:
            self._require_short(numbers)
        size = min(8 * numbers.size + 64, MAX_BYTES)
        with self._model._used as model:
            vocab = guarded.llama_model_get_vocab(model)
            source = pointer(numbers, "llama_token *")
            while True:
                target = ffi.new("char[]", size)
                count = guarded.llama_detokenize(
                    vocab, source, numbers.size, target, size, remove_special, unparse_special
                )
                if count >= 0:
                    return bytes(ffi.buffer(target, count))
                size = -count

    # Inside -----------------------------------------------------------------------------------------------------------

    def _value(self, name: str, *token: int) -> Any:
        """What llama_vocab_<name> says, of a token if one is given."""
        numbers = [self._checked(one) for one in token]
        with self._model._used as model:
            return getattr(guarded, f"llama_vocab_{name}")(guarded.llama_model_get_vocab(model), *numbers)

    def _token(self, name: str) -> int | None:
        token = int(self._value(name))
        return None if token == lib.LLAMA_TOKEN_NULL else token

    def _require_vocabulary(self) -> None:
        if self._type == "none":
            raise InvalidArgumentError("the model has no vocabulary, so it takes tokens and no texts")

    def _checked(self, token: int) -> int:
        self._require_vocabulary()
        number = _integer("token", token)
        if not 0 <= number < self._n_tokens:
            raise InvalidArgumentError(f"token: {token} is not between 0 and {self._n_tokens - 1}")
        return number

    def _checked_all(self, tokens: ArrayLike) -> NDArray[np.int32]:
        """Tokens for C: contiguous, all in range, and nobody else's, so that they stay so."""
        self._require_vocabulary()
        numbers = np.asarray(tokens)
        if numbers.ndim != 1:
            raise InvalidArgumentError(f"tokens: the shape {numbers.shape} is not (n,)")
        if numbers.size == 0:
            return np.empty(0, np.int32)
        if numbers.dtype.kind not in "iu":
            raise InvalidArgumentError(f"tokens: {numbers.dtype} is no type of integers")
        if numbers.size > MAX_BYTES:
            raise InvalidArgumentError(f"tokens: {numbers.size} are more than {MAX_BYTES}; detokenize them in parts")
        copy = numbers.astype(np.int64)
        wrong = (copy < 0) | (copy >= self._n_tokens)  # what int64 cannot hold is negative in it
        if wrong.any():
            index = int(wrong.argmax())
            raise InvalidArgumentError(f"tokens[{index}]: {numbers[index]} is not between 0 and {self._n_tokens - 1}")
        return copy.astype(np.int32)

    def _require_short(self, tokens: NDArray[np.int32]) -> None:
        """Refuse text that is too long: the library would count its bytes wrongly."""
        numbers, counts = np.unique(tokens, return_counts=True)
        size = int(np.dot(counts, [len(piece) for piece in self.pieces(numbers)]))
        if size > MAX_BYTES:
            raise InvalidArgumentError(f"tokens: their text has {size} bytes; detokenize them in parts")

    def _tokenize(
        self,
        texts: _Texts,
        *,
        add_special: bool = True,
        parse_special: bool = False,
        prefix: bytes = b"",
        closing: int = lib.LLAMA_TOKEN_NULL,
        n_threads: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of all texts, each with `prefix` before it and the token `closing` behind it, and their offsets."""
        self._require_vocabulary()
        start = ffi.from_buffer("char[]", prefix)
        how = ffi.new("struct rawllama_tokenizing *", [
            start, len(prefix), add_special, parse_special, closing, n_threads, texts.n > 1 and on_main_thread()
        ])  # fmt: skip
        offsets = np.empty(texts.n + 1, np.int64)
        result = ffi.new("struct rawllama_tokens *[1]")
        with self._model._used as model:
            vocab = guarded.llama_model_get_vocab(model)
            try:
                code = _run(vocab, texts, how, offsets, result)
                if code != texts.n:
                    raise texts.failure(code)
                tokens = np.empty(offsets[texts.n], np.int32)
                lib.rawllama_tokens_copy(result[0], ffi.from_buffer("llama_token[]", tokens))
            finally:
                lib.rawllama_tokens_free(result[0])
        return tokens, offsets


class _Texts:
    """Texts as C takes them: UTF-8 in one buffer, text i from `starts[i]` to `starts[i + 1]`."""

    def __init__(self, data: Any, starts: NDArray[np.int64], name: Callable[[int], str]) -> None:
        self.n = starts.size - 1
        self.data: Any = data if isinstance(data, ffi.CData) else ffi.from_buffer("char[]", data)
        #: Where each begins, and where the last ends.
        self.starts: Any = ffi.from_buffer("int64_t[]", starts)
        self._name = name

    @classmethod
    def joined(cls, texts: list[bytes], name: Callable[[int], str]) -> _Texts:
        """These, one after the other; `name` says how messages call a text with this index."""
        starts = np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)
        return cls(texts[0] if len(texts) == 1 else b"".join(texts), starts, name)

    def failure(self, code: int) -> LlamaError:
        """The exception for what rawllama_tokenize returned."""
        if code == lib.RAWLLAMA_CAUGHT:
            return caught("llama_tokenize")
        words = c_text(lib.rawllama_guard_message())
        kind: type[LlamaError] = InvalidArgumentError
        start, end = self.starts[code], self.starts[code + 1]
        with suppress(UnicodeDecodeError):
            bytes(ffi.buffer(self.data + start, end - start)).decode()
            kind = NativeAssertError
        name = self._name(code)
        return failure(kind, "llama_tokenize", f"{name}: llama_tokenize failed inside the library: {words}")


def _run(vocab: Any, texts: _Texts, how: Any, offsets: NDArray[np.int64], result: Any) -> int:
    target = ffi.from_buffer("int64_t[]", offsets)

    def call() -> int:
        return lib.rawllama_tokenize(vocab, texts.data, texts.starts, texts.n, how, target, result)

    if not how.interruptible:
        return call()
    while True:  # until the end, if the program's own handler for Ctrl-C does not raise
        with interruptible():
            code = call()
        if code != lib.RAWLLAMA_INTERRUPTED:
            return code


def _integer(argument: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{argument}: {value!r} is no integer") from None


def _encode(name: str, text: str | bytes) -> bytes:
    """The bytes of a text."""
    if isinstance(text, str):
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            surrogate = f"the surrogate U+{ord(text[error.start]):04X} at {error.start}"
            raise InvalidArgumentError(f"{name}: {surrogate} stands for no byte") from None
    elif isinstance(text, bytes):
        data = text
    else:
        raise InvalidArgumentError(f"{name}: it is {type(text).__name__}, not str or bytes")
    if len(data) > MAX_BYTES:
        raise InvalidArgumentError(f"{name}: {len(data)} bytes; libllama takes {MAX_BYTES} at most, so split it")
    return data


def _piece(vocab: Any, token: int, lstrip: int, special: bool) -> bytes:
    size = 32
    while True:
        target = ffi.new("char[]", size)
        count = guarded.llama_token_to_piece(vocab, token, target, size, lstrip, special)
        if count >= 0:
            return bytes(ffi.buffer(target, count))
        size = -count


def _cores() -> int:
    """Cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MAX_THREADS)
