// Our kernels as operations of ggml's CPU backend, through the door that ggml keeps for its own repacked weights: a buffer
// type that says which operations it computes. ggml's threads run them.
//
// Only where a model's weights were packed: its matrix products, and the attention and GELU that follow from them.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "kernels.hpp"
#include "packed.hpp"
#include "rawllama.h"
#include "traits.h"
#include "zeros.hpp"

#include <dlfcn.h>

// ggml's libraries have these, too, and hide them where backends are plugins; ours stay inside this module.
namespace ggml::cpu {
tensor_traits::~tensor_traits() {}

extra_buffer_type::~extra_buffer_type() {}
}  // namespace ggml::cpu

namespace rawllama::cpu {
namespace {

// Whether the model that this thread is loading is to be packed.
thread_local bool packing = false;

// ---- who computes what

// Whether a tensor comes, by its first sources, from a product with packed weights.
bool follows_packed(const ggml_tensor * tensor) {
    constexpr int far = 16;  // views, reshapes, bias, norm and rope between a product and its attention
    for (int i = 0; i < far && tensor; i++, tensor = tensor->src[0]) {
        if (tensor->op == GGML_OP_MUL_MAT && packed(tensor->src[0])) {
            return true;
        }
    }
    return false;
}

bool is_product(const ggml_tensor * op) {
    return op->op == GGML_OP_MUL_MAT && packed(op->src[0]);
}

bool is_gelu(const ggml_tensor * op) {
    return op->op == GGML_OP_UNARY && ggml_get_unary_op(op) == GGML_UNARY_OP_GELU && op->type == GGML_TYPE_F32 &&
        op->src[0]->type == GGML_TYPE_F32 && ggml_is_contiguous(op) && ggml_is_contiguous(op->src[0]) &&
        follows_packed(op->src[0]);
}

float parameter(const ggml_tensor * op, int index) {
    float value;
    std::memcpy(&value, reinterpret_cast<const float *>(op->op_params) + index, sizeof(value));
    return value;
}

bool is_attention(const ggml_tensor * op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3], *sinks = op->src[4];
    // Packing the keys pays where several queries use them, not where one token is generated.
    const bool pays   = k->ne[1] <= 32 * q->ne[1];
    const bool layout = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
        q->nb[0] == sizeof(float) && k->nb[0] == sizeof(Half) && v->nb[0] == sizeof(Half) && q->ne[3] == 1 &&
        k->ne[3] == 1 && v->ne[3] == 1;
    const bool plain = !sinks && parameter(op, 2) == 0;  // no soft cap
    const bool known = !mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1 && mask->ne[3] == 1);
    return pays && layout && plain && known && follows_packed(q);
}

// ---- matrix products

struct Share {
    int64_t first, last;

    Share(int64_t total, const ggml_compute_params & params)
        : first(total * params.ith / params.nth), last(total * (params.ith + 1) / params.nth) {}
};

size_t product_scratch(const ggml_tensor * op) {
    const ggml_tensor * weight = op->src[0];
    return weight->type == GGML_TYPE_F32 ? 0 : weight->ne[0] * kernels()->panel * sizeof(float);
}

// Rows of one matrix of the input, by the panels of the weights; cut along the rows, too, where the panels are few.
void multiply(const ggml_compute_params & params, const ggml_tensor * op, const char * input, char * output) {
    const ggml_tensor *weight = op->src[0], *rows = op->src[1];
    const Kernels &    with   = *kernels();
    const int64_t      panels = (weight->ne[1] + with.panel - 1) / with.panel;
    constexpr int64_t  least  = 48;  // rows that are worth reading a panel for
    const int64_t      wanted = (4 * params.nth + panels - 1) / panels;
    const int64_t      cuts   = params.nth == 1 ? 1 : std::max<int64_t>(1, std::min(wanted, rows->ne[1] / least));
    const Share        share(panels * cuts, params);
    for (int64_t item = share.first; item < share.last; item++) {
        const int64_t panel = item / cuts, cut = item % cuts;
        const int64_t first = rows->ne[1] * cut / cuts, last = rows->ne[1] * (cut + 1) / cuts;
        Product       job;
        job.input         = reinterpret_cast<const float *>(input + first * rows->nb[1]);
        job.input_stride  = rows->nb[1] / sizeof(float);
        job.weights       = panel_at(weight, panel);
        job.type          = panel_type(weight);
        job.depth         = weight->ne[0];
        job.output        = reinterpret_cast<float *>(output + first * op->nb[1]) + panel * with.panel;
        job.output_stride = op->nb[1] / sizeof(float);
        job.rows          = last - first;
        job.columns       = static_cast<int>(std::min<int64_t>(with.panel, weight->ne[1] - panel * with.panel));
        job.scratch = reinterpret_cast<float *>(static_cast<char *>(params.wdata) + params.ith * product_scratch(op));
        with.multiply(job);
    }
}

