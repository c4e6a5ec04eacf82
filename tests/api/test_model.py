"""rawllama.model: loading in every way, what a model says of itself, saving."""

from __future__ import annotations

import inspect
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from rawllama import LlamaError, ffi, lib
from rawllama._handle import live
from rawllama.errors import ClosedError, InvalidArgumentError, ModelLoadError
from rawllama.model import Model
from rawllama.quantization import quantize

from ..models import tiny as tiny_models
from ..models.test_models import FACTS
from ..models.tiny import CHATML, HEADS, KV_HEADS, LAYERS, MODELS, POSITIONS, WIDTH, WINDOW
from ..tools import Rows, batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]

# What libllama's saver leaves out, so that the file could not be loaded, or gave other vectors.
NOT_SAVED = ("bert", "bert-reranker", "bert-classifier", "nomic-bert", "jina-bert-v2", "modern-bert", "gemma-embedding")


def rows_of(model: Model) -> Rows:
    """Embeddings of some tokens, to tell models apart."""
    with context_of(model, pooling_type="none", embeddings=True) as context:
        batch = batch_of(some_tokens(model, 9))
        (context.encode if model.has_encoder else context.decode)(batch)
        return context.get_embeddings_ith()


def rows_of_file(path: Path, **settings: Any) -> Rows:
    with Model(path, **settings) as model:
        return rows_of(model)


def write_splits(name: str, folder: Path, tensors: int) -> list[Path]:
    """A tiny model in files of so many tensors each, under llama.cpp's usual names."""
    model = MODELS[name]
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", model.architecture, split_max_tensors=tensors)
    tiny_models._save(writer, model.fill(writer), 0)
    return sorted(folder.glob(f"{name}-*-of-*.gguf"))


# ---- what it says of itself


@pytest.mark.parametrize("name", MODELS)
def test_facts(name: str, tiny: Tiny) -> None:
    facts = FACTS[name]
    tensors = gguf.GGUFReader(tiny(name)).tensors
    tied = not any(tensor.name == "output.weight" for tensor in tensors) and facts.decoder and facts.memory
    embedding = next(tensor for tensor in tensors if tensor.name == "token_embd.weight")
    with Model(tiny(name)) as model:
        assert model.architecture == MODELS[name].architecture
        assert model.paths == (str(tiny(name)),)
        assert model.description.startswith(model.architecture)
        assert model.description in repr(model)
        assert model.vocab.n_tokens == facts.n_vocab
        assert model.n_cls_out == facts.n_cls_out
        assert (model.has_encoder, model.has_decoder) == (facts.encoder, facts.decoder)
        assert model.n_embd == model.n_embd_inp == model.n_embd_out == WIDTH
        assert (model.n_layer, model.n_layer_nextn, model.n_ctx_train) == (LAYERS, 0, POSITIONS)
        # libllama counts a table that is used twice twice.
        count = sum(int(tensor.n_elements) for tensor in tensors)
        assert model.n_params in (count, count + (int(embedding.n_elements) if tied else 0))
        assert model.size in (4 * count, 4 * model.n_params)
        assert model.ftype == "guessed"
        assert getattr(lib, f"LLAMA_ROPE_TYPE_{model.rope_type.upper()}") == facts.rope
        assert model.rope_freq_scale_train == 1.0
        assert model.n_pos == (4 if name == "qwen2vl" else 1)
        assert model.n_positions == (POSITIONS if name.split("-")[0] in ("bert", "gpt2") else 0)
        assert model.decoder_start_token == (0 if name == "t5" else None)
        assert (model.is_recurrent, model.is_hybrid, model.is_diffusion) == (name == "mamba", name == "lfm2", False)
        assert model.has_logits == (facts.memory and facts.decoder)
        assert model.has_scores == (name in ("bert-reranker", "bert-classifier", "qwen3-reranker"))
        assert not model.vocab_only
    assert model.closed
    assert "closed" in repr(model)
    with pytest.raises(ClosedError):
        _ = model.n_embd


