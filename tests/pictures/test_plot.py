"""`rawllama plot`: each picture as a file, without arguments and with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
from rawllama import cli
from rawllama.cli.plot import PICTURES
from rawllama.pictures import files

Run = Callable[..., str]
Tiny = Callable[[str], Path]


@pytest.fixture
def plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `rawllama plot` in a folder of its own; return what it says on standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")

    def run(*arguments: str, status: int = 0) -> str:
        code = cli.main(["plot", *arguments])
        out, err = capsys.readouterr()
        assert (code, out) == (status, ""), err
        return err

    return run


def require_picture(path: Path) -> None:
    """As wide as a README at least, and not blank."""
    pixels = matplotlib.image.imread(path)[..., :3]
    assert 700 <= pixels.shape[1] <= 1600
    assert pixels.shape[0] >= 500
    assert pixels.var() > 0.005
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize("name", PICTURES)
def test_without_arguments(name: str, plot: Run) -> None:
    assert plot(name, "-o", "one.png") == "one.png\n"
    require_picture(Path("one.png"))


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_other_formats(ending: str, plot: Run) -> None:
    """Equal pictures are equal files; the second takes the first one's place."""
    path = Path(f"one.{ending}")
    plot("alibi", "-o", str(path))
    first = path.read_bytes()
    plot("alibi", "-o", str(path))
    assert path.read_bytes() == first
    assert first.startswith({"svg": b"<?xml", "pdf": b"%PDF"}[ending])
    assert len(first) > 5000
    assert [one.name for one in Path.cwd().iterdir()] == [path.name]


@pytest.mark.parametrize("name", PICTURES)
def test_svg(name: str, plot: Run) -> None:
    if name in ("positions", "rope", "alibi"):
        plot(name, "-o", "one.svg")
    else:
        plot(name, "a cat", "a dog & a <cat>", "$5 and $6", "-o", "one.svg")
    assert Path("one.svg").read_text().rstrip().endswith("</svg>")


@pytest.mark.parametrize(
    "arguments",
    [
        ["positions", "--model", "minilm", "--positions", "600"],  # it has 512
        ["positions", "--columns", "8", "--base", "100", "--positions", "10"],
        ["rope", "--columns", "8", "--base", "500000", "--context", "8192", "--factor", "8"],
        ["alibi", "--heads", "12", "--max-bias", "4"],
        ["similarity", "--metric", "euclid", "a", "b"],
        ["layers", "--pooling", "cls", "one text"],
        ["map", "--clusters", "2", "--seed", "7", "a", "b", "c"],
        ["plan", "--token-budget", "64"],
    ],
    ids=" ".join,
)
def test_options(arguments: list[str], plot: Run) -> None:
    plot(*arguments, "-o", "one.png")
    require_picture(Path("one.png"))


def test_a_panel_a_mask(plot: Run, tiny: Tiny) -> None:
    models = [option for name in ("llama", "modern-bert") for option in ("--model", str(tiny(name)))]
    plot("attention-mask", *models, "the cat sat", "a", "-o", "one.png")
    assert matplotlib.image.imread("one.png").shape[:2] == (1440, 1500)  # three, two a row
    require_picture(Path("one.png"))


def test_texts_of_files(plot: Run) -> None:
    Path("texts.txt").write_text("a cat\na kitten\na bank\nmoney\n", encoding="utf-8")
    Path("texts.jsonl").write_text('{"t": "a cat"}\n{"t": "a kitten"}\n{"t": "a bank"}\n', encoding="utf-8")
    Path("labels.txt").write_text("animal\nanimal\nmoney\nmoney\n", encoding="utf-8")
    plot("map", "--input", "texts.txt", "--labels", "labels.txt", "-o", "one.svg")
    drawn = Path("one.svg").read_text()
    assert "<!-- animal -->" in drawn
    assert "<!-- a kitten -->" in drawn
    plot("similarity", "--input", "texts.jsonl", "--field", "t", "-o", "two.svg")
    assert "<!-- a bank -->" in Path("two.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rope", "-o", "one.gif"], "one.gif: pictures end in .png, .svg, .pdf"),
        (["rope", "-o", "one"], "one: pictures end in .png"),
        (["rope", "-o", "no/one.png"], "no does not exist: make the folder first"),
        (["rope", "-o", "folder.png"], "folder.png is a folder: name a file"),
        (["rope", "--columns", "3", "-o", "one.png"], "d: 3 is no even number"),
        (["map", "one", "-o", "one.png"], "texts: 1 of them; at least 3 are needed"),
        (["map", "--input", "no.txt", "-o", "one.png"], "no.txt"),
        (["layers", "--model", "no.gguf", "-o", "one.png"], "no.gguf does not exist"),
        (["similarity", "a", "--input", "b", "-o", "one.png"], "texts were given as arguments and with --input"),
        (["rope"], "output: matplotlib has no window to show it in; name a file with -o FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(arguments: list[str], words: str, plot: Run) -> None:
    Path("folder.png").mkdir()
    assert words in plot(*arguments, status=1)
    assert [path.name for path in Path.cwd().iterdir()] == ["folder.png"]


def test_learned_positions_that_are_not_there(plot: Run, tiny: Tiny) -> None:
    said = plot("positions", "--model", str(tiny("llama")), "-o", "one.png", status=1)
    assert "position_embd.weight" in said


def test_shown(plot: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -o the figure is pyplot's, which opens the windows."""
    from matplotlib import pyplot

    shown: list[list[int]] = []
    monkeypatch.setattr(files, "_WINDOWLESS", ())
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.get_fignums()))
    plot("alibi")
    assert len(shown) == 1
    assert len(shown[0]) == 1
    pyplot.close("all")


def test_functions_leave_pyplot_alone() -> None:
    program = """
import sys
from rawllama import pictures
axes = pictures.rope()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_without_the_extra(package: str, tmp_path: Path) -> None:
    """In a process where the package cannot be imported."""
    program = f"""
import sys
sys.modules[{package!r}] = None
from rawllama import cli
sys.exit(cli.main(["plot", sys.argv[1], "-o", "one.png"]))
"""
    for name in PICTURES if package == "matplotlib" else ("map",):
        done = subprocess.run(
            [sys.executable, "-c", program, name], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        missing = {"sklearn": "scikit-learn"}.get(package, package)
        assert done.stderr == f"rawllama: {missing} is not installed: pip install 'rawllama[plots]'\n"
        assert done.returncode == 1
    assert not os.listdir(tmp_path)  # noqa: PTH208
