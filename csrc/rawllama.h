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

// guard.cpp: each function of llama.h that is not deprecated has a twin, rawllama_guarded_<its name>, that reports a
// failed GGML_ASSERT of the calling thread, or a C++ exception, where the bare one ends the process. The twins are made
// by bindgen (rawllama_guarded.h). Asserts on ggml's worker threads still end the process.

// What the last guarded call of this thread caught, or NULL; the call then returned zero or NULL. Valid until the
// thread's next guarded call.
const char * rawllama_guard_message(void);

// interrupt.cpp: Ctrl-C during a long call. Python's own handler only takes a note, which Python reads when C returns;
// between begin and end ours runs before it, so that C returns early. For Python's main thread alone. Begin is false
// where no end is wanted: ours is there already, in a block within a block, or nobody handles the signal.

bool rawllama_interrupt_begin(void);
void rawllama_interrupt_end(void);

// Whether SIGINT has come since the last rawllama_interrupt_begin.
bool rawllama_interrupted(void);

// A llama_progress_callback that ends the load once interrupted.
bool rawllama_interrupt_progress(float progress, void * unused);

// cpu/: our own kernels for matrix products with F32, F16, BF16 and Q8_0 weights, attention and GELU on the CPU, and
// output buffers that take memory only where something is written.

// Make them known to ggml's CPU backend. To be called before the first model is loaded: ggml lists its buffer types once.
void rawllama_cpu_install(void);

// The instruction set that the kernels use (avx512, avx2, neon), or NULL where there are none. The environment variable
// RAWLLAMA_KERNELS narrows the choice to one of them, or to none.
const char * rawllama_kernels_name(void);

// Whether models that this thread loads from now on are packed for them.
void rawllama_kernels_pack(bool pack);

// threads.cpp: how many threads the system can start now beside this one, up to n. They end before it returns.
int32_t rawllama_startable_threads(int32_t n);

// batch.c: batches in arrays that Python owns.

struct rawllama_batch {
    struct llama_batch batch;  // n_tokens is how much of the arrays is in use
    int32_t capacity;          // tokens that the arrays hold
    int32_t n_embd;            // floats a row of embd; 0 if the batch has token ids
    int32_t n_seq_max;         // sequence ids a token
    int32_t n_pos;             // positions a row of embd; token ids have one
};

enum rawllama_outputs {
    RAWLLAMA_OUTPUTS_NONE,
    RAWLLAMA_OUTPUTS_LAST,  // of each sequence
    RAWLLAMA_OUTPUTS_ALL,
};

enum rawllama_add {
    RAWLLAMA_ADD_OK,
    RAWLLAMA_ADD_NO_ROOM,
    RAWLLAMA_ADD_OFFSETS,  // they decrease, or lie outside the tokens
};

// Append `n_sequences` sequences to a batch of token ids: sequence i is tokens[offsets[i]] to tokens[offsets[i + 1]],
// with the id seq_ids[i] (or i, if NULL) and positions from starts[i] (or 0, if NULL) on. Changes nothing unless all
// fits.
enum rawllama_add rawllama_batch_add(
    struct rawllama_batch * batch,
        const llama_token * tokens,
                  int64_t   n_tokens,
            const int64_t * offsets,
                  int64_t   n_sequences,
       const llama_seq_id * seq_ids,
          const llama_pos * starts,
    enum rawllama_outputs   outputs);

// process.cpp: a batch through a context, checked.

struct rawllama_runner;

// What is wrong with a batch, where, and what the limit is.
enum rawllama_fault_kind {
    RAWLLAMA_FAULT_EMPTY,      // no tokens
    RAWLLAMA_FAULT_CAPACITY,   // n_tokens is negative or more than the arrays hold
    RAWLLAMA_FAULT_N_BATCH,    // more tokens than n_batch
    RAWLLAMA_FAULT_N_UBATCH,   // more tokens than n_ubatch where all must be in one
    RAWLLAMA_FAULT_N_OUTPUTS,  // more outputs than n_outputs_max
    RAWLLAMA_FAULT_TOKEN,      // no token of the vocabulary
    RAWLLAMA_FAULT_POS,        // negative, or not below what the model has learned
    RAWLLAMA_FAULT_N_SEQ_ID,   // number of sequence ids
    RAWLLAMA_FAULT_SEQ_ID,     // negative, or not below n_seq_max
    RAWLLAMA_FAULT_N_EMBD,     // width of the rows of embd
    RAWLLAMA_FAULT_N_POS,      // positions a row of embd
};