void compute_product(const ggml_compute_params & params, ggml_tensor * op) {
    const ggml_tensor * input = op->src[1];
    for (int64_t i3 = 0; i3 < input->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < input->ne[2]; i2++) {
            multiply(
                params, op, static_cast<const char *>(input->data) + i2 * input->nb[2] + i3 * input->nb[3],
                static_cast<char *>(op->data) + i2 * op->nb[2] + i3 * op->nb[3]);
        }
    }
}

// ---- GELU

void compute_gelu(const ggml_compute_params & params, ggml_tensor * op) {
    const Share share(ggml_nrows(op), params);
    const size_t width = op->ne[0];
    kernels()->gelu(
        static_cast<const float *>(op->src[0]->data) + share.first * width,
        static_cast<float *>(op->data) + share.first * width, (share.last - share.first) * width);
}

// ---- attention

constexpr Half masked = 0xFC00;  // minus infinity

// What one query sees: keys [first, first + count), of which some may be masked or biased.
struct Seen {
    int  first, count;
    bool plain;
};

Seen seen_by(const Half * mask, int n_keys) {
    int first = 0, last = n_keys;
    while (first < n_keys && mask[first] == masked) {
        first++;
    }
    while (last > first && mask[last - 1] == masked) {
        last--;
    }
    Half any = 0;
    for (int i = first; i < last; i++) {
        any |= mask[i];
    }
    return { first, last - first, any == 0 };
}

// Queries that begin to see at the same key: a sequence, or a part of a long one.
struct Run {
    int  query, n_queries, first_key, n_keys;
    bool plain;
};

size_t attention_scratch(const ggml_tensor * op) {
    const ggml_tensor *k = op->src[1], *v = op->src[2];
    const size_t       floats = kernels()->attention_scratch(
        static_cast<int>(k->ne[1]), static_cast<int>(k->ne[0]), static_cast<int>(v->ne[0]));
    const size_t rows = op->src[0]->ne[1];
    return (floats * sizeof(float) + rows * (sizeof(Run) + sizeof(int)) + 63) / 64 * 64;
}

// The runs of a batch, and the number of keys that each query sees.
int find_runs(const ggml_tensor * op, Run * runs, int * n_keys_of) {
    constexpr int longest = 128;  // a longer run is cut, so that threads can share it
    const auto *  mask    = op->src[3];
    const int     n_keys  = static_cast<int>(op->src[1]->ne[1]);
    int           count   = 0;
    for (int query = 0; query < op->src[0]->ne[1]; query++) {
        const Half * row =
            mask ? reinterpret_cast<const Half *>(static_cast<const char *>(mask->data) + query * mask->nb[1]) : nullptr;
        const Seen seen  = row ? seen_by(row, n_keys) : Seen{ 0, n_keys, true };
        n_keys_of[query] = seen.count;
        Run * last       = count > 0 ? &runs[count - 1] : nullptr;
        if (!last || last->first_key != seen.first || last->n_queries == longest) {
            runs[count++] = { query, 1, seen.first, seen.count, seen.plain };
        } else {
            last->n_queries++;
            last->n_keys = std::max(last->n_keys, seen.count);
            last->plain  = last->plain && seen.plain;
        }
    }
    return count;
}

float slope_of(const ggml_tensor * op, int64_t head) {
    const float bias = parameter(op, 1);
    if (bias <= 0) {
        return 1;
    }
    const int64_t power = int64_t{ 1 } << static_cast<int>(std::floor(std::log2(op->src[0]->ne[2])));
    return head < power ? std::pow(std::pow(2.0F, -bias / power), static_cast<float>(head + 1))
                        : std::pow(std::pow(2.0F, -bias / 2 / power), static_cast<float>(2 * (head - power) + 1));
}

const char * at(const ggml_tensor * tensor, int64_t i1, int64_t i2) {
    return static_cast<const char *>(tensor->data) + i1 * tensor->nb[1] + i2 * tensor->nb[2];
}

void attend(const ggml_tensor * op, const Run & run, int64_t head, const int * n_keys_of, float * scratch) {
    const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
    // The result is permuted: [value][head][query].
    float * output = reinterpret_cast<float *>(static_cast<char *>(op->data) + head * op->nb[1] + run.query * op->nb[2]);
    if (run.n_keys == 0) {
        for (int i = 0; i < run.n_queries; i++) {
            std::memset(output + i * op->nb[2] / sizeof(float), 0, v->ne[0] * sizeof(float));
        }
        return;
    }
    Attention job;
    job.queries       = reinterpret_cast<const float *>(at(q, run.query, head));
    job.query_stride  = q->nb[1] / sizeof(float);
    job.keys          = reinterpret_cast<const Half *>(at(k, run.first_key, head / (q->ne[2] / k->ne[2])));
    job.key_stride    = k->nb[1] / sizeof(Half);
    job.values        = reinterpret_cast<const Half *>(at(v, run.first_key, head / (q->ne[2] / v->ne[2])));
    job.value_stride  = v->nb[1] / sizeof(Half);
    job.mask          = run.plain ? nullptr : reinterpret_cast<const Half *>(at(mask, run.query, 0)) + run.first_key;
    job.mask_stride   = run.plain ? 0 : mask->nb[1] / sizeof(Half);
    job.n_keys_of     = n_keys_of + run.query;
    job.n_queries     = run.n_queries;
    job.n_keys        = run.n_keys;
    job.key_width     = static_cast<int>(k->ne[0]);
    job.value_width   = static_cast<int>(v->ne[0]);
    job.scale         = parameter(op, 0);
    job.slope         = slope_of(op, head);
    job.output        = output;
    job.output_stride = op->nb[2] / sizeof(float);
    job.scratch       = scratch;
    kernels()->attention(job);
}

