"""Measures how an Embedder computes fastest with its model on this machine, and remembers it."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backend
from ._engine import Engine, Sequences, Settings, Work
from ._options import settings_of
from ._params import text as c_text
from ._queue import Stop
from .errors import ContextCreateError, InvalidArgumentError, MissingExtraError
from .files import replacing
from .planning import plan_lengths
from .raw import lib
from .rows import RowFormat
from .texts import Texts, read
from .vocab import _cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .embedder import Embedder
    from .model import Model

Clock = Callable[[], float]
#: Seconds of each round, by settings. Those that were measured together have as many rounds.
Times = Mapping[Settings, Sequence[float]]

BUDGETS = (256, 512, 1024, 2048)
CONTEXTS = (1, 2, 4, 8)
# Faster by less, at the median, is not faster; and it must be faster in so many of the rounds.
_MARGIN, _CERTAINTY = 0.03, 0.75
_ROUNDS = (3, 15)
# Comparisons of a search, and passes over the sample that they take at least.
_COMPARISONS, _PASSES = 5, 50
# Tokens of the first pass, which tells how many the others may have.
_FIRST = 2048


@dataclass(frozen=True)
class Tuning:
    """What is best, and how that was found; printed, a table.

    Attributes
    ----------
    settings
        The best: `n_threads`, `n_contexts`, `token_budget` and `flash_attn`, as the Embedder takes them.
    speedup
        How many times faster it is than the defaults, with what the Embedder was given; 1.0 where these are best.
    tokens_per_second, flops_per_second
        Of the best; additions and multiplications as `Embedder.plan` counts them.
    times
        Seconds of each pass over the sample, by settings; none where the rest was read from the file.
    path
        Where the rest is remembered; None if it is not.
    """

    settings: Settings
    speedup: float
    tokens_per_second: float
    flops_per_second: float
    times: Times = field(default_factory=dict)
    path: Path | None = None

    def forget(self) -> None:
        """Remove the file: Embedders that are made from now on compute with the defaults."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __str__(self) -> str:
        lines = [f"{'n_threads':>10}{'n_contexts':>12}{'token_budget':>14}{'flash_attn':>12}{'ms':>10}"]
        for settings in self.times or (self.settings,):
            times = self.times.get(settings)
            median = f"{np.median(times) * 1e3:.1f}" if times else ""
            lines.append(f"{_row(settings)}{median:>10}{'  best' if settings == self.settings else ''}")
        speed = f"{self.speedup:.2f} times as fast as the defaults, {self.tokens_per_second:.0f} tokens a second"
        return "\n".join([*lines, speed, f"remembered in {self.path}" if self.path else "not remembered"])


def _row(settings: Settings) -> str:
    flash = {None: "default", True: "on", False: "off"}[settings.flash_attn]
    return f"{settings.n_threads:>10}{settings.n_contexts:>12}{settings.token_budget:>14}{flash:>12}"


def tune(embedder: Embedder, sample: Iterable[str], *, seconds: float = 30, clock: Clock = time.perf_counter) -> Tuning:
    """Find the fastest settings for texts like these, use them from now on, and remember them.

    One after the other, the number of contexts, the token budget, flash attention and the number of threads are tried,
    in rounds that take turns. What is not faster beyond the noise loses to the defaults. What the Embedder was given
    stays as it is. Let the machine do nothing else meanwhile.

    Parameters
    ----------
    embedder
        Who shall compute with them.
    sample
        Some hundred texts, as long and as mixed as those to come; a part of them is taken where they are too many.
    seconds
        How long to measure, about; some rounds are made in any case.
    clock
        Seconds, as `time.perf_counter` gives them.

    Raises
    ------
    InvalidArgumentError
        There are no texts, or `Embedder.encode` would not take them.
    LlamaError
        The computation failed.
    KeyboardInterrupt
        Ctrl-C, on the main thread; nothing is changed then.

    Notes
    -----
    It is remembered for this model, machine and build of rawllama in the folder `RAWLLAMA_CACHE`, else in the user's
    cache folder, if the Embedder was made without `n_threads`, `n_contexts`, `token_budget` and `flash_attn`; and those
    that are made so later take it from there. Settings change the last digits of the vectors, flash attention most:
    give one of these four, or `forget()`, where digits must stay the same.

    Calls: llama_tokenize, llama_encode or llama_decode
    """
    embedder._pipeline.require_open()
    texts = read(sample, "sample")
    if not len(texts):
        raise InvalidArgumentError("sample: it has no texts; pass some hundred of those that are to come")
    given = embedder._given
    default = settings_of(**given)
    with embedder._pipeline.turn:
        bench = _Bench(embedder, texts, default, seconds / _PASSES, clock)
        share = seconds / _COMPARISONS
        measure = partial(bench.measure, seconds=share)
        best, speedup, times = search(default, bench.n_tokens, measure, fixed=given)
    passes = 1 / float(np.median(times[best]))
    found = Tuning(best, speedup, bench.n_tokens * passes, bench.flops(best) * passes, times)
    found = found if given else replace(found, path=_remember(embedder.model, found))
    if best != embedder._settings:
        embedder._apply(best)
    embedder.tuning = found
    return found