// What rawllama_run did.
struct rawllama_outcome {
    int32_t n_tokens;   // computed; 0 if the call failed
    int32_t n_outputs;  // rows that it gave
    enum rawllama_fault_kind kind;  // this and the rest: where RAWLLAMA_REFUSED was returned
    int32_t index;                  // of the token
    int32_t value;
    int32_t limit;
};

// What of a model libllama does not check.
struct rawllama_limits {
    int32_t n_positions;  // that the model has learned; 0 if it takes any
    int32_t n_embd;       // floats a row of embd
    int32_t n_pos;        // positions a row of embd
    int32_t n_outputs;    // outputs a batch
};

// What rawllama_run returns beside llama_decode's and llama_encode's codes.
#define RAWLLAMA_CAUGHT  (-2147483647 - 1)  // see rawllama_guard_message
#define RAWLLAMA_REFUSED (-2147483647)      // see the outcome

// A runner for `ctx`, which must outlive it; it takes over the context's abort callback.
struct rawllama_runner * rawllama_runner_init(struct llama_context * ctx, struct rawllama_limits limits);
void rawllama_runner_free(struct rawllama_runner * runner);

// How rawllama_run computes, any of them.
enum rawllama_run_flags {
    RAWLLAMA_RUN_ENCODE        = 1,  // llama_encode, not llama_decode
    RAWLLAMA_RUN_ONE_UBATCH    = 2,  // all tokens must fit into one
    RAWLLAMA_RUN_ALL_OUTPUTS   = 4,  // each token is an output, flagged or not
    RAWLLAMA_RUN_INTERRUPTIBLE = 8,  // Ctrl-C ends it, with 2
};

// Check and copy the batch, then llama_encode or llama_decode. Python may change the arrays meanwhile: nothing is read
// again after it was checked.
int32_t rawllama_run(
           struct rawllama_runner * runner,
      const struct rawllama_batch * batch,
                          int32_t   flags,
          struct rawllama_outcome * outcome);

// From any thread: end the run in progress, with 2.
void rawllama_runner_abort(struct rawllama_runner * runner);

// embed.cpp, rows.cpp: texts' tokens to rows, batch after batch.

enum rawllama_norm {
    RAWLLAMA_NORM_NONE,
    RAWLLAMA_NORM_MAX_ABS,  // the largest magnitude becomes 32760
    RAWLLAMA_NORM_P,        // the p-norm becomes 1
};

// Cut texts of these lengths, in this order, into batches of at most `max_tokens` tokens, unless one text has more, and
// `max_sequences` texts. Batch i has the texts batches[i] to batches[i + 1]; there is room for n + 1. Returns their
// number.
int64_t rawllama_plan(
    const int64_t * lengths, int64_t n, int64_t max_tokens, int64_t max_sequences, int64_t * batches);

enum rawllama_dtype {
    RAWLLAMA_DTYPE_F32,
    RAWLLAMA_DTYPE_F16,
    RAWLLAMA_DTYPE_I8,    // with a scale a row: the largest magnitude becomes 127
    RAWLLAMA_DTYPE_BITS,  // whether each is above 0, the first in the highest bit; a row begins with a byte
};

// Rows for the caller, in memory of the caller's.
struct rawllama_rows {
    int32_t             width;   // floats that a context gives
    int32_t             dims;    // of them that are kept, and normalised
    enum rawllama_norm  norm;
    double              p;
    enum rawllama_dtype dtype;
    void  *             values;  // row i follows row i - 1
    float *             scales;  // one a row, for RAWLLAMA_DTYPE_I8
};

#define RAWLLAMA_NOT_FINITE (-2147483646)  // a row has NaN or infinity
#define RAWLLAMA_TOO_LARGE  (-2147483645)  // for float16
#define RAWLLAMA_STOPPED    (-2147483644)
#define RAWLLAMA_MORE       (-2147483643)

// Write `n` rows of rows->width floats; row i goes to place indices[i]. Returns 0, or RAWLLAMA_NOT_FINITE or
// RAWLLAMA_TOO_LARGE, with the row in *failed.
int32_t rawllama_write_rows(
    const struct rawllama_rows * rows, const float * source, const int64_t * indices, int64_t n, int64_t * failed);

