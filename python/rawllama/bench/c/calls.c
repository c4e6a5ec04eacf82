// What a call of libllama costs in C, through the shared library as any program calls it.
//
//   calls MODEL
//
// Standard input has a number of calls a line; for each line the nanoseconds of one call are printed, of llama_n_ctx and of
// llama_get_embeddings_seq.

#include <stdio.h>
#include <time.h>

#include "llama.h"

static void quiet(enum ggml_log_level level, const char * text, void * data) {
    (void) level;
    (void) text;
    (void) data;
}

static double nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

// A context with one pooled row in it, as the Python side makes it.
static struct llama_context * make_context(const char * path) {
    struct llama_model * model = llama_model_load_from_file(path, llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.embeddings = true;
    params.n_ctx = params.n_batch = params.n_ubatch = 64;
    struct llama_context * ctx = llama_init_from_model(model, params);
    llama_token tokens[] = { 1, 2 };
    return llama_decode(ctx, llama_batch_get_one(tokens, 2)) == 0 ? ctx : NULL;
}

int main(int argc, char ** argv) {
    llama_log_set(quiet, NULL);
    struct llama_context * ctx = argc == 2 ? make_context(argv[1]) : NULL;
    if (!ctx) {
        return 1;
    }
    long count = 0;
    volatile uint64_t sum = 0; // the compiler must not leave out a call
    while (scanf("%ld", &count) == 1) {
        const double start = nanoseconds();
        for (long i = 0; i < count; i++) {
            sum += llama_n_ctx(ctx);
        }
        const double middle = nanoseconds();
        for (long i = 0; i < count; i++) {
            sum += (uintptr_t) llama_get_embeddings_seq(ctx, 0);
        }
        const double end = nanoseconds();
        printf("%.4f %.4f\n", (middle - start) / count, (end - middle) / count);
        fflush(stdout);
    }
    return 0;
}
