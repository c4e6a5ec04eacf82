"""The installed stub: mypy accepts right uses of the whole API and rejects wrong ones, each on its line."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Mypy = Callable[..., list[str]]

PREFACE = """
from rawllama import ffi, lib

model = lib.llama_model_load_from_file(b"m", lib.llama_model_default_params())
context = lib.llama_init_from_model(model, lib.llama_context_default_params())
vocab = lib.llama_model_get_vocab(model)
batch = lib.llama_batch_init(8, 0, 1)
params = lib.llama_context_default_params()
floats, ints = ffi.new("float[]", 8), ffi.new("int32_t *")
data: bytes


def abort(user_data: object) -> bool: return False
def progress(done: float, user_data: object) -> bool: return True
def words(user_data: object) -> str: return ""
"""

# What is wrong, the line that does it, mypy's word for the error.
WRONG = [
    ("another struct's pointer", "lib.llama_decode(model, batch)", "arg-type"),
    ("float * for int32_t *", "lib.llama_tokenize(vocab, b'a', 1, floats, 8, True, True)", "arg-type"),
    ("int32_t * for float *", "lib.ggml_fp32_to_fp16_row(ints, ffi.new('ggml_fp16_t[]', 1), 1)", "arg-type"),
    ("pointer for a struct by value", "lib.llama_decode(context, ffi.new('struct llama_batch *'))", "arg-type"),
    ("struct by value for a pointer", "lib.llama_n_ctx(batch)", "arg-type"),
    ("struct by value for void *", "lib.ggml_opt_get_default_optimizer_params(batch)", "arg-type"),
    ("missing argument", "lib.llama_set_n_threads(context, 1)", "call-arg"),
    ("one argument too many", "lib.llama_n_ctx(context, 1)", "call-arg"),
    ("argument by name", "lib.llama_n_ctx(ctx=context)", "call-arg"),
    ("str for const char *", "lib.llama_load_mode_from_str('mmap')", "arg-type"),
    ("bytes for char *", "lib.llama_model_desc(model, b'room', 4)", "arg-type"),
    ("bytes for void *", "lib.gguf_get_meta_data(lib.gguf_init_empty(), b'1234')", "arg-type"),
    ("float * for uint8_t *", "lib.llama_state_get_data(context, floats, 4)", "arg-type"),
    ("float for int", "lib.llama_set_n_threads(context, 1.5, 1)", "arg-type"),
    ("None for a pointer", "lib.llama_n_ctx(None)", "arg-type"),
    ("unknown function", "lib.llama_embed(context)", "attr-defined"),
    ("unknown constant", "lib.LLAMA_POOLING_TYPE_MAX", "attr-defined"),
    ("constant assigned to", "lib.LLAMA_POOLING_TYPE_MEAN = 3", "misc"),
    ("unknown field", "params.n_context = 5", "attr-defined"),
    ("field of another type", "params.n_ctx = b'512'", "assignment"),
    ("field set to another struct's pointer", "ffi.new('struct ggml_tensor *').buffer = context", "assignment"),
    ("item of another type", "floats[0] = b'1'", "call-overload"),
    ("another callback", "params.abort_callback = ffi.callback('llama_progress_callback', progress)", "assignment"),
    ("callback's arguments", "params.abort_callback = ffi.callback('ggml_abort_callback', progress)", "assignment"),
    ("callback's result", "params.abort_callback = ffi.callback('ggml_abort_callback', words)", "assignment"),
    ("callback as decorator", "ffi.callback('ggml_abort_callback')(progress)", "arg-type"),
    ("callback called wrongly", "params.abort_callback(1)", "arg-type"),
    ("result used as another type", "data = lib.llama_vocab_get_text(vocab, 1)", "assignment"),
    ("pointers to pointers", "lib.llama_log_get(ffi.new('float *'), floats)", "arg-type"),
]


@pytest.fixture(scope="module")
def package() -> Path:
    spec = find_spec("rawllama")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def stub(package: Path) -> dict[str, ast.AST]:
    """All classes of the stub and the functions of `Lib` by name."""
    tree = ast.parse((package / "_libllama.pyi").read_text(encoding="utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}


@pytest.fixture(scope="module")
def output(mypy: Mypy, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """mypy's errors on the wrong uses, by line."""
    file = tmp_path_factory.mktemp("wrong") / "wrong.py"
    file.write_text(PREFACE + "".join(f"{line}\n" for _, line, _ in WRONG), encoding="utf-8")
    rows = [row.split(":", 2) for row in mypy(file) if ": error: " in row]
    assert all(Path(name).name == "wrong.py" for name, _, _ in rows)
    errors: dict[int, str] = {}
    for _, line, message in rows:
        errors[int(line)] = errors.get(int(line), "") + message
    return errors


