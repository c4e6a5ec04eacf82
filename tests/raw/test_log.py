"""libllama's log in Python's `logging`: nothing cut, mixed up or lost, and nobody waits for it.

Parts of lines go in through the callback that rawllama has installed in libllama, which llama_log_get gives back.
"""

from __future__ import annotations

import ctypes
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rawllama import ffi, lib, log

DEBUG, INFO, WARN, ERROR, CONT = (
    lib.GGML_LOG_LEVEL_DEBUG,
    lib.GGML_LOG_LEVEL_INFO,
    lib.GGML_LOG_LEVEL_WARN,
    lib.GGML_LOG_LEVEL_ERROR,
    lib.GGML_LOG_LEVEL_CONT,
)
CAPACITY = 4096  # csrc/log.cpp
MISSING = b"/no/such/model.gguf"

# Threads of C that log lines in four parts, so many each, or until told to stop.
STORM = """
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static void (*log_callback)(int, const char *, void *);
static pthread_t threads[64];
static int n_threads, n_lines;
static atomic_int stopped;

static void * run(void * argument) {
    char text[64];
    for (int i = 0; !stopped && (n_lines < 0 || i < n_lines); i++) {
        snprintf(text, sizeof text, "thread %ld ", (long) argument);
        log_callback(2, text, 0);
        snprintf(text, sizeof text, "line %d ", i);
        log_callback(5, text, 0);
        log_callback(5, "end", 0);
        log_callback(5, "\\n", 0);
    }
    return 0;
}

void storm_start(void * callback, int threads_wanted, int lines_each) {
    log_callback = (void (*)(int, const char *, void *)) callback;
    n_threads = threads_wanted;
    n_lines = lines_each;
    stopped = 0;
    for (long i = 0; i < n_threads; i++) {
        pthread_create(&threads[i], 0, run, (void *) i);
    }
}

void storm_wait(void) {
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], 0);
    }
}

void storm_stop(void) {
    stopped = 1;
    storm_wait();
}

void storm_all(void * callback, int threads_wanted, int lines_each) {
    storm_start(callback, threads_wanted, lines_each);
    storm_wait();
}
"""

# What the child processes begin with. A deadlock ends there, with its threads' stacks on stderr.
CHILD = """
import ctypes, faulthandler, logging, os, signal, sys, threading, time
faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
signal.alarm(50)
import rawllama
from rawllama import ffi, lib, log

callback, data = ffi.new("ggml_log_callback *"), ffi.new("void **")
lib.llama_log_get(callback, data)
address = ctypes.c_void_p(int(ffi.cast("uintptr_t", callback[0])))
storm = ctypes.CDLL(sys.argv[1])
heard = []

class Keep(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())

def say(level, text):
    callback[0](level, text.encode(), data[0])

def load_missing():
    assert not lib.llama_model_load_from_file(b"/no/such/model.gguf", lib.llama_model_default_params())

"""


