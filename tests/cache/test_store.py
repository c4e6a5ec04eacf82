"""Bytes by key: what is found, what goes, what is shared, and what is damaged."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rawllama.cache import Cache
from rawllama.errors import ClosedError, InvalidArgumentError

from ..tools import run_python

WIDTH = 1536  # bytes of a row, as those of 384 float32
MIB = 1 << 20


def keys_of(*numbers: int) -> list[bytes]:
    return [f"key {number}".encode() for number in numbers]


def rows_of(*numbers: int, width: int = WIDTH) -> NDArray[np.uint8]:
    """Rows that follow from their numbers."""
    return np.stack([np.random.default_rng(number).integers(0, 256, width, np.uint8) for number in numbers])


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.mdb"))


def test_what_was_put_is_found(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1, 2, 3), rows_of(1, 2, 3))
        rows, found = cache.get_many(keys_of(3, 4, 1, 3), WIDTH)
        assert found.tolist() == [True, False, True, True]
        np.testing.assert_array_equal(rows[[0, 2, 3]], rows_of(3, 1, 3))
        assert not rows[1].any()
        assert (cache.hits, cache.misses) == (3, 1)
        assert (cache.stats().rows, cache.stats().size_limit) == (3, 10 << 30)
        assert str(cache.stats()).startswith("3 rows, 0.")
    with Cache(folder) as cache:
        assert cache.get_many(keys_of(1, 2, 3), WIDTH)[1].all(), "it is there when it is opened again"


def test_nothing_is_put_and_asked_for(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many([], np.zeros((0, WIDTH), np.uint8))
        rows, found = cache.get_many([], WIDTH)
        assert rows.shape == (0, WIDTH)
        assert found.shape == (0,)


def test_a_key_has_the_row_that_came_last(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1), rows_of(1))
        cache.put_many(keys_of(1), rows_of(2))
        np.testing.assert_array_equal(cache.get_many(keys_of(1), WIDTH)[0], rows_of(2))


def test_a_row_of_another_width_is_a_miss(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1, 2), rows_of(1, 2))
        for width in (WIDTH // 2, WIDTH - 1, WIDTH * 2):
            assert not cache.get_many(keys_of(1, 2), width)[1].any()


def test_clear(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1), rows_of(1))
        cache.clear()
        assert not cache.get_many(keys_of(1), WIDTH)[1].any()
        assert cache.stats().rows == 0
        cache.put_many(keys_of(2), rows_of(2))
        assert cache.get_many(keys_of(2), WIDTH)[1].all()


# The limit ------------------------------------------------------------------------------------------------------------


def test_the_limit_holds_and_what_is_used_stays(folder: Path) -> None:
    limit, step, used = 16 * MIB, 500, keys_of(*range(100))
    with Cache(folder, size_limit=limit) as cache:
        cache.put_many(used, rows_of(*range(100)))
        for start in range(100, 40_000, step):  # 60 MB
            rows = np.full((step, WIDTH), start % 251, np.uint8)
            cache.put_many(keys_of(*range(start, start + step)), rows)
            assert sum(file.stat().st_size for file in files(folder)) <= limit
            assert cache.get_many(used, WIDTH)[1].all(), "each of these is asked for again and again"
        assert len(files(folder)) == 4
        assert cache._folder is not None and len(cache._folder._opened) == 4, "old files are let go of"
        assert not cache.get_many(keys_of(*range(100, 10_000)), WIDTH)[1].any(), "what nobody asked for is gone"
        last = keys_of(*range(40_100 - 6 * step, 40_100 - step))
        assert cache.get_many(last, WIDTH)[1].all()
        np.testing.assert_array_equal(cache.get_many(used, WIDTH)[0], rows_of(*range(100)))


def test_three_quarters_of_the_limit_are_kept(folder: Path) -> None:
    limit = 16 * MIB
    n = int(0.66 * limit / WIDTH)  # beside the index
    with Cache(folder, size_limit=limit) as cache:
        for start in range(0, n, 100):
            cache.put_many(keys_of(*range(start, start + 100)), np.zeros((100, WIDTH), np.uint8))
        for _ in range(3):
            assert cache.get_many(keys_of(*range(n)), WIDTH)[1].all()


def test_the_limit_is_remembered_and_changed(folder: Path) -> None:
    with Cache(folder, size_limit=64 * MIB) as cache:
        for start in range(0, 30_000, 1000):  # 46 MB
            cache.put_many(keys_of(*range(start, start + 1000)), np.zeros((1000, WIDTH), np.uint8))
    with Cache(folder) as cache:
        assert cache.size_limit == 64 * MIB
    with Cache(folder, size_limit=16 * MIB) as cache:
        assert cache.stats().bytes <= 16 * MIB
        for start in range(0, 20_000, 1000):
            cache.put_many(keys_of(*range(start, start + 1000)), np.zeros((1000, WIDTH), np.uint8))
            assert cache.stats().bytes <= 16 * MIB


def test_a_larger_limit_of_another_process(folder: Path) -> None:
    """LMDB's map is as large as a process was told; what another one wrote beyond it is read all the same."""
    with Cache(folder, size_limit=16 * MIB) as cache:
        cache.put_many(keys_of(0), rows_of(0))
        code = """
import sys; import numpy as np; from rawllama.cache import Cache
with Cache(sys.argv[1], size_limit=64 << 20) as cache:
    for i in range(8):
        cache.put_many([f"key {i * 1000 + j}".encode() for j in range(1000)], np.full((1000, 1536), i, np.uint8))
"""
        run_python(code, folder)
        rows, found = cache.get_many(keys_of(500, 7999), WIDTH)
        assert found.all()
        assert (rows[0] == 0).all() and (rows[1] == 7).all()
        cache.put_many(keys_of(1), rows_of(1))


