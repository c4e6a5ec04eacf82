// The state behind guard.hpp: what each thread is inside of, and what was caught in it last.

#include "guard.hpp"

#include <cstdio>
#include <stdexcept>
#include <string>

#include "ggml.h"
#include "rawllama.h"

namespace {

thread_local int         depth      = 0;  // a callback of a guarded call may make one itself
thread_local bool        has_caught = false;
thread_local std::string message;

void on_abort(const char * error_message) {
    if (depth > 0) {
        throw std::runtime_error(error_message);
    }
    fprintf(stderr, "%s\n", error_message);
}

}  // namespace

namespace rawllama {

void enter() {
    // ggml keeps one callback a process, so there is nothing to restore.
    static const auto previous = ggml_set_abort_callback(on_abort);
    (void) previous;
    has_caught = false;
    depth++;
}

void leave() {
    depth--;
}

void caught(const char * what) {
    has_caught = true;
    message    = what;
}

}  // namespace rawllama

extern "C" const char * rawllama_guard_message(void) {
    return has_caught ? message.c_str() : nullptr;
}
