/* What rawllama adds to llama.h. bindgen reads this header like the others, so each function here is in
 * `rawllama.lib` too; all of them begin with `rawllama_`. */
#ifndef RAWLLAMA_H
#define RAWLLAMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// log.cpp: libllama's log lines, kept until Python asks for them.
// ggml's threads only append to a queue; no thread of theirs ever runs Python.

// Take over libllama's and ggml's log (llama_log_set).
void rawllama_log_install(void);

// Drop lines below this ggml_log_level; GGML_LOG_LEVEL_NONE drops none.
void rawllama_log_set_level(int32_t level);

// Wait until there is a line; false once the log is closed and empty.
bool rawllama_log_wait(void);

// Move the oldest line to `text`. Returns its length in bytes, without the final NUL that is added, or -1 if there
// is none. A line that does not fit into `size` bytes stays: call again with room for the length returned. What this
// thread began and did not end is taken as a line; what other threads began is not.
int32_t rawllama_log_read(int32_t * level, char * text, size_t size);

// The number of lines that were dropped because nobody read them, since the last call.
int64_t rawllama_log_dropped(void);

// End every wait; lines that come later are dropped.
void rawllama_log_close(void);

// In the child of a fork: begin anew, as the parent's threads and locks are gone.
void rawllama_log_after_fork(void);

// guard.cpp: calls of llama.h that report a failed GGML_ASSERT of the calling thread, or a C++ exception, where the
// bare ones end the process. Asserts on ggml's worker threads still do.

// Returned by the guarded functions that return a number; rawllama_guard_message() then says what was caught.
#define RAWLLAMA_CAUGHT (-2147483647 - 1)

// What the last guarded call of this thread caught, or NULL. Valid until the thread's next guarded call.
const char * rawllama_guard_message(void);

// As llama_model_load_from_file; NULL if something was caught.
struct llama_model * rawllama_model_load_from_file(const char * path_model, struct llama_model_params params);

// As llama_init_from_model; NULL if something was caught.
struct llama_context * rawllama_init_from_model(struct llama_model * model, struct llama_context_params params);

// As llama_tokenize, or RAWLLAMA_CAUGHT.
int32_t rawllama_tokenize(
    const struct llama_vocab * vocab,
                  const char * text,
                     int32_t   text_len,
                 llama_token * tokens,
                     int32_t   n_tokens_max,
                        bool   add_special,
                        bool   parse_special);

// As llama_encode, or RAWLLAMA_CAUGHT: then free the context, whose state is unknown.
int32_t rawllama_encode(struct llama_context * ctx, struct llama_batch batch);

// As llama_decode, or RAWLLAMA_CAUGHT: then free the context, whose state is unknown.
int32_t rawllama_decode(struct llama_context * ctx, struct llama_batch batch);

#ifdef __cplusplus
}
#endif

#endif
