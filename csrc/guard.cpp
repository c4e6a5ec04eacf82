// Failed asserts of the calling thread and C++ exceptions as return values.
//
// ggml calls its abort callback before it ends the process. Ours throws, if the thread is inside a guard: the
// exception unwinds the library's frames, C ones too, as they have unwind tables, and is caught here, or by libllama's
// own handlers, which clean up as for any error of theirs.

#include <cstdio>
#include <stdexcept>
#include <string>

#include "ggml.h"
#include "llama.h"
#include "rawllama.h"

namespace {

thread_local bool        guarded = false;
thread_local bool        caught  = false;
thread_local std::string message;

void on_abort(const char * error_message) {
    if (guarded) {
        throw std::runtime_error(error_message);
    }
    fprintf(stderr, "%s\n", error_message);
}

// Call `function`; `failed` stands for its result if something was caught.
template <typename Result, typename Function> Result guard(Result failed, Function && function) {
    // ggml keeps one callback a process, so there is nothing to restore.
    static const auto previous = ggml_set_abort_callback(on_abort);
    (void) previous;

    caught  = false;
    guarded = true;
    Result result = failed;
    try {
        result = function();
    } catch (const std::exception & error) {
        caught  = true;
        message = error.what();
    } catch (...) {
        caught  = true;
        message = "a C++ exception without a message";
    }
    guarded = false;
    return result;
}

}  // namespace

extern "C" {

const char * rawllama_guard_message(void) {
    return caught ? message.c_str() : nullptr;
}

struct llama_model * rawllama_model_load_from_file(const char * path_model, struct llama_model_params params) {
    return guard<llama_model *>(nullptr, [&] { return llama_model_load_from_file(path_model, params); });
}

struct llama_context * rawllama_init_from_model(struct llama_model * model, struct llama_context_params params) {
    return guard<llama_context *>(nullptr, [&] { return llama_init_from_model(model, params); });
}

int32_t rawllama_tokenize(
    const struct llama_vocab * vocab,
                  const char * text,
                     int32_t   text_len,
                 llama_token * tokens,
                     int32_t   n_tokens_max,
                        bool   add_special,
                        bool   parse_special) {
    return guard<int32_t>(RAWLLAMA_CAUGHT, [&] {
        return llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special);
    });
}

int32_t rawllama_encode(struct llama_context * ctx, struct llama_batch batch) {
    return guard<int32_t>(RAWLLAMA_CAUGHT, [&] { return llama_encode(ctx, batch); });
}

int32_t rawllama_decode(struct llama_context * ctx, struct llama_batch batch) {
    return guard<int32_t>(RAWLLAMA_CAUGHT, [&] { return llama_decode(ctx, batch); });
}
}
