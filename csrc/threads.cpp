// Whether the system has threads to give: where it has not, ggml's OpenMP ends the process.

#include <condition_variable>
#include <mutex>
#include <exception>
#include <thread>
#include <vector>

#include "rawllama.h"

extern "C" int32_t rawllama_startable_threads(int32_t n) {
    std::mutex               mutex;
    std::condition_variable  changed;
    bool                     end = false;
    std::vector<std::thread> threads;

    const auto wait_for_end = [&] {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return end; });
    };
    try {
        threads.reserve(n);
        while (static_cast<int32_t>(threads.size()) < n) {
            threads.emplace_back(wait_for_end);
        }
    } catch (const std::exception &) {  // no more threads, or no memory for them
    }
    {
        const std::lock_guard<std::mutex> lock(mutex);
        end = true;
    }
    changed.notify_all();
    for (auto & thread : threads) {
        thread.join();
    }
    return static_cast<int32_t>(threads.size());
}
