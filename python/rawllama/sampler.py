"""Samplers: from logits to the next token."""

from __future__ import annotations

import math
import operator
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from . import _grammar
from ._handle import Handle
from ._params import c_string, fill, text
from .errors import DecodeError, InvalidArgumentError, NativeAssertError, failure
from .guard import guarded
from .raw import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .context import Context
    from .vocab import Vocab

_INT32 = 2**31 - 1
_SELECT = ("greedy", "dist", "mirostat", "mirostat_v2", "adaptive_p")
# What may cut tokens off, or sort them, which libllama remembers: a logit that is changed later is out of order.
_CUT = ("top_k", "top_p", "min_p", "typical", "temp_ext", "xtc", "infill")
_NOT_BEHIND = {
    "logit_bias": _CUT,
    "grammar": _CUT,
    "grammar_lazy_patterns": _CUT,
    "dry": ("temp_ext",),  # it may make logits infinite, and dry may subtract infinity
}
_GRAMMARS = ("grammar", "grammar_lazy_patterns")
# Above, a logit is no model's. With the most that samplers may multiply, no logit becomes infinite: infinity minus
# infinity is NaN, and std::sort with NaN among its items leaves its memory.
_MAX_LOGIT = 1e9
_MAX_GAIN = 1e20
_MIN_TEMP = 1e-6
_MAX_LAST_N = 2**20  # tokens; C allocates all of them at once
_MAX_BREAKER = 40  # bytes; C cuts longer ones
# Matching a grammar takes about 500 bytes of stack for each character of a token.
_MAX_PIECE = 2000  # bytes
_MAX_PATTERN = 1000  # characters; std::regex takes about 600 bytes of stack for each parenthesis
_MAX_TIMES = 1000
_ROW = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


class Candidates(NamedTuple):
    """The tokens that a chain has left, in its order; all are copies."""

    #: int32, shape (n,).
    ids: NDArray[np.int32]
    #: float32, shape (n,); a token with -inf is excluded.
    logits: NDArray[np.float32]
    #: float32, shape (n,): the probabilities that the last sampler computed, which most do not; else 0.
    p: NDArray[np.float32]
    #: The id of the token that the chain has selected; None without a selecting sampler, or if all are excluded.
    selected: int | None


@dataclass(frozen=True)
class SamplerPerf:
    """Performance counters: ms, which grow with `no_perf=False`, and tokens."""

    t_sample_ms: float
    n_sample: int