// What a job is to compute.
struct rawllama_embed {
    const llama_token  * tokens;   // of all sequences, each one of the vocabulary
    const int64_t      * offsets;  // sequence i has tokens[offsets[i]] to tokens[offsets[i + 1]]
    const int64_t      * order;    // sequences, in the order in which they are computed
    const int64_t      * batches;  // batch i computes order[batches[i]] to order[batches[i + 1]]
    int64_t              n_batches;
    const int64_t      * rows;     // sequence i becomes row rows[i] of the target
    bool                 per_token;  // or, without pooling, as many rows as it has tokens, of which that is the first
    struct rawllama_rows target;
    uint8_t            * done;     // done[i] becomes 1 once sequence i is written
};

// Batches that several contexts compute, each in a thread. The arrays must outlive the job.
struct rawllama_job;

struct rawllama_job_state {
    int64_t batches;  // computed so far
    int64_t tokens;
    int64_t failed;   // the sequence, where RAWLLAMA_NOT_FINITE or RAWLLAMA_TOO_LARGE was returned
};

struct rawllama_job * rawllama_job_init(const struct rawllama_embed * embed);
void rawllama_job_free(struct rawllama_job * job);

// From any thread: end all its runs, with RAWLLAMA_STOPPED.
void rawllama_job_stop(struct rawllama_job * job);

// From any thread: how far it is.
struct rawllama_job_state rawllama_job_look(const struct rawllama_job * job);

// Compute the batches that no other run has taken, with flags as rawllama_run's. The context takes so many tokens and
// sequences: the caller has seen to that. Returns 0 at the end; RAWLLAMA_MORE after so many seconds (0: never) or on
// Ctrl-C, to be called again; RAWLLAMA_STOPPED; and what rawllama_run and write_rows do where one fails, which stops the
// other runs. *batch is -1 before the first call, and kept for the next.
int32_t rawllama_embed_run(
    struct rawllama_runner * runner, int32_t flags, struct rawllama_job * job, int64_t * batch, double seconds);

struct rawllama_tokenizing;

// One text of `size` bytes to the one row of `target`, with the prefix and tokens that `how` wants, and at most
// `max_tokens` of them, which the context takes. Returns 0; RAWLLAMA_REFUSED for a text that cannot be tokenized, or has
// no tokens or too many; or what rawllama_embed_run does.
int32_t rawllama_embed_text(
            struct rawllama_runner * runner,
                           int32_t   flags,
  const struct rawllama_tokenizing * how,
                        const char * text,
                           int64_t   size,
                           int64_t   max_tokens,
        const struct rawllama_rows * target);

// tap.cpp: tensors of the graph, copied while they are computed.

// Where a context looks for a tap: the data of rawllama_tap_eval, in llama_context_params.cb_eval_user_data. It must
// outlive the context.
struct rawllama_socket;

struct rawllama_socket * rawllama_socket_init(void);
void rawllama_socket_free(struct rawllama_socket * socket);

// A ggml_backend_sched_eval_callback. Without a tap it wants nothing.
bool rawllama_tap_eval(struct ggml_tensor * tensor, bool ask, void * socket);

// What to copy. A pattern is a tensor's name, where `*` stands for any characters but spaces, `**` for any, and `?` for
// one but a space; or `OP@name`, what the operation OP (or any, without it) makes of a tensor of that name, a weight for example.
struct rawllama_tap_request {
    const char * const * patterns;
    int32_t              n_patterns;
    const int32_t      * layers;  // of tensors that have one; NULL for all
    int32_t              n_layers;
    const int64_t      * rows;    // indices along the slowest dimension, negative ones from its end; NULL for all
    int64_t              n_rows;
    bool                 no_values;  // names and shapes alone
};

enum rawllama_tap_fault {
    RAWLLAMA_TAP_FINE,
    RAWLLAMA_TAP_ROW,     // a row that a tensor does not have
    RAWLLAMA_TAP_MEMORY,  // there was none for a copy
    RAWLLAMA_TAP_TYPE,    // of values that cannot be read
};

