// What a C program does that packs batches by hand: for each batch llama_batch, llama_decode, and the pooled rows,
// normalised. llama.h only.
//
//   embed_loop MODEL N_UBATCH N_SEQ_MAX N_THREADS
//
// Standard input says what to do, a line each: BATCHES ROUNDS ROWS. BATCHES is a file of int32: the number of batches, and
// for each the number of texts, their lengths, and their tokens. The seconds of each round are printed; the file ROWS gets
// the rows of the last one, float32, batch after batch.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "llama.h"

static void quiet(enum ggml_log_level level, const char * text, void * data) {
    (void) level;
    (void) text;
    (void) data;
}

static int32_t * read_all(const char * path) {
    FILE * file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    rewind(file);
    int32_t * data = malloc(size);
    if (fread(data, 1, size, file) != (size_t) size) {
        exit(2);
    }
    fclose(file);
    return data;
}

// Fill a batch; return where the next one begins.
static const int32_t * fill(struct llama_batch * batch, const int32_t * in, int32_t * n_texts) {
    *n_texts = *in++;
    const int32_t * lengths = in;
    const int32_t * tokens  = in + *n_texts;
    batch->n_tokens = 0;
    for (int32_t text = 0; text < *n_texts; text++) {
        for (int32_t pos = 0; pos < lengths[text]; pos++, tokens++) {
            const int32_t i = batch->n_tokens++;
            batch->token[i]     = *tokens;
            batch->pos[i]       = pos;
            batch->n_seq_id[i]  = 1;
            batch->seq_id[i][0] = text;
            batch->logits[i]    = 1;
        }
    }
    return tokens;
}

static void normalise(const float * row, float * target, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += (double) row[i] * row[i];
    }
    const double norm = sum > 0 ? sqrt(sum) : 1;
    for (int32_t i = 0; i < n; i++) {
        target[i] = (float) (row[i] / norm);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

// All batches once; the number of rows.
static size_t run(struct llama_context * ctx, struct llama_batch * batch, const int32_t * in, int32_t n, float * rows) {
    size_t count = 0;
    for (int32_t batches = *in++; batches > 0; batches--) {
        int32_t n_texts = 0;
        in = fill(batch, in, &n_texts);
        if (llama_get_memory(ctx)) {
            llama_memory_clear(llama_get_memory(ctx), true);
        }
        if (llama_decode(ctx, *batch) != 0) {
            exit(3);
        }
        for (int32_t text = 0; text < n_texts; text++, count++) {
            normalise(llama_get_embeddings_seq(ctx, text), rows + count * n, n);
        }
    }
    return count;
}

static size_t count_texts(const int32_t * in) {
    size_t count = 0;
    for (int32_t batches = *in++; batches > 0; batches--) {
        const int32_t n_texts = *in++;
        int32_t tokens = 0;
        for (int32_t text = 0; text < n_texts; text++) {
            tokens += in[text];
        }
        count += n_texts;
        in += n_texts + tokens;
    }
    return count;
}

// One line of the input.
static void serve(
    struct llama_context * ctx, struct llama_batch * batch, const char * in, int rounds, const char * out) {
    int32_t * batches = read_all(in);
    const int32_t n = llama_model_n_embd_out(llama_get_model(ctx));
    float * rows = malloc(count_texts(batches) * n * sizeof(float));
    size_t count = 0;
    for (int round = 0; round < rounds; round++) {
        const double start = seconds();
        count = run(ctx, batch, batches, n, rows);
        printf("%.6f\n", seconds() - start);
    }
    FILE * file = fopen(out, "wb");
    fwrite(rows, n * sizeof(float), count, file);
    fclose(file);
    fflush(stdout); // last: who reads the seconds finds the rows
    free(rows);
    free(batches);
}

int main(int argc, char ** argv) {
    if (argc != 5) {
        return 1;
    }
    llama_log_set(quiet, NULL);
    struct llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = atoi(argv[2]);
    params.n_seq_max = atoi(argv[3]);
    params.n_threads = params.n_threads_batch = atoi(argv[4]);
    params.embeddings = params.kv_unified = true;
    struct llama_context * ctx = llama_init_from_model(model, params);
    struct llama_batch batch = llama_batch_init(params.n_batch, 0, 1);
    char batches[4096];
    char rows[4096];
    int rounds = 0;
    while (scanf("%4095s %d %4095s", batches, &rounds, rows) == 3) {
        serve(ctx, &batch, batches, rounds, rows);
    }
    llama_batch_free(batch);
    llama_free(ctx);
    llama_model_free(model);
    return 0;
}
