"""Schemas of inputs: one for all files, of types that every output can hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rawllama.errors import InvalidArgumentError

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]


def plain(schema: pa.Schema, name: str) -> pa.Schema:
    """The schema without dictionaries, views and metadata.

    Raises
    ------
    InvalidArgumentError
        Two columns of the file `name` have one name.
    """
    import pyarrow as pa

    twice = [column for column, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise InvalidArgumentError(f"{name}: two columns have the name {twice[0]!r}; rename one")
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def unified(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """One schema for all: the columns of each, and for each the type that holds what all have in it.

    Parameters
    ----------
    schemas
        With the names of their files.

    Raises
    ------
    InvalidArgumentError
        There is no such type.
    """
    import pyarrow as pa

    whole = pa.schema([])
    for name, schema in schemas:
        try:
            whole = pa.unify_schemas([whole, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InvalidArgumentError(f"{name}: its columns are not those of the files before: {error}") from None
    kinds = [pa.string() if pa.types.is_null(field.type) else field.type for field in whole]
    return pa.schema(list(zip(whole.names, kinds, strict=True)))


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns and types of the schema; what it does not have is null."""
    import pyarrow as pa

    if batch.schema.equals(schema):
        return batch
    columns = []
    for field in schema:
        if field.name in batch.schema.names:
            column = batch.column(field.name)
            columns.append(column if column.type == field.type else column.cast(field.type))
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class JsonTypes:
    """Learns the types of JSON's values, column by column. Values that no type holds become JSON texts."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Learn from these rows."""
        for name in dict.fromkeys(name for row in rows for name in row):
            found = _inferred([row.get(name) for row in rows])
            known = self._types.get(name)
            self._types[name] = found if known is None else _common(known, found)

    def schema(self) -> pa.Schema:
        """What was learnt, the columns in the order in which they came."""
        import pyarrow as pa

        return pa.schema([
            pa.field(name, kind if pa.types.is_null(kind) or _is_storable(kind) else pa.string())
            for name, kind in self._types.items()
        ])  # fmt: skip


def json_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """JSON's values as an array of a type that `JsonTypes` learnt."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = [value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                  for value in values]  # fmt: skip
    return pa.array(values, kind)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    return kind


def _inferred(values: list[Any]) -> pa.DataType:
    import pyarrow as pa

    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.string()


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if first == second:
        return first
    one, other = (pa.schema([pa.field("x", kind)]) for kind in (first, second))
    try:
        return pa.unify_schemas([one, other], promote_options="permissive").field("x").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _is_storable(kind: pa.DataType) -> bool:
    """Whether files can hold the type: nothing of nothing cannot be told from nothing."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_storable(field.type) for field in kind)
    if pa.types.is_list(kind):
        return _is_storable(kind.value_type)
    return not pa.types.is_null(kind)