// A tensor that was computed. Pointers are valid until rawllama_tap_clear.
struct rawllama_tapped {
    const char   * name;     // or, where the pattern says so, `OP@name` of what it is made of
    const char   * op;       // NONE for an input
    int32_t        layer;    // that the name tells; -1 without
    int32_t        pattern;  // that it matches
    int64_t        graph;    // in which it was computed, counted from 0
    enum ggml_type type;     // in the graph
    int32_t        n_dims;   // without those of 1 at the end; two at least, where the values are no integers
    int64_t        ne[4];    // of the values: ne[0] is the fastest; the chosen rows are counted in the slowest
    enum ggml_type values_type;  // F32, I32 or I64
    const void   * values;       // one after the other; NULL without
};

struct rawllama_tap;

// Copies the request.
struct rawllama_tap * rawllama_tap_init(const struct rawllama_tap_request * request);
void rawllama_tap_free(struct rawllama_tap * tap);

// Have a context copy into this tap from now on; NULL for none. Not while it computes.
void rawllama_tap_plug(struct rawllama_socket * socket, struct rawllama_tap * tap);

// The number of tensors since the last clear, and each of them in the order computed.
int64_t rawllama_tap_count(const struct rawllama_tap * tap);
struct rawllama_tapped rawllama_tap_look(const struct rawllama_tap * tap, int64_t index);

// The names of all tensors of the first graph, in the order computed, whether they were wanted or not.
int64_t rawllama_tap_n_names(const struct rawllama_tap * tap);
const char * rawllama_tap_name(const struct rawllama_tap * tap, int64_t index);

// Forget the tensors, and what went wrong.
void rawllama_tap_clear(struct rawllama_tap * tap);

// What went wrong first, with the tensor's name, the row and the number of rows there are.
struct rawllama_tap_failure {
    enum rawllama_tap_fault kind;
    const char *            name;
    int64_t                 row;
    int64_t                 n_rows;
};
struct rawllama_tap_failure rawllama_tap_failed(const struct rawllama_tap * tap);

// footprint.cpp: what a context takes of each device's memory.

struct rawllama_footprint {
    const char * name;     // of the kind of memory
    bool         is_host;
    size_t       model;    // bytes
    size_t       context;  // of them what the sequences remember
    size_t       compute;
};

// The first `n` kinds of memory. Returns how many there are, or -1 where this libllama does not tell.
int32_t rawllama_footprints(const struct llama_context * ctx, struct rawllama_footprint * footprints, int32_t n);

// results.c: rows of what a context computed, copied.

// The rows of `n` sequences, `width` floats each. Returns n, or the index of the first that has none.
int32_t rawllama_copy_embeddings_seq(
    struct llama_context * ctx, const llama_seq_id * seq_ids, int32_t n, int32_t width, float * rows);

// The rows of `n` outputs, by their tokens' index in the batch, negative ones from the end. Returns n, or the index of
// the first that has none.
int32_t rawllama_copy_embeddings_ith(
    struct llama_context * ctx, const int32_t * indices, int32_t n, int32_t width, float * rows);
int32_t rawllama_copy_logits_ith(
    struct llama_context * ctx, const int32_t * indices, int32_t n, int32_t width, float * rows);

// arrow.c: columns of strings in Arrow's layouts, read where they lie.

// The Arrow C data interface, under names of our own: who makes a struct sets `release`, who ends with it calls that.
struct rawllama_arrow_schema {
    const char * format;
    const char * name;
    const char * metadata;
    int64_t      flags;
    int64_t      n_children;
    struct rawllama_arrow_schema ** children;
    struct rawllama_arrow_schema *  dictionary;
    void (*release)(struct rawllama_arrow_schema * schema);
    void * private_data;
};

struct rawllama_arrow_array {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void ** buffers;
    struct rawllama_arrow_array ** children;
    struct rawllama_arrow_array *  dictionary;
    void (*release)(struct rawllama_arrow_array * array);
    void * private_data;
};

struct rawllama_arrow_array_stream {
    int (*get_schema)(struct rawllama_arrow_array_stream * stream, struct rawllama_arrow_schema * schema);
    int (*get_next)(struct rawllama_arrow_array_stream * stream, struct rawllama_arrow_array * array);
    const char * (*get_last_error)(struct rawllama_arrow_array_stream * stream);
    void (*release)(struct rawllama_arrow_array_stream * stream);
    void * private_data;
};