@pytest.mark.parametrize(
    ("name", "heads", "kv", "window"),
    [("llama", HEADS, KV_HEADS, 0), ("gemma-embedding", HEADS, 1, WINDOW), ("qwen2vl", 2, 1, 0), ("bert", 4, 4, 0)],
)
def test_heads(name: str, heads: int, kv: int, window: int, tiny: Tiny) -> None:
    with Model(tiny(name)) as model:
        assert (model.n_head, model.n_head_kv, model.n_swa) == (heads, kv, window)


def test_labels(tiny: Tiny) -> None:
    with Model(tiny("bert-classifier")) as model:
        assert model.cls_labels == ("no", "maybe", "yes")
    with Model(tiny("bert-reranker")) as model:
        assert model.cls_labels == (None,)


def test_metadata_is_that_of_the_file(tiny: Tiny) -> None:
    """All keys that are no lists, in the file's order; numbers as C prints them."""
    fields = gguf.GGUFReader(tiny("qwen2vl")).fields.values()
    expected = {
        field.name: field.contents()
        for field in fields
        if not field.name.startswith("GGUF.") and field.types[0] != gguf.GGUFValueType.ARRAY
    }
    with Model(tiny("qwen2vl")) as model:
        assert sorted(model.metadata) == sorted(expected)
        for key, value in expected.items():
            printed = model.metadata[key]
            if isinstance(value, str):
                assert printed == value
            elif isinstance(value, bool):
                assert printed == str(value).lower()
            else:
                assert float(printed) == pytest.approx(value, rel=1e-5)
        with pytest.raises(TypeError):
            model.metadata["general.name"] = "another"  # type: ignore[index]


def test_metadata_keeps_bytes_and_length(tiny: Tiny, tmp_path: Path) -> None:
    """What is not UTF-8 comes back as the same bytes; long values are whole."""
    content = tiny("llama").read_bytes()
    file = tmp_path / "bytes.gguf"
    file.write_bytes(content.replace(b"tiny llama", b"\xff\xfe\x80 \xc3(\xa9\xe2!!"))
    with Model(file) as model:
        assert os.fsencode(model.metadata["general.name"]) == b"\xff\xfe\x80 \xc3(\xa9\xe2!!"
    writer = gguf.GGUFWriter(file, "llama")
    long = "é" * 5000
    writer.add_name(long)
    writer.add_string("odd.key.ünïcode", "wörld")
    tiny_models._save(writer, MODELS["llama"].fill(writer), 0)
    with Model(file) as model:
        assert model.metadata["general.name"] == long
        assert model.metadata["odd.key.ünïcode"] == "wörld"


def test_chat_template(tiny: Tiny, tmp_path: Path) -> None:
    with Model(tiny("qwen3")) as model:
        assert model.chat_template() == CHATML
        assert model.chat_template("tool_use") is None
        with pytest.raises(InvalidArgumentError, match="name"):
            model.chat_template("a\0b")
    with Model(tiny("llama")) as model:
        assert model.chat_template() is None
    writer = gguf.GGUFWriter(tmp_path / "named.gguf", "llama")
    shapes = MODELS["llama"].fill(writer)
    templates: Any = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]
    writer.add_chat_template(templates)
    tiny_models._save(writer, shapes, 0)
    with Model(tmp_path / "named.gguf") as model:
        assert (model.chat_template(), model.chat_template("tool_use")) == ("one", "two")