def remembered(model: Model) -> Tuning | None:
    """What `tune` has found for this model on this machine, if it has."""
    try:
        path = _path(model)
        facts = json.loads(path.read_text(encoding="utf-8"))
        settings = settings_of(**facts["settings"])
        speedup, tokens, flops = (float(facts[name]) for name in _RATES)
        return Tuning(settings, speedup, tokens, flops, path=path) if min(speedup, tokens, flops) > 0 else None
    except (OSError, ValueError, KeyError, TypeError, MissingExtraError):  # then it is as if there were none
        return None


# The search -----------------------------------------------------------------------------------------------------------


def choose(times: Times, default: Settings) -> Settings:
    """The fastest of some settings that were measured in rounds; `default`, unless one is faster beyond the noise.

    Rounds are compared one by one, as the machine may be slower in some of them: at the median, the winner is faster by
    3 % or more, and in three of four rounds it is faster at all.
    """
    winners = {}
    base = np.array(times[default])
    for settings, measured in times.items():
        ratios = np.array(measured) / base
        if np.median(ratios) <= 1 - _MARGIN and np.mean(ratios < 1) >= _CERTAINTY:
            winners[settings] = float(np.median(ratios))
    return min(winners, key=winners.__getitem__, default=default)


def search(
    default: Settings,
    n_tokens: int,
    measure: Callable[[Sequence[Settings]], Times],
    fixed: Container[str] = (),
) -> tuple[Settings, float, dict[Settings, list[float]]]:
    """Try one dimension after the other, and at last the best against the defaults once more.

    Parameters
    ----------
    default
        What to begin with.
    n_tokens
        Tokens of the sample: a larger budget than that is none.
    measure
        Times of some settings, the first of them always.
    fixed
        Names of the settings that stay as they are.

    Returns
    -------
    best : Settings
    speedup : float
        How many times faster than the defaults it is.
    times : dict
        Seconds of all rounds, by settings.
    """
    all_times: dict[Settings, list[float]] = {}

    def compare(candidates: Sequence[Settings]) -> Times:
        times = measure(candidates)
        for settings, measured in times.items():
            all_times.setdefault(settings, []).extend(measured)
        return times

    best = default
    for name, values in _STAGES.items():
        candidates = list(dict.fromkeys((best, *(replace(best, **{name: value}) for value in values(best, n_tokens)))))
        if len(candidates) > 1 and name not in fixed:
            best = choose(compare(candidates), best)
    if best != default:
        times = compare([default, best])
        best = choose(times, default)
        if best != default:
            return best, float(np.median(np.array(times[default]) / times[best])), all_times
    return default, 1.0, all_times


def _contexts(best: Settings, n_tokens: int) -> Iterable[int]:
    return (count for count in CONTEXTS if count <= best.n_threads)


def _budgets(best: Settings, n_tokens: int) -> Iterable[int]:
    return (budget for budget in BUDGETS if budget <= n_tokens)


def _flash_attn(best: Settings, n_tokens: int) -> Iterable[bool | None]:
    return (None, False)


