// What a context computes with: a copy of the batch, and the flags that end a computation.
#pragma once

#include <atomic>
#include <vector>

#include "llama.h"
#include "rawllama.h"

namespace rawllama {

struct token_input {
    llama_token          token;   // or
    const float *        embd;    // a row, where this is not NULL
    const llama_pos *    pos;     // as many as the model has a row
    const llama_seq_id * seq_id;
    int32_t              n_seq_id;
    bool                 output;
};

#ifdef RAWLLAMA_HAS_llama_batch_ext_init

// The copy goes into the form that llama_decode itself would make of a llama_batch: one conversion less
// (benchmarks/batch_forms.cpp).
class copied_batch {
  public:
    explicit copied_batch(llama_context * ctx, const rawllama_limits & limits) :
        ctx(ctx), n_embd(limits.n_embd), batch(llama_batch_ext_init(ctx)) {}

    ~copied_batch() { llama_batch_ext_free(batch); }

    copied_batch(const copied_batch &)             = delete;
    copied_batch & operator=(const copied_batch &) = delete;

    void clear() { llama_batch_ext_clear(batch); }

    void add(const token_input & in) {
        const int32_t index = in.embd ?
            llama_batch_ext_add_embd(batch, in.seq_id[0], { in.embd, 1, static_cast<size_t>(n_embd) }) :
            llama_batch_ext_add_token(batch, in.seq_id[0], in.token);
        for (int32_t i = 1; i < in.n_seq_id; i++) {
            llama_batch_ext_add_seq(batch, index, in.seq_id[i]);
        }
        llama_batch_ext_set_pos(batch, index, in.pos);
        llama_batch_ext_set_output_logits(batch, index, in.output);
    }

    int32_t process(bool encode) {
        return llama_process(ctx, encode ? LLAMA_PROCESS_TYPE_ENCODE : LLAMA_PROCESS_TYPE_DECODE, batch);
    }

  private:
    llama_context *   ctx;
    int32_t           n_embd;
    llama_batch_ext * batch;
};

#else  // a llama.cpp from before llama_batch_ext

class copied_batch {
  public:
    copied_batch(llama_context * ctx, const rawllama_limits & limits) : ctx(ctx), limits(limits) {}

    void clear() {
        token.clear();
        embd.clear();
        pos.clear();
        n_seq_id.clear();
        seq_ids.clear();
        output.clear();
    }

    void add(const token_input & in) {
        if (in.embd) {
            embd.insert(embd.end(), in.embd, in.embd + limits.n_embd);
        } else {
            token.push_back(in.token);
        }
        pos.push_back(in.pos[0]);
        n_seq_id.push_back(in.n_seq_id);
        seq_ids.emplace_back(in.seq_id, in.seq_id + in.n_seq_id);
        output.push_back(in.output);
    }

    int32_t process(bool encode) {
        std::vector<llama_seq_id *> rows;
        for (auto & ids : seq_ids) {
            rows.push_back(ids.data());
        }
        llama_batch batch = {};
        batch.n_tokens    = static_cast<int32_t>(output.size());
        batch.token       = embd.empty() ? token.data() : nullptr;
        batch.embd        = embd.empty() ? nullptr : embd.data();
        batch.pos         = pos.data();
        batch.n_seq_id    = n_seq_id.data();
        batch.seq_id      = rows.data();
        batch.logits      = output.data();
        return encode ? llama_encode(ctx, batch) : llama_decode(ctx, batch);
    }

  private:
    llama_context *                        ctx;
    rawllama_limits                        limits;
    std::vector<llama_token>               token;
    std::vector<float>                     embd;
    std::vector<llama_pos>                 pos;
    std::vector<int32_t>                   n_seq_id;
    std::vector<std::vector<llama_seq_id>> seq_ids;
    std::vector<int8_t>                    output;
};

#endif

}  // namespace rawllama

struct rawllama_runner {
    llama_context *           ctx;  // not ours
    rawllama_limits           limits;
    rawllama::copied_batch    copy;
    std::vector<llama_pos>    pos;     // of one token
    std::vector<llama_seq_id> seq_id;  // of one token
    std::atomic<bool>         aborted{ false };
    std::atomic<bool>         interruptible{ false };
    std::atomic<bool>         ending{ false };        // libllama was told to
    const std::atomic<bool> * stopped = nullptr;  // a job's, while one runs

    rawllama_runner(llama_context * ctx, const rawllama_limits & limits) :
        ctx(ctx), limits(limits), copy(ctx, limits), pos(limits.n_pos) {}
};

namespace rawllama {

// Whether each flag is set that rawllama_run_flags names.
inline bool has(int32_t flags, rawllama_run_flags flag) {
    return (flags & flag) != 0;
}

// Lets Ctrl-C end what the runner computes, where the flags say so; for Python's main thread.
class interrupts {
  public:
    interrupts(rawllama_runner & runner, int32_t flags) : begun(false) {
        runner.interruptible = has(flags, RAWLLAMA_RUN_INTERRUPTIBLE);
        if (runner.interruptible) {
            begun = rawllama_interrupt_begin();
        }
    }

    ~interrupts() {
        if (begun) {
            rawllama_interrupt_end();
        }
    }

    interrupts(const interrupts &)             = delete;
    interrupts & operator=(const interrupts &) = delete;

  private:
    bool begun;
};

// Compute what was copied: what llama_encode or llama_decode returns, or RAWLLAMA_CAUGHT.
int32_t process(rawllama_runner & runner, int32_t flags);

// Whether this thread computes what was told to end.
bool ending();

}  // namespace rawllama