def test_right_uses(mypy: Mypy) -> None:
    assert mypy(HERE / "typed_use.py") == []


def test_right_uses_run(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-I", HERE / "typed_use.py", tmp_path], check=True, timeout=60)


def test_right_uses_cover_the_headers(package: Path, stub: dict[str, ast.AST]) -> None:
    names = set(re.findall(r"\blib\.([a-z]\w+)\(", (HERE / "typed_use.py").read_text(encoding="utf-8")))
    assert len(names) >= 50
    docs = [ast.get_docstring(stub[name]) or "" for name in names]  # type: ignore[arg-type]
    headers = {doc.split("\n")[-1].partition(":")[0] for doc in docs}
    assert headers == {"llama.h", "ggml.h", "ggml-alloc.h", "ggml-backend.h", "ggml-cpu.h", "ggml-opt.h", "gguf.h"}


@pytest.mark.parametrize("index", range(len(WRONG)), ids=[name for name, _, _ in WRONG])
def test_wrong_use(output: dict[int, str], index: int) -> None:
    said = output.get(PREFACE.count("\n") + 1 + index, "accepted")
    assert f"[{WRONG[index][2]}]" in said, said


def test_right_lines_before_the_wrong_ones(output: dict[int, str]) -> None:
    assert min(output) == PREFACE.count("\n") + 1


def test_mypy_reads_the_installed_package(mypy: Mypy, package: Path, tmp_path: Path) -> None:
    file = tmp_path / "reveal.py"
    file.write_text("from rawllama import ffi, lib\nreveal_type(ffi)\nreveal_type(lib.llama_n_ctx)\n")
    shown = "\n".join(mypy(file))
    assert 'Revealed type is "rawllama._libllama.FFI"' in shown
    assert "Pointer[rawllama._libllama.struct_llama_context, rawllama._libllama.struct_llama_context]" in shown
    assert (package / "py.typed").exists()
    assert Path(package).name == "rawllama" and not package.is_relative_to(HERE.parents[1] / "python")


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "llama_n_ctx": "llama.h:",
        "llama_get_embeddings_seq": "Get the embeddings for a sequence id",
        "llama_decode": "Requires the context to have a memory",
        "llama_n_embd": "Deprecated: use llama_model_n_embd instead",
        "ggml_guid_matches": "ggml.h:",
        "gguf_get_arr_str": "get ith C string from array with given key_id",
        "struct_ggml_tensor_p": "n-dimensional tensor",
    }.items(),
)
def test_docstrings_are_the_headers_comments(stub: dict[str, ast.AST], name: str, words: str) -> None:
    assert words in (ast.get_docstring(stub[name]) or "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "doc"),
    [
        ("n_ubatch: int", "physical maximum batch size"),
        ("LLAMA_POOLING_TYPE_RANK: Final[enum_llama_pooling_type]", "used by reranking models"),
    ],
)
def test_fields_and_constants_are_documented(package: Path, row: str, doc: str) -> None:
    assert re.search(rf'{re.escape(row)}\n\s+r"""{doc}', (package / "_libllama.pyi").read_text(encoding="utf-8"))


def test_stub_itself_is_clean(mypy: Mypy, package: Path, tmp_path: Path) -> None:
    """mypy keeps silent about errors in installed packages; so does nobody else's checker."""
    copy = tmp_path / "copied.pyi"
    copy.write_bytes((package / "_libllama.pyi").read_bytes())
    assert mypy(copy) == []


def test_stub_has_the_modules_names(package: Path) -> None:
    """Nothing added, nothing hidden: the stub and the module name the same things."""
    code = "import json; from rawllama import ffi, lib; print(json.dumps([dir(lib), dir(ffi)]))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    in_lib, in_ffi = (set(names) for names in json.loads(done.stdout))
    tree = ast.parse((package / "_libllama.pyi").read_text(encoding="utf-8"))
    classes = {node.name: _members(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes["Lib"] == in_lib
    in_stub = classes["FFI"] | classes["_FFI"]
    systems_own = {name for name in in_ffi | in_stub if name.startswith("RTLD_")}
    assert in_stub - systems_own == {name for name in in_ffi - systems_own if not name.startswith("_")}


def _members(node: ast.ClassDef) -> set[str]:
    functions = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    for one in node.body:
        if isinstance(one, ast.If):
            functions |= {inner.name for inner in one.body if isinstance(inner, ast.FunctionDef)}
    rows = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
    return functions | {target.id for target in rows if isinstance(target, ast.Name)}
