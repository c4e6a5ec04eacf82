// Batches in arrays that Python owns.

#include "rawllama.h"

static int8_t is_output(enum rawllama_outputs outputs, bool last) {
    return outputs == RAWLLAMA_OUTPUTS_ALL || (outputs == RAWLLAMA_OUTPUTS_LAST && last);
}

bool rawllama_batch_add(
    struct rawllama_batch * batch,
        const llama_token * tokens,
            const int64_t * offsets,
                  int32_t   n_sequences,
       const llama_seq_id * seq_ids,
          const llama_pos * starts,
    enum rawllama_outputs   outputs) {
    const struct llama_batch * arrays = &batch->batch;
    int32_t n = arrays->n_tokens;
    if (n < 0 || offsets[n_sequences] - offsets[0] > (int64_t) batch->capacity - n) {
        return false;
    }
    for (int32_t sequence = 0; sequence < n_sequences; sequence++) {
        const llama_seq_id seq_id = seq_ids ? seq_ids[sequence] : sequence;
        llama_pos pos = starts ? starts[sequence] : 0;
        for (int64_t i = offsets[sequence]; i < offsets[sequence + 1]; i++, n++, pos++) {
            arrays->token[n]     = tokens[i];
            arrays->pos[n]       = pos;
            arrays->n_seq_id[n]  = 1;
            arrays->seq_id[n][0] = seq_id;
            arrays->logits[n]    = is_output(outputs, i + 1 == offsets[sequence + 1]);
        }
    }
    batch->batch.n_tokens = n;
    return true;
}