class Keep(logging.Handler):
    """Keeps the records it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def lines(self) -> list[str]:
        """All messages so far, after all that C holds has come."""
        log.flush()
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Keep]:
    """All that the logger `rawllama` says, at every level."""
    log.flush()
    handler = Keep()
    level, propagate = log.logger.level, log.logger.propagate
    log.logger.addHandler(handler)
    log.logger.propagate = False
    log.logger.setLevel(logging.DEBUG)
    yield handler
    log.flush()
    log.logger.removeHandler(handler)
    log.logger.propagate = propagate
    log.logger.setLevel(level)


@pytest.fixture(scope="session")
def storm(compile_c: Callable[..., Path]) -> Path:
    """The library that STORM makes."""
    return compile_c("storm.so", STORM, "-pthread")


@pytest.fixture
def child(python: Any, storm: Path) -> Callable[..., Any]:
    """Run Python code after CHILD in a process of its own."""
    return lambda code, *args, **options: python(CHILD + code, storm, *args, **options)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


# ---- lines and levels


@pytest.mark.parametrize(
    ("level", "expected"),
    [(DEBUG, logging.DEBUG), (INFO, logging.INFO), (WARN, logging.WARNING), (ERROR, logging.ERROR)],
)
def test_level(heard: Keep, say: Any, level: int, expected: int) -> None:
    say(level, "a line\n")
    assert heard.lines() == ["a line"]
    assert heard.records[0].levelno == expected
    assert heard.records[0].name == "rawllama"


def test_loading_a_model_says_what_it_loads(heard: Keep, minilm: str) -> None:
    model = lib.llama_model_load_from_file(minilm.encode(), lib.llama_model_default_params())
    lib.llama_model_free(model)
    lines = heard.lines()
    assert any("llama_model_loader" in line and minilm in line for line in lines)
    assert any(line.startswith("print_info: n_embd") for line in lines)
    levels = {record.levelno for record in heard.records}
    assert {logging.DEBUG, logging.INFO} <= levels and logging.ERROR not in levels
    assert all(line and not line.endswith("\n") for line in lines)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_progress_dots_are_one_line(heard: Keep, minilm: str, level: str) -> None:
    log.logger.setLevel(level)
    model = lib.llama_model_load_from_file(minilm.encode(), lib.llama_model_default_params())
    lib.llama_model_free(model)
    dots = [line for line in heard.lines() if re.fullmatch(r"\.+", line)]
    assert len(dots) == 1
    assert len(dots[0]) > 10  # parts, of which there are fewer than tensors


def test_missing_file_is_an_error(heard: Keep) -> None:
    assert not lib.llama_model_load_from_file(MISSING, lib.llama_model_default_params())
    heard.lines()
    errors = [record.getMessage() for record in heard.records if record.levelno == logging.ERROR]
    assert any(MISSING.decode() in line for line in errors)


def test_parts_make_one_line_at_the_level_of_the_first(heard: Keep, say: Any) -> None:
    say(WARN, "one ")
    say(CONT, "two ")
    say(CONT, "three\n")
    assert heard.lines() == ["one two three"]
    assert heard.records[0].levelno == logging.WARNING


def test_a_new_message_ends_the_line_before(heard: Keep, say: Any) -> None:
    say(INFO, "never ended")
    say(INFO, "next\n")
    say(CONT, "...")
    say(CONT, "\n")
    assert heard.lines() == ["never ended", "next", "..."]


def test_a_line_without_end_is_not_kept_back(heard: Keep, say: Any) -> None:
    say(ERROR, "no newline here")
    assert heard.lines() == ["no newline here"]


def test_parts_of_a_line_below_the_level_go_with_it(heard: Keep, say: Any) -> None:
    log.logger.setLevel(logging.WARNING)
    say(INFO, "unwanted ")
    say(CONT, "as well\n")
    say(CONT, "and this\n")
    say(WARN, "wanted\n")
    assert heard.lines() == ["wanted"]


def test_c_drops_what_the_logger_does_not_want(heard: Keep, say: Any) -> None:
    log.logger.setLevel("WARNING")
    say(INFO, "unwanted\n")
    log.logger.setLevel("DEBUG")  # too late: it never was in the queue
    say(DEBUG, "wanted\n")
    assert heard.lines() == ["wanted"]


def test_empty_lines_are_left_out_and_inner_ones_kept(heard: Keep, say: Any) -> None:
    say(INFO, "\n")
    say(INFO, "")
    say(INFO, "a\n\nb\n\n")
    assert heard.lines() == ["a\n\nb"]


def test_long_lines_are_whole(heard: Keep, say: Any) -> None:
    long = "".join(f"{i} é🦙 " for i in range(10_000))
    assert len(long.encode()) > 100_000
    say(INFO, long + "\n")
    say(INFO, "short\n")
    assert heard.lines() == [long, "short"]


@pytest.mark.parametrize("size", [4094, 4095, 4096, 4097, 8192])
def test_lines_about_as_long_as_the_buffer(heard: Keep, say: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(log, "_buffer", ffi.new("char[]", 4096))
    say(INFO, "x" * size + "\n")
    assert heard.lines() == ["x" * size]


def test_text_is_not_taken_for_a_format_and_bad_utf8_is_shown(heard: Keep, say: Any) -> None:
    say(INFO, "100 %s %d {x}\n")
    say(INFO, b"caf\xc3\xa9 \xff\xfe\n")
    assert heard.lines() == ["100 %s %d {x}", "café \\xff\\xfe"]


# ---- the logger


def test_quiet_by_default(python: Any, minilm: str) -> None:
    done = python(f"""
from rawllama import lib
model = lib.llama_model_load_from_file({minilm!r}.encode(), lib.llama_model_default_params())
lib.llama_free(lib.llama_init_from_model(model, lib.llama_context_default_params()))
lib.llama_model_free(model)
""")
    assert (done.stdout, done.stderr) == ("", "")


def test_errors_are_heard_by_default(child: Any) -> None:
    done = child("load_missing()")
    assert MISSING.decode() in done.stderr
    assert done.stdout == ""


def test_level_set_before_the_import_is_kept(python: Any, minilm: str) -> None:
    done = python(f"""
