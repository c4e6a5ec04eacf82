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
    previous = signal(SIGINT, on_interrupt);
    if (previous == SIG_DFL || previous == SIG_IGN || previous == SIG_ERR) {
        signal(SIGINT, previous);
        return false;
    }
    return true;
}

void uninstall() {
    signal(SIGINT, previous);
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

bool install() {
    struct sigaction ours = {};
    ours.sa_sigaction     = on_interrupt;
    ours.sa_flags         = SA_SIGINFO | SA_ONSTACK;
    if (sigaction(SIGINT, &ours, &previous) != 0) {
        return false;
    }
    // Whoever ignores the signal, or lets it end the process, shall have that.
    const bool handled = (previous.sa_flags & SA_SIGINFO) ||
                         (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN);
    if (!handled) {
        sigaction(SIGINT, &previous, nullptr);
    }
    return handled;
}

void uninstall() {
    sigaction(SIGINT, &previous, nullptr);
}

#endif

}  // namespace

extern "C" {

void rawllama_interrupt_begin(void) {
    interrupted = false;
    installed   = install();
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
