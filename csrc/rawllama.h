/* What rawllama adds to llama.h. bindgen reads this header like the others, so each function here is in
 * `rawllama.lib` too; all of them begin with `rawllama_`. */
#ifndef RAWLLAMA_H
#define RAWLLAMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
// is none. A line that does not fit into `size` bytes stays: call again with room for the length returned.
int32_t rawllama_log_read(int32_t * level, char * text, size_t size);

// The number of lines that were dropped because nobody read them, since the last call.
int64_t rawllama_log_dropped(void);

// End every wait; lines that come later are dropped.
void rawllama_log_close(void);

// In the child of a fork: begin anew, as the parent's threads and locks are gone.
void rawllama_log_after_fork(void);

#ifdef __cplusplus
}
#endif

#endif
