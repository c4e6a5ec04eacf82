// Failed asserts of the calling thread and C++ exceptions as return values.
//
// ggml calls its abort callback before it ends the process. Ours throws, if the thread is inside a guard: the
// exception unwinds the library's frames, C ones too, as they have unwind tables, and is caught here, or by libllama's
// own handlers, which clean up as for any error of theirs.
#pragma once

#include <exception>
#include <type_traits>

namespace rawllama {

// Whether this thread is inside a guard; in guard.cpp, as are the functions below.
void enter();
void leave();
void caught(const char * what);

}  // namespace rawllama

// Call `function`; a zero of its type stands for the result if something was caught.
template <typename Function> auto guard(Function && function) -> decltype(function()) {
    struct scope {
        scope() { rawllama::enter(); }

        ~scope() { rawllama::leave(); }
    } inside;

    try {
        return function();
    } catch (const std::exception & error) {
        rawllama::caught(error.what());
    } catch (...) {
        rawllama::caught("a C++ exception without a message");
    }
    if constexpr (!std::is_void_v<decltype(function())>) {
        return {};
    }
}

// Call `function`, for what it does; false if something was caught.
template <typename Function> bool guard_done(Function && function) {
    bool done = false;
    guard([&] {
        function();
        done = true;
    });
    return done;
}