import logging
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
before = logging.getLogger("rawllama")
before.setLevel(logging.INFO)
from rawllama import lib
assert logging.getLogger("rawllama") is before and before.level == logging.INFO
model = lib.llama_model_load_from_file({minilm!r}.encode(), lib.llama_model_default_params())
""")
    assert "INFO rawllama llama_model_loader: loaded meta data" in done.stderr
    assert "DEBUG" not in done.stderr


def test_the_logger_keeps_a_class_of_the_users(python: Any) -> None:
    python("""
import logging
class Mine(logging.Logger):
    def setLevel(self, level):
        self.levels = [*getattr(self, "levels", []), level]
        super().setLevel(level)
logging.setLoggerClass(Mine)
import rawllama
logger = logging.getLogger("rawllama")
logger.setLevel("INFO")
assert isinstance(logger, Mine) and logger.levels[-1] == "INFO"
""")


def test_dict_config(child: Any, tmp_path: Path) -> None:
    child(
        """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": sys.argv[2], "formatter": "plain"}},
    "loggers": {"rawllama": {"level": "DEBUG", "handlers": ["file"], "propagate": False}},
})
say(lib.GGML_LOG_LEVEL_DEBUG, "first\\n")
log.flush()
logging.config.dictConfig({"version": 1, "incremental": True, "loggers": {"rawllama": {"level": "WARNING"}}})
say(lib.GGML_LOG_LEVEL_INFO, "second\\n")
say(lib.GGML_LOG_LEVEL_WARN, "third\\n")
""",
        tmp_path / "log.txt",
    )
    assert (tmp_path / "log.txt").read_text() == "DEBUG first\nWARNING third\n"


def test_errors_that_the_logger_does_not_want_are_still_quoted(heard: Keep) -> None:
    log.logger.setLevel(logging.CRITICAL)
    log.take_recent()
    with log._lock:  # the log's thread has had no time for them
        lib.llama_model_load_from_file(MISSING, lib.llama_model_default_params())
        assert any(MISSING.decode() in line for line in log.take_recent())
    assert heard.records == []
    assert log.take_recent() == []


def test_a_filter_that_raises_does_not_end_the_log(heard: Keep, say: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        if "bad" in record.getMessage():
            raise ValueError("from a filter")
        return True

    log.logger.addFilter(refuse)
    try:
        say(INFO, "bad\n")
        assert wait_for(lambda: "from a filter" in capsys.readouterr().err)  # in the log's thread
        say(INFO, "good\n")
        assert wait_for(lambda: bool(heard.records))  # which is still there
        say(INFO, "bad again\n")
        assert heard.lines() == ["good"]  # in this thread
    finally:
        log.logger.removeFilter(refuse)


# ---- threads


def test_lines_come_by_themselves(heard: Keep, say: Any) -> None:
    say(INFO, "a line\n")
    assert wait_for(lambda: len(heard.records) == 1)
    assert heard.records[0].threadName == "rawllama-log"


def test_flush_is_synchronous(heard: Keep, say: Any) -> None:
    for i in range(500):  # the log's thread takes some of them, and may be at work on one
        say(INFO, f"line {i}\n")
        log.flush()
        assert len(heard.records) == i + 1
    assert heard.lines() == [f"line {i}" for i in range(500)]


def test_flush_inside_a_handler(child: Any) -> None:
    child("""
class Curious(Keep):
    def emit(self, record):
        super().emit(record)
        log.take_recent()

log.logger.addHandler(Curious())
for _ in range(100):
    load_missing()
log.flush()
assert len(heard) >= 100
""")


def test_a_storm_of_threads_is_not_mixed_up(heard: Keep, storm: Path, log_callback: tuple[Any, Any]) -> None:
    threads, lines = 8, 400  # less than the queue holds
    address = ctypes.c_void_p(int(ffi.cast("uintptr_t", log_callback[0])))
    ctypes.CDLL(str(storm)).storm_all(address, threads, lines)
    seen = heard.lines()
    for thread in range(threads):
        own = [line for line in seen if line.startswith(f"thread {thread} ")]
        assert own == [f"thread {thread} line {i} end" for i in range(lines)]
    assert len(seen) == threads * lines


def test_logging_threads_never_wait_for_python(child: Any) -> None:
    """They end while this thread holds the GIL, which it would for ever if they needed it."""
    child("""
