"""rawllama.state: what is restored goes on as what was saved, bit by bit; damaged states kill nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rawllama import ffi, lib
from rawllama.context import Context
from rawllama.errors import ClosedError, InvalidArgumentError, LlamaError
from rawllama.model import Model

from ..tools import Rows, batch_of, context_of, run_python, some_tokens

Tiny = Callable[[str], Path]

DECODERS = ("llama", "qwen3", "gpt2", "qwen2vl", "mamba", "lfm2")


def go_on(context: Context, model: Model, seq_id: int = 0, pos: int = 9) -> Rows:
    """Two more tokens of a sequence."""
    tokens = some_tokens(model, 2, 5)
    context.decode(batch_of(tokens, first=seq_id, start=pos))
    embeddings = [context.get_embeddings_ith()] if context.embeddings else []
    logits = [] if embeddings and model.architecture == "lfm2" else [context.get_logits_ith()]
    return np.concatenate([*embeddings, *logits], axis=1)


@pytest.mark.parametrize("way", ["bytes", "memoryview", "file"])
@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("name", DECODERS)
def test_all_sequences(name: str, embeddings: bool, way: str, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "state.bin"
    with Model(tiny(name)) as model:
        tokens = some_tokens(model, 9)
        with context_of(model, embeddings=embeddings) as context:
            context.decode(batch_of(tokens, tokens[:4]))
            data = context.state.save()
            assert isinstance(data, bytearray)
            context.state.save_file(file, tokens.tolist())
            expected = go_on(context, model), go_on(context, model, 1, 4)
        with context_of(model, embeddings=embeddings) as context:
            for _ in range(2):  # also over what is there already
                if way == "file":
                    assert np.array_equal(context.state.load_file(file), tokens)
                else:
                    context.state.load(bytes(data) if way == "bytes" else memoryview(data))
                assert context.memory is not None
                positions = context.memory.positions(0), context.memory.positions(1), context.memory.positions(2)
                assert [one and one[1] for one in positions] == [8, 3, None]
                assert np.array_equal(go_on(context, model), expected[0])
                assert np.array_equal(go_on(context, model, 1, 4), expected[1])
    assert [path.name for path in tmp_path.iterdir()] == ["state.bin"]


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("way", ["bytes", "file"])
@pytest.mark.parametrize("name", DECODERS)
def test_one_sequence(name: str, way: str, unified: bool, tiny: Tiny, tmp_path: Path) -> None:
    """Into another sequence too; the others stay as they are."""
    file = tmp_path / "sequence.bin"
    with Model(tiny(name)) as model, context_of(model, kv_unified=unified) as context:
        tokens = some_tokens(model, 9)
        context.decode(batch_of(some_tokens(model, 5, 3), tokens))
        data = context.state.save(1)
        context.state.save_file(file, tokens.tolist(), 1)
        assert len(data) < len(context.state.save())
        alone = go_on(context, model, 1)
        other = go_on(context, model, 0, 5)
        assert context.memory is not None
        context.memory.clear()
        context.decode(batch_of(some_tokens(model, 5, 3)))
        if way == "file":
            assert np.array_equal(context.state.load_file(file, 3), tokens)
        else:
            context.state.load(data, 3)
        positions = context.memory.positions(3)
        assert positions is not None
        assert positions[1] == 8
        assert context.memory.positions(1) is None
        np.testing.assert_allclose(go_on(context, model, 3), alone, atol=1e-4)
        np.testing.assert_allclose(go_on(context, model, 0, 5), other, atol=1e-4)


def test_restored_bit_by_bit_into_a_fresh_context(tiny: Tiny) -> None:
    """Where the sequence is alone, in the same cells."""
    for name in DECODERS:
        with Model(tiny(name)) as model:
            with context_of(model) as context:
                context.decode(batch_of(some_tokens(model, 9)))
                data = context.state.save(0)
                expected = go_on(context, model)
            with context_of(model) as context:
                context.state.load(data, 0)
                assert np.array_equal(go_on(context, model), expected), name


def test_partial(tiny: Tiny) -> None:
    """Of a hybrid memory, only the state; the cache stays as it is and can be cut back."""
    with Model(tiny("lfm2")) as model, context_of(model) as context:
        assert context.memory is not None
        context.decode(batch_of(some_tokens(model, 9)))
        part = context.state.save(0, partial=True)
        assert 0 < len(part) < len(context.state.save(0))
        expected = go_on(context, model)
        context.state.load(part, 0, partial=True)
        context.memory.remove(0, 9, None)
        assert np.isfinite(expected).all()
        for call in (lambda: context.state.save(partial=True), lambda: context.state.load(part, partial=True)):
            with pytest.raises(InvalidArgumentError, match="partial"):
                call()


def test_encoders_have_little_to_save(tiny: Tiny) -> None:
    with Model(tiny("bert")) as model, context_of(model, embeddings=True) as context:
        context.process(batch_of(some_tokens(model, 5)))
        rows = context.get_embeddings_seq()
        context.state.load(context.state.save())
        context.process(batch_of(some_tokens(model, 5)))
        assert np.array_equal(context.get_embeddings_seq(), rows)


def test_wrong_arguments(tiny: Tiny, tmp_path: Path) -> None:
    with Model(tiny("llama")) as model, context_of(model) as context:
        state = context.state
        context.decode(batch_of(some_tokens(model, 9)))
        data = state.save(0)
        file = tmp_path / "state.bin"
        for wrong in (-1, 4, 2**40, "0", 1.5):
            calls: list[Callable[[], Any]] = [
                lambda wrong=wrong: state.save(wrong), lambda wrong=wrong: state.load(data, wrong),
                lambda wrong=wrong: state.save_file(file, (), wrong), lambda wrong=wrong: state.load_file(file, wrong),
            ]  # fmt: skip
            for call in calls:
                with pytest.raises(InvalidArgumentError, match="seq_id"):
                    call()
        for tokens in ([[1, 2]], [1.5], ["a"], [2**31], 5):
            with pytest.raises(InvalidArgumentError, match="tokens"):
                state.save_file(file, tokens)  # type: ignore[arg-type]
        assert not file.exists()
        for nothing in (b"", bytearray(), memoryview(b"")):
            with pytest.raises(InvalidArgumentError):
                state.load(nothing)
            with pytest.raises(InvalidArgumentError):
                state.load(nothing, 0)
        with pytest.raises(TypeError):
            state.load("text")  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError):
            state.load_file(tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            state.load_file(tmp_path)
        with pytest.raises(FileNotFoundError):
            state.save_file(tmp_path / "missing" / "state.bin")
        file.write_bytes(b"")
        with pytest.raises(InvalidArgumentError, match=r"state\.bin"):
            state.load_file(file)
    with pytest.raises(ClosedError):
        state.save()


def test_states_of_others_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Of another model, or of other types of the cache; of one sequence in place of all."""
    saved = {}
    for name, settings in (("llama", {}), ("qwen3", {}), ("mamba", {}), ("f32", {"type_k": "f32", "type_v": "f32"})):
        with Model(tiny("llama" if name == "f32" else name)) as model, context_of(model, **settings) as context:
            context.decode(batch_of(some_tokens(model, 9)))
            saved[name] = context.state.save(), context.state.save(0)
            context.state.save_file(tmp_path / f"{name}.bin")
            context.state.save_file(tmp_path / f"{name}-0.bin", seq_id=0)
    with Model(tiny("llama")) as model, context_of(model) as context:
        for name in ("qwen3", "mamba", "f32"):
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load(saved[name][0])
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load(saved[name][1], 0)
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load_file(tmp_path / f"{name}.bin")
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load_file(tmp_path / f"{name}-0.bin", 0)
        for wrong, seq_id in ((saved["llama"][1], None), (saved["llama"][0], 0)):
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load(wrong, seq_id)
        assert context.memory is not None
        context.memory.clear()
        context.state.load(saved["llama"][0])
        go_on(context, model)


