"""The zoo, bound: cffi takes the cdef, and the module has C's values, sizes and offsets."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import COMPILER, Zoo

STRUCTS = ["struct zoo_animal", "zoo_point", "struct zoo_pair", "zoo_pair_t", "union zoo_any", "struct zoo_owner"]


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "ZOO_INT": 7,
        "ZOO_HEX": 0xFFFFFFFF,
        "ZOO_NEGATIVE": -3,
        "ZOO_BIG": 1 << 63,
        "ZOO_SUM": 8,
        "ZOO_CHAR": ord("z"),
        "ZOO_CAST": -1,
        "ZOO_CAST_FLOAT": 1.0,
        "ZOO_ENUM": 2,
        "ZOO_PI": 3.25,
        "ZOO_HALF": 1.625,
        "ZOO_ALIAS": 8,
        "ZOO_STATIC": 42,
        "ZOO_STATIC_FLOAT": 0.5,
        "ZOO_KIND_NONE": -1,
        "ZOO_KIND_CAT": 2,
        "ZOO_KIND_TIGER": 2,
        "ZOO_KIND_DOG": 3,
        "ZOO_KIND_MAX": 40,
        "ZOO_MOOD_BAD": 1,
        "ZOO_UNNAMED": 11,
        "ZOO_DIET_HAY": 6,
    }.items(),
)
def test_number(module: Any, name: str, value: float) -> None:
    constant = getattr(module.lib, name)
    assert (constant, type(constant)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "value"), {"ZOO_NAME": b"zoo", "ZOO_PATH": b"zoo/animals", "ZOO_STATIC_NAME": b"static"}.items()
)
def test_string(module: Any, name: str, value: bytes) -> None:
    assert module.ffi.string(getattr(module.lib, name)) == value


def test_sizeof_macro(module: Any) -> None:
    assert 2 * module.ffi.sizeof("struct zoo_animal") == module.lib.ZOO_SIZE


def test_no_more_names_than_the_header(module: Any) -> None:
    names = {"ZOO_EMPTY", "ZOO_MAX", "ZOO_NULL", "ZOO_NOTHING", "ZOO_INITIALIZER", "ZOO_TYPE", "ZOO_LOOP", "ZOO_GONE"}
    assert not names & set(dir(module.lib))


@pytest.mark.parametrize("struct", STRUCTS)
def test_sizes_and_offsets(module: Any, zoo: Zoo, tmp_path: Path, struct: str) -> None:
    fields = [name for name, _ in module.ffi.typeof(struct).fields if name]
    program, source = tmp_path / "sizes", tmp_path / "sizes.c"
    rows = [f"sizeof({struct})", f"_Alignof({struct})"]
    rows += [f"offsetof({struct}, {name}), sizeof((({struct} *) 0)->{name})" for name in fields]
    source.write_text('#include <stdio.h>\n#include "zoo.h"\nint main(void) {\n  size_t all[] = {' + ", ".join(rows)
                      + '};\n  for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) printf("%zu\\n", all[i]);\n}\n')
    subprocess.run([*COMPILER, f"-I{zoo.package / 'include'}", "-o", program, source], check=True)
    truth = [int(row) for row in subprocess.check_output([program], text=True).split()]

    found = [module.ffi.sizeof(struct), module.ffi.alignof(struct)]
    for name in fields:
        field = dict(module.ffi.typeof(struct).fields)[name]
        found += [module.ffi.offsetof(struct, name), module.ffi.sizeof(field.type)]
    assert len(fields) >= 1
    assert found == truth


def test_arrays_with_expression_sizes(module: Any) -> None:
    fields = dict(module.ffi.typeof("struct zoo_animal").fields)
    assert fields["name"].type.cname == "char[32]"
    assert fields["legs"].type.cname == "int8_t[2][3]"


def test_struct_by_value(module: Any) -> None:
    animal = module.lib.zoo_make(module.lib.ZOO_KIND_TIGER, b"tim")
    assert (animal.kind, module.ffi.string(animal.name), animal.alive) == (2, b"tim", True)
    assert (animal.low, animal.high, animal.as_int) == (1, 2, 0x0201)  # the union without a name
    assert (animal.bits.u, animal.feeding[2].minute) == (0x3F800000, 30)
    pair = module.lib.zoo_swap({"first": 1, "second": 2})
    assert (pair.first, pair.second) == (2, 1)


def test_bit_fields(module: Any) -> None:
    flags = module.lib.zoo_flags_of(21, True)
    assert (flags.age, flags.wild) == (21, 1)


def test_function_pointer_in_a_struct(module: Any) -> None:
    animal = module.ffi.new("struct zoo_animal *", module.lib.zoo_make(1, b"x"))
    assert animal.bite(animal, [1, 9], 2) is True
    assert animal.bite(animal, [1, 8], 2) is False


def test_callbacks(module: Any) -> None:
    ffi, lib = module.ffi, module.lib
    seen = []

    @ffi.callback("zoo_visit")
    def visit(animal: Any, user_data: Any) -> bool:
        seen.append(ffi.from_handle(user_data))
        return bool(animal.next)

    second = ffi.new("struct zoo_animal *")
    first = ffi.new("struct zoo_animal *", {"next": second})
    me = ffi.new_handle("me")
    assert lib.zoo_visit_all(first, visit, me) == 1
    assert seen == ["me", "me"]
    assert lib.zoo_visit_all(first, lib.zoo_default_visit(), first) == 1

    move = ffi.callback("zoo_move", lambda at, by: {"x": at.x + by, "y": at.y - by})
    assert lib.zoo_walk(move, {"x": 1, "y": 1}).y == 0.5

    values = ffi.new("int[]", [3, 1, 2])
    pointers = [ffi.callback("zoo_compare *", lambda a, b: ffi.cast("int *", a)[0] - ffi.cast("int *", b)[0])]
    lib.zoo_sort(values, 3, pointers[0])
    assert list(values) == [1, 2, 3]
    assert lib.zoo_apply(ffi.callback("int(int)", lambda x: x + 1), 1) == 2


def test_inline_variadic_and_opaque(module: Any) -> None:
    ffi, lib = module.ffi, module.lib
    assert lib.zoo_twice(4) == 8
    text = ffi.new("char[]", 16)
    assert lib.zoo_printf(text, 16, b"%d", ffi.cast("int", 12)) == 2
    assert ffi.string(text) == b"12"
    cage = lib.zoo_cage_open()
    assert ffi.typeof(cage).cname == "struct zoo_cage *"
    lib.zoo_cage_close(cage)
    assert ffi.typeof("struct zoo_hidden").kind == "struct"
    with pytest.raises(ffi.error):
        ffi.sizeof("struct zoo_hidden")


def test_pointers_and_arrays_as_arguments(module: Any, tmp_path: Path) -> None:
    ffi, lib = module.ffi, module.lib
    assert lib.zoo_total([0.5, 0.25], 2) == 0.75
    values = ffi.new("float[]", [1, 2])
    lib.zoo_scale(values, 2)
    assert list(values) == [2, 4]
    names = [ffi.new("char[]", b"a"), ffi.new("char[]", b"b")]
    assert ffi.string(lib.zoo_first(names, 2)) == b"a"
    memory = ffi.new("char[4]")
    assert lib.zoo_fill(memory, b"abcd", 4) == 4
    assert bytes(ffi.buffer(memory)) == b"abcd"
    assert lib.zoo_long(2**40) == 2**40
    assert lib.zoo_same([[1, 2, 3, 4]], [[1, 2, 3, 4]]) is True
    with (tmp_path / "saved").open("wb") as file:
        assert lib.zoo_save(file, b"saved")
    assert (tmp_path / "saved").read_bytes() == b"saved"


def test_deprecated_functions_are_bound(module: Any) -> None:
    assert (module.lib.zoo_old_1(1), module.lib.zoo_old_2(1, 2), module.lib.zoo_new(3)) == (1, 3, 3)