log.logger.addHandler(Keep())
log.logger.setLevel("INFO")
ctypes.PyDLL(sys.argv[1]).storm_all(address, 4, 500)
log.flush()
assert len(heard) == 2000, len(heard)
""")


def test_too_many_lines_drop_the_oldest_and_say_so(heard: Keep, say: Any) -> None:
    """While a handler of the user's hangs, the queue fills."""
    begun, end = threading.Event(), threading.Event()

    class Hang(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            begun.set()
            end.wait(30)

    hang = Hang()
    log.logger.addHandler(hang)
    say(INFO, "first\n")
    assert begun.wait(10)
    count = CAPACITY + 1000
    for i in range(count):
        say(INFO, f"line {i}\n")
    log.logger.removeHandler(hang)
    end.set()
    lines = heard.lines()
    assert lines[:2] == ["first", "1000 lines of libllama's log were dropped: they came too fast"]
    assert lines[2:] == [f"line {i}" for i in range(1000, count)]
    assert heard.records[1].levelno == logging.WARNING


def test_flush_ends_while_others_log_without_end(child: Any) -> None:
    """Here each line that is handled brings the next one; without an end the child would be killed."""
    child("""
class Echo(Keep):
    def emit(self, record):
        super().emit(record)
        say(lib.GGML_LOG_LEVEL_INFO, "again\\n")

echo = Echo()
log.logger.addHandler(echo)
log.logger.propagate = False
log.logger.setLevel("INFO")
say(lib.GGML_LOG_LEVEL_INFO, "first\\n")
log.flush()
log.logger.removeHandler(echo)
assert heard[:2] == ["first", "again"]
""")


# ---- fork


def test_forks_in_a_storm_log_and_do_not_hang(child: Any) -> None:
    """At the fork the queue's lock is often held, by a thread that the child has not got."""
    child("""
log.logger.addHandler(Keep())
log.logger.propagate = False
log.logger.setLevel("INFO")

def in_child(how):
    heard.clear()
    load_missing()
    if how == "flush":
        log.flush()
    end = time.monotonic() + 10
    while not any("/no/such/model.gguf" in line for line in heard) and time.monotonic() < end:
        time.sleep(0.005)
    os._exit(not any("/no/such/model.gguf" in line for line in heard))

storm.storm_start(address, 4, -1)
for i in range(30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        in_child("flush" if i % 2 else "wait")
    assert os.waitpid(pid, 0)[1] == 0, i
storm.storm_stop()
""")


def test_a_fork_keeps_the_level_and_the_parents_lines(child: Any) -> None:
    done = child("""
logging.basicConfig(format="%(message)s", level="INFO")
log.logger.setLevel("WARNING")
with log._lock:  # nothing is handed over before the fork
    say(lib.GGML_LOG_LEVEL_WARN, "of the parent\\n")
    pid = os.fork()
if pid == 0:
    signal.alarm(20)
    with log._lock:
        say(lib.GGML_LOG_LEVEL_WARN, "of the child\\n")
        for _ in range(5000):  # would push it out of the queue if C kept them
            say(lib.GGML_LOG_LEVEL_INFO, "unwanted\\n")
    sys.exit()  # not os._exit: the end of a Python process, with its atexit
assert os.waitpid(pid, 0)[1] == 0
""")
    assert sorted(done.stderr.splitlines()) == ["of the child", "of the parent"]


# ---- the end of the process


def test_nothing_is_lost_at_exit(child: Any) -> None:
    done = child("""
logging.basicConfig(format="%(message)s")
log.logger.setLevel("INFO")
ctypes.PyDLL(sys.argv[1]).storm_all(address, 4, 1000)
other = threading.Thread(target=say, args=(lib.GGML_LOG_LEVEL_INFO, "of a thread that is gone, without end"))
other.start()
other.join()
say(lib.GGML_LOG_LEVEL_INFO, "last words, without end")
""")
    lines = done.stderr.splitlines()
    assert len(lines) == 4002
    assert set(lines[-2:]) == {"of a thread that is gone, without end", "last words, without end"}


@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(3)", 3), ("raise ValueError", 1), ("os._exit(3)", 3), ("threading.Thread(target=sys.exit).start()", 0)],
)
def test_the_process_ends_in_a_storm(child: Any, ending: str, code: int) -> None:
    done = child(
        f"""
log.logger.addHandler(logging.NullHandler())
log.logger.propagate = False
log.logger.setLevel("INFO")
storm.storm_start(address, 4, -1)
time.sleep(0.1)
{ending}
""",
        fails=True,
    )
    assert done.returncode == code, done.stderr


def test_the_process_ends_while_a_handler_logs_slowly(child: Any) -> None:
    done = child("""
class Slow(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.01)
        super().emit(record)

log.logger.addHandler(Slow())
log.logger.setLevel("INFO")
for i in range(100):
    say(lib.GGML_LOG_LEVEL_INFO, f"line {i}\\n")
""")
    assert done.stderr.splitlines() == [f"line {i}" for i in range(100)]
