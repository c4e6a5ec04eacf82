"""What the compiler makes of headers: text, macros, and where both stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bindgen.preprocess import Preprocessed, PreprocessError, preprocess

from .conftest import COMPILER

Preprocess = Callable[..., Preprocessed]


def rows(source: Preprocessed) -> list[str]:
    return [row for row in source.text.split("\n") if row.strip() and not row.startswith("#line")]


def test_macros(preprocessed: Preprocess, tmp_path: Path) -> None:
    rows = ["#define ONE 1", "#  define SPACED   (2 +  2)  ", "#define CALL(x) x", "#define EMPTY", "#define PAREN (1)"]
    source = preprocessed("\n".join(rows) + "\n")
    macros = {one.name: (one.body, one.has_arguments, one.line) for one in source.macros}
    assert macros == {
        "ONE": ("1", False, 1),
        "SPACED": ("(2 + 2)", False, 2),
        "CALL": ("x) x", True, 3),
        "EMPTY": ("", False, 4),
        "PAREN": ("(1)", False, 5),
    }
    assert {one.path for one in source.macros} == {tmp_path / "include" / "api.h"}


def test_macro_over_several_lines(preprocessed: Preprocess) -> None:
    source = preprocessed("int before;\n#define LONG (1 + \\\n    2 + \\\n    3)\nint after;\n")
    assert [(one.name, one.body, one.line) for one in source.macros] == [("LONG", "(1 + 2 + 3)", 2)]
    assert rows(source) == ["int before;", "int after;"]


def test_undefined_macro_is_gone(preprocessed: Preprocess) -> None:
    source = preprocessed("""
        #define GONE 1
        #define KEPT 1
        #undef GONE
        #undef NEVER
        #define AGAIN 1
        #undef AGAIN
        #define AGAIN 2
    """)
    assert [(one.name, one.body) for one in source.macros] == [("KEPT", "1"), ("AGAIN", "2")]


def test_macros_are_expanded_in_the_text(preprocessed: Preprocess) -> None:
    assert rows(preprocessed("#define N 4\nint values[N];\n")) == ["int values[4];"]


def test_conditions_follow_defines(preprocessed: Preprocess) -> None:
    text = "#ifdef WITH\nint with;\n#endif\n#if LEVEL > 2\nint level;\n#endif\n"
    assert rows(preprocessed(text)) == []
    assert rows(preprocessed(text, defines=("WITH", "LEVEL=3"))) == ["int with;", "int level;"]


def test_headers_outside_include_are_dropped(preprocessed: Preprocess, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.h"
    elsewhere.write_text("#define ELSEWHERE 1\nint elsewhere;\n")
    source = preprocessed(f'#include <stdio.h>\n#include "{elsewhere}"\n#include <stdint.h>\nuint8_t mine;\n')
    assert rows(source) == ["uint8_t mine;"]
    assert source.macros == []


def test_headers_below_include_are_kept(preprocessed: Preprocess, tmp_path: Path) -> None:
    folder = tmp_path / "include" / "sub"
    folder.mkdir(parents=True)
    (folder / "part.h").write_text("\nint part;\n")
    source = preprocessed('#include "sub/part.h"\nint whole;\n')
    assert rows(source) == ["int part;", "int whole;"]
    assert f'#line 1 "{folder / "part.h"}"' in source.text


def test_system_folder_keeps_only_the_headers_asked_for(tmp_path: Path) -> None:
    """llama.h may lie in /usr/include, among libc's headers."""
    (tmp_path / "api.h").write_text('#include <api-more.h>\n#include <libc.h>\nint api;\n')
    (tmp_path / "api-more.h").write_text("#pragma once\nint more;\n")
    (tmp_path / "libc.h").write_text("typedef __builtin_va_list libc;\n")
    compiler = [*COMPILER, "-isystem", str(tmp_path)]
    assert rows(preprocess(compiler, ["api.h", "api-more.h"], [tmp_path])) == ["int more;", "int api;"]


def test_built_in_macros_are_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`<built-in>` is no file, not even where the working folder is below the include folder."""
    (tmp_path / "api.h").write_text("#define MINE 1\n")
    monkeypatch.chdir(tmp_path)
    assert [one.name for one in preprocess(COMPILER, ["api.h"], [Path()]).macros] == ["MINE"]


def test_form_feed_is_no_line(preprocessed: Preprocess) -> None:
    source = preprocessed('const char * page = "\x0c";\n#define BELOW 1\n')
    assert source.macros[0].line == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [('#include "absent.h"\n', "absent.h"), ("#error no such machine\n", "no such machine"), ("#if 1\n", "#if")],
)
def test_compilers_words_are_shown(preprocessed: Preprocess, text: str, said: str) -> None:
    with pytest.raises(PreprocessError) as error:
        preprocessed(text)
    assert said in str(error.value) and "api.h:1" in str(error.value)


def test_missing_compiler(tmp_path: Path) -> None:
    with pytest.raises(PreprocessError, match="no-such-cc is not installed"):
        preprocess(["no-such-cc"], ["api.h"], [tmp_path])