@pytest.mark.parametrize("limit", [0, MIB, -1, 1 << 60, "1 GB"])
def test_bad_limits(folder: Path, limit: int) -> None:
    with pytest.raises(InvalidArgumentError, match="size_limit: "):
        Cache(folder, size_limit=limit)


def test_rows_that_are_larger_than_the_limit(folder: Path) -> None:
    with Cache(folder, size_limit=16 * MIB) as cache:
        with pytest.raises(InvalidArgumentError, match="size_limit: 16777216 has no room for a row of 5242880 bytes"):
            cache.put_many(keys_of(1), np.zeros((1, 5 * MIB), np.uint8))
        cache.put_many(keys_of(1), rows_of(1))
        assert cache.get_many(keys_of(1), WIDTH)[1].all()


# Who shares it --------------------------------------------------------------------------------------------------------


def test_two_objects_and_threads_share_a_folder(folder: Path) -> None:
    caches = [Cache(folder), Cache(folder.parent / "." / "cache")]
    failed: list[BaseException] = []

    def use(number: int) -> None:
        try:
            cache = caches[number % 2]
            for i in range(number * 100, number * 100 + 30):
                cache.put_many(keys_of(i), rows_of(i))
                np.testing.assert_array_equal(caches[(number + 1) % 2].get_many(keys_of(i), WIDTH)[0], rows_of(i))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    caches[0].close()
    assert caches[1].get_many(keys_of(0, 100, 200, 300), WIDTH)[1].all(), "one object closes for itself only"
    caches[1].close()


def test_pickled(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1), rows_of(1))
        with pickle.loads(pickle.dumps(cache)) as copy:
            assert copy.path == cache.path
            assert copy.get_many(keys_of(1), WIDTH)[1].all()
    with pytest.raises(ClosedError):
        pickle.loads(pickle.dumps(cache)).get_many(keys_of(1), WIDTH)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_fork(folder: Path) -> None:
    """Parent, children and children's children use it, while threads of the parent do."""
    code = """
import os, sys, threading, numpy as np
from rawllama.cache import Cache

WIDTH = 1536
cache = Cache(sys.argv[1])

def check(i):
    row = np.full((1, WIDTH), i % 256, np.uint8)
    cache.put_many([b"%d" % i], row)
    rows, found = cache.get_many([b"%d" % i, b"0"], WIDTH)
    assert found.all() and (rows[0] == row).all() and not rows[1].any()

check(0)
stop = threading.Event()
def work():
    i = 1_000_000
    while not stop.is_set():
        check(i)
        i += 1
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
children = []
for number in range(10):
    pid = os.fork()
    if pid == 0:
        assert not cache._folder._opened, "the parent's files are not the child's"
        check(number * 10 + 1)
        if os.fork() == 0:
            check(number * 10 + 2)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.wait()[1])
        os._exit(status)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 10
stop.set()
for thread in threads: thread.join()
assert cache.get_many([b"%d" % (i * 10 + k) for i in range(10) for k in (1, 2)], WIDTH)[1].all()
"""
    run_python(code, folder)


# What is wrong --------------------------------------------------------------------------------------------------------


def test_closed(folder: Path) -> None:
    cache = Cache(folder)
    assert not cache.closed
    cache.close()
    cache.close()
    assert cache.closed
    assert repr(cache) == "<Cache closed>"
    for call in (
        lambda: cache.get_many([b"a"], 1),
        lambda: cache.put_many([], rows_of(1)[:0]),
        cache.stats,
        cache.clear,
    ):
        with pytest.raises(ClosedError, match="the Cache is closed; make a new one"):
            call()


def test_bad_keys_and_rows(folder: Path) -> None:
    with Cache(folder) as cache:
        for key in (b"", b"x" * 512):
            with pytest.raises(InvalidArgumentError, match=rf"has {len(key)} bytes, not 1 to 511"):
                cache.get_many([key], WIDTH)
        for rows in (rows_of(1, 2), rows_of(1)[0], rows_of(1).astype(np.float32)):
            with pytest.raises(InvalidArgumentError, match=r"rows: .* is not uint8, shape \(1, bytes\)"):
                cache.put_many(keys_of(1), rows)


