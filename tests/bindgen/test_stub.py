"""The zoo's stub: what a type checker and an editor make of it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bindgen.model import Headers
from bindgen.stub import write_stub

if TYPE_CHECKING:
    from .conftest import Zoo

Mypy = Callable[..., list[str]]
Parse = Callable[..., Headers]

RIGHT = """
from zoo import ffi, lib
from zoo._libllama import Array, Pointer, c_int, struct_zoo_animal, struct_zoo_animal_p, struct_zoo_cage_p, zoo_visit

number: int = lib.ZOO_INT + lib.ZOO_KIND_CAT + lib.ZOO_UNNAMED + lib.zoo_add(1, lib.ZOO_CAST)
half: float = lib.ZOO_HALF
name: bytes = ffi.string(lib.ZOO_PATH)
animal: struct_zoo_animal = lib.zoo_make(lib.ZOO_KIND_CAT, b"tim")
pointer: struct_zoo_animal_p = ffi.addressof(animal)
pointer = ffi.NULL
pointer = ffi.new("struct zoo_animal *", {"kind": 2})
same: struct_zoo_animal = pointer[0]
further: int = (pointer + 1).kind + (pointer - 1).kind + (pointer - pointer)
animals: Array[struct_zoo_animal, struct_zoo_animal] = ffi.new("struct zoo_animal[]", 3)
alive: bool = animals[1].alive and pointer.alive
pointer.next = animals
pointer.next = ffi.NULL
pointer.extra = animals
pointer.extra = ffi.new_handle("x")
pointer.name = b"tom"
pointer.name[0] = b"T"
pointer.legs = [[1, 2, 3], [4, 5, 6]]
pointer.legs[1][2] = 7
pointer.friends[0] = pointer.next
pointer.friends = [pointer, ffi.NULL]
pointer.bite = ffi.NULL
pointer.as_int, pointer.low, pointer.bits.f = 1, 2, 3.0
pointer.feeding[1].minute = pointer.owner.id
pointer.at = ffi.new("zoo_point *")[0]
bitten: bool = pointer.bite(pointer, [1, 2], 2) or pointer.bite(animals, ffi.new("zoo_id[]", 2), 2)


@ffi.callback("zoo_visit")
def visit(animal: struct_zoo_animal_p, user_data: object) -> bool:
    return animal.alive


def compare(a: object, b: object) -> int:
    return 0


count: int = lib.zoo_visit_all(animals, visit, ffi.new_handle(1)) + lib.zoo_visit_all(ffi.NULL, ffi.NULL, ffi.NULL)
another: zoo_visit = lib.zoo_default_visit()
lib.zoo_sort(ffi.new("int[]", 3), 3, ffi.callback("zoo_compare", compare))
lib.zoo_apply(ffi.callback("int(int)", lambda x: x), 3)
total: float = lib.zoo_total([1.0, 2.0], 2) + lib.zoo_total(ffi.new("float[]", 2), 2)
lib.zoo_scale(ffi.new("float[]", 2), 2)
lib.zoo_first([ffi.new("char[]", b"a")], 1)
lib.zoo_first(ffi.new("const char *[]", [lib.ZOO_NAME]), 1)
lib.zoo_fill(ffi.new("char[]", 4), b"abcd", lib.zoo_fill(pointer, animals, 4))
lib.zoo_write(ffi.new("char[]", 4), 4)
swapped: int = lib.zoo_swap(ffi.new("zoo_pair_t *")[0]).first + lib.zoo_swap(ffi.new("struct zoo_pair *")[0]).second
lib.zoo_printf(ffi.new("char[]", 4), 4, b"%d", ffi.cast("int", 3))
with open("f", "wb") as file:
    saved: bool = lib.zoo_save(file, b"x")