def test_a_model_is_shared_by_threads(tiny: Tiny) -> None:
    found: list[Rows] = []
    with Model(tiny("llama")) as model:
        expected = rows_of(model)
        threads = [threading.Thread(target=lambda: found.append(rows_of(model))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert all(np.array_equal(rows, expected) for rows in found)


# ---- where it is loaded from


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_splits(name: str, tiny: Tiny, tmp_path: Path) -> None:
    expected = rows_of_file(tiny(name))
    splits = write_splits(name, tmp_path, 3 if name == "bert" else 8)
    assert len(splits) > 2
    with Model(tiny(name)) as whole, Model(splits[0]) as first, Model(splits) as all_of_them:
        assert all_of_them.paths == tuple(map(str, splits))
        for model in (first, all_of_them):
            assert np.array_equal(rows_of(model), expected)
            assert (model.n_params, model.n_positions) == (whole.n_params, whole.n_positions)
    moved = [path.rename(tmp_path / f"part {index}") for index, path in enumerate(splits)]
    with Model(moved) as model:  # names do not matter where all are given
        assert np.array_equal(rows_of(model), expected)
    with pytest.raises(FileNotFoundError):
        Model([*moved[:-1], tmp_path / "missing"])
    with pytest.raises(ModelLoadError):
        Model(moved[:-1])
    with pytest.raises(ModelLoadError):
        Model([*reversed(moved)])


def test_positions_of_a_later_split_are_known(tmp_path: Path) -> None:
    """A position that the model has not learned would end the process: the table may be in any of the files."""
    splits = write_splits("bert", tmp_path, 2)
    with (
        Model(splits[0]) as model,
        context_of(model, pooling_type="none", embeddings=True) as context,
        pytest.raises(InvalidArgumentError, match="pos of token"),
    ):
        context.process(batch_of(some_tokens(model, 3), start=POSITIONS))


def test_damaged_later_split_is_refused(tmp_path: Path) -> None:
    """modelfile.py's checks see all the files."""
    splits = write_splits("bert", tmp_path, 2)
    damaged = next(path for path in splits if any("norm.bias" in t.name for t in gguf.GGUFReader(path).tensors))
    tensor = next(tensor for tensor in gguf.GGUFReader(damaged).tensors if "norm.bias" in tensor.name)
    content = bytearray(damaged.read_bytes())
    at = content.index(tensor.name.encode()) + len(tensor.name) + 4 + 8 * len(tensor.shape)
    assert int.from_bytes(content[at : at + 4], "little") == lib.GGML_TYPE_F32
    content[at : at + 4] = lib.GGML_TYPE_I32.to_bytes(4, "little")
    damaged.write_bytes(content)
    for source in (splits[0], splits):
        with pytest.raises(ModelLoadError, match="damaged"):
            Model(source)


@pytest.mark.parametrize("buffering", [0, -1])
def test_open_file_at_an_offset(buffering: int, tiny: Tiny, tmp_path: Path) -> None:
    """The file stays where it was, and goes on reading what it would have read."""
    content = tiny("llama").read_bytes()
    expected = rows_of_file(tiny("llama"))
    file = tmp_path / "archive.bin"
    before, after = bytes(range(256)) * 40, bytes(reversed(range(256))) * 100
    file.write_bytes(before + content + after)
    with file.open("rb", buffering=buffering) as archive:
        assert archive.read(len(before)) == before
        with Model(archive) as model:
            assert archive.tell() == len(before)
            assert model.paths == ()
            assert archive.read(len(content) + len(after)) == content + after
            assert np.array_equal(rows_of(model), expected)
            archive.seek(0)
            with pytest.raises(ModelLoadError):
                Model(archive)
    with pytest.raises(ValueError, match="closed"):
        Model(archive)
    assert np.array_equal(rows_of_file(tiny("llama")), expected)


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Model(tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        Model(tmp_path)
    with pytest.raises(InvalidArgumentError, match="source"):
        Model([])
    for source in (7, None, b"model.gguf", io.BytesIO(b"GGUF")):
        with pytest.raises((InvalidArgumentError, TypeError, OSError)):
            Model(source)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null"):
        Model("a\0b")
    for content in (b"", b"GG", b"GGUF", b"GGUF" + bytes(100), b"<html>" * 20):
        file = tmp_path / "none.gguf"
        file.write_bytes(content)
        with pytest.raises(ModelLoadError) as caught:
            Model(file)
        assert str(file) in str(caught.value)
    assert live["Model"] == 0


def test_truncated(tiny: Tiny, tmp_path: Path) -> None:
    content = tiny("llama").read_bytes()
    for length in (30, 1000, len(content) // 2, len(content) - 1):
        file = tmp_path / "cut.gguf"
        file.write_bytes(content[:length])
        with pytest.raises(ModelLoadError) as caught:
            Model(file)
        assert caught.value.log
        with file.open("rb") as opened, pytest.raises(ModelLoadError):
            Model(opened)


# ---- parameters


def test_every_parameter_is_a_keyword() -> None:
    """Those of the C struct, but for the two that `progress` stands for, and the one that gives no usable model.

    `kernels` is not for libllama.
    """
    fields = {name for name, _ in ffi.typeof("struct llama_model_params").fields}
    keywords = set(inspect.signature(Model.__init__).parameters) - {"self", "source", "progress", "kernels"}
    assert keywords == fields - {"progress_callback", "progress_callback_user_data", "no_alloc"}
    defaults = [p.default for name, p in inspect.signature(Model.__init__).parameters.items() if name in keywords]
    assert set(defaults) == {None}


def test_vocab_only(tiny: Tiny) -> None:
    with Model(tiny("llama"), vocab_only=True) as model:
        assert model.vocab_only
        assert model.vocab.n_tokens == FACTS["llama"].n_vocab
        with pytest.raises(InvalidArgumentError, match="vocab_only"):
            context_of(model)


def test_check_tensors(tiny: Tiny, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(tiny("llama"))
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_up.weight")
    content = bytearray(tiny("llama").read_bytes())
    content[tensor.data_offset : tensor.data_offset + 4] = np.float32(np.nan).tobytes()
    file = tmp_path / "nan.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"blk\.0\.ffn_up"):
        Model(file, check_tensors=True)
    Model(file, check_tensors=False).close()
    Model(file).close()
    Model(tiny("llama"), check_tensors=True).close()


def test_kv_overrides(tiny: Tiny) -> None:
    path = tiny("llama")
    with Model(path, kv_overrides={"llama.context_length": 48}) as model:
        assert model.n_ctx_train == 48
    with Model(path, kv_overrides={"tokenizer.ggml.add_bos_token": False}) as without, Model(path) as default:
        add_bos = [lib.llama_vocab_get_add_bos(lib.llama_model_get_vocab(m._pointer)) for m in (without, default)]
        assert add_bos == [False, True]
    expected = rows_of_file(path)
    assert not np.allclose(rows_of_file(path, kv_overrides={"llama.rope.freq_base": 100.0}), expected)
    assert np.array_equal(rows_of_file(path, kv_overrides={}), expected)
    with pytest.raises(ModelLoadError):
        Model(path, kv_overrides={"tokenizer.ggml.model": "no such tokenizer"})
    several = {"llama.context_length": 40, "tokenizer.ggml.add_bos_token": False, "llama.rope.freq_base": 100.0}
    with Model(path, kv_overrides=several) as model:
        assert model.n_ctx_train == 40
        assert not lib.llama_vocab_get_add_bos(lib.llama_model_get_vocab(model._pointer))


@pytest.mark.parametrize(
    "override",
    [
        {"": 1}, {"k" * 128: 1}, {"k\0": 1}, {"key": "v" * 128}, {"key": ""}, {"key": "a\0b"}, {"key": 2**63},
        {"key": -(2**63) - 1}, {"key": None}, {"key": [1]}, {"key": b"bytes"}, {"key": "\udfff\ud800"},
    ],
    ids=lambda override: repr(override)[:20],
)  # fmt: skip
def test_kv_overrides_that_c_has_no_room_for(override: Any, tiny: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match="kv_overrides"):
        Model(tiny("llama"), kv_overrides=override)


def test_kv_overrides_at_the_limit(tiny: Tiny) -> None:
    Model(tiny("llama"), kv_overrides={"k" * 127: "v" * 127, "low": -(2**63), "high": 2**63 - 1}).close()


def test_load_mode(tiny: Tiny) -> None:
    """`mmap` maps the file; `none` and `direct_io` read it. The numbers are the same."""
    path = tiny("llama")
    expected = rows_of_file(path)
    for mode, mapped in (("none", False), ("mmap", True), ("direct_io", False), ("mlock", False), ("mmap_mlock", True)):
        with Model(path, load_mode=mode, use_extra_bufts=False) as model:
            assert (str(path) in Path("/proc/self/maps").read_text()) == mapped, mode
            assert np.array_equal(rows_of(model), expected)


def test_extra_buffer_types(tiny: Tiny, tmp_path: Path) -> None:
    """With them the CPU repacks 4-bit weights, which libllama says in its log."""
    quantize(tiny("llama"), tmp_path / "q4.gguf", "mostly_q4_0")
    code = (
        "import logging, sys\n"
        "from rawllama.model import Model\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "logging.getLogger('rawllama').setLevel(logging.DEBUG)\n"
        "places = {'blk': sys.argv[3]} if len(sys.argv) > 3 else None\n"
        "Model(sys.argv[1], use_extra_bufts=sys.argv[2] == 'True', tensor_buft_overrides=places).close()\n"
    )
    with_them = run_python(code, tmp_path / "q4.gguf", True).stdout
    without = run_python(code, tmp_path / "q4.gguf", False).stdout
    assert "REPACK" not in without
    assert "CPU" in without
    assert ("REPACK" in with_them) == bool(lib.ggml_cpu_has_avx2() or lib.ggml_cpu_has_neon())
    assert "overridden to CPU" not in without
    assert "overridden to CPU" in run_python(code, tmp_path / "q4.gguf", False, "CPU").stdout


@pytest.mark.parametrize(
    "settings",
    [
        {"n_gpu_layers": 0}, {"n_gpu_layers": -1}, {"n_gpu_layers": 99}, {"split_mode": "none"}, {"main_gpu": 0},
        {"split_mode": lib.LLAMA_SPLIT_MODE_LAYER}, {"split_mode": "ROW"}, {"lazy_mode": "off"}, {"lazy_mode": "on"},
        {"lazy_mode": "auto"}, {"no_host": True}, {"load_mtp": True}, {"load_mtp": False}, {"tensor_split": []},
        {"load_mode": "auto"}, {"devices": []}, {"tensor_buft_overrides": {}},
        {"tensor_buft_overrides": {"blk": "CPU"}},
    ],
    ids=str,
)  # fmt: skip
def test_parameters_without_effect_on_a_cpu(settings: dict[str, Any], tiny: Tiny) -> None:
    assert np.array_equal(rows_of_file(tiny("llama"), **settings), rows_of_file(tiny("llama")))


@pytest.mark.parametrize(
    "settings",
    [
        {"n_gpu_layers": 2**31}, {"n_gpu_layers": "all"}, {"n_gpu_layers": 1.5}, {"split_mode": "rows"},
        {"split_mode": 9}, {"load_mode": "fast"}, {"lazy_mode": 7}, {"main_gpu": 2**40}, {"tensor_split": [-1.0]},
        {"tensor_split": [float("nan")]}, {"tensor_split": [1.0] * 1000}, {"vocab_only": "yes"},
        {"check_tensors": [1]},
        {"tensor_buft_overrides": {"a\0b": "CPU"}},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_parameters_are_named(settings: dict[str, Any], tiny: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(settings))):
        Model(tiny("llama"), **settings)
    assert live["Model"] == 0


def test_places_that_are_not_there(tiny: Tiny) -> None:
    with pytest.raises(InvalidArgumentError, match="no such device"):
        Model(tiny("llama"), devices=["no such device"])
    with pytest.raises(InvalidArgumentError, match="nowhere"):
        Model(tiny("llama"), tensor_buft_overrides={"blk": "nowhere"})
    with pytest.raises(ModelLoadError, match="regular expression"):
        Model(tiny("llama"), tensor_buft_overrides={"[": "CPU"})
    assert live["Model"] == 0


# ---- progress


def test_progress(tiny: Tiny) -> None:
    seen: list[float] = []
    with Model(tiny("llama"), progress=seen.append) as model:
        assert model.n_embd == WIDTH
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[0] >= 0.0
    assert seen[-1] == 1.0


def test_progress_cancels(tiny: Tiny) -> None:
    seen: list[float] = []

    def enough(done: float) -> bool:
        seen.append(done)
        return len(seen) < 2

    with pytest.raises(ModelLoadError):
        Model(tiny("llama"), progress=enough)
    assert len(seen) == 2
    assert live["Model"] == 0
    Model(tiny("llama"), progress=lambda done: 0).close()  # only False itself cancels, not what is like it
    Model(tiny("llama")).close()


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_progress_raises_is_raised_again(error: BaseException, tiny: Tiny) -> None:
    def fail(done: float) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Model(tiny("llama"), progress=fail)
    assert caught.value is error
    assert live["Model"] == 0


# ---- saving


@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*NOT_SAVED, "t5")])
def test_save(name: str, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "saved.gguf"
    with Model(tiny(name)) as model:
        model.save(file)
        expected = rows_of(model)
        facts = model.n_params, model.vocab.n_tokens, model.cls_labels, model.n_ctx_train
    with Model(file) as model:
        assert np.array_equal(rows_of(model), expected)
        assert (model.n_params, model.vocab.n_tokens, model.cls_labels, model.n_ctx_train) == facts
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert list(tmp_path.iterdir()) == [file]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", [*NOT_SAVED, "t5"])
def test_what_cannot_be_saved_leaves_the_old_file(name: str, tiny: Tiny, tmp_path: Path) -> None:
    """libllama's saver leaves tensors of these out and says nothing, or asserts; the model's own file must survive."""
    file = tmp_path / "own.gguf"
    content = tiny(name).read_bytes()
    file.write_bytes(content)
    with Model(file) as model:
        expected = rows_of(model)
        with pytest.raises(LlamaError):
            model.save(file)
        assert np.array_equal(rows_of(model), expected)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_save_over_its_own_file(tiny: Tiny, tmp_path: Path) -> None:
    """The weights are mapped from the file that is replaced."""
    file = tmp_path / "own.gguf"
    file.write_bytes(tiny("llama").read_bytes())
    with Model(file, load_mode="mmap", use_extra_bufts=False) as model:
        expected = rows_of(model)
        for _ in range(2):
            model.save(file)
        assert np.array_equal(rows_of(model), expected)
    assert np.array_equal(rows_of_file(file), expected)


def test_save_where_nothing_can_be_written(tiny: Tiny, tmp_path: Path) -> None:
    with Model(tiny("llama")) as model:
        with pytest.raises(FileNotFoundError):
            model.save(tmp_path / "missing" / "model.gguf")
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            model.save(tmp_path / "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(ClosedError):
        model.save(tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_save_to_a_full_disk(tiny: Tiny, tmp_path: Path) -> None:
    """A file size limit stands for the full disk: there is an error, and the old file is as it was."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rawllama import LlamaError\n"
        "from rawllama.model import Model\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "target.write_bytes(b'old')\n"
        "with Model(source) as model:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    try:\n"
        "        model.save(target)\n"
        "    except (LlamaError, OSError) as error:\n"
        "        print('refused', type(error).__name__, error)\n"
        "assert target.read_bytes() == b'old', target.stat()\n"
        "assert list(target.parent.iterdir()) == [target]\n"
    )
    assert "refused" in run_python(code, tiny("llama"), tmp_path / "model.gguf").stdout
