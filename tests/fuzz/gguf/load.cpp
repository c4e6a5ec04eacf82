// libFuzzer's target: a GGUF file as rawllama.model.Model and rawllama.context.Context use it, to the first results.
//
// A failed assert is an exception in Python, unless it is on one of ggml's worker threads. Here there is one thread
// only, so that an assert while a graph is computed, which would be a worker's too, is let through as a crash.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "gguf.h"
#include "guard.hpp"
#include "llama.h"
#include "rawllama.h"

namespace {

thread_local bool computing = false;

void on_abort(const char * message) {
    if (computing) {
        fprintf(stderr, "%s\n", message);
        abort();
    }
    throw std::runtime_error(message);
}

using model_ptr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;

// ---- what python/rawllama/modelfile.py refuses

bool ends_with(const std::string & text, const char * end) {
    const size_t n = strlen(end);
    return text.size() >= n && text.compare(text.size() - n, n, end) == 0;
}

bool is_weight_type(ggml_type type) {
    const bool is_float        = type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
    const bool is_intermediate = type == GGML_TYPE_Q8_1 || type == GGML_TYPE_Q8_K;
    return is_float || (ggml_is_quantized(type) && !is_intermediate);
}

bool fits(const std::string & name, ggml_type type) {
    for (const char * end : { ".bias", "norm.weight", "token_types.weight", "conv1d.weight", "shortconv.conv.weight",
                              ".ssm_a", ".ssm_d" }) {
        if (ends_with(name, end)) {
            return type == GGML_TYPE_F32;
        }
    }
    return !ends_with(name, ".weight") || ends_with(name, "tid2eid.weight") || is_weight_type(type);
}

bool is_possible(const gguf_context * file, int64_t index) {
    const std::string key  = gguf_get_key(file, index);
    const gguf_type   type = gguf_get_kv_type(file, index);
    if (type == GGUF_TYPE_FLOAT32 && ends_with(key, "epsilon")) {
        const float value = gguf_get_val_f32(file, index);
        return value >= 0 && value < INFINITY;
    }
    if (type != GGUF_TYPE_UINT32) {
        return true;
    }
    const uint32_t value = gguf_get_val_u32(file, index);
    return (value != 0 || !ends_with(key, "bert.attention.head_count")) &&
           (value <= 10000000 || !ends_with(key, ".vocab_size"));
}

std::string text(const gguf_context * file, const char * key) {
    const int64_t index = gguf_find_key(file, key);
    const bool    there = index >= 0 && gguf_get_kv_type(file, index) == GGUF_TYPE_STRING;
    return there ? gguf_get_val_str(file, index) : "";
}

// M-RoPE's; a stricter limit than Python's, as models do.
bool has_sections(const gguf_context * file, const std::string & architecture) {
    const int64_t index = gguf_find_key(file, (architecture + ".rope.dimension_sections").c_str());
    if (index < 0 || gguf_get_kv_type(file, index) != GGUF_TYPE_ARRAY ||
        (gguf_get_arr_type(file, index) != GGUF_TYPE_INT32 && gguf_get_arr_type(file, index) != GGUF_TYPE_UINT32)) {
        return true;
    }
    const auto * sections = static_cast<const int32_t *>(gguf_get_arr_data(file, index));
    int64_t      sum      = 0;
    for (size_t i = 0; i < gguf_get_arr_n(file, index); i++) {
        sum = sections[i] < 0 ? INT32_MAX : sum + sections[i];
    }
    return sum <= 16;
}

// Left out whole: RWKV's tokenizer, which can go on forever, and the one for tests.
bool has_parts(const gguf_context * file) {
    const std::string architecture = text(file, "general.architecture");
    const std::string heads        = architecture + ".attention.head_count";
    const bool        is_t5        = architecture == "t5" || architecture == "t5encoder";
    const auto        has          = [&](const char * tensor) { return gguf_find_tensor(file, tensor) >= 0; };
    const std::string tokenizer = text(file, "tokenizer.ggml.model");
    if (tokenizer == "rwkv" || tokenizer == "test" || !has_sections(file, architecture)) {
        return false;
    }
    if (gguf_find_key(file, "split.count") >= 0) {
        return true;
    }
    if (ends_with(architecture, "bert") && gguf_find_key(file, heads.c_str()) < 0) {
        return false;
    }
    return !is_t5 || gguf_get_n_tensors(file) == 0 ||
           (has("enc.blk.0.attn_rel_b.weight") && (architecture != "t5" || has("dec.blk.0.attn_rel_b.weight")));
}

bool is_sane(const gguf_context * file) {
    for (int64_t i = 0; i < gguf_get_n_tensors(file); i++) {
        if (!fits(gguf_get_tensor_name(file, i), gguf_get_tensor_type(file, i))) {
            return false;
        }
    }
    for (int64_t i = 0; i < gguf_get_n_kv(file); i++) {
        if (!is_possible(file, i)) {
            return false;
        }
    }
    return has_parts(file);
}

int32_t rows(const gguf_context * file, const char * name) {
    const int64_t index = gguf_find_tensor(file, name);
    return index < 0 ? 0 : static_cast<int32_t>(gguf_get_tensor_ne(file, index)[1]);
}

// What modelfile.py learns.
struct facts {
    int32_t positions = 0;  // that the model has learned
    int32_t scores    = 0;  // that its last layer for classification gives
};

// Whether Python would load it.
bool is_accepted(const char * path, facts & learned) {
    std::unique_ptr<gguf_context, decltype(&gguf_free)> file(gguf_init_from_file(path, { true, nullptr }), gguf_free);
    if (!file) {
        return true;  // libllama says why
    }
    learned.positions = rows(file.get(), "position_embd.weight");
    learned.scores    = rows(file.get(), "cls.output.weight");
    if (!learned.scores) {
        learned.scores = rows(file.get(), "cls.weight");
    }
    return is_sane(file.get());
}

// ---- what is done with a model

// What Model and Vocab ask.
void ask(const llama_model * model, const llama_vocab * vocab) {
    char text[512];
    for (int32_t i = 0; i < llama_model_meta_count(model); i++) {
        llama_model_meta_key_by_index(model, i, text, sizeof(text));
        llama_model_meta_val_str_by_index(model, i, text, sizeof(text));
    }
    llama_model_desc(model, text, sizeof(text));
    llama_model_chat_template(model, nullptr);
    llama_model_rope_type(model);
    llama_model_n_head_kv(model);
    for (uint32_t i = 0; i < std::min(4u, llama_model_n_cls_out(model)); i++) {
        llama_model_cls_label(model, i);
    }
    for (llama_token (*token)(const llama_vocab *) : { llama_vocab_bos, llama_vocab_eos, llama_vocab_nl }) {
        token(vocab);
    }
}

std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text, bool special) {
    std::vector<llama_token> tokens(text.size() + 8);
    const int32_t            size  = static_cast<int32_t>(tokens.size());
    const int32_t            bytes = static_cast<int32_t>(text.size());
    const int32_t            n     = guard(
        [&] { return llama_tokenize(vocab, text.data(), bytes, tokens.data(), size, special, special); });
    tokens.resize(std::max(0, n));
    return tokens;
}

