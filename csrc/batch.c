// Batches in arrays that Python owns.

#include "rawllama.h"

static int8_t is_output(enum rawllama_outputs outputs, bool last) {
    return outputs == RAWLLAMA_OUTPUTS_ALL || (outputs == RAWLLAMA_OUTPUTS_LAST && last);
}

static bool are_offsets(const int64_t * offsets, int64_t n_sequences, int64_t n_tokens) {
    for (int64_t i = 0; i < n_sequences; i++) {
        if (offsets[i] > offsets[i + 1]) {
            return false;
        }
    }
    return offsets[0] >= 0 && offsets[n_sequences] <= n_tokens;
}

enum rawllama_add rawllama_batch_add(
    struct rawllama_batch * batch,
        const llama_token * tokens,
                  int64_t   n_tokens,
            const int64_t * offsets,
                  int64_t   n_sequences,
       const llama_seq_id * seq_ids,
          const llama_pos * starts,
    enum rawllama_outputs   outputs) {
    const struct llama_batch * arrays = &batch->batch;
    int32_t n = arrays->n_tokens;
    if (!are_offsets(offsets, n_sequences, n_tokens)) {
        return RAWLLAMA_ADD_OFFSETS;
    }
    if (n < 0 || offsets[n_sequences] - offsets[0] > (int64_t) batch->capacity - n) {
        return RAWLLAMA_ADD_NO_ROOM;
    }
    for (int64_t sequence = 0; sequence < n_sequences; sequence++) {
        const llama_seq_id seq_id = seq_ids ? seq_ids[sequence] : (llama_seq_id) sequence;
        int64_t pos = starts ? starts[sequence] : 0;
        for (int64_t i = offsets[sequence]; i < offsets[sequence + 1]; i++, n++, pos++) {
            arrays->token[n]     = tokens[i];
            arrays->pos[n]       = pos <= INT32_MAX ? (llama_pos) pos : -1;  // -1 is refused when it is processed
            arrays->n_seq_id[n]  = 1;
            arrays->seq_id[n][0] = seq_id;
            arrays->logits[n]    = is_output(outputs, i + 1 == offsets[sequence + 1]);
        }
    }
    batch->batch.n_tokens = n;
    return RAWLLAMA_ADD_OK;
}
