// SIGINT during a long call: noted for the call itself, then handed to the handler that was there before.

#include <atomic>
#include <csignal>

#include "rawllama.h"

namespace {

std::atomic<bool> interrupted{ false };
bool              installed = false;  // Python's main thread alone changes it

#ifdef _WIN32

using handler = void (*)(int);
handler previous = SIG_DFL;

void on_interrupt(int number) {
    interrupted = true;
    signal(number, on_interrupt);  // Windows forgets it
    previous(number);
}

bool install() {
    const handler before = signal(SIGINT, on_interrupt);
    if (before == on_interrupt) {
        return false;
    }
    if (before == SIG_DFL || before == SIG_IGN || before == SIG_ERR) {
        signal(SIGINT, before);
        return false;
    }
    previous = before;
    return true;
}

void uninstall() {
    const handler now = signal(SIGINT, previous);
    if (now != on_interrupt) {
        signal(SIGINT, now);
    }
}

#else

struct sigaction previous;

void on_interrupt(int number, siginfo_t * info, void * context) {
    interrupted = true;
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
    }
}

bool is_ours(const struct sigaction & action) {
    return (action.sa_flags & SA_SIGINFO) && action.sa_sigaction == on_interrupt;
}

bool install() {
    struct sigaction before = {};
    if (sigaction(SIGINT, nullptr, &before) != 0 || is_ours(before)) {
        return false;
    }
    // Whoever ignores the signal, or lets it end the process, shall have that.
    if (!(before.sa_flags & SA_SIGINFO) && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN)) {
        return false;
    }
    previous              = before;  // before ours can be called
    struct sigaction ours = {};
    ours.sa_sigaction     = on_interrupt;
    ours.sa_flags         = SA_SIGINFO | SA_ONSTACK;
    return sigaction(SIGINT, &ours, nullptr) == 0;
}

// What a program has set meanwhile stays.
void uninstall() {
    struct sigaction now = {};
    if (sigaction(SIGINT, nullptr, &now) == 0 && is_ours(now)) {
        sigaction(SIGINT, &previous, nullptr);
    }
}

#endif

}  // namespace

extern "C" {

bool rawllama_interrupt_begin(void) {
    interrupted = false;
    if (!install()) {
        return false;
    }
    installed = true;
    return true;
}

void rawllama_interrupt_end(void) {
    if (installed) {
        uninstall();
        installed = false;
    }
}

bool rawllama_interrupted(void) {
    return interrupted;
}

bool rawllama_interrupt_progress(float progress, void * unused) {
    (void) progress;
    (void) unused;
    return !interrupted;
}

}  // extern "C"