cage: struct_zoo_cage_p = lib.zoo_cage_open()
lib.zoo_cage_close(cage)
kinds = ffi.new("enum zoo_kind[]", 2)
kind: int = kinds[0] + lib.zoo_twice(2)
truths: list[bool] = ffi.unpack(ffi.new("bool[]", 2), 2)
numbers: list[int] = ffi.unpack(ffi.new("int[]", 2), 2)
part: Array[c_int, int] = ffi.new("int[]", 4)[1:3]
part[0:2] = [1, 2]
text: bytes = ffi.unpack(ffi.new("char[]", 2), 2)
text = ffi.string(ffi.new("uint8_t[]", b"x"))
memory: Array[c_int, int] = ffi.from_buffer("int[]", bytearray(8), require_writable=True)
where: Pointer[c_int, int] = ffi.from_buffer("int *", memoryview(b"12345678"))
size: int = ffi.sizeof("int") + ffi.sizeof(pointer) + len(memory) + sum(memory)
spelled: str = ffi.typeof(lib.zoo_add).args[0].cname
"""

WRONG = [
    ("lib.zoo_visit_all(animals, None, ffi.NULL)", "arg-type"),
    ("lib.zoo_visit_all(animal, visit, ffi.NULL)", "arg-type"),
    ("lib.zoo_visit_all(animals, ffi.callback('zoo_visit', compare), ffi.NULL)", "arg-type"),
    ("lib.zoo_sort(ffi.new('int32_t[]', 3), 3, visit)", "arg-type"),
    ("lib.zoo_total([b'1'], 1)", "list-item"),
    ("lib.zoo_scale([1.0], 2)", "arg-type"),
    ("lib.zoo_write(b'room', 4)", "arg-type"),
    ("lib.zoo_fill(b'room', b'abcd', 4)", "arg-type"),
    ("lib.zoo_fill(animal, b'abcd', 4)", "arg-type"),
    ("lib.zoo_swap(ffi.new('zoo_pair_t *'))", "arg-type"),
    ("lib.zoo_cage_close(pointer)", "arg-type"),
    ("lib.zoo_save('f', b'x')", "arg-type"),
    ("lib.zoo_printf(ffi.new('char[]', 4), 4, b'%d', 3)", "arg-type"),
    ("pointer.next = animal", "assignment"),
    ("pointer.extra = 3", "assignment"),
    ("pointer.name = 'tom'", "assignment"),
    ("pointer.legs = [1, 2]", "list-item"),
    ("pointer.friends[0] = animal", "call-overload"),
    ("pointer.friends[0] = cage", "call-overload"),
    ("pointer.bite(pointer, [1, 2])", "call-arg"),
    ("pointer.bits = 3.0", "assignment"),
    ("cage.animals", "attr-defined"),
    ("ffi.new('zoo_point[]', 2)[0].z", "attr-defined"),
    ("ffi.new('bool[]', 2).size", "attr-defined"),
    ("ffi.new('zoo_half_t *').size", "attr-defined"),
    ("ffi.new('enum zoo_kind *').size", "attr-defined"),
    ("ffi.new('zoo_mood *').size", "attr-defined"),
    ("ffi.new('zoo_pair_t *').third", "attr-defined"),
    ("ffi.new('union zoo_any *').third", "attr-defined"),
    ("lib.zoo_missing(1)", "attr-defined"),
    ("lib.ZOO_GONE", "attr-defined"),
    ("lib.ZOO_INT = 8", "misc"),
    ("ffi.string(ffi.new('int[]', 2))", "arg-type"),
    ("ffi.from_buffer('int[]', [1, 2])", "call-overload"),
    ("ffi.from_buffer(python_buffer=b'x')", "call-overload"),
]


def test_stub_is_clean(zoo: Zoo, mypy: Mypy) -> None:
    assert mypy(zoo.stub) == []


def test_right_and_wrong_uses(zoo: Zoo, mypy: Mypy, tmp_path: Path) -> None:
    """One run of mypy for all; each wrong use must have its error, and nothing else one."""
    file = tmp_path / "uses.py"
    file.write_text(RIGHT + "".join(f"{line}\n" for line, _ in WRONG), encoding="utf-8")
    said = [row.split(":", 2) for row in mypy(file, path=zoo.package.parent) if ": error: " in row]
    first = RIGHT.count("\n") + 1
    assert [(int(line), message) for _, line, message in said if int(line) < first] == []
    found = {WRONG[int(line) - first][0]: message.rpartition("[")[2].rstrip("]") for _, line, message in said}
    assert found == dict(WRONG)


def test_right_uses_run(zoo: Zoo, module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the type checker was asked to accept, cffi accepts as well."""
    monkeypatch.chdir(tmp_path)
    code = RIGHT.replace("pointer.bite = ffi.NULL", "pointer.bite = animal.bite")  # it is called further down
    code = code.replace("from zoo._libllama", "#")
    exec(compile("from __future__ import annotations\n" + code, "right.py", "exec"), {})