class Sampler(Handle):
    """A chain of samplers. For one thread at a time.

        sampler = Sampler().top_k(40).top_p(0.95).temp(0.8).dist(seed=1)
        token = sampler.sample(context)

    Samplers work in the order in which they are added; the last is one that selects: `greedy`, `dist`, `mirostat`,
    `mirostat_v2` or `adaptive_p`. A chain with a vocabulary is closed with its model, and samples for no other.
    `seed=None` is a random seed, here and below.

    Parameters
    ----------
    no_perf
        Whether to take no times; None is libllama's default, which is True.

    Calls: llama_sampler_chain_default_params, llama_sampler_chain_init, llama_sampler_chain_add, llama_sampler_free
    """

    _fragile = True

    def __init__(self, *, no_perf: bool | None = None) -> None:
        params = guarded.llama_sampler_chain_default_params()
        fill(params, {"no_perf": no_perf})
        super().__init__(guarded.llama_sampler_chain_init(params), lib.llama_sampler_free)
        self._start([], [], None)

    def _start(self, kinds: list[str], gains: list[float], n_vocab: int | None) -> None:
        self._kinds = kinds  # of each sampler, its name in C
        self._gains = gains  # of each sampler, the most by which it multiplies logits
        self._n_vocab = n_vocab
        self._undecided = False  # whether apply() has selected a token that nobody has accepted
        self._fresh = self._rows = np.zeros(0, _ROW)

    # ---- samplers that select

    def greedy(self) -> Self:
        """Select the most likely token. Calls: llama_sampler_init_greedy."""
        return self._add("greedy")

    def dist(self, seed: int | None = None) -> Self:
        """Draw a token by its probability. Calls: llama_sampler_init_dist."""
        return self._add("dist", _seed(seed))

    def mirostat(self, n_vocab: int, seed: int | None = None, tau: float = 5.0, eta: float = 0.1, m: int = 100) -> Self:
        """Mirostat 1.0: aim at a surprise of `tau`, learn at the rate `eta`, from `m` tokens.

        Raises
        ------
        InvalidArgumentError
            `n_vocab` is not the model's, a number that is not finite, or m below 1.

        Calls: llama_sampler_init_mirostat
        """
        size = _integer("n_vocab", n_vocab, 1)
        numbers = _number("tau", tau, 0, 1e6), _number("eta", eta, 0, 1e6), _integer("m", m, 1)
        return self._add("mirostat", size, _seed(seed), *numbers, n_vocab=size)

    def mirostat_v2(self, seed: int | None = None, tau: float = 5.0, eta: float = 0.1) -> Self:
        """Mirostat 2.0: aim at a surprise of `tau`, learn at the rate `eta`. Calls: llama_sampler_init_mirostat_v2."""
        return self._add("mirostat_v2", _seed(seed), _number("tau", tau, 0, 1e6), _number("eta", eta, 0, 1e6))

    def adaptive_p(self, target: float, decay: float = 0.9, seed: int | None = None) -> Self:
        """Draw tokens near the probability `target` (negative: off), with a history of 1 / (1 - `decay`) tokens.

        Raises
        ------
        InvalidArgumentError
            `target` above 1, or `decay` not from 0 to 0.99.

        Calls: llama_sampler_init_adaptive_p
        """
        return self._add("adaptive_p", _number("target", target, -1, 1), _number("decay", decay, 0, 0.99), _seed(seed))

    # ---- samplers that cut

    def top_k(self, k: int) -> Self:
        """Keep the k most likely tokens; 0 or less keeps all. Calls: llama_sampler_init_top_k."""
        return self._add("top_k", _integer("k", k, -_INT32 - 1))

    def top_p(self, p: float, min_keep: int = 1) -> Self:
        """Keep the likeliest tokens that together have the probability p. Calls: llama_sampler_init_top_p."""
        return self._add("top_p", _number("p", p, 0, 1), _integer("min_keep", min_keep, 0))

    def min_p(self, p: float, min_keep: int = 1) -> Self:
        """Keep tokens that are at least p times as likely as the likeliest. Calls: llama_sampler_init_min_p."""
        return self._add("min_p", _number("p", p, 0, 1), _integer("min_keep", min_keep, 0))

    def typical(self, p: float, min_keep: int = 1) -> Self:
        """Locally typical sampling. Calls: llama_sampler_init_typical."""
        return self._add("typical", _number("p", p, 0, 1), _integer("min_keep", min_keep, 0))

    def xtc(self, p: float, t: float, min_keep: int = 1, seed: int | None = None) -> Self:
        """With probability p, drop all but the last token above the threshold t. Calls: llama_sampler_init_xtc."""
        numbers = _number("p", p, 0, 1), _number("t", t, 0, 1), _integer("min_keep", min_keep, 0)
        return self._add("xtc", *numbers, _seed(seed))

    def top_n_sigma(self, n: float) -> Self:
        """Exclude tokens n standard deviations below the likeliest. Calls: llama_sampler_init_top_n_sigma."""
        return self._add("top_n_sigma", _number("n", n, -1e6, 1e6))

    def infill(self, vocab: Vocab) -> Self:
        """For text in the middle; to be used after `top_k` and `top_p`, as it compares each token with each.

        Raises
        ------
        InvalidArgumentError
            The vocabulary has no token that ends a text.

        Calls: llama_sampler_init_infill
        """

        def make(pointer: Any) -> Any:
            if guarded.llama_vocab_eot(pointer) < 0 and guarded.llama_vocab_eos(pointer) < 0:
                raise InvalidArgumentError("vocab: it has no EOT or EOS token, which infill needs")
            return guarded.llama_sampler_init_infill(pointer)

        return self._add_with("infill", vocab, make)

    # ---- samplers that change logits

    def temp(self, t: float) -> Self:
        """Divide logits by t; 0 or less leaves only the most likely token. Calls: llama_sampler_init_temp."""
        number = _temperature(t)
        return self._add("temp", number, gain=max(1.0, 1 / number if number > 0 else 1.0))

    def temp_ext(self, t: float, delta: float, exponent: float = 1.0) -> Self:
        """Divide logits by t ± delta, as their entropy says, to the power of `exponent`.

        Raises
        ------
        InvalidArgumentError
            A negative `exponent`, or a number that is not finite.

        Calls: llama_sampler_init_temp_ext
        """
        # A negative exponent may divide by infinity, which makes NaN of -inf.
        numbers = _temperature(t), _number("delta", delta, 0, 1e9), _number("exponent", exponent, 0, 1e6)
        return self._add("temp_ext", *numbers, gain=max(1.0, 1 / numbers[0] if numbers[0] > 0 else 1.0))

    def penalties(
        self,
        penalty_last_n: int,
        penalty_repeat: float = 1.0,
        penalty_freq: float = 0.0,
        penalty_present: float = 0.0,
        *,
        n_vocab: int | None = None,
    ) -> Self:
        """Make tokens less likely that are among the last ones accepted.

        Parameters
        ----------
        penalty_last_n
            How many tokens count; 0 switches the sampler off.
        penalty_repeat
            What positive logits are divided by and negative ones multiplied by.
        penalty_freq, penalty_present
            What is subtracted, for each time and once.
        n_vocab
            Only needed to sample on a device (llama_set_sampler).

        Raises
        ------
        InvalidArgumentError
            `penalty_last_n` not from 0 to 1048576, `penalty_repeat` not from 0.01 to 100, or numbers not finite.

        Calls: llama_sampler_init_penalties
        """
        repeat = _number("penalty_repeat", penalty_repeat, 0.01, 100)
        arguments: tuple[float, ...] = (
            _integer("penalty_last_n", penalty_last_n, 0, _MAX_LAST_N),
            repeat,
            _number("penalty_freq", penalty_freq, -1e6, 1e6),
            _number("penalty_present", penalty_present, -1e6, 1e6),
        )
        size = None if n_vocab is None else _integer("n_vocab", n_vocab, 1)
        if len(ffi.typeof(lib.llama_sampler_init_penalties).args) > len(arguments):  # older ones know no n_vocab
            arguments = (size or 0, *arguments)
        return self._add("penalties", *arguments, n_vocab=size, gain=max(repeat, 1 / repeat))

    def dry(
        self,
        vocab: Vocab,
        dry_multiplier: float,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_penalty_last_n: int = 1024,
        seq_breakers: Iterable[str] = ("\n", ":", '"', "*"),
    ) -> Self:
        """Make tokens less likely that would go on with a repetition, unless a breaker ends it.

        Raises
        ------
        InvalidArgumentError
            A negative number, `dry_penalty_last_n` above 1048576, or a breaker that is empty or over 40 bytes.

        Calls: llama_sampler_init_dry
        """
        if isinstance(seq_breakers, str):
            raise InvalidArgumentError("seq_breakers: it is one string; give a list of them")
        breakers = [c_string(breaker, "seq_breakers") for breaker in seq_breakers]
        if any(not 0 < len(breaker) <= _MAX_BREAKER for breaker in breakers):
            raise InvalidArgumentError(f"seq_breakers: each has 1 to {_MAX_BREAKER} bytes")
        arguments = (
            _number("dry_multiplier", dry_multiplier, 0, 1e6),
            _number("dry_base", dry_base, 0, 1e6),
            _integer("dry_allowed_length", dry_allowed_length, 0),
            _integer("dry_penalty_last_n", dry_penalty_last_n, 0, _MAX_LAST_N),
        )
        strings = _Strings(breakers)
        return self._add_with(
            "dry", vocab, lambda pointer: guarded.llama_sampler_init_dry(pointer, *arguments, strings.c, len(breakers))
        )

    def logit_bias(self, logit_bias: Mapping[int, float], n_vocab: int | None = None) -> Self:
        """Add a bias to the logits of some tokens; -inf excludes one.

        Raises
        ------
        InvalidArgumentError
            A token that the vocabulary has not got, a bias that is NaN, +inf or over 1e9, or a place after samplers
            that cut or sort.

        Calls: llama_sampler_init_logit_bias
        """
        size = self._n_vocab if n_vocab is None else _integer("n_vocab", n_vocab, 1)
        rows = [
            (_integer("logit_bias", token, 0, (size or _INT32) - 1), _bias(token, bias))
            for token, bias in logit_bias.items()
        ]
        size = size or max((token for token, _ in rows), default=0) + 1  # C only compares tokens with it
        array = ffi.new("llama_logit_bias[]", rows)
        return self._add("logit_bias", size, len(rows), array, n_vocab=n_vocab)

    # ---- grammars

    def grammar(self, vocab: Vocab, grammar_str: str, grammar_root: str = "root") -> Self:
        """Allow only what a GBNF grammar allows.

        A grammar that is ambiguous can take any amount of memory and time: take grammars from people whom you trust.

        Raises
        ------
        InvalidArgumentError
            A grammar that libllama refuses, or would not survive: the message says which line. Or a place after
            samplers that cut or sort.

        Calls: llama_sampler_init_grammar
        """
        arguments = _require_grammar(grammar_str, grammar_root)

        def make(pointer: Any) -> Any:
            _require_short_pieces(vocab._model, pointer)
            return guarded.llama_sampler_init_grammar(pointer, *arguments)

        return self._add_with("grammar", vocab, make)

    def grammar_lazy_patterns(
        self,
        vocab: Vocab,
        grammar_str: str,
        grammar_root: str = "root",
        trigger_patterns: Sequence[str] = (),
        trigger_tokens: Iterable[int] = (),
    ) -> Self:
        """As `grammar`, but only from the first match of a pattern in what was accepted, or the first such token.

        Parameters
        ----------
        vocab, grammar_str, grammar_root
            As those of `grammar`.
        trigger_patterns
            Regular expressions (ECMAScript), searched anywhere; the grammar begins with their first group, if there
            is one. `*`, `+` and `{n,}` are refused: matching them takes C's stack by the length of the text, and 10000
            tokens are enough to end the process.
        trigger_tokens
            Ids; the grammar begins with the token.

        Raises
        ------
        InvalidArgumentError
            As `grammar`; or no trigger, or one that cannot be used.

        Calls: llama_sampler_init_grammar_lazy_patterns
        """
        arguments = _require_grammar(grammar_str, grammar_root)
        if isinstance(trigger_patterns, str):
            raise InvalidArgumentError("trigger_patterns: it is one string; give a list of them")
        patterns = _Strings([_pattern(pattern) for pattern in trigger_patterns])
        tokens = list(trigger_tokens)
        if not patterns.count and not tokens:
            raise InvalidArgumentError("trigger_patterns, trigger_tokens: without any the grammar never begins")

        def make(pointer: Any) -> Any:
            _require_short_pieces(vocab._model, pointer)
            last = guarded.llama_vocab_n_tokens(pointer) - 1
            ids = ffi.new("llama_token[]", [_integer("trigger_tokens", token, 0, last) for token in tokens])
            return guarded.llama_sampler_init_grammar_lazy_patterns(
                pointer, *arguments, patterns.c, patterns.count, ids, len(ids)
            )

        return self._add_with("grammar_lazy_patterns", vocab, make)

    # ---- the chain

    def _add(self, kind: str, *arguments: Any, n_vocab: int | None = None, gain: float = 1.0) -> Self:
        with self._used as chain:
            self._require_place(kind, gain)
            if n_vocab is not None:
                self._require_size("n_vocab", n_vocab)
            function = f"llama_sampler_init_{kind}"
            if not hasattr(lib, function):
                raise InvalidArgumentError(f"{kind}: this version of libllama has no such sampler")
            self._append(chain, kind, gain, getattr(guarded, function)(*arguments))
            self._n_vocab = n_vocab or self._n_vocab
        return self

    def _add_with(self, kind: str, vocab: Vocab, make: Callable[[Any], Any]) -> Self:
        """Add what `make` makes of the C vocabulary, whose model then closes this chain before itself."""
        model = vocab._model
        with self._used as chain, model._used as pointer:
            self._require_place(kind)
            if self._parent not in (None, model):
                raise InvalidArgumentError("vocab: the chain has a sampler with another model's vocabulary")
            c_vocab = guarded.llama_model_get_vocab(pointer)
            if guarded.llama_vocab_type(c_vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
                raise InvalidArgumentError(f"vocab: this model has no tokens with a text, which {kind} needs")
            n_vocab = guarded.llama_vocab_n_tokens(c_vocab)
            self._require_size("vocab", n_vocab)
            try:
                self._append(chain, kind, 1.0, make(c_vocab))
            except NativeAssertError as error:
                raise InvalidArgumentError(f"{kind}: libllama refuses it ({error})") from error
            self._n_vocab = n_vocab
            self._join(model)
        return self

    def _append(self, chain: Any, kind: str, gain: float, sampler: Any) -> None:
        if not sampler:
            raise failure(InvalidArgumentError, f"llama_sampler_init_{kind}", f"{kind}: libllama refuses it")
        guarded.llama_sampler_chain_add(chain, sampler)
        self._kinds.append(kind)
        self._gains.append(gain)

    def _require_place(self, kind: str, gain: float = 1.0) -> None:
        if self._kinds and self._kinds[-1] in _SELECT:
            raise InvalidArgumentError(f"{kind}: add it before {self._kinds[-1]}, which selects and so comes last")
        if behind := [one for one in self._kinds if one in _NOT_BEHIND.get(kind, ())]:
            raise InvalidArgumentError(f"{kind}: add it before {behind[0]}, which cuts or sorts the tokens")
        if math.prod(self._gains) * gain > _MAX_GAIN:
            raise InvalidArgumentError(f"{kind}: with those before it, it multiplies logits by over {_MAX_GAIN:g}")

    def _require_size(self, argument: str, n_vocab: int) -> None:
        if self._n_vocab not in (None, n_vocab):
            raise InvalidArgumentError(f"{argument}: {n_vocab} tokens, and samplers of the chain have {self._n_vocab}")

    @property
    def names(self) -> list[str]:
        """The samplers' names, as libllama gives them; with `?` before one whose settings switch it off.

        Calls: llama_sampler_chain_n, llama_sampler_chain_get, llama_sampler_name
        """
        with self._used as chain:
            samplers = [guarded.llama_sampler_chain_get(chain, i) for i in range(guarded.llama_sampler_chain_n(chain))]
            return [text(guarded.llama_sampler_name(sampler)) or "" for sampler in samplers]

    @property
    def seed(self) -> int | None:
        """The seed that the chain's last sampler with one really uses; None without one (xtc, adaptive_p keep theirs).

        Calls: llama_sampler_get_seed
        """
        with self._used as chain:
            seed = int(guarded.llama_sampler_get_seed(chain))
            return None if seed == lib.LLAMA_DEFAULT_SEED else seed

    def remove(self, i: int) -> Self:
        """Remove the i-th sampler. Calls: llama_sampler_chain_remove, llama_sampler_free."""
        with self._used as chain:
            index = _integer("i", i, 0, len(self._kinds) - 1)
            sampler = guarded.llama_sampler_chain_remove(chain, index)
            del self._kinds[index], self._gains[index]
            guarded.llama_sampler_free(sampler)
        return self

    def clone(self) -> Self:
        """A chain with the same samplers in the same state, but for `adaptive_p`, which draws from its seed anew.

        Raises
        ------
        InvalidArgumentError
            `adaptive_p` has selected a token in `apply` that was not accepted, which libllama cannot clone.

        Calls: llama_sampler_clone
        """
        with self._used as chain:
            if self._undecided and "adaptive_p" in self._kinds:
                raise InvalidArgumentError("adaptive_p: accept() the token that apply() selected, or reset(), first")
            clone = type(self).__new__(type(self))
            pointer = guarded.llama_sampler_clone(chain)
            Handle.__init__(clone, pointer, lib.llama_sampler_free, self._parent)
            clone._start(list(self._kinds), list(self._gains), self._n_vocab)
            return clone

    # ---- sampling

    def sample(self, context: Context, index: int = -1) -> int:
        """Select a token from the logits of an output of the last batch, and accept it.

        Parameters
        ----------
        context
            Of the model whose vocabulary the samplers have.
        index
            The token's place in the batch; -1 is the last.

        Raises
        ------
        InvalidArgumentError
            The output has no logits, the context is another model's, no sampler selects, or all tokens are excluded,
            by a grammar that fits none, say.
        DecodeError
            The model gave NaN or infinite logits.

        Calls: llama_get_logits_ith, llama_sampler_apply, llama_sampler_accept, as llama_sampler_sample does
        """
        if self._parent not in (None, context.model):
            raise InvalidArgumentError("context: it is of another model than the vocabulary of the samplers")
        logits = context.get_logits_ith(_integer("index", index, -_INT32))
        if not logits.max() <= _MAX_LOGIT:
            raise DecodeError(f"the model gave logits that are no numbers, or over {_MAX_LOGIT:g}; its file is damaged")
        with self._used as chain:
            if not self._kinds or self._kinds[-1] not in _SELECT:
                raise InvalidArgumentError(f"no sampler selects; add one of {', '.join(_SELECT)}")
            self._require_size("context", logits.size)
            token = _selected(self._apply(chain, logits))
            if token is None:
                raise InvalidArgumentError("all tokens are excluded, by the grammar or the biases; loosen these")
            self._accept(chain, token)
            return token

    def apply(self, logits: ArrayLike) -> Candidates:
        """Apply the chain to logits; nothing is accepted, but samplers that draw go on in their random numbers.

        Parameters
        ----------
        logits
            float32, shape (n_vocab,); token i has the i-th. A copy is worked on. -inf excludes a token.

        Returns
        -------
        Candidates
            Copies of what is left.

        Raises
        ------
        InvalidArgumentError
            Another shape, NaN, +inf, or values over 1e9.

        Calls: llama_sampler_apply
        """
        with np.errstate(over="ignore"):
            row = np.asarray(logits, np.float32)
        if row.ndim != 1 or not row.size:
            raise InvalidArgumentError(f"logits: shape {row.shape}; it needs (n_vocab,), with one token at least")
        if not row.max() <= _MAX_LOGIT:
            raise InvalidArgumentError(f"logits: NaN, +inf or over {_MAX_LOGIT:g}; only -inf has a meaning")
        with self._used as chain:
            self._require_size("logits", row.size)
            array = self._apply(chain, row)
            self._undecided = True
            left = np.frombuffer(ffi.buffer(array.data, array.size * _ROW.itemsize), _ROW)
            ids, values, p = (left[name].copy() for name in ("id", "logit", "p"))
            return Candidates(ids, values, p, _selected(array))

    def _apply(self, chain: Any, logits: NDArray[np.float32]) -> Any:
        """A llama_token_data_array, valid until the next call."""
        if len(self._rows) != logits.size:
            self._fresh = np.zeros(logits.size, _ROW)
            self._fresh["id"] = np.arange(logits.size)
            self._rows = np.empty_like(self._fresh)
        self._rows.view(np.int32)[:] = self._fresh.view(np.int32)  # numpy copies structs a field at a time
        self._rows["logit"] = logits
        array = _candidates(self._rows)
        guarded.llama_sampler_apply(chain, array)
        return array

    def accept(self, token: int) -> Self:
        """Tell the samplers that a token was taken, which `sample` does itself: a prompt's, say.

        Raises
        ------
        InvalidArgumentError
            No such token, or one that a grammar does not allow; the samplers are as before.

        Calls: llama_sampler_accept
        """
        with self._used as chain:
            self._accept(chain, _integer("token", token, 0, (self._n_vocab or _INT32) - 1))
        return self

    def _accept(self, chain: Any, token: int) -> None:
        for i, kind in enumerate(self._kinds):
            if kind in _GRAMMARS:
                self._require_allowed(guarded.llama_sampler_chain_get(chain, i), token)
        guarded.llama_sampler_accept(chain, token)
        self._undecided = False

    def _require_allowed(self, grammar: Any, token: int) -> None:
        """Ask the grammar, which takes what it does not allow, and is then of no more use."""
        row = np.array([(token, 0, 0)], _ROW)
        guarded.llama_sampler_apply(grammar, _candidates(row))
        if row["logit"][0] == -np.inf:
            raise InvalidArgumentError(f"token: {token} is not what the grammar allows here; reset() begins it anew")

    def reset(self) -> Self:
        """Forget what was accepted, and draw from the seeds anew. Calls: llama_sampler_reset."""
        with self._used as chain:
            guarded.llama_sampler_reset(chain)
            self._undecided = False
        return self

    # ---- performance counters

    @property
    def perf(self) -> SamplerPerf:
        """The performance counters. Calls: llama_perf_sampler."""
        with self._used as chain:
            data = guarded.llama_perf_sampler(chain)
            return SamplerPerf(*(getattr(data, field.name) for field in fields(SamplerPerf)))

    def reset_perf(self) -> None:
        """Set the counters to zero. Calls: llama_perf_sampler_reset."""
        with self._used as chain:
            guarded.llama_perf_sampler_reset(chain)


class _Strings:
    """Strings for C, as long as this object lives."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        self._alive = [ffi.new("char[]", string) for string in strings]
        self.count = len(strings)
        self.c = ffi.new("char *[]", self._alive)


def _candidates(rows: NDArray[Any]) -> Any:
    """A llama_token_data_array over the rows, which must outlive it."""
    memory: Any = rows
    data = ffi.from_buffer("llama_token_data[]", memory, require_writable=True)
    return ffi.new("llama_token_data_array *", {"data": data, "size": len(rows), "selected": -1, "sorted": False})


def _selected(array: Any) -> int | None:
    """The id of the selected token; None if there is none, or if it is excluded as all the others are."""
    if not 0 <= array.selected < array.size:
        return None
    row = array.data[array.selected]
    return None if row.logit == -math.inf else int(row.id)


def _number(argument: str, value: float, least: float, most: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"{argument}: {value!r} is not a number") from None
    if not least <= number <= most:
        raise InvalidArgumentError(f"{argument}: {value!r} is not from {least:g} to {most:g}")
    return number


def _integer(argument: str, value: int, least: int, most: int = _INT32) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{argument}: {value!r} is not an integer") from None
    if not least <= number <= most:
        raise InvalidArgumentError(f"{argument}: {value!r} is not from {least} to {most}")
    return number


def _seed(seed: int | None) -> int:
    return int(lib.LLAMA_DEFAULT_SEED) if seed is None else _integer("seed", seed, 0, lib.LLAMA_DEFAULT_SEED - 1)


def _temperature(t: float) -> float:
    number = _number("t", t, -1e9, 1e9)
    if 0 < number < _MIN_TEMP:
        raise InvalidArgumentError(f"t: {t!r} is too near to 0; use 0 for the most likely token")
    return number


def _bias(token: int, bias: float) -> float:
    return bias if bias == -math.inf else _number(f"logit_bias[{token}]", bias, -_MAX_LOGIT, _MAX_LOGIT)


def _require_grammar(grammar_str: str, grammar_root: str) -> tuple[bytes, bytes]:
    for argument, value in (("grammar_str", grammar_str), ("grammar_root", grammar_root)):
        c_string(value, argument)
        if any("\ud800" <= char <= "\udfff" for char in value):  # libllama takes bytes that are no UTF-8 for it
            raise InvalidArgumentError(f"{argument}: it holds surrogates, so it is no text that UTF-8 can hold")
    _grammar.check(grammar_str, grammar_root)
    return grammar_str.encode(), grammar_root.encode()


def _pattern(pattern: str) -> bytes:
    """A regular expression that std::regex, which calls itself for each character matched, can match in any text."""
    if len(pattern) > _MAX_PATTERN:
        raise InvalidArgumentError(f"trigger_patterns: one has more than {_MAX_PATTERN} characters")
    plain = re.sub(r"\[[^\]]*\]", "", re.sub(r"\\.", "", pattern, flags=re.DOTALL))
    if re.search(r"[*+]|\{[0-9]*,\}", plain):
        words = "*, + and {n,} can take more stack than there is; use {0,100}, say, or leave them out at the ends"
        raise InvalidArgumentError(f"trigger_patterns: {pattern!r}: {words}")
    if math.prod(int(most) or 1 for most in re.findall(r"([0-9]+)\}", plain)) > _MAX_TIMES:
        raise InvalidArgumentError(f"trigger_patterns: {pattern!r} repeats more than {_MAX_TIMES} times")
    return c_string(pattern, "trigger_patterns")


_short_pieces: weakref.WeakSet[Handle] = weakref.WeakSet()


def _require_short_pieces(model: Handle, vocab: Any) -> None:
    """Refuse a vocabulary with tokens so long that matching one would take more stack than there is."""
    if model in _short_pieces:
        return
    for token in range(guarded.llama_vocab_n_tokens(vocab)):
        if -lib.llama_token_to_piece(vocab, token, ffi.NULL, 0, 0, True) > _MAX_PIECE:
            words = f"vocab: token {token} has more than {_MAX_PIECE} bytes, too long for a grammar"
            raise InvalidArgumentError(words)
    _short_pieces.add(model)