def test_a_damaged_value_is_a_miss(folder: Path) -> None:
    with Cache(folder) as cache:
        cache.put_many(keys_of(1, 2, 3), rows_of(1, 2, 3))
    data = bytearray(files(folder)[0].read_bytes())
    at = data.index(rows_of(2).tobytes())
    data[at + 700] ^= 1
    files(folder)[0].write_bytes(data)
    with Cache(folder) as cache:
        rows, found = cache.get_many(keys_of(1, 2, 3), WIDTH)
        assert found.tolist() == [True, False, True]
        np.testing.assert_array_equal(rows[[0, 2]], rows_of(1, 3))
        assert not rows[1].any()
        cache.put_many(keys_of(2), rows_of(2))
        np.testing.assert_array_equal(cache.get_many(keys_of(2), WIDTH)[0], rows_of(2))


@pytest.mark.parametrize("damage", ["cut", "empty", "nonsense", "index"])
def test_a_damaged_file_is_given_up(folder: Path, damage: str) -> None:
    n = 500
    with Cache(folder) as cache:
        cache.put_many(keys_of(*range(n)), rows_of(*range(n)))
    whole = files(folder)[0].read_bytes()
    places = whole.index(keys_of(7)[0])
    files(folder)[0].write_bytes({
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "nonsense": os.urandom(len(whole)),
        "index": whole[: places - 8] + b"\xff" * 8 + whole[places:],
    }[damage])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with Cache(folder) as cache:
            rows, found = cache.get_many(keys_of(*range(n)), WIDTH)
            assert not found.all()
            np.testing.assert_array_equal(rows[found], rows_of(*range(n))[found])
            cache.put_many(keys_of(*range(n)), rows_of(*range(n)))
            rows, found = cache.get_many(keys_of(*range(n)), WIDTH)
            assert found.all()
            np.testing.assert_array_equal(rows, rows_of(*range(n)))


def test_a_damaged_file_is_told(folder: Path) -> None:
    Cache(folder).close()
    files(folder)[0].write_bytes(b"x" * 8192)
    with pytest.warns(RuntimeWarning, match=r"the cache has lost some rows: .*rows-00000001\.mdb"):
        Cache(folder).close()


def test_another_format(folder: Path) -> None:
    Cache(folder).close()
    about = folder / "cache.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 2}))
    with pytest.raises(InvalidArgumentError, match=r"its format is 2, and this rawllama has 1; empty it, or name"):
        Cache(folder)
    about.write_text("{")
    with pytest.raises(InvalidArgumentError, match=r"its cache\.json is damaged"):
        Cache(folder)


def test_a_folder_that_is_no_cache(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(InvalidArgumentError, match="is no cache that can be used: it has other files; empty it, or"):
        Cache(folder)
    assert list(folder.iterdir()) == [folder / "thesis.txt"]
    with pytest.raises(InvalidArgumentError, match=r"thesis\.txt is a file; a cache is a folder"):
        Cache(folder / "thesis.txt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX permissions")
def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """Root may write anywhere, so it becomes nobody first."""
    with Cache(folder) as cache:
        cache.put_many(keys_of(1), rows_of(1))
    code = """
import os, sys, tempfile
from rawllama.cache import Cache
with tempfile.TemporaryDirectory() as scratch, Cache(scratch):
    pass  # all modules are loaded: nobody may not be allowed to read them
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for name in sys.argv[1:]:
    try:
        Cache(name)
    except OSError as error:
        print(error)
"""
    folder.chmod(0o555)
    for path in folder.iterdir():
        path.chmod(0o444)
    for parent in (folder.parent, folder.parent.parent, folder.parent.parent.parent):
        parent.chmod(0o755)
    said = run_python(code, folder, folder / "new").stdout.splitlines()
    folder.chmod(0o755)
    assert len(said) == 2
    assert all("cannot be written" in line and "choose another folder for the cache" in line for line in said)


def test_a_full_disk(folder: Path) -> None:
    """The limit of a file's size stands for it: the call is refused, and what was there stays."""
    code = """
import resource, sys
import numpy as np
from rawllama.cache import Cache
cache = Cache(sys.argv[1])
cache.put_many([b"before"], np.ones((1, 1536), np.uint8))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    cache.put_many([b"%d" % i for i in range(2000)], np.zeros((2000, 1536), np.uint8))
except OSError as error:
    print(error)
assert cache.get_many([b"before"], 1536)[0].all()
assert not cache.get_many([b"1"], 1536)[1].any()
cache.put_many([b"small"], np.ones((1, 1536), np.uint8))
assert cache.get_many([b"small"], 1536)[0].all()
"""
    assert (
        "rows-00000001.mdb: mdb_txn_commit: Input/output error (is the disk full?)" in run_python(code, folder).stdout
    )


def test_without_lmdb(folder: Path) -> None:
    code = """
import sys
sys.modules["lmdb"] = None
from rawllama.cache import Cache
from rawllama.errors import MissingExtraError
try:
    Cache(sys.argv[1])
except MissingExtraError as error:
    print(error)
"""
    assert run_python(code, folder).stdout == "lmdb is not installed: pip install 'rawllama[cache]'\n"
    assert "lmdb" not in run_python("import sys, rawllama.cache; print(*sys.modules)").stdout.split()
    assert sys.modules["lmdb"]
