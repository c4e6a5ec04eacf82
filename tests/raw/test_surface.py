"""`ffi` and `lib`: C's names and values, ready for the first call."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rawllama import INCLUDE, ffi, lib, raw

# A few of each header; `python -m bindgen --check` compares them all.
FUNCTIONS = [
    "llama_backend_init",
    "llama_model_load_from_file",
    "llama_init_from_model",
    "llama_encode",
    "llama_decode",
    "llama_batch_init",
    "llama_get_embeddings_seq",
    "llama_memory_clear",
    "llama_sampler_chain_add",
    "llama_state_get_data",
    "llama_adapter_lora_init",
    "llama_n_vocab",
    "llama_token_bos",
    "llama_new_context_with_model",
    "ggml_init",
    "ggml_mul_mat",
    "ggml_graph_node",
    "ggml_backend_load_all",
    "ggml_backend_sched_new",
    "ggml_gallocr_new",
    "ggml_opt_init",
    "ggml_type_size",
    "gguf_init_from_file",
    "gguf_get_val_str",
    "ggml_set_abort_callback",
    "rawllama_log_install",
    "rawllama_guarded_llama_decode",
]
CONSTANTS = [
    "LLAMA_ROPE_TYPE_NONE",
    "LLAMA_ROPE_TYPE_NORM",
    "LLAMA_ROPE_TYPE_NEOX",
    "LLAMA_ROPE_TYPE_MROPE",
    "LLAMA_ROPE_TYPE_IMROPE",
    "LLAMA_ROPE_TYPE_VISION",
    "LLAMA_POOLING_TYPE_UNSPECIFIED",
    "LLAMA_POOLING_TYPE_RANK",
    "LLAMA_VOCAB_TYPE_WPM",
    "LLAMA_FTYPE_MOSTLY_Q8_0",
    "LLAMA_TOKEN_NULL",
    "LLAMA_DEFAULT_SEED",
    "LLAMA_SESSION_MAGIC",
    "LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY",
    "LLAMA_TOKEN_ATTR_SINGLE_WORD",
    "GGML_TYPE_F16",
    "GGML_TYPE_COUNT",
    "GGML_MAX_DIMS",
    "GGML_ROPE_TYPE_IMROPE",
    "GGML_STATUS_ABORTED",
    "GGML_OP_COUNT",
    "GGUF_TYPE_COUNT",
    "GGUF_VERSION",
    "GGML_FILE_MAGIC",
    "RAWLLAMA_CAUGHT",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_there(name: str) -> None:
    assert callable(getattr(lib, name))
    assert name in dir(lib)


def test_nothing_but_cs_names_is_there() -> None:
    names = dir(lib)
    assert len(names) > 900
    assert {re.match("[a-zA-Z]+", name)[0].lower() for name in names} <= {"llama", "ggml", "gguf", "rawllama"}  # type: ignore[index]


def test_structs_have_their_fields() -> None:
    batch = dict(ffi.typeof("struct llama_batch").fields)
    assert list(batch) == ["n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits"]
    assert batch["seq_id"].type is ffi.typeof("llama_seq_id **")
    params = dict(ffi.typeof("struct llama_context_params").fields)
    assert params["cb_eval"].type is ffi.typeof("ggml_backend_sched_eval_callback")
    with pytest.raises(TypeError, match="unknown size"):
        ffi.new("struct llama_model *")  # opaque in the header


def test_constants_are_the_compilers(compile_c: Callable[..., Path]) -> None:
    prints = "".join(f'printf("%lld\\n", (long long) {name});' for name in CONSTANTS)
    source = f'#include <stdio.h>\n#include "rawllama.h"\n#include "gguf.h"\nint main(void) {{ {prints} return 0; }}'
    program = compile_c("constants", source, f"-I{INCLUDE}", shared=False)
    values = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert {name: getattr(lib, name) for name in CONSTANTS} == dict(zip(CONSTANTS, map(int, values), strict=True))


def test_rope_types_that_other_bindings_got_wrong() -> None:
    names = ("NEOX", "MROPE", "IMROPE", "VISION")
    assert [getattr(lib, f"LLAMA_ROPE_TYPE_{name}") for name in names] == [2, 8, 40, 24]


def test_deprecated_functions_do_what_they_did(make_context: Any) -> None:
    model = lib.llama_get_model(make_context())
    vocab = lib.llama_model_get_vocab(model)
    assert lib.llama_n_embd(model) == lib.llama_model_n_embd(model) == 384
    assert lib.llama_n_layer(model) == lib.llama_model_n_layer(model) == 6
    assert lib.llama_n_vocab(vocab) == lib.llama_vocab_n_tokens(vocab) == 30522
    assert lib.llama_token_sep(vocab) == lib.llama_vocab_sep(vocab) == 102
    assert ffi.string(lib.llama_token_get_text(vocab, 102)) == b"[SEP]"
    context = lib.llama_new_context_with_model(model, lib.llama_context_default_params())
    assert lib.llama_get_model(context) == model
    lib.llama_free(context)


def test_the_library_is_ready() -> None:
    assert lib.ggml_backend_reg_count() >= 1
    assert lib.ggml_backend_dev_count() >= 1
    assert lib.ggml_backend_dev_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU)
    before = lib.llama_time_us()
    time.sleep(0.01)
    assert 9_000 < lib.llama_time_us() - before < 5_000_000
    assert b"CPU" in ffi.string(lib.llama_print_system_info())


class FakeLib:
    """Notes what is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.calls.append((name, *args))


