"""Each benchmark, small, on a random model; the peers that are in this environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rawllama.bench import batch, calls, embed, inputs, profile, programs, report, scale
from rawllama.bench.record import read
from rawllama.cli import main

Tiny = Callable[[str], Path]


def test_embed_and_latency(minilm: str) -> None:
    sides = ("rawllama", "rawllama, ggml's kernels", "C loop")
    settings = embed.Settings(minilm, "queries", texts=6, rounds=2, calls=3, query="hello", threads=1,
                              sides=("C loop",), memory=True)  # fmt: skip
    assert {spec.name for spec in settings.specs()} == set(sides)
    for measure, what in ((embed.measure, "6 texts"), (embed.measure_latency, "one query")):
        found = measure(settings)
        assert {(pair.side, pair.against) for pair in found.pairs} == {
            ("rawllama, ggml's kernels", "rawllama"), ("C loop", "rawllama, ggml's kernels")
        }  # fmt: skip
        assert {one.side for one in found.chosen(what)} == set(sides)
        assert all(value > 0 for one in found.series for value in one.values)
        assert "C loop" in report.text(found)
        if what == "6 texts":
            assert min(one["least"] for one in found.details["cosines"].values()) > 0.9999
            assert len(found.chosen(unit="MB")) == 2 * len(sides)


def test_peers_that_are_not_here_are_said_to_be_missing(minilm: str) -> None:
    settings = embed.Settings(minilm, "queries", texts=2, rounds=1, threads=1, sides=("llama-cpp-python, tuned",),
                              pythons=("/nowhere/bin/python",))  # fmt: skip
    found = embed.measure(settings)
    assert [note for note in found.notes if note.startswith("llama-cpp-python, tuned is missing: no such program")]
    assert found.pairs == []


def test_texts_that_the_model_does_not_take(tiny: Tiny) -> None:
    settings = embed.Settings(str(tiny("bert")), "documents", texts=2, threads=1)
    with pytest.raises(ValueError, match=r"--input: text \d+ has \d+ tokens, and the model takes"):
        embed.measure(settings)


def test_calls(tiny: Tiny) -> None:
    found = calls.measure(calls.Settings(str(tiny("bert")), rounds=3, calls=2000, imports=1))
    ways = {series.side: series.values for series in found.chosen("llama_n_ctx", "ns")}
    assert set(ways) == {"cffi", "cffi, guarded", "ctypes", "C"}
    assert min(ways["cffi"]) > min(ways["C"]) > 0
    assert "llama_get_embeddings_seq" in report.text(found)


def test_scale(minilm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_FOR_THREADS", 3)
    found = scale.measure(scale.Settings(minilm, (8, 16), (1, 4), (1, 5), threads=2, rounds=2))
    assert [series.x for series in found.chosen(scale.THREADS)] == [1, 2]
    assert [series.x for series in found.chosen(scale.TEXTS, "MB")] == [1, 5]
    assert {len(series.values) for series in found.chosen(scale.LENGTH)} == {2}
    assert "tokens" in report.text(found)


def test_profile(tiny: Tiny) -> None:
    settings = profile.Settings(str(tiny("bert")), "queries", texts=5, threads=1, rounds=2)
    found = profile.measure(settings)
    operations = found.details["operations, texts"]
    assert {"MUL_MAT", "NORM", "GET_ROWS"} <= set(operations)
    products = found.details["products, texts"]
    assert sum(one["count"] for one in products.values()) == operations["MUL_MAT"]["count"]
    assert sum(one["flops"] for one in products.values()) == operations["MUL_MAT"]["flops"]
    stages = [series.what for series in found.series]
    assert stages == ["encode", "tokenising", "packing", "computing", "collecting"]
    assert "of the peak" in report.text(found)


def test_our_steps_of_a_batch(tiny: Tiny) -> None:
    from rawllama import Model

    with Model(tiny("llama")) as model:
        ours = batch._Ours(model, 1)
        assert ours.test(batch.Line(16, 0, 8)) > 0
        assert ours.test(batch.Line(0, 4, 8)) > 0
        found = ours.batched([(8, 4, 1), (8, 4, 3)])
    assert set(found) == {f"{phase} PP 8, TG 4, B {n}" for phase in ("S_PP", "S_TG") for n in (1, 3)}


def test_from_the_shell(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "calls.json"
    model = str(tiny("bert"))
    words = ["bench", "calls", "--quick", "--rounds", "2", "--calls", "500", "--imports", "1", "--model", model]
    assert main([*words, "--json", str(file), "--plot", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "calls-calls.png").exists()
    assert read(file).options["rounds"] == 2
    assert main(["bench", "show", str(file), "--markdown"]) == 0
    assert "| llama_n_ctx" in capsys.readouterr().out
    assert "llama_n_ctx" in shown


def test_inputs(tmp_path: Path) -> None:
    assert inputs.texts("mixed", 9) == inputs.texts("mixed", 9)
    assert len(set(inputs.texts("queries", 50))) == 50
    file = tmp_path / "texts.txt"
    file.write_text("a\nb\na\n", encoding="utf-8")
    assert inputs.texts(str(file), 2) == ["a", "b"]
    with pytest.raises(ValueError, match="has 2 different texts"):
        inputs.texts(str(file), 3)
    with pytest.raises(ValueError, match="is no file, and none of corpus"):
        inputs.texts("no-such", 3)


def test_a_program_that_does_not_compile(tmp_path: Path) -> None:
    (tmp_path / "wrong.c").write_text("int main( { }", encoding="utf-8")
    with pytest.raises(programs.BuildError, match=r"wrong\.c could not be built; \S+ says:"):
        programs.compile_c(tmp_path / "wrong.c", tmp_path)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(programs.BuildError, match=r"no-such-compiler is not there .*: set CC"):
        programs.compile_c(programs.FOLDER / "calls.c", tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embed", "--sides", "nobody"], "invalid choice: 'nobody'"),
        (["calls", "--rounds", "many"], "'many' is not a number"),
        (["batch", "--batched", "1,2"], "'1,2' is not three numbers"),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *words])
    assert said in capsys.readouterr().err


def test_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "latency", "--rounds", "0"]) == 1
    assert "--rounds: 0 is not enough" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embed", "latency", "calls", "batch", "scale", "profile", "check", "all", "compare"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--help"])
    assert ended.value.code == 0
    assert "usage: rawllama bench" in capsys.readouterr().out