void use_vocab(const llama_vocab * vocab) {
    const std::string texts[] = { "Hello world, the cat sat on 12345 mats.\n\n", "<dna>ACGTA</dna>",
                                  "<s>[SEP]  caf\xc3\xa9 \xe8\xaa\x9e\xff" };
    for (const std::string & text : texts) {
        for (bool special : { false, true }) {
            const std::vector<llama_token> tokens = tokenize(vocab, text, special);
            char                           room[256];
            guard([&] {
                const int32_t n = static_cast<int32_t>(tokens.size());
                llama_detokenize(vocab, tokens.data(), n, room, sizeof(room), special, special);
            });
        }
    }
    const int32_t n = llama_vocab_n_tokens(vocab);
    for (llama_token token = 0; token < n; token += 1 + n / 64) {
        guard([&] {
            char room[64];
            llama_token_to_piece(vocab, token, room, sizeof(room), 0, true);
            llama_vocab_get_attr(vocab, token);
            llama_vocab_is_eog(vocab, token);
        });
    }
}

// Four tokens of one sequence, by the runner that Context uses.
void run(rawllama_runner * runner, int32_t n_vocab, bool encode) {
    constexpr int32_t n         = 4;
    llama_token       tokens[n] = {};
    llama_pos         pos[n];
    int32_t           n_seq_id[n];
    llama_seq_id      zero      = 0;
    llama_seq_id *    seq_id[n];
    int8_t            logits[n];
    for (int32_t i = 0; i < n; i++) {
        tokens[i]   = std::min(i * 7 + 1, n_vocab - 1);
        pos[i]      = i;
        n_seq_id[i] = 1;
        seq_id[i]   = &zero;
        logits[i]   = 1;
    }
    rawllama_batch batch = {};
    batch.batch          = { n, tokens, nullptr, pos, n_seq_id, seq_id, logits };
    batch.capacity       = n;
    batch.n_seq_max      = 1;
    rawllama_outcome outcome;
    const int32_t flags = RAWLLAMA_RUN_ONE_UBATCH | RAWLLAMA_RUN_ALL_OUTPUTS | (encode ? RAWLLAMA_RUN_ENCODE : 0);
    rawllama_run(runner, &batch, flags, &outcome);
}

