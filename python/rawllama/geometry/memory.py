"""What a table of embeddings takes, by its size and type."""

from __future__ import annotations

from rawllama._params import Name, enum_names, enum_value
from rawllama.errors import InvalidArgumentError
from rawllama.modelfile import is_weight_type
from rawllama.raw import lib

_TYPES = "GGML_TYPE_"


def table_bytes(n_vocab: int, n_embd: int, type: Name = "f32") -> int:
    """Bytes of a table of `n_vocab` rows with `n_embd` columns in one of ggml's types.

    Parameters
    ----------
    n_vocab, n_embd
        Rows and columns.
    type
        A ggml type, by name or number: `f32`, `f16`, `bf16`, `q8_0`, `q4_k`, ...

    Raises
    ------
    InvalidArgumentError
        A type that is unknown or holds no weights, sizes below 1, or columns that do not fill the type's blocks.

    Calls: ggml_row_size, ggml_blck_size
    """
    number = enum_value("type", _TYPES, type)
    if not is_weight_type(number):
        raise InvalidArgumentError(f"type: no weights are of the type {type!r}")
    for name, value in (("n_vocab", n_vocab), ("n_embd", n_embd)):
        if value < 1:
            raise InvalidArgumentError(f"{name}: {value} is less than 1")
    block = lib.ggml_blck_size(number)
    if n_embd % block:
        raise InvalidArgumentError(
            f"n_embd: {n_embd} is no multiple of {block}, the columns that {type!r} packs at once"
        )
    return n_vocab * int(lib.ggml_row_size(number, n_embd))


def table_sizes(n_vocab: int, n_embd: int) -> dict[str, int]:
    """Bytes of such a table in each type that its rows fit, the largest first. Raises and calls as `table_bytes`."""
    fitting = {
        name: table_bytes(n_vocab, n_embd, name)
        for number, name in enum_names(_TYPES).items()
        if is_weight_type(number) and n_embd % lib.ggml_blck_size(number) == 0
    }
    return dict(sorted(fitting.items(), key=lambda item: -item[1]))
