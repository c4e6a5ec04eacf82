"""Header text to records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cffi
import pytest
from bindgen.cdef import write_cdef
from bindgen.ctype import (
    Array,
    Callback,
    CType,
    EnumType,
    Pointer,
    Scalar,
    StructType,
    Void,
    is_variadic,
    parameters,
    resolve,
    signature,
)
from bindgen.model import Headers
from bindgen.parse import ParseError

Parse = Callable[..., Headers]


def types_of(headers: Headers, name: str) -> tuple[tuple[CType, ...], CType]:
    return signature(headers.functions[name].type, headers)


def fields(headers: Headers, name: str) -> dict[str, CType]:
    members = headers.structs[name].members
    assert members is not None
    return {one.name: resolve(one.type, headers) for one in members}


# ---- functions


def test_function(parsed: Parse) -> None:
    headers = parsed("\nextern int add(int a, float * b);\nvoid none(void);\nvoid old();\n")
    function = headers.functions["add"]
    assert (function.origin.header, function.origin.line) == ("api.h", 2)
    assert (function.inline, function.deprecated) == (False, None)
    assert types_of(headers, "add") == ((Scalar("int"), Pointer(Scalar("float"))), Scalar("int"))
    assert [one.name for one in parameters(function.type)] == ["a", "b"]
    assert types_of(headers, "none") == types_of(headers, "old") == ((), Void())


def test_inline_function(parsed: Parse) -> None:
    headers = parsed("""
        static inline int twice(int x) {
            int y = x; { y *= 2; }
            return y;
        }
        static __inline__ int thrice(int x);
        int plain(int x);
    """)
    inline = {name: one.inline for name, one in headers.functions.items()}
    assert inline == {"twice": True, "thrice": True, "plain": False}


def test_variadic_function(parsed: Parse) -> None:
    headers = parsed("int print(const char * format, ...) __attribute__((format(printf, 1, 2)));\nint plain(int x);\n")
    assert is_variadic(headers.functions["print"].type) and not is_variadic(headers.functions["plain"].type)
    assert types_of(headers, "print")[0] == (Pointer(Scalar("char"), const=True),)


def test_pointers(parsed: Parse) -> None:
    headers = parsed("const char ** names(char ** out, const char * const * in, void * any, const void * from);\n")
    text = Pointer(Scalar("char"))
    fixed = Pointer(Scalar("char"), const=True)
    arguments = (Pointer(text), Pointer(fixed, const=True), Pointer(Void()), Pointer(Void(), const=True))
    assert types_of(headers, "names") == (arguments, Pointer(fixed))


def test_array_argument_is_a_pointer(parsed: Parse) -> None:
    headers = parsed("void scale(float values[4], int n[]);\nvoid same(const int (*a)[4]);\n")
    assert types_of(headers, "scale")[0] == (Pointer(Scalar("float")), Pointer(Scalar("int")))
    assert types_of(headers, "same")[0] == (Pointer(Array(Scalar("int"))),)


@pytest.mark.parametrize(
    ("written", "canonical"),
    {
        "unsigned": "unsigned int",
        "long unsigned int": "unsigned long",
        "signed": "int",
        "short int": "short",
        "long long int": "long long",
        "signed char": "signed char",
        "char unsigned": "unsigned char",
        "bool": "_Bool",
        "uint8_t": "uint8_t",
    }.items(),
)
def test_spellings_of_numbers(parsed: Parse, written: str, canonical: str) -> None:
    headers = parsed(f"#include <stdbool.h>\n#include <stdint.h>\n{written} f(void);\n")
    assert types_of(headers, "f")[1] == Scalar(canonical)


def test_bool_as_a_keyword(parsed: Parse) -> None:
    """In C23, `bool` is no macro any more."""
    assert types_of(parsed("bool f(bool x);\n"), "f") == ((Scalar("_Bool"),), Scalar("_Bool"))


# ---- deprecated functions

DEPRECATED = """
#define API __attribute__((visibility("default"))) extern
#define DEPRECATED(func, hint) func __attribute__((deprecated(hint)))
int before(int x);
"""


@pytest.mark.parametrize(
    "declaration",
    [
        'DEPRECATED(API int old(int x, struct s * s), "use " "new");',
        'API DEPRECATED(int old(int x, struct s * s), "use new");',
        'DEPRECATED(API struct s * old(int x),\n    "use new");',
        'DEPRECATED(API int old(\n    int x,\n    int y),\n    "use new"\n);',
    ],
)
def test_deprecated(parsed: Parse, declaration: str) -> None:
    headers = parsed(DEPRECATED + declaration + "\nAPI int after(int x);\n")
    assert {name: one.deprecated for name, one in headers.functions.items()} == {
        "before": None,
        "old": "use new",
        "after": None,
    }


def test_deprecated_without_a_hint(parsed: Parse) -> None:
    headers = parsed("int old(int x) __attribute__((__deprecated__));\nint plain(void);\n")
    assert (headers.functions["old"].deprecated, headers.functions["plain"].deprecated) == ("", None)


def test_deprecated_below_a_folder_with_brackets(parsed: Parse) -> None:
    """The compiler writes the file's name between the statements."""
    headers = parsed('int old(int x) __attribute__((deprecated("use new")));\n', folder="api (1)")
    assert headers.functions["old"].deprecated == "use new"