// As Context's results: whole rows, of the widths that the model says.
void read_results(llama_context * ctx, const llama_model * model, int32_t n_vocab) {
    static std::vector<float> row;
    const bool   rank  = llama_pooling_type(ctx) == LLAMA_POOLING_TYPE_RANK;
    const size_t width = rank ? llama_model_n_cls_out(model) : llama_model_n_embd_out(model);
    row.resize(std::max<size_t>(width, n_vocab));
    if (const float * pooled = llama_get_embeddings_seq(ctx, 0)) {
        memcpy(row.data(), pooled, width * sizeof(float));
    }
    if (const float * last = llama_get_logits_ith(ctx, -1)) {
        memcpy(row.data(), last, n_vocab * sizeof(float));
    }
}

void use_context(llama_model * model, const facts & learned, bool embeddings) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = 64;
    params.n_threads = params.n_threads_batch = 1;
    params.embeddings                         = embeddings;
    llama_context * ctx = guard([&] { return llama_init_from_model(model, params); });
    if (!ctx) {
        return;
    }
    if (llama_pooling_type(ctx) == LLAMA_POOLING_TYPE_RANK &&
        static_cast<uint32_t>(learned.scores) != llama_model_n_cls_out(model)) {
        llama_free(ctx);
        return;
    }
    const int32_t rope    = llama_model_rope_type(model);
    const int32_t n_pos   = rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE ? 4 : 1;
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const rawllama_limits limits = { learned.positions, llama_model_n_embd_inp(model), n_pos, 64 };
    rawllama_runner *     runner = rawllama_runner_init(ctx, limits);
    if (llama_model_has_encoder(model)) {
        run(runner, n_vocab, true);
    }
    if (llama_model_has_decoder(model)) {
        run(runner, n_vocab, false);
    }
    guard([&] { read_results(ctx, model, n_vocab); });
    rawllama_runner_free(runner);
    guard([&] { llama_free(ctx); });
}

void load(const char * path, const facts & learned, bool vocab_only, bool embeddings) {
    llama_model_params params = llama_model_default_params();
    params.vocab_only         = vocab_only;
    model_ptr model(guard([&] { return llama_model_load_from_file(path, params); }), llama_model_free);
    if (!model) {
        return;
    }
    const llama_vocab * vocab = llama_model_get_vocab(model.get());
    guard([&] { ask(model.get(), vocab); });
    use_vocab(vocab);
    if (!vocab_only) {
        use_context(model.get(), learned, embeddings);
    }
}

void be_silent(ggml_log_level, const char *, void *) {}

int file_in_memory() {
    const int descriptor = memfd_create("input", 0);
    if (descriptor < 0) {
        perror("memfd_create");
        exit(1);
    }
    return descriptor;
}

}  // namespace

// The linker puts these around ggml's own (-Wl,--wrap).
extern "C" ggml_status __real_ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan);

extern "C" ggml_status __wrap_ggml_graph_compute(ggml_cgraph * graph, ggml_cplan * plan) {
    computing                = true;
    const ggml_status status = __real_ggml_graph_compute(graph, plan);
    computing                = false;
    return status;
}

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    if (!getenv("RAWLLAMA_FUZZ_LOG")) {
        llama_log_set(be_silent, nullptr);
    }
    llama_backend_init();
    guard([] {});  // sets the abort callback, once
    ggml_set_abort_callback(on_abort);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    static const int         descriptor = file_in_memory();
    static const std::string path       = "/proc/self/fd/" + std::to_string(descriptor);
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size)) {
        return -1;
    }
    facts learned;
    if (!is_accepted(path.c_str(), learned)) {
        return -1;  // not for the corpus
    }
    uint32_t sum = 0;
    for (size_t i = 0; i < std::min<size_t>(size, 4096); i++) {
        sum = sum * 31 + data[i];
    }
    load(path.c_str(), learned, sum % 8 == 0, sum & 8);
    return 0;
}
