"""The header's comments, found again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bindgen.model import Headers

Parse = Callable[..., Headers]


def doc(headers: Headers, name: str = "f") -> str:
    return headers.functions[name].doc


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ("// above\n", "above"),
        ("// one\n// two\n//\n//   - three\n", "one\ntwo\n\n  - three"),
        ("/* block */\n", "block"),
        ("/* block\n * of two\n */\n", "block\nof two"),
        ("/// doxygen\n", "doxygen"),
        ("/** @brief doxygen\n * @param a it\n */\n", "doxygen\n@param a it"),
        ("// @details much\n", "much"),
        ("//   indented\n//     more\n", "indented\n  more"),
        ('// "quotes" and \\ and /* stars\n', '"quotes" and \\ and /* stars'),
        ("// grün 日本 🦙\n", "grün 日本 🦙"),
    ],
)
def test_above(parsed: Parse, comment: str, text: str) -> None:
    assert doc(parsed(f"void before(void);\n\n{comment}void f(void);\n")) == text


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        ("// behind\n", "behind"),
        ("//< behind\n", "behind"),
        ("/* behind */\n", "behind"),
        ("// behind\n              // and below\n", "behind\nand below"),
    ],
)
def test_behind(parsed: Parse, comment: str, text: str) -> None:
    headers = parsed(f"void f(void); {comment}void g(void);\n")
    assert (doc(headers), doc(headers, "g")) == (text, "")


def test_above_and_behind(parsed: Parse) -> None:
    assert doc(parsed("// above\nvoid f(void); // behind\n")) == "above\nbehind"


@pytest.mark.parametrize(
    "text",
    [
        "// far away\n\nvoid f(void);\n",
        "//\n// a section\n//\n\nvoid f(void);\n",
        "void g(void); // g's\nvoid f(void);\n",
        "void f(void);\n// below\n",
        "#define X 1 // X's\nvoid f(void);\n",
        "// X's\n#define X 1\nvoid f(void);\n",
        'const char * g(void); // "\nvoid f(void);\n',
        '#define URL "http://x"\nvoid f(void);\n',
        "#define SLASH '\"' // '\nvoid f(void);\n",
    ],
)
def test_not_taken(parsed: Parse, text: str) -> None:
    assert doc(parsed(text)) == ""


def test_statement_over_several_lines(parsed: Parse) -> None:
    headers = parsed("""
        #define API extern
        #define OLD(f, hint) f __attribute__((deprecated(hint)))
        // first
        API const char *
            f(int a,  // a's
              int b); // b's
        // second
        OLD(API void
            g(int a),
          "use f");
    """)
    assert doc(headers).split("\n")[0] == "first"
    assert (doc(headers, "g"), headers.functions["g"].deprecated) == ("second", "use f")


def test_fields_and_constants(parsed: Parse) -> None:
    headers = parsed("""
        // the struct
        struct s {
            int a; // a's
                   // more of it

            // above b
            int b;
            int c;
        };
        // the enum
        enum e {
            A, // A's
            B = 2, // B's
            // above C
            C,
            D
        };
        #define M 3 // M's
        // above N
        #define N 4
        // the callback
        typedef void (*call)(void);
    """)
    members = headers.structs["s"].members
    assert members is not None
    assert {one.name: one.doc for one in members} == {"a": "a's\nmore of it", "b": "above b", "c": ""}
    constants = {one.name: one.doc for one in headers.enums[0].constants}
    assert constants == {"A": "A's", "B": "B's", "C": "above C", "D": ""}
    assert (headers.structs["s"].doc, headers.enums[0].doc) == ("the struct", "the enum")
    assert (headers.constants["M"].doc, headers.constants["N"].doc) == ("M's", "above N")
    assert headers.typedefs["call"].doc == "the callback"


def test_struct_in_one_line(parsed: Parse) -> None:
    """Its comment is the struct's, not every field's."""
    headers = parsed("// a number\ntypedef struct { int bits; } number;\n")
    struct = headers.structs["number"]
    assert struct.members is not None
    assert (struct.doc, struct.members[0].doc) == ("a number", "")