@pytest.mark.parametrize(
    ("files", "first"),
    [
        (["librawllama-llama.so", "librawllama-ggml-cpu.so"], []),
        (["librawllama-llama.so", "libggml-cpu-haswell.so"], ["ggml_backend_load_all_from_path"]),
        (None, ["ggml_backend_load_all"]),
    ],
    ids=["linked", "plugins", "system"],
)
def test_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str] | None, first: list[str]) -> None:
    """The log first, as backends greet; then those that are not linked; our kernels; then libllama itself."""
    fake = FakeLib()
    monkeypatch.setattr(raw, "lib", fake)
    monkeypatch.setattr(raw, "LIBRARIES", tmp_path / "lib")
    for file in files or []:
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / file).touch()
    raw._start_backends()
    last = ["rawllama_cpu_install", "llama_backend_init"]
    assert [call[0] for call in fake.calls] == ["rawllama_log_install", *first, *last]
    folders = [call[1] for call in fake.calls if call[0] == "ggml_backend_load_all_from_path"]
    assert set(folders) <= {bytes(tmp_path / "lib")}


def test_the_import_starts_libllama(python: Any) -> None:
    """Seen from a module in the place of the real one."""
    python("""
import importlib.util, sys, types
package = types.ModuleType("rawllama")
package.__path__ = importlib.util.find_spec("rawllama").submodule_search_locations
calls = []
class Lib:
    def __getattr__(self, name):
        return lambda *args: calls.append(name)
module = types.ModuleType("rawllama._libllama")
module.ffi, module.lib = object(), Lib()
sys.modules |= {"rawllama": package, "rawllama._libllama": module}
import rawllama.raw
assert calls[-1] == "llama_backend_init", calls
""")


def test_the_import_leaves_numpy_alone(python: Any) -> None:
    done = python("""
import sys
import rawllama
from rawllama import ffi, lib
assert "numpy" not in sys.modules
assert "cffi" not in sys.modules  # its parser is for building
rawllama.view
assert "numpy" in sys.modules
""")
    assert done.stderr == ""


def test_the_import_is_once(python: Any) -> None:
    """From many threads at the same time."""
    python("""
import threading
seen = []
def load():
    from rawllama import ffi, lib
    seen.append((ffi, lib, lib.ggml_backend_dev_count()))
threads = [threading.Thread(target=load) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(seen) == 16 and len(set(seen)) == 1 and seen[0][2] >= 1
assert sum(thread.name == "rawllama-log" for thread in threading.enumerate()) == 1
""")


def test_unknown_names_are_attribute_errors() -> None:
    import rawllama

    for owner in (lib, rawllama):
        with pytest.raises(AttributeError, match="llama_no_such_function"):
            owner.llama_no_such_function  # noqa: B018


@pytest.mark.parametrize(
    "arguments", [(), (1, 2), ("a context",), (5,), (ffi.new("struct ggml_tensor *"),), (None,)], ids=repr
)
def test_wrong_arguments_are_type_errors(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        lib.llama_n_ctx(*arguments)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OverflowError):
        lib.llama_batch_init(2**31, 0, 1)


def test_the_gil_is_released(make_context: Any, make_batch: Any) -> None:
    """Python goes on while C computes."""
    context, batch = make_context(), make_batch(512)
    stop = threading.Event()
    steps = []

    def count() -> None:
        while not stop.is_set():
            steps.append(time.perf_counter())

    counter = threading.Thread(target=count)
    counter.start()
    begin = time.perf_counter()
    assert lib.llama_decode(context, batch) == 0
    end = time.perf_counter()
    stop.set()
    counter.join()
    inside = [step for step in steps if begin < step < end]
    assert end - begin > 0.02, "too fast to show anything"
    assert len(inside) > 100
    # It also went on in the middle, not only while the call began and ended.
    assert sum(begin + 0.25 * (end - begin) < step < begin + 0.75 * (end - begin) for step in inside) > 10
