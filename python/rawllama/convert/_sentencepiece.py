"""Reads sentencepiece.bpe.model, a protobuf message, as far as a unigram vocabulary needs it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ._errors import ConvertError

UNIGRAM = 1
NORMAL = 1

Value = int | bytes


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `kind` is SentencePiece's number: 1 normal, 2 unknown, 3 control, ..."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePiece:
    """A unigram vocabulary with its normalizer."""

    pieces: list[Piece]
    charsmap: bytes
    add_space_prefix: bool
    remove_extra_whitespaces: bool


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The base-128 number at offset `at`, and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message: an integer, or the bytes of anything else."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if size is None:
            size, at = varint(data, at)
        if wire not in (1, 2, 5) or at + size > len(data):
            raise ValueError(f"no protobuf field at byte {at}")
        yield number, data[at : at + size]
        at += size


def as_bytes(message: dict[int, Value], number: int) -> bytes:
    """A field of text, bytes or a message; empty where it is not set."""
    value = message.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is a number")
    return value


def as_int(message: dict[int, Value], number: int, default: int) -> int:
    """A field of a number; `default` where it is not set."""
    value = message.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not a number")
    return value


def piece(data: bytes) -> Piece:
    """One entry of the vocabulary from its message."""
    message = dict(fields(data))
    (score,) = struct.unpack("<f", as_bytes(message, 2) or bytes(4))
    return Piece(as_bytes(message, 1).decode(), score, as_int(message, 3, NORMAL))


def parse(data: bytes) -> SentencePiece:
    """The vocabulary and normalizer of a serialized model."""
    pieces: list[Piece] = []
    parts: dict[int, bytes] = {}
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(piece(value))
        elif isinstance(value, bytes):
            parts[number] = value
    trainer, normalizer = (dict(fields(parts.get(number, b""))) for number in (2, 3))
    if as_int(trainer, 3, UNIGRAM) != UNIGRAM or not pieces:
        raise ValueError("it holds no unigram vocabulary")
    return SentencePiece(
        pieces,
        charsmap=as_bytes(normalizer, 2),
        add_space_prefix=bool(as_int(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(as_int(normalizer, 4, 1)),
    )


def read(path: Path) -> SentencePiece:
    """The vocabulary in a SentencePiece file.

    Raises
    ------
    ConvertError
        The file is damaged, or its vocabulary is not unigram.
    """
    try:
        return parse(path.read_bytes())
    except (ValueError, IndexError, struct.error) as error:
        raise ConvertError(f"folder: {path} cannot be read ({error}); download it again") from error
