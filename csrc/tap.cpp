// Tensors of the graph, copied while they are computed.
//
// ggml asks before it computes a run of operations which results are wanted, cuts the run there, and tells when each is
// computed: the copy is made before a later operation takes over the memory. Inputs are no operations; they are copied
// when the first operation that reads them is asked about, as their memory may be taken over too.

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "rawllama.h"

namespace {

struct pattern {
    std::string op;      // of the operation that reads `name`; empty for any
    std::string name;
    bool        source;  // `name` is what an operation reads

    explicit pattern(const std::string & text) : source(text.find('@') != std::string::npos) {
        const size_t at = text.find('@');
        op   = source ? text.substr(0, at) : "";
        name = source ? text.substr(at + 1) : text;
    }
};

// Whether a name fits: `*` is any characters but spaces, which tell ggml's views ("Qcur-0 (reshaped)") apart; `**` is any.
bool fits(const char * wanted, const char * name) {
    for (; *wanted != '\0' && *wanted != '*'; wanted++, name++) {
        if (*name == '\0' || (*wanted != *name && (*wanted != '?' || *name == ' '))) {
            return false;
        }
    }
    if (*wanted == '\0') {
        return *name == '\0';
    }
    const bool spaces = wanted[1] == '*';
    for (;; name++) {
        if (fits(wanted + (spaces ? 2 : 1), name)) {
            return true;
        }
        if (*name == '\0' || (*name == ' ' && !spaces)) {
            return false;
        }
    }
}

// ggml's copy of a tensor for another backend is called BACKEND#name#number. Returns its name, or an empty string.
std::string copied_from(const char * name) {
    const char * first = std::strchr(name, '#');
    const char * last  = std::strrchr(name, '#');
    return first != last ? std::string(first + 1, last) : "";
}

bool is_weight(const std::string & name) {
    return name.find(".weight") != std::string::npos || name.find(".bias") != std::string::npos;
}

// The layer that a name tells, -1 without: "Qcur-3", "Qcur-3 (view)", "blk.3.attn_q.weight".
int32_t layer_of(const char * name) {
    const char * found = std::strstr(name, "blk.");
    const char * digit = found ? found + 4 : std::strrchr(name, '-');
    if (digit && !found) {
        digit++;
    }
    return digit && std::isdigit(static_cast<unsigned char>(*digit)) ? std::atoi(digit) : -1;
}

struct copied {
    std::string        name;
    const char *       op;
    int32_t            layer;
    int32_t            pattern;
    int64_t            graph;
    ggml_type          type;
    int32_t            n_dims;
    int64_t            ne[4];
    ggml_type          values_type;
    std::vector<char>  values;
};

bool is_integer(ggml_type type) {
    return type == GGML_TYPE_I8 || type == GGML_TYPE_I16 || type == GGML_TYPE_I32 || type == GGML_TYPE_I64;
}

// How values of a type are handed on.
ggml_type values_type(ggml_type type) {
    if (!is_integer(type)) {
        return GGML_TYPE_F32;
    }
    return type == GGML_TYPE_I64 ? GGML_TYPE_I64 : GGML_TYPE_I32;
}

size_t width(ggml_type values_type) {
    return values_type == GGML_TYPE_I64 ? 8 : 4;
}

// Dimensions that are told: ggml knows no others than its four, so those of 1 at the end are left out, but one token's
// row of numbers is still a row.
int32_t dimensions(const ggml_tensor * tensor) {
    return std::max(ggml_n_dims(tensor), is_integer(tensor->type) ? 1 : 2);
}

int slowest_dimension(const ggml_tensor * tensor) {
    return dimensions(tensor) - 1;
}

// A number in memory of any integer type, or F64, to one of the target's.
void widen(ggml_type type, const char * source, char * target) {
    if (type == GGML_TYPE_F64) {
        double value;
        std::memcpy(&value, source, sizeof(value));
        const float narrow = static_cast<float>(value);
        std::memcpy(target, &narrow, sizeof(narrow));
        return;
    }
    int32_t value = 0;
    if (type == GGML_TYPE_I8) {
        value = *reinterpret_cast<const int8_t *>(source);
    } else {
        int16_t half;
        std::memcpy(&half, source, sizeof(half));
        value = half;
    }
    std::memcpy(target, &value, sizeof(value));
}

// Values along the fastest dimension, `n` of them, `step` bytes apart.
void read_run(ggml_type type, const char * source, size_t step, int64_t n, char * target) {
    const size_t size      = ggml_type_size(type);
    const bool   as_it_is  = type == GGML_TYPE_F32 || type == GGML_TYPE_I32 || type == GGML_TYPE_I64;
    const auto   to_float  = ggml_get_type_traits(type)->to_float;
    const bool   decoded   = !as_it_is && to_float;
    if (step == size && as_it_is) {
        std::memcpy(target, source, static_cast<size_t>(n) * size);
        return;
    }
    if (step == size && decoded) {
        to_float(source, reinterpret_cast<float *>(target), n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {  // only types of one value a block have such strides
        char * value = target + i * width(values_type(type));
        if (as_it_is) {
            std::memcpy(value, source + i * step, size);
        } else if (decoded) {
            to_float(source + i * step, reinterpret_cast<float *>(value), 1);
        } else {
            widen(type, source + i * step, value);
        }
    }
}

bool is_readable(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F64 || is_integer(type) || ggml_get_type_traits(type)->to_float;
}

}  // namespace

struct rawllama_tap {
    std::vector<pattern> patterns;
    std::vector<int32_t> layers;
    std::vector<int64_t> rows;
    bool                 all_layers;
    bool                 all_rows;
    bool                 no_values;

    std::vector<std::unique_ptr<copied>> tensors;
    std::vector<std::string>         names;  // of the first graph
    int64_t                          graph = -1;
    const ggml_tensor *              first = nullptr;  // that is asked about in each graph
    std::vector<const ggml_tensor *> inputs;           // of this graph that were seen
    std::vector<char>                bytes;            // of a tensor as its backend has them

    rawllama_tap_fault fault = RAWLLAMA_TAP_FINE;
    std::string        fault_name;
    int64_t            fault_row    = 0;
    int64_t            fault_n_rows = 0;

    explicit rawllama_tap(const rawllama_tap_request & request) :
        layers(request.layers, request.layers + request.n_layers),
        rows(request.rows, request.rows + request.n_rows),
        all_layers(!request.layers),
        all_rows(!request.rows),
        no_values(request.no_values) {
        for (int32_t i = 0; i < request.n_patterns; i++) {
            patterns.emplace_back(request.patterns[i]);
        }
    }

    bool is_chosen_layer(const char * name) const {
        const int32_t layer = all_layers ? -1 : layer_of(name);
        if (layer < 0) {
            return true;
        }
        return std::find(layers.begin(), layers.end(), layer) != layers.end();
    }

    // What a tensor is called where it matches a pattern; empty where it does not.
    std::string matched(const pattern & wanted, const ggml_tensor * tensor, const char * name) const {
        if (!wanted.source) {
            return fits(wanted.name.c_str(), name) && is_chosen_layer(name) ? name : "";
        }
        if (!wanted.op.empty() && wanted.op != ggml_op_desc(tensor)) {
            return "";
        }
        for (const ggml_tensor * source : tensor->src) {
            if (source && fits(wanted.name.c_str(), source->name) && is_chosen_layer(source->name)) {
                return wanted.op + "@" + source->name;
            }
        }
        return "";
    }

    bool is_wanted(const ggml_tensor * tensor, const char * name) const {
        return std::any_of(patterns.begin(), patterns.end(),
                           [&](const pattern & wanted) { return !matched(wanted, tensor, name).empty(); });
    }

    void fail(rawllama_tap_fault kind, const char * name, int64_t row = 0, int64_t n_rows = 0) {
        if (fault == RAWLLAMA_TAP_FINE) {
            fault        = kind;
            fault_name   = name;
            fault_row    = row;
            fault_n_rows = n_rows;
        }
    }

    // The chosen indices along the slowest dimension.
    bool choose(const ggml_tensor * tensor, const char * name, std::vector<int64_t> & chosen) {
        const int64_t n = tensor->ne[slowest_dimension(tensor)];
        if (all_rows) {
            for (int64_t i = 0; i < n; i++) {
                chosen.push_back(i);
            }
            return true;
        }
        for (const int64_t row : rows) {
            const int64_t index = row < 0 ? row + n : row;
            if (index < 0 || index >= n) {
                fail(RAWLLAMA_TAP_ROW, name, row, n);
                return false;
            }
            chosen.push_back(index);
        }
        return true;
    }

    // All rows of slices first to last of the slowest dimension, behind what `target` has.
    void read_slices(const ggml_tensor * tensor, int64_t first_slice, int64_t last_slice, char *& target) {
        const int    slow  = slowest_dimension(tensor);
        const size_t begin = static_cast<size_t>(first_slice) * tensor->nb[slow];
        // The bytes from the first value of these slices to the last; strides may be in any order.
        ggml_tensor part = *tensor;
        part.ne[slow]    = last_slice - first_slice;
        const size_t size = ggml_nbytes(&part);

        const char * source;
        if (tensor->buffer == nullptr || ggml_backend_buffer_is_host(tensor->buffer)) {
            source = static_cast<const char *>(tensor->data) + begin;
        } else {
            bytes.resize(size);
            ggml_backend_tensor_get(tensor, bytes.data(), begin, size);
            source = bytes.data();
        }
        const size_t step = static_cast<size_t>(part.ne[0]) * width(values_type(tensor->type));
        const auto & ne   = part.ne;
        const auto & nb   = part.nb;
        for (int64_t i3 = 0; i3 < ne[3]; i3++) {
            for (int64_t i2 = 0; i2 < ne[2]; i2++) {
                for (int64_t i1 = 0; i1 < ne[1]; i1++) {
                    read_run(tensor->type, source + i1 * nb[1] + i2 * nb[2] + i3 * nb[3], nb[0], ne[0], target);
                    target += step;
                }
            }
        }
    }

    bool copy_values(const ggml_tensor * tensor, copied & copy) {
        const int  slow      = slowest_dimension(tensor);
        const bool in_blocks = slow == 0 && ggml_blck_size(tensor->type) > 1;
        if (!is_readable(tensor->type) || (in_blocks && !all_rows)) {
            fail(RAWLLAMA_TAP_TYPE, copy.name.c_str());
            return false;
        }
        std::vector<int64_t> chosen;
        if (!choose(tensor, copy.name.c_str(), chosen)) {
            return false;
        }
        copy.ne[slow] = static_cast<int64_t>(chosen.size());
        const int64_t count = copy.ne[0] * copy.ne[1] * copy.ne[2] * copy.ne[3];
        copy.values.resize(static_cast<size_t>(count) * width(copy.values_type));
        char * target = copy.values.data();
        for (size_t i = 0; i < chosen.size();) {  // neighbours at once
            size_t end = i + 1;
            while (end < chosen.size() && chosen[end] == chosen[end - 1] + 1) {
                end++;
            }
            read_slices(tensor, chosen[i], chosen[end - 1] + 1, target);
            i = end;
        }
        return true;
    }

    void take(const ggml_tensor * tensor, const std::string & name, int32_t pattern) {
        auto copy         = std::make_unique<copied>();
        copy->name        = name;
        copy->op          = ggml_op_desc(tensor);
        copy->layer       = layer_of(name.c_str());
        copy->pattern     = pattern;
        copy->graph       = graph;
        copy->type        = tensor->type;
        copy->n_dims      = dimensions(tensor);
        copy->values_type = values_type(tensor->type);
        std::memcpy(copy->ne, tensor->ne, sizeof(copy->ne));
        if (no_values || copy_values(tensor, *copy)) {
            tensors.push_back(std::move(copy));
        }
    }

    // A tensor that was computed, or an input, for each pattern that calls it by a name of its own.
    void take_matches(const ggml_tensor * tensor, const char * name) {
        try {
            std::vector<std::string> names;
            for (size_t i = 0; i < patterns.size(); i++) {
                const std::string found = matched(patterns[i], tensor, name);
                if (!found.empty() && std::find(names.begin(), names.end(), found) == names.end()) {
                    names.push_back(found);
                    take(tensor, found, static_cast<int32_t>(i));
                }
            }
        } catch (const std::bad_alloc &) {
            fail(RAWLLAMA_TAP_MEMORY, name);
        }
    }

    // Inputs of the graph that this operation is the first to read.
    void take_inputs(const ggml_tensor * tensor) {
        for (const ggml_tensor * source : tensor->src) {
            if (!source || source->op != GGML_OP_NONE ||
                std::find(inputs.begin(), inputs.end(), source) != inputs.end()) {
                continue;
            }
            const std::string other = copied_from(source->name);
            const bool        input = other.empty() ? source->flags & GGML_TENSOR_FLAG_INPUT : is_new(other);
            if (input) {
                inputs.push_back(source);
                const std::string name = other.empty() ? source->name : other;
                note(name);
                take_matches(source, name.c_str());
            }
        }
    }

    // Whether a backend's copy is of an input that was not seen yet: no weight, and nothing computed.
    bool is_new(const std::string & name) const {
        return !is_weight(name) && std::none_of(tensors.begin(), tensors.end(), [&](const auto & one) {
            return one->graph == graph && one->name == name;
        });
    }

    // Before a tensor is computed: whether its values are wanted.
    bool ask(const ggml_tensor * tensor) {
        if (!first || tensor == first) {
            first = tensor;
            graph++;
            inputs.clear();
        }
#ifdef RAWLLAMA_HAS_GGML_TENSOR_FLAG_COMPUTE  // without it, the operation is in the graph and left out
        if (!(tensor->flags & GGML_TENSOR_FLAG_COMPUTE)) {
            return false;
        }
#endif
        take_inputs(tensor);
        note(tensor->name);
        return is_wanted(tensor, tensor->name);
    }

    // Remember the names of the first graph, for those who look for them.
    void note(const std::string & name) {
        if (graph == 0) {
            names.push_back(name);
        }
    }
};

struct rawllama_socket {
    rawllama_tap * tap = nullptr;
};

extern "C" {

struct rawllama_socket * rawllama_socket_init(void) {
    return new rawllama_socket;
}

void rawllama_socket_free(struct rawllama_socket * socket) {
    delete socket;
}

bool rawllama_tap_eval(struct ggml_tensor * tensor, bool ask, void * socket) {
    rawllama_tap * tap = static_cast<rawllama_socket *>(socket)->tap;
    if (!tap) {
        return false;
    }
    if (ask) {
        return tap->ask(tensor);
    }
    tap->take_matches(tensor, tensor->name);
    return true;  // false would leave out the rest of the graph
}

struct rawllama_tap * rawllama_tap_init(const struct rawllama_tap_request * request) {
    return new rawllama_tap(*request);
}

void rawllama_tap_free(struct rawllama_tap * tap) {
    delete tap;
}

void rawllama_tap_plug(struct rawllama_socket * socket, struct rawllama_tap * tap) {
    socket->tap = tap;
    if (tap) {
        tap->first = nullptr;
    }
}

int64_t rawllama_tap_count(const struct rawllama_tap * tap) {
    return static_cast<int64_t>(tap->tensors.size());
}

struct rawllama_tapped rawllama_tap_look(const struct rawllama_tap * tap, int64_t index) {
    const copied &  copy = *tap->tensors[static_cast<size_t>(index)];
    rawllama_tapped seen = {};
    seen.name        = copy.name.c_str();
    seen.op          = copy.op;
    seen.layer       = copy.layer;
    seen.pattern     = copy.pattern;
    seen.graph       = copy.graph;
    seen.type        = copy.type;
    seen.n_dims      = copy.n_dims;
    seen.values_type = copy.values_type;
    seen.values      = copy.values.data();
    std::memcpy(seen.ne, copy.ne, sizeof(seen.ne));
    return seen;
}

void rawllama_tap_clear(struct rawllama_tap * tap) {
    tap->tensors.clear();
    tap->fault = RAWLLAMA_TAP_FINE;
}

int64_t rawllama_tap_n_names(const struct rawllama_tap * tap) {
    return static_cast<int64_t>(tap->names.size());
}

const char * rawllama_tap_name(const struct rawllama_tap * tap, int64_t index) {
    return tap->names[static_cast<size_t>(index)].c_str();
}

struct rawllama_tap_failure rawllama_tap_failed(const struct rawllama_tap * tap) {
    return { tap->fault, tap->fault_name.c_str(), tap->fault_row, tap->fault_n_rows };
}

}  // extern "C"
