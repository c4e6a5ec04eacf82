"""Parquet to Parquet with vectors, on a Dask cluster: each partition through rawllama.arrow.embed_batches.

python examples/dask_embed.py FOLDER OUTPUT [--model minilm] [--column text]
"""

from __future__ import annotations

import argparse
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from rawllama import Embedder
from rawllama.arrow import embed_batches, vector_fields


def embed_partition(frame: pd.DataFrame, **task: Any) -> pd.DataFrame:
    """A partition with its vectors; pandas keeps them as Arrow has them."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with Embedder(task.pop("model"), n_threads=1) as embedder:
        batches = list(embed_batches(table, model=embedder, **task))
        schema = pa.schema([*table.schema.remove_metadata(), *vector_fields(embedder)])
    made = pa.Table.from_batches([batch.replace_schema_metadata() for batch in batches], schema)
    return made.to_pandas(types_mapper=pd.ArrowDtype).set_index(frame.index)


def embed(frame: dd.DataFrame, model: str = "minilm", column: str = "text") -> dd.DataFrame:
    """The frame with a column `embedding`; an empty partition tells Dask what that is."""
    task = {"model": model, "column": column}
    return frame.map_partitions(embed_partition, **task, meta=embed_partition(frame._meta, **task))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("output")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--column", default="text")
    options = parser.parse_args()
    frame = dd.read_parquet(options.folder, dtype_backend="pyarrow", split_row_groups="adaptive")
    embed(frame, options.model, options.column).to_parquet(options.output, write_index=False)
