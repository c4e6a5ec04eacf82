"""What a corpus costs: the arithmetic by hand, the page, the file of rates, and measuring."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from rawllama import cli, corpus_plan
from rawllama.bench.stats import Estimate
from rawllama.corpus_plan import Assumptions, Length, Rates, arithmetic, measure
from rawllama.errors import InvalidArgumentError


def about(value: float) -> Estimate:
    return Estimate(value, 0.9 * value, 1.1 * value)


RATES = Rates(
    model="a-model",
    dims=384,
    processor="a processor",
    cores=2,
    rawllama="0.1.0",
    date="2026-11-23",
    lengths=(Length(20, 100, about(500)), Length(250, 1000, about(40))),
    tokenized_per_second=about(4e6),
    read_per_second=about(5e8),
    written_per_second=about(2e8),
    text_share=0.5,
    vector_bytes={"float32": 1540.0, "float16": 770.0, "int8": 390.0, "ubinary": 50.0},
)
SHORT, LONG = RATES.lengths


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the table under a title."""
    lines = text.split(f"{title}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = lines[start : next((i for i in range(start, len(lines)) if not lines[i]), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_arithmetic_by_hand() -> None:
    assumed = Assumptions(cores_per_node=10, gpu_tokens_per_second=1e6, node_gbit=1, storage_gbit=8, dtype="float16")
    assert arithmetic.of_node(SHORT, assumed) == 5000
    assert arithmetic.of_gpu(LONG, assumed) == 4000
    # Text of 500 bytes in Parquet is read and written, and 770 bytes of vector: 8 bits each.
    assert arithmetic.traffic(RATES, LONG, "float16") == 1770
    found = arithmetic.limits(RATES, LONG, assumed, 3, 4000)
    assert (found.computing, found.network, found.storage) == pytest.approx((12000, 3e9 / 14160, 8e9 / 14160))
    assert (found.name, found.documents_per_second) == ("computing", 12000)
    assert arithmetic.limits(RATES, LONG, assumed, 3, 1e6).name == "network"
    assert arithmetic.limits(RATES, LONG, assumed, 300, 1e6).name == "storage"
    cores = arithmetic.cores_beside_gpu(RATES, LONG, assumed)
    assert cores == pytest.approx(
        {"tokenising": 0.25, "reading Parquet": 4000 * 1000 / 5e8, "writing Parquet": 4000 * 1536 / 2e8}
    )


def test_the_page() -> None:
    text = corpus_plan.page(RATES, Assumptions(documents=(1e7, 1e11), nodes=(1, 50), cores_per_node=10))
    assert "GPU" not in text  # nobody gave a rate
    titles, _, *cells = rows(text, "## On CPU nodes")
    assert titles == ["documents", "tokens each", "node-hours of computing", "one", "50 of them"]
    # 1e7 documents, 5000 a second; 1e11, 400 a second.
    assert cells[0] == ["10 million", "20", "0.556", "33.3 min", "40 s"]
    assert cells[3] == ["100 billion", "250", "69,444", "7.92 years", "57.9 days"]
    stored = rows(text, "## Storage")
    assert stored[2] == ["10 million", "20", "500 MB", "15.4 GB", "7.7 GB", "3.9 GB", "500 MB"]
    assert stored[5] == ["100 billion", "250", "50 TB", "154 TB", "77 TB", "39 TB", "5 TB"]
    # 1640 bytes a document: 65.6 Mbit/s of a node's 5000 documents.
    assert rows(text, "## Where the limits are")[2] == ["20", "1640", "node", "0.0656 Gbit/s", "1,524"]
    assert "tokenising takes 1 part in 400" in text


def test_what_is_given_is_told_apart() -> None:
    assumed = Assumptions(gpu_tokens_per_second=2e6, gpu_name="H100", gpus=(1, 100), storage_gbit=10)
    text = corpus_plan.page(RATES, assumed)
    assert "A H100 embeds 2,000,000 tokens/s at every length: this is the number that the command was given" in text
    cells = rows(text, "## On H100s, by the rate that is given")
    assert cells[0][2:] == ["H100-hours of computing", "one", "100 of them"]
    assert cells[2] == ["10 million", "20", "0.0278", "100 s", "13.1 s (storage)"]
    assert rows(text, "### Cores that one H100 keeps busy")[2] == ["20", "0.50", "0.02", "0.77", "1.3"]


def test_the_page_of_this_repository() -> None:
    """Made by the command that stands above it."""
    docs = Path(__file__).parents[2] / "docs"
    head, made = (docs / "planning.md").read_text(encoding="utf-8").split("\n\n", 1)
    command = "rawllama corpus-plan --rates docs/planning.json --gpu GPU=1e6 > docs/planning.md"
    assert head == f"    {command}"
    rates = Rates.load(docs / "planning.json")
    assert made == corpus_plan.page(rates, Assumptions(gpu_tokens_per_second=1e6)) + "\n"


def test_noise_is_told() -> None:
    noisy = dataclasses.replace(RATES, notes=("others were busy",))
    assert "Take care: others were busy." in corpus_plan.page(noisy, Assumptions())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"documents": ()}, "documents: 0; pass numbers above 0"),
        ({"nodes": (1, 0)}, "nodes: 0; pass"),
        ({"cores_per_node": -1}, "cores_per_node: -1"),
        ({"gpu_tokens_per_second": 0.0}, "gpu_tokens_per_second: 0.0"),
        ({"storage_gbit": float("nan")}, "storage_gbit: nan"),
    ],
)
def test_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        dataclasses.replace(Assumptions(), **changes)  # type: ignore[arg-type]


