// llama_decode of a llama_batch against llama_process of a llama_batch_ext that is filled again each time: microseconds
// for what comes before the computation, which an abort callback ends at once. Medians of alternating rounds.
//
//   package=$(python -c "from rawllama.raw import PACKAGE; print(PACKAGE)")
//   c++ -O2 -std=c++17 -I$package/include benchmarks/batch_forms.cpp -o batch_forms
//       -L$package/lib -l:librawllama-llama.so -Wl,-rpath,$package/lib -Wl,-rpath-link,$package/lib
//   ./batch_forms model.gguf

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "llama.h"

namespace {

using clock_type = std::chrono::steady_clock;

constexpr int rounds    = 401;
constexpr int sequences = 16;

double microseconds(clock_type::time_point start) {
    return std::chrono::duration<double, std::micro>(clock_type::now() - start).count();
}

double median(std::vector<double> times) {
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

bool always(void *) {
    return true;
}

llama_batch make_batch(int n) {
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens    = n;
    const int length  = std::max(1, n / sequences);
    for (int i = 0; i < n; i++) {
        batch.token[i]     = 10 + i % 50;
        batch.pos[i]       = i % length;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = i / length;
        batch.logits[i]    = 1;
    }
    return batch;
}

void fill(llama_batch_ext * to, const llama_batch & from) {
    llama_batch_ext_clear(to);
    for (int i = 0; i < from.n_tokens; i++) {
        llama_batch_ext_add_token(to, from.seq_id[i][0], from.token[i]);
        llama_batch_ext_set_pos(to, i, &from.pos[i]);
        llama_batch_ext_set_output_logits(to, i, from.logits[i]);
    }
}

void compare(llama_context * ctx, int n) {
    llama_batch         batch = make_batch(n);
    llama_batch_ext *   ext   = llama_batch_ext_init(ctx);
    std::vector<double> plain, extended;
    for (int round = 0; round < rounds; round++) {
        auto start = clock_type::now();
        llama_decode(ctx, batch);
        plain.push_back(microseconds(start));
        start = clock_type::now();
        fill(ext, batch);
        llama_process(ctx, LLAMA_PROCESS_TYPE_DECODE, ext);
        extended.push_back(microseconds(start));
    }
    printf("%4d tokens: llama_batch %.1f us, llama_batch_ext %.1f us\n", n, median(plain), median(extended));
    llama_batch_ext_free(ext);
    llama_batch_free(batch);
}

}  // namespace

int main(int, char ** arguments) {
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_model *        model  = llama_model_load_from_file(arguments[1], llama_model_default_params());
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 512;
    params.n_seq_max                                = sequences;
    params.n_threads = params.n_threads_batch       = 1;
    params.kv_unified = params.embeddings           = true;
    llama_context * ctx                             = llama_init_from_model(model, params);
    llama_set_abort_callback(ctx, always, nullptr);
    for (const int n : { 1, 16, 128, 512 }) {
        compare(ctx, n);
    }
    llama_free(ctx);
    llama_model_free(model);
}