def test_deprecated_with_quotes(parsed: Parse) -> None:
    headers = parsed('int old(int x) __attribute__((deprecated("use \\"new\\", not \\\\")));\n')
    assert headers.functions["old"].deprecated == 'use "new", not \\'


# ---- structs


def test_complete_and_opaque_structs(parsed: Parse) -> None:
    headers = parsed("""
        struct later;
        struct seen { int a; };
        typedef struct only_named * handle;
        void f(struct argument * x);
        struct later { float b; };
        struct later;
    """)
    members = {name: one.members and [field.name for field in one.members] for name, one in headers.structs.items()}
    assert members == {"later": ["b"], "seen": ["a"], "only_named": None, "argument": None}
    assert all(one.tagged for one in headers.structs.values())


def test_typedefs_of_structs(parsed: Parse) -> None:
    headers = parsed("""
        typedef struct { int a; } bare;
        typedef struct tag { int b; } named;
        typedef union { int c; } any;
        bare f(named x, any * y);
    """)
    found = {name: (one.kind, one.tagged) for name, one in headers.structs.items()}
    assert found == {"bare": ("struct", False), "tag": ("struct", True), "any": ("union", False)}
    assert types_of(headers, "f") == ((StructType("tag"), Pointer(StructType("any"))), StructType("bare"))


def test_two_names_for_one_body(parsed: Parse) -> None:
    headers = parsed("typedef struct { int a; } one, * two;\ntypedef enum { A } three, four;\n")
    assert (list(headers.structs), [one.name for one in headers.enums]) == (["one"], ["three"])
    found = [resolve(headers.typedefs[name].type, headers) for name in ("two", "four")]
    assert found == [Pointer(StructType("one")), EnumType("three")]


def test_unnamed_members_belong_to_the_struct(parsed: Parse) -> None:
    headers = parsed("""
        struct s {
            int a;
            union {
                int b;
                struct { int c, d; };
            };
            int e;
        };
    """)
    assert list(fields(headers, "s")) == ["a", "b", "c", "d", "e"]
    assert list(headers.structs) == ["s"]


def test_structs_inside_structs(parsed: Parse) -> None:
    headers = parsed("""
        struct s {
            struct { int a; } one;
            union { int b; } many[3];
            struct { int c; } * far;
            struct inner { int d; } named;
        };
        void f(struct inner * x);
    """)
    assert fields(headers, "s") == {
        "one": StructType("s__one"),
        "many": Array(StructType("s__many")),
        "far": Pointer(StructType("s__far")),
        "named": StructType("inner"),
    }
    inner = [list(fields(headers, name)) for name in ("s__one", "s__many", "s__far", "inner")]
    assert inner == [["a"], ["b"], ["c"], ["d"]]
    assert (headers.structs["s__many"].kind, headers.structs["inner"].tagged) == ("union", True)


def test_fields(parsed: Parse) -> None:
    headers = parsed("""
        enum e { A };
        typedef struct hidden * hidden_t;
        struct s {
            enum e kind;
            char name[2 + 2];
            float grid[2][3];
            hidden_t h;
            const char ** names;
            struct s * next;
            bool (*call)(struct s *, const void *);
            unsigned bits : 3;
        };
    """)
    assert fields(headers, "s") == {
        "kind": EnumType("e"),
        "name": Array(Scalar("char")),
        "grid": Array(Array(Scalar("float"))),
        "h": Pointer(StructType("hidden")),
        "names": Pointer(Pointer(Scalar("char"), const=True)),
        "next": Pointer(StructType("s")),
        "call": Callback((Pointer(StructType("s")), Pointer(Void(), const=True)), Scalar("_Bool")),
        "bits": Scalar("unsigned int"),
    }


# ---- enums


def test_enums(parsed: Parse) -> None:
    headers = parsed("""
        enum tagged {
            A = 1 << 2,
            B = A,
            C = sizeof(int) + 'x',
        };
        typedef enum { D } bare;
        enum { E = -1 };
        enum tagged f(bare x);
        enum tagged;
    """)
    found = [(one.name, one.tagged, [constant.name for constant in one.constants]) for one in headers.enums]
    assert found == [("tagged", True, ["A", "B", "C"]), ("bare", False, ["D"]), ("", False, ["E"])]
    assert types_of(headers, "f") == ((EnumType("bare"),), EnumType("tagged"))


def test_enums_inside_structs(parsed: Parse) -> None:
    headers = parsed("struct s {\n  enum inner { A, B } named;\n  enum { C } bare;\n};\n")
    assert [(one.name, [constant.name for constant in one.constants]) for one in headers.enums] == [
        ("inner", ["A", "B"]),
        ("s__bare", ["C"]),
    ]
    assert fields(headers, "s") == {"named": EnumType("inner"), "bare": EnumType("s__bare")}


# ---- callbacks


