// Output buffers of zeros that take memory only where something is written.
//
// libllama reserves logits for each token of a batch, of models that have none, too: 60 MB for 512 tokens of BERT's
// vocabulary, 500 MB of Gemma's. It fills them with zeros once, and so takes the memory. The system's fresh pages are
// zeros already, and a page that is only read takes none.

#include "zeros.hpp"

#if defined(__linux__)

#    include <sys/mman.h>

#    include <cstring>

namespace rawllama::cpu {
namespace {

void free_buffer(ggml_backend_buffer_t buffer) {
    munmap(buffer->context, buffer->size);
}

void * get_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    std::memcpy(static_cast<char *>(tensor->data) + offset, data, size);
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    std::memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
}

void memset_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    std::memset(static_cast<char *>(tensor->data) + offset, value, size);
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    if (value != 0 || madvise(buffer->context, buffer->size, MADV_DONTNEED) != 0) {
        std::memset(buffer->context, value, buffer->size);
    }
}

const char * name(ggml_backend_buffer_type_t) {
    return "CPU_ZEROS";
}

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    void * data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        return nullptr;
    }
    ggml_backend_buffer_i functions = {};
    functions.free_buffer           = free_buffer;
    functions.get_base              = get_base;
    functions.memset_tensor         = memset_tensor;
    functions.set_tensor            = set_tensor;
    functions.get_tensor            = get_tensor;
    functions.clear                 = clear;
    return ggml_backend_buffer_init(type, functions, data, size);
}

size_t alignment(ggml_backend_buffer_type_t) {
    return 4096;
}

bool is_host(ggml_backend_buffer_type_t) {
    return true;
}

ggml_backend_buffer_type made_for(ggml_backend_dev_t device) {
    ggml_backend_buffer_type type = {};
    type.iface.get_name           = name;
    type.iface.alloc_buffer       = alloc_buffer;
    type.iface.get_alignment      = alignment;
    type.iface.is_host            = is_host;
    type.device                   = device;
    return type;
}

// Threads that make contexts at once all come here.
ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t device) {
    static ggml_backend_buffer_type type = made_for(device);
    return &type;
}

}  // namespace

void offer_zeros(ggml_backend_dev_t cpu) {
    if (!cpu->iface.get_host_buffer_type) {
        cpu->iface.get_host_buffer_type = buffer_type;
    }
}

}  // namespace rawllama::cpu

#else

namespace rawllama::cpu {

void offer_zeros(ggml_backend_dev_t) {}

}  // namespace rawllama::cpu

#endif
