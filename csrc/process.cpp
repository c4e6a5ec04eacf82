// A batch through a context: checked while it is copied, then computed, so that nothing the caller's arrays hold can
// reach an assert on one of ggml's threads.

#include "guard.hpp"
#include "runner.hpp"

using rawllama::has;
using rawllama::token_input;

namespace {

thread_local const rawllama_runner * computing = nullptr;

bool must_end(void * data) {
    auto *     runner = static_cast<rawllama_runner *>(data);
    const bool end    = runner->aborted || (runner->stopped && *runner->stopped) ||
                     (runner->interruptible && rawllama_interrupted());
    if (end) {
        runner->ending = true;
    }
    return end;
}

bool refuse(rawllama_outcome & outcome, rawllama_fault_kind kind, int32_t index, int32_t value, int32_t limit) {
    outcome.kind  = kind;
    outcome.index = index;
    outcome.value = value;
    outcome.limit = limit;
    return false;
}

bool fits(const rawllama_runner & runner, const rawllama_batch & batch, int32_t n, bool one_ubatch,
          rawllama_outcome & outcome) {
    const int32_t n_batch  = static_cast<int32_t>(llama_n_batch(runner.ctx));
    const int32_t n_ubatch = static_cast<int32_t>(llama_n_ubatch(runner.ctx));
    if (n < 0 || n > batch.capacity) {
        return refuse(outcome, RAWLLAMA_FAULT_CAPACITY, 0, n, batch.capacity);
    }
    if (n == 0) {
        return refuse(outcome, RAWLLAMA_FAULT_EMPTY, 0, 0, 0);
    }
    if (n > n_batch) {
        return refuse(outcome, RAWLLAMA_FAULT_N_BATCH, 0, n, n_batch);
    }
    if (one_ubatch && n > n_ubatch) {
        return refuse(outcome, RAWLLAMA_FAULT_N_UBATCH, 0, n, n_ubatch);
    }
    if (batch.n_embd != 0 && batch.n_embd != runner.limits.n_embd) {
        return refuse(outcome, RAWLLAMA_FAULT_N_EMBD, 0, batch.n_embd, runner.limits.n_embd);
    }
    if (batch.n_embd != 0 && batch.n_pos != runner.limits.n_pos) {
        return refuse(outcome, RAWLLAMA_FAULT_N_POS, 0, batch.n_pos, runner.limits.n_pos);
    }
    return true;
}

// Copy the positions of token i, of n.
bool take_pos(rawllama_runner & runner, const rawllama_batch & batch, int32_t i, int32_t n,
              rawllama_outcome & outcome) {
    const int32_t n_pos = batch.n_embd ? runner.limits.n_pos : 1;
    const int32_t limit = runner.limits.n_positions ? runner.limits.n_positions : INT32_MAX;
    for (int32_t j = 0; j < n_pos; j++) {
        const llama_pos pos = batch.batch.pos[j * n + i];
        if (pos < 0 || pos >= limit) {
            return refuse(outcome, RAWLLAMA_FAULT_POS, i, pos, limit);
        }
        runner.pos[j] = pos;
    }
    return true;
}

bool take_seq_ids(rawllama_runner & runner, const rawllama_batch & batch, int32_t i, int32_t limit,
                  rawllama_outcome & outcome) {
    const int32_t count = batch.batch.n_seq_id[i];
    if (count < 1 || count > batch.n_seq_max) {
        return refuse(outcome, RAWLLAMA_FAULT_N_SEQ_ID, i, count, batch.n_seq_max);
    }
    runner.seq_id.assign(batch.batch.seq_id[i], batch.batch.seq_id[i] + count);
    for (const llama_seq_id seq_id : runner.seq_id) {
        if (seq_id < 0 || seq_id >= limit) {
            return refuse(outcome, RAWLLAMA_FAULT_SEQ_ID, i, seq_id, limit);
        }
    }
    return true;
}

// Copy a batch into the runner.
bool take(rawllama_runner & runner, const rawllama_batch & batch, int32_t n, bool all_outputs,
          rawllama_outcome & outcome) {
    const int32_t n_vocab   = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(runner.ctx)));
    const int32_t n_seq_max = static_cast<int32_t>(llama_n_seq_max(runner.ctx));

    runner.copy.clear();
    for (int32_t i = 0; i < n; i++) {
        token_input in = {};
        if (batch.n_embd) {
            in.embd = batch.batch.embd + static_cast<size_t>(i) * batch.n_embd;
        } else {
            in.token = batch.batch.token[i];
            if (in.token < 0 || in.token >= n_vocab) {
                return refuse(outcome, RAWLLAMA_FAULT_TOKEN, i, in.token, n_vocab);
            }
        }
        if (!take_pos(runner, batch, i, n, outcome) || !take_seq_ids(runner, batch, i, n_seq_max, outcome)) {
            return false;
        }
        in.pos      = runner.pos.data();
        in.seq_id   = runner.seq_id.data();
        in.n_seq_id = static_cast<int32_t>(runner.seq_id.size());
        in.output   = all_outputs || batch.batch.logits[i] != 0;
        outcome.n_outputs += in.output;
        runner.copy.add(in);
    }
    if (outcome.n_outputs > runner.limits.n_outputs) {
        return refuse(outcome, RAWLLAMA_FAULT_N_OUTPUTS, 0, outcome.n_outputs, runner.limits.n_outputs);
    }
    return true;
}

}  // namespace

namespace rawllama {

int32_t process(rawllama_runner & runner, int32_t flags) {
    int32_t code    = 0;
    runner.ending   = false;
    computing       = &runner;
    const bool done = guard_done([&] { code = runner.copy.process(has(flags, RAWLLAMA_RUN_ENCODE)); });
    computing       = nullptr;
    return done ? code : RAWLLAMA_CAUGHT;
}

bool ending() {
    return computing && computing->ending;
}

}  // namespace rawllama

extern "C" {

struct rawllama_runner * rawllama_runner_init(struct llama_context * ctx, struct rawllama_limits limits) {
    auto * runner = new rawllama_runner(ctx, limits);
    llama_set_abort_callback(ctx, must_end, runner);
    return runner;
}

void rawllama_runner_free(struct rawllama_runner * runner) {
    delete runner;
}

void rawllama_runner_abort(struct rawllama_runner * runner) {
    runner->aborted = true;
}

int32_t rawllama_run(
           struct rawllama_runner * runner,
      const struct rawllama_batch * batch,
                          int32_t   flags,
          struct rawllama_outcome * outcome) {
    *outcome = {};
    runner->aborted = false;
    const int32_t n = batch->batch.n_tokens;
    if (!fits(*runner, *batch, n, has(flags, RAWLLAMA_RUN_ONE_UBATCH), *outcome)) {
        return RAWLLAMA_REFUSED;
    }
    bool       taken = false;
    const bool done  = guard_done(
        [&] { taken = take(*runner, *batch, n, has(flags, RAWLLAMA_RUN_ALL_OUTPUTS), *outcome); });
    if (!done || !taken) {
        return done ? RAWLLAMA_REFUSED : RAWLLAMA_CAUGHT;
    }
    const rawllama::interrupts watched(*runner, flags);
    const int32_t code = rawllama::process(*runner, flags);
    outcome->n_tokens  = code == 0 ? n : 0;
    outcome->n_outputs = code == 0 ? outcome->n_outputs : 0;
    return code;
}

}  // extern "C"