def test_callbacks(parsed: Parse) -> None:
    headers = parsed("""
        typedef bool (*pointer)(int x, void * user_data);
        typedef int function(int);
        typedef pointer again;
        void f(pointer a, function * b, int c(int), pointer * d);
        pointer g(void);
    """)
    assert list(headers.callbacks) == ["pointer"]
    pointer = Callback((Scalar("int"), Pointer(Void())), Scalar("_Bool"), "pointer")
    function = Callback((Scalar("int"),), Scalar("int"))
    a, b, c, d = types_of(headers, "f")[0]
    assert (a, c, d) == (pointer, function, Pointer(pointer))
    assert b == Callback(function.arguments, function.result, "function")
    assert types_of(headers, "g")[1] == pointer


def test_function_that_returns_a_function_pointer(parsed: Parse) -> None:
    headers = parsed("void (*handler(void (*new)(int)))(int);\n")
    inner = Callback((Scalar("int"),), Void())
    assert types_of(headers, "handler") == ((inner,), inner)


# ---- constants


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("7", "int"),
        ("0x67676d6cu", "int"),
        ("-1", "int"),
        ("'a'", "int"),
        ("(1 << 4 | 2)", "int"),
        ("sizeof(struct s)", "int"),
        ("sizeof(number)", "int"),
        ("OTHER", "int"),
        ("(OTHER + 1)", "int"),
        ("ENUMERATOR", "int"),
        ("((number) -1)", "int"),
        ("((enum e) 1)", "int"),
        ("(FIXED * 2)", "int"),
        ("1 ? 2 : 3", "int"),
        ("1.5", "float"),
        ("-1e9f", "float"),
        ("(1 + .5)", "float"),
        ("((float) 1)", "float"),
        ("((int) 1.5)", "int"),
        ('"text"', "str"),
        ('"one" "two"', "str"),
        ('TEXT "OTHER"', "str"),
        ('("text" + 1)', None),
        ("", None),
        ("int", None),
        ("UNKNOWN", None),
        ("call(1)", None),
        ("{ 1 }", None),
        ("NAME", None),
        ("((void) 0)", None),
        ("((void *) 0)", None),
        ("((struct s *) 0)", None),
        ("1; int more = 2", None),
        pytest.param("__attribute__((visibility(\"default\")))", None, id="attribute"),
    ],
)
def test_macro(parsed: Parse, body: str, kind: str | None) -> None:
    headers = parsed(f"""
        #define OTHER 1
        #define TEXT "text"
        struct s {{ int a; }};
        enum e {{ ENUMERATOR }};
        typedef int number;
        static const int FIXED = 3;
        #define NAME {body}
    """)
    constant = headers.constants.get("NAME")
    assert (constant.kind if constant else None) == kind
    assert ("NAME" in headers.function_macros) == (kind is None)


def test_macro_origin(parsed: Parse) -> None:
    constant = parsed("\n// what it is\n#define NAME \\\n  3\n").constants["NAME"]
    assert (constant.origin.line, constant.doc, constant.macro) == (3, "what it is", True)


@pytest.mark.parametrize(
    ("declaration", "kind"),
    {
        "static const int X = 3;": "int",
        "static const uint64_t X = 1ull << 63;": "int",
        "static const number X = 3;": "int",
        "static const float X = 1.5f;": "float",
        "static const double X = 1;": "float",
        'static const char * X = "x";': "str",
        'static const char * const X = "x";': "str",
        'static const char X[] = "x";': "str",
    }.items(),
)
def test_static_const(parsed: Parse, declaration: str, kind: str) -> None:
    headers = parsed(f"#include <stdint.h>\ntypedef int number;\n{declaration}\n")
    assert (headers.constants["X"].kind, headers.constants["X"].macro) == (kind, False)


# ---- the rest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extern int counter;\n", "counter is a variable"),
        ("static const int many[] = { 1, 2 };\n", "many is a variable"),
        ("int f(unheard_of x);\n", "api.h:1"),
        ("int f(int x) __attribute__((deprecated(\n", "does not end"),
    ],
)
def test_what_is_not_understood_is_named(parsed: Parse, text: str, said: str) -> None:
    with pytest.raises(ParseError, match=said):
        parsed(text)


def test_extensions_and_repeated_declarations(parsed: Parse) -> None:
    headers = parsed("""
        typedef int number;
        typedef int number;
        __extension__ typedef long long wide;
        _Static_assert(sizeof(int) == 4, "small");
        void f(const char * __restrict__ a);
        void f(const char * a);
        _Noreturn void stop(void);
    """)
    assert list(headers.typedefs) == ["number", "wide"]
    assert list(headers.functions) == ["f", "stop"]
    cffi.FFI().cdef(write_cdef(headers, headers.functions))


def test_files_in_the_order_met(parsed: Parse, tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "first.h").write_text("void first(void);\n")
    (tmp_path / "include" / "macros.h").write_text("#define ONE 1\n")
    headers = parsed('#include "first.h"\n#include "macros.h"\nvoid second(void);\n')
    assert headers.files == ["first.h", "api.h", "macros.h"]