def test_a_smaller_context_refuses(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model:
        with context_of(model, n_ctx=512, n_batch=512) as context:
            context.decode(batch_of(some_tokens(model, 300)))
            data = context.state.save()
        with context_of(model, n_ctx=256) as context:
            with pytest.raises(InvalidArgumentError, match="too large"):
                context.state.load(data)
            context.decode(batch_of(some_tokens(model, 5)))


def test_save_file_to_a_full_disk(tiny: Tiny, tmp_path: Path) -> None:
    """The old file survives."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from rawllama import LlamaError\n"
        "from rawllama.model import Model\n"
        "from tests.tools import batch_of, context_of\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "target = Path(sys.argv[2])\n"
        "target.write_bytes(b'old')\n"
        "with Model(sys.argv[1]) as model, context_of(model) as context:\n"
        "    context.decode(batch_of([5] * 250))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "    for seq_id in (None, 0):\n"
        "        try:\n"
        "            context.state.save_file(target, [5] * 250, seq_id)\n"
        "        except (LlamaError, OSError) as error:\n"
        "            print('refused', type(error).__name__, error)\n"
        "assert target.read_bytes() == b'old', target.stat()\n"
        "assert list(target.parent.iterdir()) == [target]\n"
    )
    assert run_python(code, tiny("llama"), tmp_path / "state.bin").stdout.count("refused") == 2


# A child process that damages a state again and again; it prints each try before it makes it.
DAMAGE = """
import random, sys
import numpy as np
from pathlib import Path
from rawllama.errors import LlamaError
from rawllama.model import Model
from tests.tools import batch_of, context_of, some_tokens

path, way, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
file = Path(sys.argv[5])
unified = first % 2 == 0
refused = 0
with Model(path) as model:
    context = context_of(model, kv_unified=unified)
    tokens = some_tokens(model, 9)
    context.decode(batch_of(tokens, tokens[:4]))
    seq_id = None if way.startswith("all") else 1
    if way.endswith("file"):
        context.state.save_file(file, tokens.tolist(), seq_id)
        good = file.read_bytes()
    else:
        good = bytes(context.state.save(seq_id))
    for seed in range(first, last):
        print(seed, file=sys.stderr, flush=True)
        random_ = random.Random(seed)
        data = bytearray(good)
        kind = random_.randrange(4)
        if kind == 0:
            del data[random_.randrange(len(data)):]
        elif kind == 1:
            data += random_.randbytes(random_.randrange(1, 100))
        # Most of a state is numbers; its head and its places are what matters.
        head = random_.choice([64, 300, len(data) or 1])
        for _ in range(random_.choice([0, 1, 1, 1, 4]) if kind < 2 else random_.choice([1, 1, 2, 8])):
            if data:
                at = random_.randrange(min(head, len(data)))
                if random_.random() < 0.5:
                    data[at] ^= 1 << random_.randrange(8)
                else:
                    start = min(at & ~3, max(0, len(data) - 4))
                    word = random_.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 255, 256, 2**16])
                    data[start:start + 4] = word.to_bytes(4, "little")
        try:
            if way.endswith("file"):
                file.write_bytes(data)
                context.state.load_file(file, seq_id)
            else:
                context.state.load(bytes(data), seq_id)
        except LlamaError:
            refused += 1
        try:
            at = context.memory.positions(1)
            context.decode(batch_of(tokens[:2], first=1, start=at[1] + 1 if at else 0))
            context.get_logits_ith()
        except LlamaError:
            pass
        try:
            context.memory.clear()
            context.decode(batch_of(tokens, tokens[:4]))
        except LlamaError as error:  # the context is broken, which it says: that is allowed
            context.close()
            context = context_of(model, kv_unified=unified)
            context.decode(batch_of(tokens, tokens[:4]))
    context.close()