void compute_attention(const ggml_compute_params & params, ggml_tensor * op) {
    const int64_t n_queries = op->src[0]->ne[1], n_heads = op->src[0]->ne[2];
    char *        mine      = static_cast<char *>(params.wdata) + params.ith * attention_scratch(op);
    Run *         runs      = reinterpret_cast<Run *>(mine);
    int *         n_keys_of = reinterpret_cast<int *>(runs + n_queries);
    const size_t  before    = n_queries * (sizeof(Run) + sizeof(int));
    float *       scratch   = reinterpret_cast<float *>(mine + (before + 3) / 4 * 4);
    const int     count     = find_runs(op, runs, n_keys_of);
    const auto    cost      = [&](int run) { return int64_t{ runs[run].n_queries } * runs[run].n_keys + 1; };
    int64_t       total     = 0;
    for (int run = 0; run < count; run++) {
        total += cost(run) * n_heads;
    }
    const Share share(total, params);
    int64_t     begin = 0;  // a piece of work is whose share it begins in
    for (int64_t head = 0; head < n_heads; head++) {
        for (int run = 0; run < count; begin += cost(run++)) {
            if (begin >= share.first && begin < share.last) {
                attend(op, runs[run], head, n_keys_of, scratch);
            }
        }
    }
}

// ---- the door

class Operations : public ggml::cpu::tensor_traits {
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override {
        if (is_product(op)) {
            size = product_scratch(op) * n_threads;
        } else if (is_attention(op)) {
            size = attention_scratch(op) * n_threads;
        } else {
            return false;
        }
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (is_product(op)) {
            compute_product(*params, op);
        } else if (is_attention(op)) {
            compute_attention(*params, op);
        } else if (is_gelu(op)) {
            compute_gelu(*params, op);
        } else {
            return false;
        }
        return true;
    }
};

class Door : public ggml::cpu::extra_buffer_type {
    Operations operations;

    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        // While a model is loaded, ggml asks with an empty buffer where each weight should go.
        const ggml_tensor * weight  = op->src[0];
        const bool          loading = weight && weight->buffer && weight->buffer->size == 0;
        if (op->op != GGML_OP_MUL_MAT || !packed(weight) || !packable(weight) || op->src[1]->type != GGML_TYPE_F32) {
            return false;
        }
        return !loading || (packing && std::strncmp(weight->name, "output", 6) != 0);
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        const bool any = op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_FLASH_ATTN_EXT || op->op == GGML_OP_UNARY;
        return any ? &operations : nullptr;
    }
};

using BufferTypes = std::vector<ggml_backend_buffer_type_t>;

// ggml's list of such buffer types: its function is no public one, so it is looked up beside one that ggml gives out.
BufferTypes * buffer_types(ggml_backend_dev_t cpu) {
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(cpu);
    void *             known    = ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts");
    Dl_info            place;
    if (!known || !dladdr(known, &place)) {
        return nullptr;
    }
    void * library = dlopen(place.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) {
        return nullptr;
    }
    void * list = dlsym(library, "_Z39ggml_backend_cpu_get_extra_buffer_typesv");
    dlclose(library);  // it was open before
    return list ? &reinterpret_cast<BufferTypes & (*) ()>(list)() : nullptr;
}

bool install() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) {
        return false;
    }
    offer_zeros(cpu);
    BufferTypes * types = kernels() ? buffer_types(cpu) : nullptr;
    if (!types) {
        return false;
    }
    static Door door;
    types->insert(types->begin(), packed_buffer_type(&door));
    return true;
}

bool installed() {
    static const bool done = install();
    return done;
}

}  // namespace
}  // namespace rawllama::cpu

extern "C" {

void rawllama_cpu_install(void) {
    rawllama::cpu::installed();
}

const char * rawllama_kernels_name(void) {
    return rawllama::cpu::installed() ? rawllama::cpu::kernels()->name : nullptr;
}

void rawllama_kernels_pack(bool pack) {
    rawllama::cpu::packing = pack;
}

}  // extern "C"
