"""Guarded twins: they pass everything on, and return zero where something was thrown."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bindgen.guard import write_guard
from bindgen.model import Headers

CSRC = Path(__file__).parents[2] / "csrc"
CXX = shlex.split(os.environ.get("CXX", "c++"))
API = """
#include <stdbool.h>
#include <stdint.h>
struct api_pair { int32_t a; double b; };
typedef bool (*api_visit)(int32_t value, void * data);
#ifdef __cplusplus
extern "C" {
#endif
int32_t api_half(int32_t even);
struct api_pair api_swap(struct api_pair pair, const int32_t add[2]);
const char * api_name(bool known);
void api_set(int32_t * target, uint8_t value);
int32_t api_each(int32_t n, api_visit visit, void * data);
bool (*api_choose(bool first))(int32_t value, void * data);
int32_t api_format(const char * format, ...);
int32_t api_old(bool really) __attribute__((deprecated("old")));
static inline int32_t api_inline(void) { return 1; }
#ifdef __cplusplus
}
#endif
"""
BODY = """
#include "api.h"
#include <stdexcept>
#include <string>
extern "C" {
int32_t api_half(int32_t even) { if (even % 2) throw std::runtime_error("odd"); return even / 2; }
struct api_pair api_swap(struct api_pair pair, const int32_t add[2]) {
    return { (int32_t) pair.b + add[0], pair.a + 0.5 };
}
const char * api_name(bool known) { if (!known) throw 7; return "known"; }
void api_set(int32_t * target, uint8_t value) { *target = value; }
int32_t api_each(int32_t n, api_visit visit, void * data) {
    int32_t i = 0;
    while (i < n && visit(i, data)) i++;
    return i;
}
bool (*api_choose(bool))(int32_t, void *) { return nullptr; }
int32_t api_format(const char *, ...) { return 0; }
int32_t api_old(bool really) { return really; }
}
static int depth;
static std::string said;
namespace rawllama {
void enter() { said.clear(); depth++; }
void leave() { depth--; }
void caught(const char * what) { said = what; }
}
extern "C" const char * last() { return said.c_str(); }
extern "C" int depth_now() { return depth; }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture
def twins(parsed: Callable[..., Headers], folder: Path) -> ctypes.CDLL:
    """The twins of API's functions, compiled."""
    header, source = write_guard("api.h", parsed(API).functions.values())
    for name, text in {"api.h": API, "rawllama_guarded.h": header, "twins.cpp": source, "api.cpp": BODY}.items():
        (folder / name).write_text(text, encoding="utf-8")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-I{CSRC}"]
    subprocess.run([*CXX, *flags, "-o", "twins.so", "twins.cpp", "api.cpp"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "twins.so"))


def test_what_goes_in_and_comes_out(twins: ctypes.CDLL) -> None:
    class Pair(ctypes.Structure):
        _fields_ = (("a", ctypes.c_int32), ("b", ctypes.c_double))

    twins.rawllama_guarded_api_swap.restype = Pair
    swapped = twins.rawllama_guarded_api_swap(Pair(3, 8.0), (ctypes.c_int32 * 2)(10, 0))
    assert (swapped.a, swapped.b) == (18, 3.5)
    target = ctypes.c_int32()
    twins.rawllama_guarded_api_set(ctypes.byref(target), 200)
    assert target.value == 200
    visit = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_int32, ctypes.c_void_p)(lambda value, _: value < 3)
    assert twins.rawllama_guarded_api_each(9, visit, None) == 3


def test_what_is_thrown(twins: ctypes.CDLL) -> None:
    twins.last.restype = twins.rawllama_guarded_api_name.restype = ctypes.c_char_p
    assert (twins.rawllama_guarded_api_half(8), twins.last()) == (4, b"")
    assert (twins.rawllama_guarded_api_half(7), twins.last()) == (0, b"odd")
    assert (twins.rawllama_guarded_api_name(True), twins.last()) == (b"known", b"")
    assert (twins.rawllama_guarded_api_name(False), twins.last()) == (None, b"a C++ exception without a message")
    assert twins.depth_now() == 0


def test_which_functions_have_twins(twins: ctypes.CDLL) -> None:
    for name in ("half", "swap", "name", "set", "each", "choose"):
        assert hasattr(twins, f"rawllama_guarded_api_{name}")
    for name in ("format", "old", "inline"):
        assert not hasattr(twins, f"rawllama_guarded_api_{name}")
