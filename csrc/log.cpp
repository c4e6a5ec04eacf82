// libllama's log as a queue of whole lines.

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "llama.h"
#include "rawllama.h"
#include "runner.hpp"

namespace {

// Lines kept for a reader that does not come; the oldest goes first.
constexpr size_t capacity = 4096;

struct line {
    int32_t     level = GGML_LOG_LEVEL_NONE;
    std::string text;
};

class queue {
  public:
    void set_level(int32_t level) {
        const std::lock_guard<std::mutex> lock(mutex);
        threshold = level;
    }

    // A message may hold a part of a line: GGML_LOG_LEVEL_CONT continues the one before it of the same thread.
    void append(ggml_log_level level, const char * text) {
        const std::lock_guard<std::mutex> lock(mutex);
        line & part = parts[std::this_thread::get_id()];
        if (level != GGML_LOG_LEVEL_CONT) {
            finish(part);
            part.level = level;
        }
        if (closed || part.level < threshold) {
            part.text.clear();
            return;
        }
        part.text += text;
        if (!part.text.empty() && part.text.back() == '\n') {
            finish(part);
        }
    }

    bool wait() {
        std::unique_lock<std::mutex> lock(mutex);
        ready.wait(lock, [this] { return closed || !lines.empty(); });
        return !lines.empty();
    }

    int32_t read(int32_t * level, char * text, size_t size) {
        const std::lock_guard<std::mutex> lock(mutex);
        // Some messages lack their line's end. A thread that reads is not about to continue one.
        const auto part = parts.find(std::this_thread::get_id());
        if (part != parts.end()) {
            finish(part->second);
        }
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
        for (auto & part : parts) {
            finish(part.second);
        }
        closed = true;
        ready.notify_all();
    }

  private:
    // Move a partial line to the queue; the mutex is held.
    void finish(line & part) {
        while (!part.text.empty() && part.text.back() == '\n') {
            part.text.pop_back();
        }
        if (part.text.empty()) {
            return;
        }
        if (lines.size() == capacity) {
            lines.pop_front();
            dropped++;
        }
        lines.push_back(std::exchange(part, line{ part.level, {} }));
        ready.notify_one();
    }

    std::mutex                      mutex;
    std::condition_variable         ready;
    std::deque<line>                lines;
    std::map<std::thread::id, line> parts; // one a thread; ids are used again, so there are never many
    int32_t                         threshold = GGML_LOG_LEVEL_NONE; // backends greet before Python says what it wants
    int64_t                         dropped   = 0;
    bool                            closed    = false;
};

// Never freed: ggml's threads may log until the process is gone.
queue * current = new queue;

void callback(ggml_log_level level, const char * text, void *) {
    if (!rawllama::ending()) {  // libllama tells of an end that was asked for as of a failure
        current->append(level, text);
    }
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
