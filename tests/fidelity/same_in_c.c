// The same program as in test_same_in_c.py, with nothing but llama.h: texts in, vectors and logits out, bit by bit.
//
//     same_in_c MODEL POOLING TEXT...
//
// Each text is a sequence of one batch, which one thread decodes. Prints the tokens of each text, then a line a row:
// its name, and its floats as 32 bits in hexadecimal.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { MAX_TEXTS = 16, MAX_TOKENS = 256 };

static void quiet(enum ggml_log_level level, const char * text, void * unused) {
    (void) unused;
    if (level >= GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static void fail(const char * what) {
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static void print_row(const char * name, int index, const float * row, int width) {
    if (!row) {
        fail(name);
    }
    printf("%s %d", name, index);
    for (int i = 0; i < width; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof(bits));
        printf(" %08x", (unsigned) bits);
    }
    printf("\n");
}

static void fill(struct llama_batch * batch, const struct llama_vocab * vocab, const char * text, int seq_id) {
    llama_token tokens[MAX_TOKENS];
    const int n = llama_tokenize(vocab, text, (int32_t) strlen(text), tokens, MAX_TOKENS, true, false);
    if (n <= 0) {
        fail("llama_tokenize");
    }
    printf("tokens %d", seq_id);
    for (int i = 0; i < n; i++) {
        const int at = batch->n_tokens++;
        batch->token[at]     = tokens[i];
        batch->pos[at]       = i;
        batch->n_seq_id[at]  = 1;
        batch->seq_id[at][0] = seq_id;
        batch->logits[at]    = true;
        printf(" %d", tokens[i]);
    }
    printf("\n");
}

static void print_results(struct llama_context * ctx, const struct llama_model * model, int n_tokens, int n_texts) {
    const enum llama_pooling_type pooling = llama_pooling_type(ctx);
    if (pooling != LLAMA_POOLING_TYPE_NONE) {
        const int rank = pooling == LLAMA_POOLING_TYPE_RANK;
        const int width = rank ? (int) llama_model_n_cls_out(model) : llama_model_n_embd_out(model);
        for (int i = 0; i < n_texts; i++) {
            print_row("pooled", i, llama_get_embeddings_seq(ctx, i), width);
        }
        return;
    }
    for (int i = 0; i < n_tokens; i++) {
        print_row("token", i, llama_get_embeddings_ith(ctx, i), llama_model_n_embd_out(model));
    }
    if (llama_get_memory(ctx) && !llama_model_has_encoder(model)) {
        for (int i = 0; i < n_tokens; i++) {
            const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
            print_row("logits", i, llama_get_logits_ith(ctx, i), n_vocab);
        }
    }
}

int main(int argc, char ** argv) {
    const int n_texts = argc - 3;
    if (n_texts < 1 || n_texts > MAX_TEXTS) {
        fail("usage: same_in_c MODEL POOLING TEXT...");
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        fail("llama_model_load_from_file");
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 512;
    params.n_seq_max                                = (uint32_t) n_texts;
    params.n_threads = params.n_threads_batch = 1;
    params.pooling_type                       = (enum llama_pooling_type) atoi(argv[2]);
    params.embeddings                         = true;
    params.kv_unified                         = true;
    struct llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        fail("llama_init_from_model");
    }
    struct llama_batch batch = llama_batch_init(MAX_TEXTS * MAX_TOKENS, 0, 1);
    for (int i = 0; i < n_texts; i++) {
        fill(&batch, llama_model_get_vocab(model), argv[3 + i], i);
    }
    if ((llama_model_has_encoder(model) ? llama_encode(ctx, batch) : llama_decode(ctx, batch)) != 0) {
        fail("llama_decode");
    }
    print_results(ctx, model, batch.n_tokens, n_texts);
    llama_batch_free(batch);
    llama_free(ctx);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
