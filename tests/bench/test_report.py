"""Tables, comparisons and pictures of records with known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rawllama.bench import check, compare, machine, plots, record, report, scale
from rawllama.cli import main

from ..tools import ROOT

RESULTS = ROOT / "docs" / "benchmarks"
MACHINE = machine.facts()


def embed(ours: float = 0.5, theirs: float = 1.0) -> record.Record:
    """100 texts in `ours` seconds, eleven times, and in `theirs` by the other side but once."""
    made = record.Record("embed", MACHINE, {"texts": 100, "threads": 2, "sides": []})
    made.sides = {"rawllama": "about it", "other": "about that"}
    times = {"rawllama": [ours] * 11, "other": [theirs] * 10 + [2 * theirs]}
    made.pairs = [record.Pair("other", "rawllama", "100 texts", times["other"], times["rawllama"])]
    for side, values in times.items():
        made.add(side, "100 texts", "texts/s", "higher", [100 / value for value in values])
        made.add(side, "start", "s", "lower", [0.25])
    made.details["cosines"] = {"rawllama": {"least": 0.9999981, "mean": 0.9999991}}
    made.details["agreement"] = {"printed": [1.0, 2.0, 4.0], "outside": [1.02, 2.02, 4.04]}
    return made


def lines(table: report.Table) -> dict[str, tuple[str, ...]]:
    return {line[0]: tuple(line[1:]) for line in table.lines}


def test_throughput() -> None:
    texts, starts, agreement = report.tables(embed())
    assert lines(texts)["rawllama"] == ("200", "200", "200", "", "", "")
    median, least, most, ratio, against, verdict = lines(texts)["other"]
    assert (median, least, most) == ("100", "50", "100")
    assert ratio == "0.500 (0.500 to 0.500)"
    assert (against, verdict) == ("rawllama", "slower")
    assert lines(starts) == {"rawllama": ("0.25", "0.999998", "0.999999"), "other": ("0.25", "", "")}
    assert agreement.lines[0][:2] == ("2.000", "2.020")
    assert agreement.lines[0][2].startswith("1.010 (")


def test_latency_is_in_percentiles_and_the_other_way_round() -> None:
    made = record.Record("latency", MACHINE, {"threads": 1})
    made.add("rawllama", "one query", "ms", "lower", [float(i) for i in range(1, 101)])
    made.add("other", "one query", "ms", "lower", [4.0] * 10)
    made.pairs = [record.Pair("other", "rawllama", "one query", [4.0] * 5, [2.0] * 5)]
    found = lines(report.tables(made)[0])
    assert found["rawllama"][:4] == ("1.00", "50.50", "90.10", "99.01")
    assert found["other"][4:] == ("2.000 (2.000 to 2.000)", "rawllama", "slower")


def test_profile() -> None:
    made = record.Record("profile", MACHINE, {"texts": 10, "threads": 1})
    for name, values in (("encode", [11.0]), ("tokenising", [1.0]), ("packing", [0.5]), ("computing", [8.0]),
                         ("collecting", [0.5])):  # fmt: skip
        made.add("rawllama", name, "ms", "lower", values)
    product = {"seconds": 0.5, "count": 100, "flops": 5e10, "bytes": 1e9}
    for what in ("texts", "query"):
        made.details[f"operations, {what}"] = {"MUL_MAT": product, "ADD": {**product, "seconds": 1.5}}
        made.details[f"products, {what}"] = {"ffn_up": product}
    made.details |= {"peak GFLOP/s": 200.0, "peak GB/s": 20.0}
    stages, operations, _, products = report.tables(made)
    assert lines(stages)["computing"] == ("8.0", "80.0%")
    assert lines(stages)["all of these"] == ("10.0", "")
    assert operations.lines[0] == ("ADD", "100", "15000.0", "75.0%")
    assert lines(products)["ffn_up, texts"] == ("50.0", "100", "50%")


def test_batches_are_as_llama_bench_prints_them() -> None:
    made = record.Record("batch", MACHINE, {"threads": 1})
    made.pairs = [record.Pair("rawllama", "llama-bench", "pp512", [1.0, 1.0, 2.0], [1.0, 1.0, 2.0])]
    for side in ("rawllama", "llama-bench"):
        made.add(side, "pp512", "tokens/s", "higher", [512.0, 512.0, 256.0])
    assert report.tables(made)[0].lines == [
        ("pp512", "426.67 ± 147.80", "426.67 ± 147.80", "1.000 (1.000 to 1.000)", "same")
    ]


def test_right_verdicts_are_counted() -> None:
    made = record.Record("check", MACHINE, {"times": 2, "threads": 1})
    for own in (1.0, 1.2):
        made.pairs.append(record.Pair("second", "first", "trial", [own] * 5, [1.0] * 5))
        made.pairs.append(record.Pair("slower", "first", "trial", [own] * 5, [1.0] * 5))
    assert check.count_right(made) == {"second": 1, "slower": 1}


def test_records_come_back(tmp_path: Path) -> None:
    made = embed()
    made.write(tmp_path / "a.json")
    assert record.read(tmp_path / "a.json") == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}', '{"format": 1, "kind": 3}'])
def test_files_that_are_no_record(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert main(["bench", "show", str(tmp_path / "a.json")]) == 1
    assert str(tmp_path / "a.json") in capsys.readouterr().err


# ---- compare


def test_what_has_become_slower_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed().write(tmp_path / "before.json")
    embed(ours=0.55).write(tmp_path / "after.json")
    before, after = (str(tmp_path / f"{name}.json") for name in ("before", "after"))
    assert main(["bench", "compare", before, after]) == 1
    found = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("rawllama ")]
    assert [word for word in found[0] if word][-1].strip() == "slower"
    assert main(["bench", "compare", before, before]) == 0
    changes, _ = compare.compare(embed(), embed(ours=0.55))
    verdicts = {(one.side, one.unit): one.verdict for one in changes}
    assert verdicts["other", "times as fast as rawllama"] == "faster"
    assert verdicts["other", "texts/s"] == "same"
    speed = next(one.speed.middle for one in changes if one.side == "rawllama")
    assert speed == pytest.approx(0.5 / 0.55)


def test_doubts_are_said() -> None:
    after = embed()
    after.machine = {**MACHINE, "processor": "another", "cores": 64}
    after.options = {**after.options, "texts": 300}
    after.notes = ["too noisy"]
    _, notes = compare.compare(embed(), after)
    assert notes == [
        f"processor: {MACHINE['processor']} before, another after",
        f"cores: {MACHINE['cores']} before, 64 after",
        "texts: 100 before, 300 after",
        "after: too noisy",
    ]


def test_different_benchmarks_are_not_compared() -> None:
    with pytest.raises(record.RecordError, match="compare like with like"):
        compare.compare(embed(), record.Record("calls", MACHINE, {}))
    with pytest.raises(record.RecordError, match="no side and number in common"):
        compare.compare(embed(), record.Record("embed", MACHINE, {}))


# ---- pictures


def scaled() -> record.Record:
    made = record.Record("scale", MACHINE, {"threads": 2})
    for x in (1, 2, 4):
        for what, unit in ((scale.LENGTH, "ms"), (scale.CALL, "texts/s"), (scale.TEXTS, "MB")):
            made.add("rawllama", what, unit, "lower", [x * 1.0, x * 1.1, x * 1.2], x)
    return made


def test_pictures_are_written_and_labelled(tmp_path: Path) -> None:
    for made, names in ((embed(), ["embed-throughput"]), (scaled(), ["scale-length", "scale-batch", "scale-memory"])):
        files = plots.save(made, tmp_path)
        assert [file.stem for file in files] == names
        assert all(file.read_bytes()[1:4] == b"PNG" for file in files)


def test_a_picture_shows_the_numbers() -> None:
    from matplotlib.figure import Figure

    axes: Any = Figure().subplots()
    plots.by_call(scaled(), axes)
    (line,) = axes.get_lines()
    assert line.get_xdata().tolist() == [1, 2, 4]
    assert line.get_ydata().tolist() == pytest.approx([1.1, 2.2, 4.4])
    assert axes.get_xlabel() and axes.get_ylabel() == "texts a second"


def test_json_has_no_more_than_numbers_and_words(tmp_path: Path) -> None:
    embed().write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["series"][0]["values"] == [200.0] * 11


def test_the_results_in_the_documentation_are_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(RESULTS.glob("*.json"))
    assert {file.stem for file in files} >= {"embed", "latency", "calls", "batch", "scale", "profile", "check"}
    assert main(["bench", "show", *map(str, files), "--markdown"]) == 0
    assert capsys.readouterr().out == (RESULTS / "results.md").read_text(encoding="utf-8")
