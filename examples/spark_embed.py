"""Parquet to Parquet with vectors, on Spark: mapInArrow with rawllama.arrow.embed_batches.

spark-submit examples/spark_embed.py FOLDER OUTPUT [--model minilm] [--column text]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, FloatType, StructField, StructType


def embed(frame: DataFrame, model: str = "minilm", column: str = "text", n_threads: int = 1) -> DataFrame:
    """The frame with a column `embedding`: `n_threads` is as many as a task has cores (spark.task.cpus)."""

    def embed_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from rawllama.arrow import embed_batches  # on the executor

        for batch in embed_batches(batches, model=model, column=column, n_threads=n_threads):
            # Spark knows lists of any length only.
            vectors = batch.column("embedding").cast(pa.list_(pa.float32()))
            yield batch.set_column(batch.num_columns - 1, "embedding", vectors)

    columns = [*frame.schema, StructField("embedding", ArrayType(FloatType()))]
    return frame.mapInArrow(embed_partition, StructType(columns))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("output")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--column", default="text")
    options = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    embed(spark.read.parquet(options.folder), options.model, options.column).write.parquet(options.output)
    spark.stop()
