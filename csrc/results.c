// Rows of what a context computed, copied.

#include <string.h>

#include "rawllama.h"

typedef float * (*row_of)(struct llama_context * ctx, int32_t index);

static int32_t copy_rows(
    row_of row, struct llama_context * ctx, const int32_t * indices, int32_t n, int32_t width, float * rows) {
    for (int32_t i = 0; i < n; i++) {
        const float * source = row(ctx, indices[i]);
        if (!source) {
            return i;
        }
        memcpy(rows + (size_t) i * width, source, sizeof(float) * width);
    }
    return n;
}

int32_t rawllama_copy_embeddings_seq(
    struct llama_context * ctx, const llama_seq_id * seq_ids, int32_t n, int32_t width, float * rows) {
    return copy_rows(llama_get_embeddings_seq, ctx, seq_ids, n, width, rows);
}

int32_t rawllama_copy_embeddings_ith(
    struct llama_context * ctx, const int32_t * indices, int32_t n, int32_t width, float * rows) {
    return copy_rows(llama_get_embeddings_ith, ctx, indices, n, width, rows);
}

int32_t rawllama_copy_logits_ith(
    struct llama_context * ctx, const int32_t * indices, int32_t n, int32_t width, float * rows) {
    return copy_rows(llama_get_logits_ith, ctx, indices, n, width, rows);
}
