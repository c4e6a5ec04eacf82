// Many texts to tokens, in threads.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "guard.hpp"
#include "llama.h"
#include "rawllama.h"

struct rawllama_tokens {
    std::vector<std::vector<llama_token>> chunks;  // of texts, in order
};

namespace {

// Many BPE vocabularies cut text by std::regex, and libstdc++'s calls itself for each character of a match: 320 bytes
// of stack a character were measured, so that 26,000 letters without a space end a process on the usual 8 MB. Longer
// texts get a thread with a stack that the whole text may fill; what is not filled costs no memory.
constexpr int64_t STACK_PER_BYTE = 1024;
constexpr int64_t STACK_BASE     = 1 << 20;
constexpr int64_t SHALLOW_BYTES  = 1024;  // of text that is safe on any thread

// One more thread for each so many bytes of text, which take 0.6 ms in MiniLM's vocabulary; starting one takes 0.06.
constexpr int64_t BYTES_PER_THREAD = 16 * 1024;

constexpr int64_t MAX_TEXTS_PER_CHUNK = 256;
constexpr int64_t CHUNKS_PER_THREAD   = 8;  // so that all end at about the same time

#ifdef _WIN32

// std::regex there limits itself, and throws.
class deep_thread {
  public:
    deep_thread(int64_t stack, std::function<void()> work) : thread(std::move(work)) { (void) stack; }

    ~deep_thread() { thread.join(); }

  private:
    std::thread thread;
};

#else

// A thread with a stack of `stack` bytes. Throws std::system_error if there is no room for it; its end is the join.
class deep_thread {
  public:
    deep_thread(int64_t stack, std::function<void()> work) : work(std::move(work)) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        size             = (static_cast<size_t>(stack) / page + 2) * page;
        memory           = mmap(nullptr, size, PROT_READ | PROT_WRITE, FLAGS, -1, 0);
        if (memory == MAP_FAILED) {
            throw std::system_error(errno, std::generic_category());
        }
        mprotect(memory, page, PROT_NONE);  // the end that a stack overflows at
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        int error = pthread_attr_setstack(&attributes, static_cast<char *>(memory) + page, size - page);
        error     = error ? error : pthread_create(&thread, &attributes, run, this);
        pthread_attr_destroy(&attributes);
        if (error) {
            munmap(memory, size);
            throw std::system_error(error, std::generic_category());
        }
    }

    ~deep_thread() {
        pthread_join(thread, nullptr);
        munmap(memory, size);
    }

    deep_thread(const deep_thread &)             = delete;
    deep_thread & operator=(const deep_thread &) = delete;

  private:
    // Not reserved: a stack of gigabytes is there for the one text that needs it.
#ifdef MAP_STACK
    static constexpr int FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
#else
    static constexpr int FLAGS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#endif

    static void * run(void * self) {
        static_cast<deep_thread *>(self)->work();
        return nullptr;
    }

    std::function<void()> work;
    size_t                size;
    void *                memory;
    pthread_t             thread;
};

#endif

// The texts, which the caller owns, and what the threads share.
class job {
  public:
    job(const llama_vocab * vocab, const char * data, const int64_t * offsets, int64_t n,
        const rawllama_tokenizing & how, int64_t * counts) :
        vocab(vocab), data(data), offsets(offsets), n(n), how(how), counts(counts), first_failed(n) {
        for (int64_t i = 0; i < n; i++) {
            longest = std::max(longest, how.n_prefix + offsets[i + 1] - offsets[i]);
        }
    }

    // Tokenize all texts. Returns as rawllama_tokenize does.
    int64_t run(std::vector<std::vector<llama_token>> & result) {
        const bool    cut_by_regex = llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_BPE;
        const bool    deep         = cut_by_regex && longest > SHALLOW_BYTES;
        const int64_t stack        = STACK_BASE + (cut_by_regex ? longest * STACK_PER_BYTE : 0);

        split(result);
        const int64_t bytes  = offsets[n] - offsets[0] + n * how.n_prefix;
        const int64_t enough = std::min<int64_t>(chunks->size(), 1 + bytes / BYTES_PER_THREAD);
        std::vector<std::unique_ptr<deep_thread>> threads;
        try {
            for (int64_t i = deep ? 0 : 1; i < std::min<int64_t>(how.n_threads, enough); i++) {
                threads.push_back(std::make_unique<deep_thread>(stack, [this] { work(); }));
            }
        } catch (const std::system_error &) {  // then fewer
            if (deep && threads.empty()) {
                throw std::runtime_error("no thread could have a stack of " + std::to_string(stack) + " bytes");
            }
        }
        if (!deep) {
            work();
        }
        threads.clear();
        if (first_failed < n) {
            rawllama::caught(message);
            return first_failed;
        }
        return interrupted ? RAWLLAMA_INTERRUPTED : n;
    }