// Release what is not released yet.
void rawllama_arrow_release_schema(struct rawllama_arrow_schema * schema);
void rawllama_arrow_release_array(struct rawllama_arrow_array * array);

enum rawllama_strings_layout {
    RAWLLAMA_UTF8,        // int32_t offsets into one buffer
    RAWLLAMA_LARGE_UTF8,  // int64_t ones
    RAWLLAMA_UTF8_VIEW,   // views: short texts within them, longer ones in several buffers
};

// Rows of a column, whose memory is its owner's.
struct rawllama_strings {
    int64_t         first;       // row
    int64_t         n;           // rows
    const uint8_t * present;     // a bit a row; NULL if none is missing
    const void    * indices;     // of a dictionary's values, one a row
    int32_t         index_size;  // bytes; 0 without a dictionary: the rows are the values
    int64_t         first_value;
    int64_t         n_values;
    const uint8_t * value_present;
    enum rawllama_strings_layout layout;  // of the values
    const void    * places;               // offsets or views
    const char    * data;                 // what offsets refer to
    const char * const * buffers;         // what views refer to
    int64_t         n_buffers;
};

enum rawllama_strings_fault {
    RAWLLAMA_STRINGS_FINE,
    RAWLLAMA_STRINGS_MISSING,   // null
    RAWLLAMA_STRINGS_TOO_LONG,  // over INT32_MAX bytes
    RAWLLAMA_STRINGS_BROKEN,    // an index, offset or length that cannot be
};

// The first row that is no text, and why; n if each is one. The functions below are for columns without any.
int64_t rawllama_strings_check(const struct rawllama_strings * column, enum rawllama_strings_fault * fault);

// Where the texts of these rows, which increase, would begin if they followed each other from 0 on, and where the last
// would end: n + 1 offsets. Returns the first text's bytes if they do follow each other in the column, else NULL.
const char * rawllama_strings_locate(
    const struct rawllama_strings * column, const int64_t * rows, int64_t n, int64_t * offsets);

// The bytes of these rows' texts, one after the other. Returns their number.
int64_t rawllama_strings_copy(const struct rawllama_strings * column, const int64_t * rows, int64_t n, char * target);

// For each text of these columns the place of the first that is equal; column i begins at place starts[i]. `table` has
// 2 to the power of `bits` entries, at least twice as many as there are texts, all of them UINT64_MAX.
void rawllama_strings_first_places(
    const struct rawllama_strings * columns,
                    const int64_t * starts,
                          int64_t   n_columns,
                         uint64_t   seed,
                         uint64_t * table,
                          int32_t   bits,
                          int64_t * places);

// tokenize.cpp: many texts to tokens, in threads.

struct rawllama_tokens;

// What rawllama_tokenize returns where Ctrl-C ended it.
#define RAWLLAMA_INTERRUPTED (-1)

struct rawllama_tokenizing {
    const char * prefix;         // put before each text
    int64_t      n_prefix;       // bytes
    bool         add_special;    // as llama_tokenize
    bool         parse_special;
    llama_token  closing;        // put behind each text's tokens; LLAMA_TOKEN_NULL for none
    int32_t      n_threads;      // at most so many, 1 or more; fewer where there is little to do
    bool         interruptible;  // Ctrl-C ends it between two texts
};

// llama_tokenize for `n` texts: text i is data[offsets[i]] to data[offsets[i + 1]], with the prefix at most INT32_MAX
// bytes. Returns n, and the caller owns *tokens, of which text i has token_offsets[i] to token_offsets[i + 1]. Or the
// index of the first text that failed, or RAWLLAMA_CAUGHT for something that is no text's fault, both with
// rawllama_guard_message; or RAWLLAMA_INTERRUPTED. *tokens is NULL then.
int64_t rawllama_tokenize(
              const struct llama_vocab * vocab,
                            const char * data,
                         const int64_t * offsets,
                               int64_t   n,
      const struct rawllama_tokenizing * how,
                               int64_t * token_offsets,
               struct rawllama_tokens ** tokens);

// All texts' tokens, token_offsets[n] of them.
void rawllama_tokens_copy(const struct rawllama_tokens * tokens, llama_token * target);
void rawllama_tokens_free(struct rawllama_tokens * tokens);

#ifdef __cplusplus
}
#endif

#endif
