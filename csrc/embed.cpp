// Texts' tokens to pooled rows, batch after batch: no Python between them.

#include <algorithm>
#include <cmath>

#include "guard.hpp"
#include "runner.hpp"

namespace {

// As numpy's double sums in normalize.py; relative to the largest, or high powers would vanish or overflow.
double norm_of(const float * row, int32_t n, const rawllama_embed & job) {
    double largest = 0;
    for (int32_t i = 0; i < n; i++) {
        largest = std::max(largest, std::fabs(static_cast<double>(row[i])));
    }
    if (job.norm == RAWLLAMA_NORM_MAX_ABS) {
        return largest / 32760.0;
    }
    if (largest == 0) {
        return 0;
    }
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const double relative = std::fabs(row[i]) / largest;
        sum += job.p == 2 ? relative * relative : std::pow(relative, job.p);
    }
    return largest * std::pow(sum, 1 / job.p);
}

// Copy a row, normalised; false if it has NaN or infinity.
bool write_row(const float * row, const rawllama_embed & job, float * target) {
    for (int32_t i = 0; i < job.width; i++) {
        if (!std::isfinite(row[i])) {
            return false;
        }
    }
    const double norm  = job.norm == RAWLLAMA_NORM_NONE ? 1 : norm_of(row, job.dims, job);
    const double scale = norm > 0 ? norm : 1;
    for (int32_t i = 0; i < job.dims; i++) {
        target[i] = static_cast<float>(row[i] / scale);
    }
    return true;
}

// The texts order[first] to order[last] as sequences 0, 1, 2, ...
void take_texts(rawllama_runner & runner, const rawllama_embed & job, int64_t first, int64_t last) {
    runner.copy.clear();
    for (int64_t i = first; i < last; i++) {
        const int64_t      text   = job.order[i];
        const llama_seq_id seq_id = static_cast<llama_seq_id>(i - first);
        llama_pos          pos    = 0;
        for (int64_t token = job.offsets[text]; token < job.offsets[text + 1]; token++, pos++) {
            runner.copy.add({ job.tokens[token], nullptr, &pos, &seq_id, 1, true });
        }
    }
}

int32_t compute(rawllama_runner & runner, const rawllama_embed & job, int64_t first, int64_t last, int32_t flags) {
    const bool done = guard_done([&] {
        if (llama_memory_t memory = llama_get_memory(runner.ctx)) {
            llama_memory_clear(memory, true);
        }
        take_texts(runner, job, first, last);
    });
    return done ? rawllama::process(runner, flags) : RAWLLAMA_CAUGHT;
}

}  // namespace

extern "C" {

int64_t rawllama_plan(
    const int64_t * lengths, int64_t n, int64_t max_tokens, int64_t max_sequences, int64_t * batches) {
    int64_t count  = 0;
    int64_t tokens = 0;
    batches[0]     = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t first = batches[count];
        if (i > first && (tokens + lengths[i] > max_tokens || i - first == max_sequences)) {
            batches[++count] = i;
            tokens           = 0;
        }
        tokens += lengths[i];
    }
    if (n > 0) {
        batches[++count] = n;
    }
    return count;
}

int32_t rawllama_embed_run(struct rawllama_runner * runner, struct rawllama_embed * job, int32_t flags) {
    runner->aborted = false;
    for (; job->batches_done < job->n_batches; job->batches_done++) {
        const int64_t first = job->batches[job->batches_done];
        const int64_t last  = job->batches[job->batches_done + 1];
        const int32_t code  = compute(*runner, *job, first, last, flags);
        if (code != 0) {
            return code;
        }
        for (int64_t i = first; i < last; i++) {
            const int64_t text = job->order[i];
            const float * row  = llama_get_embeddings_seq(runner->ctx, static_cast<llama_seq_id>(i - first));
            if (!row || !write_row(row, *job, job->rows + text * job->dims)) {
                job->failed = text;
                return RAWLLAMA_NOT_FINITE;
            }
        }
    }
    return 0;
}

}  // extern "C"
