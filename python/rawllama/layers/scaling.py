"""How RoPE's frequencies are changed for more positions than a model was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._arguments import positive

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Linear:
    """Position interpolation: all frequencies are divided by `factor`, as if the positions were (Chen 2023).

    w_i' = w_i / factor
    """

    factor: float

    def __post_init__(self) -> None:
        positive(self.factor, "factor")


@dataclass(frozen=True)
class NTK:
    """NTK-aware scaling: a larger base. The slowest pair turns `factor` times slower, and the fastest as before.

    base' = base * factor ** (d / (d - 2)), by the Reddit user bloc97 (2023). ggml has no option for it: it is given the
    base. It needs two pairs of columns or more.
    """

    factor: float

    def __post_init__(self) -> None:
        positive(self.factor, "factor")


@dataclass(frozen=True)
class YaRN:
    """NTK by parts: pairs that turn often keep their frequency, slow ones are interpolated (Peng 2023).

    w_i' = (1 - r_i) * w_i / factor + r_i * w_i, with r_i = ext_factor * (1 - clip((i - low) / (high - low), 0, 1)).
    Pair `low` makes `beta_fast` turns in `n_ctx_orig` positions, pair `high` makes `beta_slow`.

    Parameters
    ----------
    factor
        How many times more positions.
    n_ctx_orig
        Positions of the training.
    beta_fast, beta_slow
        Turns from which on a pair is kept, and up to which it is interpolated.
    ext_factor
        How much of that is done: 0 leaves `Linear(factor)`.
    attn_factor
        What turned columns are multiplied by, beside YaRN's own 1 + 0.1 ln(factor): `rope.scaling.attn_factor` in
        GGUF, 1 without. libllama computes others for models with `rope.scaling.yarn_log_multiplier` (DeepSeek).
    """

    factor: float
    n_ctx_orig: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    ext_factor: float = 1.0
    attn_factor: float = 1.0

    def __post_init__(self) -> None:
        for name in ("factor", "n_ctx_orig", "beta_fast", "beta_slow"):
            positive(getattr(self, name), name)

    @property
    def magnitude(self) -> float:
        """What turned columns are multiplied by: attn_factor * (1 + 0.1 ln(factor)).

        Queries and keys both have it, so that attention's products grow by its square: the softmax's temperature
        (Peng 2023, section 3.4).
        """
        return self.attn_factor * (1 + 0.1 * math.log(self.factor) if self.ext_factor else 1)

    def ramp(self, d: int, base: float) -> NDArray[np.float64]:
        """How much of each pair's own frequency is kept, before `ext_factor`: 1 for fast pairs, 0 for slow ones."""
        low, high = self.ends(d, base)
        position = (np.arange(d // 2) - low) / max(0.001, high - low)
        kept: NDArray[np.float64] = 1 - np.clip(position, 0, 1)
        return kept

    def ends(self, d: int, base: float) -> tuple[int, int]:
        """The pairs between which the ramp lies: floor and ceiling of d ln(n_ctx_orig / (2 pi turns)) / (2 ln(base)).

        `ggml_rope_yarn_corr_dims` in ggml.c. Its float32 is kept, as a rounding there moves the ramp by a pair.
        """
        low = math.floor(self._pair(self.beta_fast, d, base))
        high = math.ceil(self._pair(self.beta_slow, d, base))
        return max(0, low), min(d - 1, high)

    def _pair(self, turns: float, d: int, base: float) -> float:
        """The pair that makes so many turns, computed as C does."""
        one = np.float32
        turned = one(self.n_ctx_orig) / (one(turns) * one(2) * one(math.pi))
        return float(one(d) * _log(turned) / (one(2) * _log(one(base))))


Scaling = Linear | NTK | YaRN


def _log(value: np.float32) -> np.float32:
    """C's logf, which is rounded correctly; numpy's of float32 is not."""
    return np.float32(math.log(float(value)))