def test_deprecated_functions_are_marked(zoo: Zoo, mypy: Mypy, tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text("from zoo import lib\nlib.zoo_old_1(1)\nlib.zoo_old_2(1, 2)\nlib.zoo_new(1)\n"
                    "# mypy: enable-error-code=deprecated\n")
    said = mypy(file, path=zoo.package.parent)
    assert [row.split(":")[1] for row in said] == ["2", "3"]
    assert "use zoo_add instead" in said[0] and 'use "zoo_add"' in said[1]


def test_numpy_arrays_are_buffers(zoo: Zoo, mypy: Mypy, tmp_path: Path) -> None:
    file = tmp_path / "arrays.py"
    file.write_text("import numpy as np\nfrom zoo import ffi\nx = np.zeros(3, np.float32)\n"
                    "reveal_type(ffi.from_buffer('float[]', x))\nffi.memmove(x, b'1234', 4)\n"
                    "y = np.frombuffer(ffi.buffer(ffi.new('float[]', 3)), np.float32)\n")
    said = mypy(file, path=zoo.package.parent)
    assert len(said) == 1 and "Array[zoo._libllama.c_float, float]" in said[0]


# ---- the text


@pytest.fixture(scope="module")
def classes(zoo: Zoo) -> dict[str, ast.ClassDef]:
    tree = ast.parse(zoo.stub.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def doc_below(body: list[ast.stmt], name: str) -> str | None:
    """The string below `name: annotation`."""
    for row, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(row, ast.AnnAssign) and isinstance(row.target, ast.Name) and row.target.id == name:
            text = below.value if isinstance(below, ast.Expr) else None
            return inspect.cleandoc(str(text.value)).strip() if isinstance(text, ast.Constant) else None
    raise KeyError(name)


@pytest.mark.parametrize(
    ("owner", "name", "text"),
    [
        ("Lib", "ZOO_INT", "seven of them"),
        ("Lib", "ZOO_HEX", None),
        ("Lib", "ZOO_KIND_TIGER", "the same value again"),
        ("_struct_zoo_animal", "sound", "what it says,\nand says again"),
        ("_struct_zoo_animal", "mood", None),
    ],
)
def test_constants_and_fields(classes: dict[str, ast.ClassDef], owner: str, name: str, text: str | None) -> None:
    assert doc_below(classes[owner].body, name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("enum_zoo_kind", "What an animal is."),
        ("zoo_visit", "Called for each animal.\nReturning false ends the visit."),
    ],
)
def test_enums_and_callbacks(zoo: Zoo, name: str, text: str) -> None:
    assert doc_below(ast.parse(zoo.stub.read_text(encoding="utf-8")).body, name) == text


def test_functions(classes: dict[str, ast.ClassDef]) -> None:
    functions = {node.name: node for node in classes["Lib"].body if isinstance(node, ast.FunctionDef)}
    assert (ast.get_docstring(functions["zoo_add"]) or "").startswith("The sum of two ids.\n\nzoo.h:")
    assert "Deprecated: use zoo_add instead" in (ast.get_docstring(functions["zoo_old_1"]) or "")
    arguments = [one.arg for one in functions["zoo_keywords"].args.posonlyargs]
    assert arguments == ["self", "from_", "lambda_", "self_", "arg3"]
    assert "zoo_missing" not in functions


@pytest.mark.parametrize(
    "comment", ['ends with a "quote"', "ends with a backslash \\", 'three """ quotes', "a \\n b \\", "größe 日本 🦙"]
)
def test_docstrings_survive_any_comment(parsed: Parse, comment: str) -> None:
    stub = write_stub(parsed(f"/* {comment} */\nvoid f(void);\n/* {comment} */\n#define X 1\n"), {"f"})
    lib = next(node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef) and node.name == "Lib")
    function = next(node for node in lib.body if isinstance(node, ast.FunctionDef))
    assert (ast.get_docstring(function) or "").startswith(comment.replace('"""', "'''"))
    assert doc_below(lib.body, "X") == comment.replace('"""', "'''")


def test_names_that_python_cannot_take(parsed: Parse, mypy: Mypy, tmp_path: Path) -> None:
    """Keywords as fields and arguments, an argument with its type's name, a field `p`: pointers end with _p."""
    headers = parsed("""
        typedef int kind;
        enum class { A };
        struct s { int from; int b; struct { int c; } p; };
        kind kind_of(kind k);
        enum class f(struct s * from);
        void kind_(kind kind);
    """)
    stub = write_stub(headers, {"kind_of", "f", "kind_"})
    file = tmp_path / "names.pyi"
    file.write_text(stub)
    assert mypy(file) == []
    assert "`from` is a Python keyword" in stub


def test_enum_that_is_only_named(parsed: Parse, mypy: Mypy, tmp_path: Path) -> None:
    """GCC takes it, as a pointer's target."""
    file = tmp_path / "unseen.pyi"
    headers = parsed("enum unseen;\nvoid f(enum unseen * x);\nstruct s { enum unseen * y; };\n")
    file.write_text(write_stub(headers, {"f"}))
    assert mypy(file) == []
    assert "enum_unseen: TypeAlias = int" in file.read_text()


def test_function_with_a_typedefs_name(parsed: Parse, mypy: Mypy, tmp_path: Path) -> None:
    """Inside the class Lib, the name is the function: the typedef must not be used there."""
    headers = parsed("typedef int llama_kind;\ntypedef void (*call)(int);\nllama_kind a(llama_kind x, call y);\n"
                     "int b(void);\n")
    assert "def a(self, x: llama_kind, y: call, /) -> llama_kind" in write_stub(headers, {"a", "b"})
    headers.functions["llama_kind"] = headers.functions.pop("b")
    object.__setattr__(headers.functions["llama_kind"], "name", "llama_kind")
    assert "def a(self, x: int, y: call, /) -> int" in write_stub(headers, {"a", "llama_kind"})
