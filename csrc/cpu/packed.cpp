#include "packed.hpp"

#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#    include <sys/mman.h>
#endif

namespace rawllama::cpu {

namespace {

constexpr size_t page = 1 << 21;  // a huge page: the weights of one query pass once, and the TLB is small

// As in ggml-common.h.
struct BlockQ8 {
    Half   scale;
    int8_t numbers[byte_block];
};

// Where the parts of a panel lie, and how a row gets in and out.
struct Panel {
    char *    data;
    int       rows;  // of a full panel
    int64_t   depth;
    ggml_type type;

    template <typename Element> void exchange(int lane, Element * row, bool in) const {
        Element * panel = reinterpret_cast<Element *>(data) + lane;
        for (int64_t k = 0; k < depth; k++) {
            (in ? panel[k * rows] : row[k]) = in ? row[k] : panel[k * rows];
        }
    }

    void exchange_blocks(int lane, BlockQ8 * row, bool in) const {
        const size_t size = (byte_block + sizeof(Half)) * rows;
        for (int64_t block = 0; block < depth / byte_block; block++) {
            int8_t * numbers = reinterpret_cast<int8_t *>(data + block * size);
            Half *   scales  = reinterpret_cast<Half *>(numbers + byte_block * rows);
            for (int64_t k = 0; k < byte_block; k++) {
                int8_t & inside = numbers[k * rows + lane];
                (in ? inside : row[block].numbers[k]) = in ? row[block].numbers[k] : inside;
            }
            (in ? scales[lane] : row[block].scale) = in ? row[block].scale : scales[lane];
        }
    }

    void exchange_row(int lane, void * row, bool in) const {
        switch (type) {
            case GGML_TYPE_F32:
                return exchange(lane, static_cast<float *>(row), in);
            case GGML_TYPE_F16:
            case GGML_TYPE_BF16:
                return exchange(lane, static_cast<Half *>(row), in);
            default:
                return exchange_blocks(lane, static_cast<BlockQ8 *>(row), in);
        }
    }
};

int64_t n_panels(const ggml_tensor * weight) {
    return (weight->ne[1] + kernels()->panel - 1) / kernels()->panel;
}

// Whole rows between ggml's layout and ours.
void exchange_rows(const ggml_tensor * weight, void * rows, size_t offset, size_t size, bool in) {
    const size_t row_size = ggml_row_size(weight->type, weight->ne[0]);
    GGML_ASSERT(offset % row_size == 0 && size % row_size == 0);
    for (size_t done = 0; done < size; done += row_size) {
        const int64_t row  = static_cast<int64_t>((offset + done) / row_size);
        const int     lane = static_cast<int>(row % kernels()->panel);
        char *        data = static_cast<char *>(weight->data) + row / kernels()->panel * panel_size(weight);
        const Panel   panel{ data, kernels()->panel, weight->ne[0], weight->type };
        panel.exchange_row(lane, static_cast<char *>(rows) + done, in);
    }
}

void free_buffer(ggml_backend_buffer_t buffer) {
    std::free(buffer->context);
}

void * get_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    exchange_rows(tensor, const_cast<void *>(data), offset, size, true);
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    exchange_rows(tensor, data, offset, size, false);
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    std::memset(buffer->context, value, buffer->size);
}

const char * name(ggml_backend_buffer_type_t) {
    return "CPU_RAWLLAMA";
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    const size_t whole = (size + page - 1) / page * page;
    void *       data  = std::aligned_alloc(page, whole > 0 ? whole : page);
    if (!data) {
        return nullptr;
    }
#if defined(__linux__)
    madvise(data, whole, MADV_HUGEPAGE);
#endif
    std::memset(data, 0, size);  // rows that only fill a panel up are multiplied, too
    ggml_backend_buffer_i functions = {};
    functions.free_buffer           = free_buffer;
    functions.get_base              = get_base;
    functions.set_tensor            = set_tensor;
    functions.get_tensor            = get_tensor;
    functions.clear                 = clear;
    return ggml_backend_buffer_init(type, functions, data, size);
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 64;
}

size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return packable(tensor) ? n_panels(tensor) * panel_size(tensor) : ggml_nbytes(tensor);
}

}  // namespace

bool packable(const ggml_tensor * weight) {
    const bool known = weight->type == GGML_TYPE_F32 || weight->type == GGML_TYPE_F16 ||
        weight->type == GGML_TYPE_BF16 || weight->type == GGML_TYPE_Q8_0;
    return known && weight->ne[2] == 1 && weight->ne[3] == 1 && ggml_is_contiguous(weight);
}

bool packed(const ggml_tensor * tensor) {
    const ggml_backend_buffer_t buffer = tensor->view_src ? tensor->view_src->buffer : tensor->buffer;
    return buffer && buffer->buft->iface.get_name == name;
}

ggml_backend_buffer_type_t packed_buffer_type(void * context) {
    static ggml_backend_buffer_type type = {};
    type.iface.get_name                  = name;
    type.iface.alloc_buffer              = alloc_buffer;
    type.iface.get_alignment             = alignment;
    type.iface.get_alloc_size            = alloc_size;
    type.device  = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    type.context = context;
    return &type;
}

size_t panel_size(const ggml_tensor * weight) {
    return ggml_row_size(weight->type, weight->ne[0]) * kernels()->panel;
}

Type panel_type(const ggml_tensor * weight) {
    switch (weight->type) {
        case GGML_TYPE_F32:
            return Type::floats;
        case GGML_TYPE_F16:
            return Type::halves;
        case GGML_TYPE_BF16:
            return Type::brain_halves;
        default:
            return Type::bytes;
    }
}

const void * panel_at(const ggml_tensor * weight, int64_t index) {
    return static_cast<const char *>(weight->data) + index * panel_size(weight);
}

}  // namespace rawllama::cpu