print(refused)
"""


@pytest.mark.parametrize("way", ["all-bytes", "all-file", "one-bytes", "one-file"])
@pytest.mark.parametrize("name", ["llama", "mamba", "lfm2"])
def test_damaged_states_kill_nothing(name: str, way: str, tiny: Tiny, tmp_path: Path) -> None:
    for first in (0, 1):
        done = run_python(DAMAGE, tiny(name), way, first, first + 80, tmp_path / "state.bin", fails=True)
        seeds = [line for line in done.stderr.splitlines() if line.isdigit()]
        assert done.returncode == 0, f"ended with {done.returncode} at the seed {seeds[-1:]}: {done.stderr[-2000:]}"
        assert int(done.stdout) > 10


@pytest.mark.parametrize("seq_id", [None, 1])
@pytest.mark.parametrize("name", DECODERS)
def test_truncated(name: str, seq_id: int | None, tiny: Tiny, tmp_path: Path) -> None:
    """Every length but the right one is refused, of bytes and of files, and so is one byte more."""
    file = tmp_path / "state.bin"
    with Model(tiny(name)) as model, context_of(model) as context:
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens[:3], tokens))
        data = bytes(context.state.save(seq_id))
        context.state.save_file(file, tokens.tolist(), seq_id)
        content = file.read_bytes()
        if seq_id is None:
            assert content.endswith(data)
        lengths = [*range(0, 200, 7), *range(200, len(data), 997), len(data) - 4, len(data) - 1]
        for length in lengths:
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load(data[:length], seq_id)
            file.write_bytes(content[: min(len(content) - len(data) + length, len(content) - 1)])
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load_file(file, seq_id)
        with pytest.raises(InvalidArgumentError, match="refused"):
            context.state.load(data + b"0", seq_id)
        file.write_bytes(content + b"0")
        with pytest.raises(InvalidArgumentError, match="refused"):
            context.state.load_file(file, seq_id)
        for length in range(48):  # the file's own head
            file.write_bytes(content[:length])
            with pytest.raises(InvalidArgumentError, match="refused"):
                context.state.load_file(file, seq_id)
        context.state.load(data, seq_id)


def test_libllama_reads_the_files(tiny: Tiny, tmp_path: Path) -> None:
    """Files are those of llama_state_save_file: its own reader takes them."""
    path = str(tmp_path / "state.bin").encode()
    with Model(tiny("llama")) as model, context_of(model) as context:
        tokens = some_tokens(model, 9)
        context.decode(batch_of(tokens))
        context.state.save_file(tmp_path / "state.bin", tokens.tolist())
        expected = go_on(context, model)
        array, count = ffi.new("llama_token[]", 20), ffi.new("size_t *")
        assert lib.llama_state_load_file(context.c, path, array, 20, count)
        assert list(array[0 : count[0]]) == tokens.tolist()
        assert np.array_equal(go_on(context, model), expected)


def test_errors_have_libllamas_words(tiny: Tiny) -> None:
    with Model(tiny("llama")) as model, context_of(model) as context:
        context.decode(batch_of(some_tokens(model, 9)))
        data = context.state.save()
        with pytest.raises(InvalidArgumentError) as caught:
            context.state.load(data[: len(data) // 2])
        assert isinstance(caught.value, LlamaError)
        assert caught.value.function == "llama_state_set_data"
        assert caught.value.log
