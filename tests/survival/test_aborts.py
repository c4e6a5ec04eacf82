"""aborts.py: every place that can end the process has a verdict, and the script notices when one has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import aborts
from aborts import Judgement, report, roots_of_header, roots_of_python
from cscan import File, Graph, scan

# A llama.cpp with one function of each kind.
HEADER = """
LLAMA_API void llama_go(void);
LLAMA_API void llama_opt_train(void);
DEPRECATED(LLAMA_API void llama_old(void), "use llama_go instead");
"""
LLAMA = """
struct owner {
    ~owner() { GGML_ASSERT(destroyed); }
    virtual void run() { throw std::runtime_error("virtual"); }
};
static void unreached() { GGML_ABORT("nobody calls"); }
void llama_opt_train(void) { unreached(); }
void llama_go(void) {
    owner one;
    one.run();
    GGML_ASSERT(
        on_calling_thread);
    ggml_graph_compute();
}
"""
CPU = """
#define ROWS(n) GGML_ASSERT(n > rows)
static const struct table kernels[] = { { .run = first }, { second } };
static void first(void) { GGML_ASSERT(in_table); }
#if defined(__AVX2__)
static void second(int wide) {
#else
static void second(void) {
#endif
    ROWS(4);
    if (wide) { GGML_ABORT("%d", wide); }
}
static void locked_work(void) { GGML_ASSERT(under_lock); }
static void ggml_graph_compute_thread(void) { kernels[0].run(); }
void ggml_graph_compute(void) {
    ggml_critical_section_start();
    locked_work();
    ggml_critical_section_end();
    #pragma omp parallel
    { ggml_graph_compute_thread(); }
}
"""
THREADS = """
[threads]
indirect = []
[threads.spawns]
ggml_graph_compute = ["ggml_graph_compute_thread"]
"""
RULE = """
[[rule]]
verdict = "impossible"
why = "because"
"""
CONDITIONS = {
    "in_table": "worker",
    "n > rows": "worker",
    '"%d", wide': "worker",
    "under_lock": "locked",
    "destroyed": "cleanup",
    "on_calling_thread": "calling",
    'std::runtime_error("virtual")': "calling",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The small llama.cpp."""
    files = {"include/llama.h": HEADER, "src/llama.cpp": LLAMA, "ggml/src/ggml-cpu/ggml-cpu.c": CPU}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def judge(source: Path, verdicts: str) -> aborts.Report:
    file = source / "aborts.toml"
    file.write_text(verdicts)
    return report(source, roots_of_header(source), Judgement.read(file))


# ---- libllama


@pytest.fixture(scope="module")
def judged() -> aborts.Report:
    """The report on the pinned llama.cpp, for all that the header offers and all that rawllama calls."""
    roots = roots_of_header(aborts.SOURCE) | roots_of_python(aborts.ROOT)
    return report(aborts.SOURCE, roots, Judgement.read(aborts.VERDICTS))


def test_each_place_has_a_verdict_and_each_rule_a_place(judged: aborts.Report) -> None:
    assert judged.problems == []
    assert len(judged.rows) > 3000  # the scan finds what it should


def test_the_asserts_that_bad_batches_reach_are_on_worker_threads(judged: aborts.Report) -> None:
    rows = {(row.site.function, row.site.condition): row for row in judged.rows}
    row = rows["ggml_compute_forward_get_rows_f32", "i01 >= 0 && i01 < ne01"]
    assert row.threads == "worker" and row.rule is not None and row.rule.verdict == "checked"
    row = rows["llama_context::decode", "n_tokens_all <= cparams.n_batch"]
    assert row.threads == "calling" and row.rule is not None and row.rule.verdict == "caught"


def test_the_command_lists_places(source: Path) -> None:
    (source / "aborts.toml").write_text(THREADS)
    command = [sys.executable, aborts.__file__, "--sites", "--source", source, "--verdicts", source / "aborts.toml"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "src/llama.cpp:11  llama_go  assert(on_calling_thread)  [calling]  caught" in done.stdout
    assert "ggml/src/ggml-cpu/ggml-cpu.c:4  first  assert(in_table)  [worker]  NO VERDICT" in done.stdout


# ---- what the script notices


def test_threads_of_each_place(source: Path) -> None:
    found = judge(source, THREADS + RULE)
    assert found.problems == []
    assert {row.site.condition: row.threads for row in found.rows} == CONDITIONS
    assert found.total == len(CONDITIONS) + 1  # and the one that only training reaches


def test_a_place_without_a_verdict(source: Path) -> None:
    rule = RULE + 'conditions = ["in_table", "n > rows", "under_lock", "destroyed"]'
    assert [line.split("  ")[2] for line in judge(source, THREADS + rule).problems] == ['abort("%d", wide)']


@pytest.mark.parametrize("line", ['files = ["gone.c"]', 'functions = ["gone"]', 'conditions = [".*", "gone"]'])
def test_a_rule_that_matches_nothing(source: Path, line: str) -> None:
    verdicts = THREADS + RULE + 'conditions = ["in_table"]\n' + RULE + line + RULE
    assert any("matches nothing" in problem and "gone" in problem for problem in judge(source, verdicts).problems) or (
        ".*" in line and any("'gone'" in problem for problem in judge(source, verdicts).problems)
    )


def test_functions_that_begin_threads_are_known(source: Path) -> None:
    problems = judge(source, '[threads]\nindirect = []\n[threads.spawns]\nllama_go = ["gone"]\n' + RULE).problems
    assert "begins threads, and is not in [threads]: ggml_graph_compute" in problems
    assert "begins no threads: llama_go" in problems
    assert "no function is called gone" in problems


def test_functions_that_must_not_be_called(source: Path) -> None:
    problems = judge(source, THREADS + RULE + 'absent = ["ggml_graph_compute", "ggml_gone"]').problems
    assert problems == [
        "libllama calls ggml_graph_compute, so this is wrong: because",
        "no function is called ggml_gone",
    ]


@pytest.mark.parametrize("wrong", ['verdict = "maybe"\nwhy = ""', RULE.split("]]")[1] + "function = []"])
def test_a_verdict_that_is_none(source: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="a rule with"):
        judge(source, THREADS + "[[rule]]\n" + wrong)


def test_a_call_of_abort_is_not_caught_on_any_thread(source: Path) -> None:
    with (source / "src/llama.cpp").open("a") as file:
        file.write("void llama_end(void) { std::abort(); }\n")
    with (source / "include/llama.h").open("a") as file:
        file.write("LLAMA_API void llama_end(void);\n")
    rule = RULE + 'conditions = ["in_table", "n > rows", ".*wide", "under_lock", "destroyed"]'
    assert ["llama_end  end(abort)  [calling]" in one for one in judge(source, THREADS + rule).problems] == [True]


def test_places_that_the_scan_loses_are_named(source: Path) -> None:
    (source / "src/odd.cpp").write_text("GGML_ASSERT(outside) { ; }\n")
    assert judge(source, THREADS + RULE).problems == ["src/odd.cpp: 1 places are in no function"]


# ---- the scan


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("int f(int a) { S }", "f"),
        ("template <typename T, int N = (3 > 2)> static T f(T a) { S }", "f"),
        ("template <> void f<4, int>(int a) { S }", "f"),
        ("ns::box<int>::box(int a) : x(a), y{a} { S }", "box::box"),
        ("struct box final : base { int n = 0; void f() const override { S } };", "box::f"),
        ("bool box::operator==(const box & other) const { S }", "box::operator=="),
        ("void box::operator()(int a) { S }", "box::operator()"),
        ('extern "C" { void f(void) { S } }', "f"),
        ("namespace { struct a { int b; } c; void f(void) { S } }", "f"),
        ("#if A\nvoid f(int a) {\n#else\nvoid f(void) {\n#endif\n if (a) { S } }", "f"),
        ("#if A\nvoid g(int a) {\n#else\nvoid g(void) {\n#endif\n } void f() { S }", "f"),
        ("static const int t[] = { 1, 2 }; enum e { A, B }; void f(void) { S }", "f"),
        ("/* { */ void f(void) { char c = '{'; S }", "f"),
        ('auto r = R"x({)x"; void f(void) { S }', "f"),
        ("#define TWICE(x) \\\n    do { S } while (0)", "TWICE"),
        ("static const auto g = [](int a) { S };", "g"),
        ("__attribute__((noinline)) [[nodiscard]] int f(void) { S }", "f"),
    ],
)
def test_a_place_is_found_in_its_function(text: str, label: str) -> None:
    nodes = File("x.cpp", "llama", text.replace("S", "GGML_ASSERT(here);")).nodes()
    assert [(node.label, site.condition) for node in nodes for site in node.sites] == [(label, "here")]


def test_what_a_name_reaches(source: Path) -> None:
    text = """
    static void used() {} static void shadowed() {}
    struct box { void size() {} box() { used(); } };
    int size = 0;
    void user() { int n = size; box b; }
    """
    (source / "src/names.cpp").write_text(text)
    (source / "src/other.cpp").write_text("void other() { shadowed(); used(); }")
    graph = Graph(scan(source)[0])

    def reached(name: str) -> set[str]:
        found = graph.closure(graph.named(name))
        return {node.label for node in graph.nodes if id(node) in found}

    assert reached("user") == {"user", "box", "box::box", "size", "used"}  # the variable, not the method
    assert reached("other") == {"other"}  # another file's static functions


def test_roots(source: Path) -> None:
    assert roots_of_header(source) == {"llama_go"}
    (source / "python/rawllama").mkdir(parents=True)
    (source / "python/rawllama/model.py").write_text("guarded.llama_go(); lib.rawllama_guarded_llama_end()")
    assert roots_of_python(source) >= {"llama_go"}