def _threads(best: Settings, n_tokens: int) -> Iterable[int]:
    """All and half of them: two threads of one core may hinder each other."""
    return (count for count in (best.n_threads, (best.n_threads + 1) // 2) if count >= best.n_contexts)


_STAGES: dict[str, Callable[[Settings, int], Iterable[Any]]] = {
    "n_contexts": _contexts, "token_budget": _budgets, "flash_attn": _flash_attn, "n_threads": _threads
}  # fmt: skip


def rounds(
    run: Callable[[Settings], object], candidates: Sequence[Settings], seconds: float, clock: Clock
) -> dict[Settings, list[float]]:
    """Times of each of them in rounds that go back and forth, 3 to 15, until `seconds` are over."""
    times: dict[Settings, list[float]] = {settings: [] for settings in candidates}
    end = clock() + seconds
    least, most = _ROUNDS
    for number in range(most):
        if number >= least and clock() >= end:
            break
        for settings in candidates if number % 2 == 0 else reversed(candidates):
            start = clock()
            run(settings)
            times[settings].append(clock() - start)
    return times


class _Bench:
    """A sample of texts, computed with any settings. Who makes it has the pipeline's turn.

    Parameters
    ----------
    embedder
        With what model.
    texts
        The sample.
    settings
        What finds out how much of the sample one pass can take.
    longest
        Seconds of a pass, about.
    clock
        As `tune`'s.
    """

    def __init__(self, embedder: Embedder, texts: Texts, settings: Settings, longest: float, clock: Clock) -> None:
        self._embedder = embedder
        self._clock = clock
        options = embedder._profile.options(normalize="none")
        prepared = embedder._pipeline.sequencer.prepare(
            texts, np.arange(len(texts)), prefix=options.prefix, overlong=options.overlong
        )
        self._parts = [(prepared.sequences, prepared.whole)]
        if prepared.windows is not None:
            windows = prepared.windows.sequences
            self._parts.append((windows, np.arange(len(windows))))
        everything = self._parts
        self._parts = _thinned(everything, _FIRST)
        first = self.n_tokens
        with closing(self._engine(settings)) as engine:
            self._compute(engine)  # so that its memory is there
            start = clock()
            self._compute(engine)
            speed = first / max(clock() - start, 1e-9)
        self._parts = _thinned(everything, max(first, speed * longest))

    @property
    def n_tokens(self) -> int:
        """Tokens of a pass."""
        return sum(int(lengths.sum()) for lengths in self._lengths())

    def flops(self, settings: Settings) -> float:
        """Additions and multiplications of a pass."""
        return float(plan_lengths(self._embedder, self._lengths(), settings).flops.sum())

    def measure(self, candidates: Sequence[Settings], seconds: float) -> Times:
        """Times of those for which there is memory; the first must have it."""
        with ExitStack() as stack:
            engines: dict[Settings, Engine] = {}
            for settings in candidates:
                try:
                    engines[settings] = stack.enter_context(closing(self._engine(settings)))
                except ContextCreateError:
                    if not engines:
                        raise
                else:
                    self._compute(engines[settings])
            return rounds(lambda settings: self._compute(engines[settings]), list(engines), seconds, self._clock)

    def _lengths(self) -> list[NDArray[np.int64]]:
        return [sequences.lengths[chosen] for sequences, chosen in self._parts]

    def _engine(self, settings: Settings) -> Engine:
        return Engine(self._embedder.model, self._embedder._wanted_pooling, settings)

    def _compute(self, engine: Engine) -> None:
        width = self._embedder._profile.width
        target = RowFormat(width, width, "float32", "none")
        per_token = engine.pooling == "none"
        for sequences, chosen in self._parts:
            places = sequences.offsets[:-1] if per_token else np.arange(len(sequences))
            rows = target.empty(sequences.tokens.size if per_token else len(sequences))
            engine.run(Work(sequences, chosen, places, target, rows, per_token=per_token), Stop(), lambda _: None)


_Parts = list[tuple[Sequences, "NDArray[np.int64]"]]


def _thinned(parts: _Parts, n_tokens: float) -> _Parts:
    """About so many tokens, of all lengths alike."""
    total = sum(int(sequences.lengths[chosen].sum()) for sequences, chosen in parts)
    step = max(1, math.ceil(total / n_tokens))
    thinned = []
    for sequences, chosen in parts:
        by_length = chosen[np.argsort(sequences.lengths[chosen], kind="stable")]
        kept = by_length[min(step // 2, max(by_length.size - 1, 0)) :: step]
        thinned.append((sequences, np.sort(kept)))
    return thinned


# What is remembered ---------------------------------------------------------------------------------------------------

_RATES = ("speedup", "tokens_per_second", "flops_per_second")


def _remember(model: Model, found: Tuning) -> Path | None:
    facts = {"model": model.description, "settings": asdict(found.settings)}
    facts |= {name: getattr(found, name) for name in _RATES}
    try:
        path = _path(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except (OSError, MissingExtraError) as error:
        warnings.warn(f"what was measured is used, and not remembered: {error}", stacklevel=4)
        return None
    return path


def _path(model: Model) -> Path:
    """The file for this model on this machine."""
    from .hub import cache_folder  # with the converter

    metadata = json.dumps(dict(model.metadata), sort_keys=True)
    loaded, values, _ = model._loaded_with
    identity = {
        "model": [hashlib.sha256(metadata.encode("utf-8", "surrogateescape")).hexdigest(), model.size, model.n_params],
        "layers on devices": [int(loaded.n_gpu_layers), _names(values["devices"])],
        "devices": [(device.name, device.description) for device in backend.devices()],
        "machine": [platform.machine(), platform.system(), _cores()],
        "build": backend.build(),
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "tuning" / f"{name[:32]}.json"


def _names(devices: Any) -> list[str] | None:
    """Of the devices that a model was loaded for; None if it was not said."""
    return None if devices is None else [c_text(lib.ggml_backend_dev_name(one)) or "" for one in devices if one]