def test_rates_are_kept(tmp_path: Path) -> None:
    RATES.save(tmp_path / "rates.json")
    assert Rates.load(tmp_path / "rates.json") == RATES
    for damaged in ("", "[]", "{}", json.dumps({"format": 2})):
        (tmp_path / "other.json").write_text(damaged)
        with pytest.raises(InvalidArgumentError, match=r"other.json: not rates of rawllama corpus-plan"):
            Rates.load(tmp_path / "other.json")


def test_measured_here(minilm: str) -> None:
    """Short texts and few rounds: what is measured can be, and agrees with what it must."""
    rates = measure(minilm, rounds=3, lengths=(8,))
    (short,) = rates.lengths
    assert 6 <= short.tokens <= 10
    assert 10 < short.text_bytes < 80
    assert 0 < short.documents_per_second.low <= short.documents_per_second.middle < 1e5
    assert rates.tokenized_per_second.middle > 10 * short.tokens_per_second
    assert rates.read_per_second.middle > 1e6
    assert rates.written_per_second.middle > 1e6
    assert 0.05 < rates.text_share < 1.1
    assert rates.dims == 384
    assert rates.vector_bytes["float32"] == pytest.approx(384 * 4, rel=0.05)
    assert rates.vector_bytes["float16"] == pytest.approx(384 * 2, rel=0.05)
    with pytest.raises(InvalidArgumentError, match="rounds: 2; 3 at least make a median"):
        measure(minilm, rounds=2)
    with pytest.raises(InvalidArgumentError, match="lengths: there is no text of about 4000 tokens"):
        measure(minilm, rounds=3, lengths=(4000,))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rates.json"
    RATES.save(path)
    assert cli.main(["corpus-plan", "--rates", str(path), "--nodes", "1,7", "--gpu", "H100=1e6", "--cores", "96"]) == 0
    text = capsys.readouterr().out
    assert "| 7 of them |" in text
    assert "A node has 96 cores" in text
    assert "A H100 embeds 1,000,000 tokens/s" in text
    assert cli.main(["corpus-plan"]) == 1
    assert "--rates: there are none; name a file of them, or measure with --measure" in capsys.readouterr().err
    assert cli.main(["corpus-plan", "--rates", str(tmp_path / "missing.json")]) == 1
    with pytest.raises(SystemExit):
        cli.main(["corpus-plan", "--rates", str(path), "--gpu", "1e6"])
    assert "pass NAME=RATE, such as H100=1e6" in capsys.readouterr().err
