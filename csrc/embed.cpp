// Texts' tokens to rows, batch after batch: no Python between them. Several contexts may share a job.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "guard.hpp"
#include "rows.hpp"
#include "runner.hpp"

struct rawllama_job {
    rawllama_embed       embed;
    std::atomic<int64_t> next{ 0 };  // batch
    std::atomic<int64_t> batches_done{ 0 };
    std::atomic<int64_t> tokens_done{ 0 };
    std::atomic<int64_t> failed{ -1 };
    std::atomic<bool>    stopped{ false };

    explicit rawllama_job(const rawllama_embed & embed) : embed(embed) {}
};

namespace {

using clock_type = std::chrono::steady_clock;

// What of a job one batch is.
struct span {
    int64_t first;  // in the order
    int64_t last;
};

int64_t length_of(const rawllama_embed & embed, int64_t sequence) {
    return embed.offsets[sequence + 1] - embed.offsets[sequence];
}

// The sequences of a batch, as 0, 1, 2, ...
void take_sequences(rawllama_runner & runner, const rawllama_embed & embed, span batch) {
    runner.copy.clear();
    for (int64_t i = batch.first; i < batch.last; i++) {
        const int64_t      sequence = embed.order[i];
        const llama_seq_id seq_id   = static_cast<llama_seq_id>(i - batch.first);
        llama_pos          pos      = 0;
        for (int64_t token = embed.offsets[sequence]; token < embed.offsets[sequence + 1]; token++, pos++) {
            runner.copy.add({ embed.tokens[token], nullptr, &pos, &seq_id, 1, true });
        }
    }
}

int32_t compute(rawllama_runner & runner, const rawllama_embed & embed, span batch, int32_t flags) {
    if (llama_memory_t memory = llama_get_memory(runner.ctx)) {
        llama_memory_clear(memory, true);
    }
    take_sequences(runner, embed, batch);
    return rawllama::process(runner, flags);
}

// The rows of sequence `seq_id` of the last batch: one, or one a token, of which the first is row `first` of the batch.
int32_t write(llama_context * ctx, const rawllama_embed & embed, int64_t sequence, llama_seq_id seq_id, int32_t first) {
    const int64_t index = embed.rows[sequence];
    if (!embed.per_token) {
        const float * row = llama_get_embeddings_seq(ctx, seq_id);
        return row ? rawllama::write_row(row, embed.target, index) : RAWLLAMA_NOT_FINITE;
    }
    for (int32_t i = 0; i < length_of(embed, sequence); i++) {
        const float * row  = llama_get_embeddings_ith(ctx, first + i);
        const int32_t code = row ? rawllama::write_row(row, embed.target, index + i) : RAWLLAMA_NOT_FINITE;
        if (code != 0) {
            return code;
        }
    }
    return 0;
}

// Write all that can be written; `failed` is the first that cannot. Reading a row waits for the device.
int32_t write_all(llama_context * ctx, const rawllama_embed & embed, span batch, int64_t & failed) {
    int32_t result = 0;
    int32_t tokens = 0;
    for (int64_t i = batch.first; i < batch.last; i++) {
        const int64_t sequence = embed.order[i];
        const int32_t code     = write(ctx, embed, sequence, static_cast<llama_seq_id>(i - batch.first), tokens);
        tokens += static_cast<int32_t>(length_of(embed, sequence));
        if (code == 0) {
            embed.done[sequence] = 1;
        } else if (result == 0) {
            result = code;
            failed = sequence;
        }
    }
    return result;
}

// NaN of one sequence may have spoilt the others of its batch: 0 * NaN is NaN where attention is masked. So compute each
// that is not done alone.
int32_t compute_alone(
    rawllama_runner & runner, const rawllama_embed & embed, span batch, int32_t flags, int64_t & failed) {
    int32_t result = 0;
    for (int64_t i = batch.first; i < batch.last; i++) {
        if (embed.done[embed.order[i]]) {
            continue;
        }
        const span one  = { i, i + 1 };
        int64_t    last = -1;
        int32_t    code = compute(runner, embed, one, flags);
        if (code != 0) {
            return code;
        }
        code   = write_all(runner.ctx, embed, one, last);
        failed = result == 0 ? last : failed;
        result = result == 0 ? code : result;
    }
    return result;
}

int32_t compute_and_write(rawllama_runner & runner, rawllama_job & job, span batch, int32_t flags) {
    int64_t failed = -1;
    int32_t code   = compute(runner, job.embed, batch, flags);
    if (code == 0) {
        code = write_all(runner.ctx, job.embed, batch, failed);
    }
    if (code == RAWLLAMA_NOT_FINITE && batch.last - batch.first > 1) {
        code = compute_alone(runner, job.embed, batch, flags, failed);
    }
    if (code == RAWLLAMA_NOT_FINITE || code == RAWLLAMA_TOO_LARGE) {
        job.failed = failed;
    }
    return code;
}

void count(rawllama_job & job, span batch) {
    int64_t tokens = 0;
    for (int64_t i = batch.first; i < batch.last; i++) {
        tokens += length_of(job.embed, job.embed.order[i]);
    }
    job.tokens_done += tokens;
    job.batches_done++;
}

int32_t run(rawllama_runner & runner, rawllama_job & job, int32_t flags, int64_t & batch, double seconds) {
    const auto start = clock_type::now();
    while (true) {
        if (job.stopped) {
            return RAWLLAMA_STOPPED;
        }
        batch = batch < 0 ? job.next++ : batch;
        if (batch >= job.embed.n_batches) {
            return 0;
        }
        const span    chosen = { job.embed.batches[batch], job.embed.batches[batch + 1] };
        int32_t       code   = RAWLLAMA_CAUGHT;
        guard([&] { code = compute_and_write(runner, job, chosen, flags); });
        if (code == 2 && runner.interruptible && rawllama_interrupted()) {
            return RAWLLAMA_MORE;  // Python now knows of it; the batch begins anew if that raises nothing
        }
        if (code != 0) {
            return job.stopped.exchange(true) && code == 2 ? RAWLLAMA_STOPPED : code;
        }
        count(job, chosen);
        batch                                      = -1;
        const std::chrono::duration<double> passed = clock_type::now() - start;
        if ((seconds > 0 && passed.count() >= seconds) || (runner.interruptible && rawllama_interrupted())) {
            return RAWLLAMA_MORE;
        }
    }
}

// None, if that fails.
std::vector<llama_token> tokens_of(
    const llama_context * ctx, const rawllama_tokenizing & how, const char * text, int64_t size) {
    const llama_vocab *      vocab     = llama_model_get_vocab(llama_get_model(ctx));
    const int64_t            starts[]  = { 0, size };
    int64_t                  offsets[] = { 0, 0 };
    rawllama_tokens *        result    = nullptr;
    std::vector<llama_token> tokens;
    if (rawllama_tokenize(vocab, text, starts, 1, &how, offsets, &result) == 1) {
        guard([&] {
            tokens.resize(offsets[1]);
            rawllama_tokens_copy(result, tokens.data());
        });
    }
    rawllama_tokens_free(result);
    return tokens;
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

struct rawllama_job * rawllama_job_init(const struct rawllama_embed * embed) {
    return new rawllama_job(*embed);
}

void rawllama_job_free(struct rawllama_job * job) {
    delete job;
}

void rawllama_job_stop(struct rawllama_job * job) {
    job->stopped = true;
}

struct rawllama_job_state rawllama_job_look(const struct rawllama_job * job) {
    return { job->batches_done, job->tokens_done, job->failed };
}

int32_t rawllama_embed_run(
    struct rawllama_runner * runner, int32_t flags, struct rawllama_job * job, int64_t * batch, double seconds) {
    runner->aborted = false;
    runner->stopped = &job->stopped;
    rawllama::interrupts watched(*runner, flags);
    const int32_t code = run(*runner, *job, flags, *batch, seconds);
    runner->stopped    = nullptr;
    return code;
}

int32_t rawllama_embed_text(
            struct rawllama_runner * runner,
                           int32_t   flags,
  const struct rawllama_tokenizing * how,
                        const char * text,
                           int64_t   size,
                           int64_t   max_tokens,
        const struct rawllama_rows * target) {
    const std::vector<llama_token> tokens = tokens_of(runner->ctx, *how, text, size);

    const int64_t zero      = 0;
    const int64_t one[]     = { 0, 1 };
    const int64_t offsets[] = { 0, static_cast<int64_t>(tokens.size()) };
    if (tokens.empty() || offsets[1] > max_tokens || *std::min_element(tokens.begin(), tokens.end()) < 0) {
        return RAWLLAMA_REFUSED;
    }
    uint8_t      done  = 0;
    int64_t      batch = -1;
    rawllama_job job({ tokens.data(), offsets, &zero, one, 1, &zero, false, *target, &done });
    return rawllama_embed_run(runner, flags, &job, &batch, 0);
}

}  // extern "C"