  private:
    void split(std::vector<std::vector<llama_token>> & result) {
        chunk_size = std::clamp<int64_t>(n / (CHUNKS_PER_THREAD * how.n_threads), 1, MAX_TEXTS_PER_CHUNK);
        chunks     = &result;
        chunks->resize((n + chunk_size - 1) / chunk_size);
    }

    // What each thread does: take the next chunk, until there is none.
    void work() {
        std::vector<llama_token> room;
        std::string              prefixed;
        for (int64_t chunk; (chunk = next_chunk++) < static_cast<int64_t>(chunks->size());) {
            const int64_t end = std::min(n, (chunk + 1) * chunk_size);
            for (int64_t i = chunk * chunk_size; i < end; i++) {
                if (must_end(i)) {
                    return;
                }
                bool done = false;
                guard([&] {
                    tokenize(i, room, prefixed, (*chunks)[chunk]);
                    done = true;
                });
                if (!done) {
                    fail(i, rawllama_guard_message());
                }
            }
        }
    }

    // Chunks are taken in order, so all texts before the first that failed are done or in work.
    bool must_end(int64_t i) {
        if (how.interruptible && rawllama_interrupted()) {
            interrupted = true;
        }
        return interrupted || i > first_failed;
    }

    void tokenize(int64_t i, std::vector<llama_token> & room, std::string & prefixed,
                  std::vector<llama_token> & result) {
        const char * text   = data + offsets[i];
        int64_t      length = offsets[i + 1] - offsets[i];
        if (how.n_prefix > 0) {
            prefixed.assign(how.prefix, how.n_prefix).append(text, length);
            text   = prefixed.data();
            length = static_cast<int64_t>(prefixed.size());
        }
        if (length > INT32_MAX) {
            throw std::length_error("with its prompt, the text has more than 2147483647 bytes");
        }
        int32_t count = -static_cast<int32_t>(std::min<int64_t>(length + 8, INT32_MAX));
        do {  // rarely twice: few texts have more tokens than bytes
            room.resize(std::max(room.size(), static_cast<size_t>(-count)));
            const int32_t size = static_cast<int32_t>(std::min<size_t>(room.size(), INT32_MAX));
            count = llama_tokenize(vocab, text, static_cast<int32_t>(length), room.data(), size, how.add_special,
                                   how.parse_special);
            if (count == INT32_MIN) {
                throw std::length_error("the text has more than 2147483647 tokens");
            }
        } while (count < 0);
        result.insert(result.end(), room.begin(), room.begin() + count);
        counts[i] = count;
        if (how.closing != LLAMA_TOKEN_NULL) {
            result.push_back(how.closing);
            counts[i]++;
        }
    }

    void fail(int64_t i, const char * what) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (i < first_failed) {
            first_failed = i;
            snprintf(message, sizeof(message), "%s", what);
        }
    }

    const llama_vocab * vocab;
    const char *        data;
    const int64_t *     offsets;
    int64_t             n;
    rawllama_tokenizing how;
    int64_t *           counts;  // of tokens, by text
    int64_t             longest    = 0;
    int64_t             chunk_size = 1;

    std::vector<std::vector<llama_token>> * chunks = nullptr;
    std::atomic<int64_t>                    next_chunk{ 0 };
    std::atomic<bool>                       interrupted{ false };
    std::atomic<int64_t>                    first_failed;
    std::mutex                              mutex;
    char                                    message[512] = {};
};

}  // namespace

extern "C" {

int64_t rawllama_tokenize(
              const struct llama_vocab * vocab,
                            const char * data,
                         const int64_t * offsets,
                               int64_t   n,
      const struct rawllama_tokenizing * how,
                               int64_t * token_offsets,
               struct rawllama_tokens ** tokens) {
    std::unique_ptr<rawllama_tokens> result;
    int64_t code     = RAWLLAMA_CAUGHT;
    token_offsets[0] = 0;
    *tokens          = nullptr;
    guard([&] {
        result = std::make_unique<rawllama_tokens>();
        code   = job(vocab, data, offsets, n, *how, token_offsets + 1).run(result->chunks);
    });
    if (code == n) {
        for (int64_t i = 0; i < n; i++) {
            token_offsets[i + 1] += token_offsets[i];
        }
        *tokens = result.release();
    }
    return code;
}

void rawllama_tokens_copy(const struct rawllama_tokens * tokens, llama_token * target) {
    for (const auto & chunk : tokens->chunks) {
        if (!chunk.empty()) {
            memcpy(target, chunk.data(), chunk.size() * sizeof(llama_token));
            target += chunk.size();
        }
    }
}

void rawllama_tokens_free(struct rawllama_tokens * tokens) {
    delete tokens;
}

}  // extern "C"
