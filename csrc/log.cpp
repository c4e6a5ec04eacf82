// libllama's log as a queue of whole lines.

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "llama.h"
#include "rawllama.h"

namespace {

// Lines kept for a reader that does not come; the oldest goes first.
constexpr size_t capacity = 4096;

struct line {
    int32_t     level;
    std::string text;
};

class queue {
  public:
    void set_level(int32_t level) {
        const std::lock_guard<std::mutex> lock(mutex);
        threshold = level;
    }

    // A message may hold a part of a line: GGML_LOG_LEVEL_CONT continues the one before it.
    void append(ggml_log_level level, const char * text) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (level != GGML_LOG_LEVEL_CONT) {
            finish();
            partial.level = level;
        }
        if (closed || partial.level < threshold) {
            partial.text.clear();
            return;
        }
        partial.text += text;
        if (!partial.text.empty() && partial.text.back() == '\n') {
            finish();
        }
    }

    bool wait() {
        std::unique_lock<std::mutex> lock(mutex);
        ready.wait(lock, [this] { return closed || !lines.empty(); });
        return !lines.empty();
    }

    int32_t read(int32_t * level, char * text, size_t size) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (lines.empty()) {
            return -1;
        }
        const std::string & first  = lines.front().text;
        const auto          length = static_cast<int32_t>(first.size());
        if (first.size() < size) {
            memcpy(text, first.c_str(), first.size() + 1);
            *level = lines.front().level;
            lines.pop_front();
        }
        return length;
    }

    int64_t take_dropped() {
        const std::lock_guard<std::mutex> lock(mutex);
        return std::exchange(dropped, 0);
    }

    void close() {
        const std::lock_guard<std::mutex> lock(mutex);
        finish();
        closed = true;
        ready.notify_all();
    }

  private:
    // Move the partial line to the queue; the mutex is held.
    void finish() {
        while (!partial.text.empty() && partial.text.back() == '\n') {
            partial.text.pop_back();
        }
        if (partial.text.empty()) {
            return;
        }
        if (lines.size() == capacity) {
            lines.pop_front();
            dropped++;
        }
        lines.push_back(std::exchange(partial, line{ partial.level, {} }));
        ready.notify_one();
    }

    std::mutex              mutex;
    std::condition_variable ready;
    std::deque<line>        lines;
    line                    partial   = { GGML_LOG_LEVEL_NONE, {} };
    int32_t                 threshold = GGML_LOG_LEVEL_ERROR;
    int64_t                 dropped   = 0;
    bool                    closed    = false;
};

// Never freed: ggml's threads may log until the process is gone.
queue * current = new queue;

void callback(ggml_log_level level, const char * text, void *) {
    current->append(level, text);
}

}  // namespace

extern "C" {

void rawllama_log_install(void) {
    llama_log_set(callback, nullptr);
}

void rawllama_log_set_level(int32_t level) {
    current->set_level(level);
}

bool rawllama_log_wait(void) {
    return current->wait();
}

int32_t rawllama_log_read(int32_t * level, char * text, size_t size) {
    return current->read(level, text, size);
}

int64_t rawllama_log_dropped(void) {
    return current->take_dropped();
}

void rawllama_log_close(void) {
    current->close();
}

void rawllama_log_after_fork(void) {
    // The parent's queue may have been locked at that moment, by a thread that this process has not got.
    current = new queue;
}
}
