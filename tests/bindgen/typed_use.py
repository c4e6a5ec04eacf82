"""The raw API as a typed program uses it: `mypy --strict` accepts it, and what needs no model runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rawllama import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rawllama._libllama import Pointer, c_char, struct_llama_context_p, struct_llama_vocab_p


def text(source: Pointer[c_char, bytes]) -> str:
    return ffi.string(source).decode()


# ---- ggml.h, ggml-cpu.h


def add_on_the_cpu() -> list[float]:
    params = ffi.new("struct ggml_init_params *")
    params.mem_size = 1 << 20
    params.mem_buffer = ffi.NULL
    context = lib.ggml_init(params[0])
    if not context:
        raise MemoryError
    a = lib.ggml_new_tensor_1d(context, lib.GGML_TYPE_F32, 3)
    b = lib.ggml_new_tensor_2d(context, lib.GGML_TYPE_F32, 3, 1)
    assert lib.ggml_nelements(a) == a.ne[0] == 3 and lib.ggml_nbytes(b) == 12 and list(b.ne) == [3, 1, 1, 1]
    lib.ggml_set_name(a, b"a")
    assert text(lib.ggml_get_name(a)) == text(a.name) == "a"
    assert text(lib.ggml_type_name(a.type)) == "f32"
    lib.ggml_set_f32(a, 0.5)
    for i in range(3):
        lib.ggml_set_f32_1d(b, i, i)

    total = lib.ggml_scale(context, lib.ggml_add(context, a, b), 2)
    assert total.src[0].op == lib.GGML_OP_ADD and not total.src[1]
    graph = lib.ggml_new_graph(context)
    lib.ggml_build_forward_expand(graph, total)
    threads = lib.ggml_threadpool_params_default(1)
    pool = lib.ggml_threadpool_new(ffi.addressof(threads))
    plan = lib.ggml_graph_plan(graph, 1, pool)
    work = ffi.new("uint8_t[]", max(plan.work_size, 1))
    plan.work_data = work
    assert lib.ggml_graph_compute(graph, ffi.addressof(plan)) == lib.GGML_STATUS_SUCCESS
    values = lib.ggml_get_data_f32(total)
    result = [lib.ggml_get_f32_1d(total, 0), values[1], ffi.unpack(values, 3)[2]]
    assert ffi.unpack(values[0:2], 2) == result[:2]
    lib.ggml_threadpool_free(pool)
    lib.ggml_free(context)
    return result


# ---- ggml-backend.h, ggml-alloc.h


def copy_through_a_backend(array: NDArray[np.float32]) -> NDArray[np.float32]:
    backend = lib.ggml_backend_init_by_type(lib.GGML_BACKEND_DEVICE_TYPE_CPU, ffi.NULL)
    device = lib.ggml_backend_get_device(backend)
    props = ffi.new("struct ggml_backend_dev_props *")
    lib.ggml_backend_dev_get_props(device, props)
    assert text(props.name) == text(lib.ggml_backend_dev_name(device)) and props.caps.buffer_from_host_ptr
    free, whole = ffi.new("size_t *"), ffi.new("size_t *")
    lib.ggml_backend_dev_memory(device, free, whole)
    assert 0 < free[0] <= whole[0]

    params = ffi.new("struct ggml_init_params *", {"mem_size": 1 << 16, "no_alloc": True})
    context = lib.ggml_init(params[0])
    tensor = lib.ggml_new_tensor_1d(context, lib.GGML_TYPE_F32, array.size)
    buffer = lib.ggml_backend_alloc_ctx_tensors(context, backend)
    assert lib.ggml_backend_buffer_is_host(buffer) and lib.ggml_backend_buffer_get_size(buffer) >= array.nbytes
    lib.ggml_backend_tensor_set(tensor, ffi.from_buffer("float[]", array), 0, array.nbytes)
    lib.ggml_backend_tensor_set(tensor, b"\0\0\0\0", 0, 4)  # bytes, as C only reads them
    copy = np.empty_like(array)
    lib.ggml_backend_tensor_get(tensor, ffi.from_buffer("float *", copy, require_writable=True), 0, copy.nbytes)

    allocator = lib.ggml_gallocr_new(lib.ggml_backend_get_default_buffer_type(backend))
    assert lib.ggml_gallocr_get_buffer_size(allocator, 0) == 0
    lib.ggml_gallocr_free(allocator)
    lib.ggml_backend_buffer_free(buffer)
    lib.ggml_free(context)
    lib.ggml_backend_free(backend)
    return copy


# ---- ggml-opt.h


def optimiser() -> tuple[str, float, int]:
    data = lib.ggml_opt_dataset_init(lib.GGML_TYPE_F32, lib.GGML_TYPE_F32, 2, 1, 8, 4)
    count = lib.ggml_opt_dataset_ndata(data)
    assert lib.ggml_opt_dataset_data(data).ne[1] == count
    lib.ggml_opt_dataset_free(data)
    result = lib.ggml_opt_result_init()
    lib.ggml_opt_result_reset(result)
    lib.ggml_opt_result_free(result)

    # A struct by value, out of a callback.
    get = ffi.callback("ggml_opt_get_optimizer_params", lambda data: lib.ggml_opt_get_default_optimizer_params(data))
    params = lib.ggml_opt_default_params(ffi.NULL, lib.GGML_OPT_LOSS_TYPE_MEAN)
    params.get_opt_pars = get
    rate = params.get_opt_pars(ffi.NULL).adamw.alpha
    return text(lib.ggml_opt_optimizer_name(params.optimizer)), rate, count


# ---- gguf.h


def gguf_there_and_back(path: Path) -> dict[str, object]:
    written = lib.gguf_init_empty()
    lib.gguf_set_val_u32(written, b"number", 7)
    lib.gguf_set_val_bool(written, b"flag", True)
    lib.gguf_set_val_str(written, b"text", "größe".encode())
    lib.gguf_set_arr_data(written, b"list", lib.GGUF_TYPE_FLOAT32, np.arange(3, dtype=np.float32).tobytes(), 3)
    names = [ffi.new("char[]", b"one"), ffi.new("char[]", b"two")]
    lib.gguf_set_arr_str(written, b"names", ffi.new("const char *[]", names), 2)
    with path.open("wb") as file:
        assert lib.gguf_write_to_file_ptr(written, file, False)
    lib.gguf_free(written)

    params = ffi.new("struct gguf_init_params *", {"no_alloc": True, "ctx": ffi.NULL})
    read = lib.gguf_init_from_file(str(path).encode(), params[0])
    key = lib.gguf_find_key(read, b"list")
    assert text(lib.gguf_get_key(read, key)) == "list"
    assert text(lib.gguf_type_name(lib.gguf_get_arr_type(read, key))) == "f32"
    values = ffi.cast("float *", lib.gguf_get_arr_data(read, key))
    found: dict[str, object] = {
        "number": lib.gguf_get_val_u32(read, lib.gguf_find_key(read, b"number")),
        "flag": lib.gguf_get_val_bool(read, lib.gguf_find_key(read, b"flag")),
        "text": text(lib.gguf_get_val_str(read, lib.gguf_find_key(read, b"text"))),
        "list": ffi.unpack(values, lib.gguf_get_arr_n(read, key)),
        "names": text(lib.gguf_get_arr_str(read, lib.gguf_find_key(read, b"names"), 1)),
        "count": lib.gguf_get_n_kv(read),
    }
    lib.gguf_free(read)
    return found


# ---- llama.h


def sample_greedily() -> int:
    params = lib.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = lib.llama_sampler_chain_init(params)
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(2))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
    assert lib.llama_sampler_chain_n(chain) == 2 and text(lib.llama_sampler_name(chain)) == "chain"
    data = ffi.new("llama_token_data[]", [(3, 0.5, 0), (5, 2.5, 0), (8, 1.0, 0)])
    candidates = ffi.new("llama_token_data_array *")
    candidates.data, candidates.size = data, len(data)
    lib.llama_sampler_apply(chain, candidates)
    best = candidates.data[candidates.selected]
    lib.llama_sampler_free(chain)
    assert (candidates.data + candidates.selected).id == best.id
    return best.id


def parameters() -> None:
    model = lib.llama_model_default_params()
    model.n_gpu_layers = 0
    model.devices = ffi.NULL
    model.tensor_split = ffi.new("float[]", lib.llama_max_devices())
    override = ffi.new("struct llama_model_kv_override[]", 2)
    override[0].key = b"tokenizer.ggml.add_bos_token"
    override[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    override[0].val_bool = False
    model.kv_overrides = override
    assert text(override[0].key).endswith("bos_token") and not model.kv_overrides[1].key[0].strip(b"\0")

    @ffi.callback("llama_progress_callback")
    def progress(done: float, user_data: object) -> bool:
        return done < 1

    model.progress_callback = progress
    model.progress_callback_user_data = ffi.new_handle(model)
    assert model.progress_callback(0.5, ffi.NULL) is True

    path = ffi.new("char[]", 64)
    assert lib.llama_split_path(path, len(path), b"m", 1, 4) == len(text(path))
    batch = lib.llama_batch_init(4, 0, 1)
    batch.n_tokens = 1
    batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = 1, 0, 1, 1
    batch.seq_id[0][0] = 0
    lib.llama_batch_free(batch)
    one = lib.llama_batch_get_one(ffi.new("llama_token[]", [1, 2]), 2)
    assert one.n_tokens == 2 and lib.llama_supports_mmap() in (True, False)


def log_callback() -> None:
    callback, data = ffi.new("ggml_log_callback *"), ffi.new("void **")
    lib.llama_log_get(callback, data)
    lines: list[tuple[int, str]] = []

    def log(level: int, line: Pointer[c_char, bytes], user_data: object) -> None:
        lines.append((level, text(line)))

    ours = ffi.callback("ggml_log_callback", log)
    ours(lib.GGML_LOG_LEVEL_WARN, b"careful", ffi.NULL)
    lib.llama_log_set(ours, ffi.NULL)
    lib.llama_log_set(callback[0], data[0])
    assert lines == [(lib.GGML_LOG_LEVEL_WARN, "careful")]


def tokenize(vocab: struct_llama_vocab_p, line: str) -> NDArray[np.int32]:
    raw = line.encode()
    tokens = np.empty(len(raw) + 2, np.int32)
    count = lib.llama_tokenize(vocab, raw, len(raw), ffi.from_buffer("llama_token[]", tokens), tokens.size, True, False)
    assert count >= 0 and not lib.llama_vocab_is_eog(vocab, int(tokens[0]))
    return tokens[:count]


def embed(path: str, lines: list[str]) -> NDArray[np.float32]:
    """The C example's loop; it needs a model."""
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    context: struct_llama_context_p = ffi.NULL
    try:
        params = lib.llama_context_default_params()
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
        params.abort_callback = ffi.NULL
        context = lib.llama_init_from_model(model, params)
        vocab, width = lib.llama_model_get_vocab(model), lib.llama_model_n_embd_out(model)
        rows = np.empty((len(lines), width), np.float32)
        batch = lib.llama_batch_init(lib.llama_n_batch(context), 0, 1)
        for i, line in enumerate(lines):
            tokens = tokenize(vocab, line)
            batch.n_tokens = tokens.size
            batch.token[0 : tokens.size] = tokens.tolist()
            for j in range(tokens.size):
                batch.pos[j], batch.n_seq_id[j], batch.logits[j] = j, 1, 1
                batch.seq_id[j][0] = 0
            if memory := lib.llama_get_memory(context):
                lib.llama_memory_clear(memory, True)
            if lib.llama_decode(context, batch) < 0:
                raise RuntimeError(lib.llama_pooling_type(context))
            row = lib.llama_get_embeddings_seq(context, 0) or lib.llama_get_embeddings_ith(context, -1)
            rows[i] = np.frombuffer(ffi.buffer(row, width * ffi.sizeof("float")), np.float32)
        lib.llama_batch_free(batch)
        return rows
    finally:
        lib.llama_free(context)
        lib.llama_model_free(model)


def main(folder: Path) -> None:
    assert add_on_the_cpu() == [1, 3, 5]
    assert copy_through_a_backend(np.arange(4, dtype=np.float32)).tolist() == [0, 1, 2, 3]
    name, rate, count = optimiser()
    assert (name, round(rate, 6), count) == ("adamw", 0.001, 8)
    assert gguf_there_and_back(folder / "small.gguf") == {
        "number": 7, "flag": True, "text": "größe", "list": [0, 1, 2], "names": "two", "count": 5,
    }
    assert sample_greedily() == 5
    parameters()
    log_callback()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
