// Does llama.h describe the library that is linked? The functions below return structs by value: the library writes as
// many bytes as its own version of the struct has, which the header's sizeof must match.
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "llama.h"

namespace {

// Room for any version. Not trivial to copy, so that C++ has the function write straight into the memory below.
struct wide {
    unsigned char bytes[4096];

    wide(const wide &) = delete;
    ~wide() {}
};

// The last bytes may be padding, which need not be written.
constexpr size_t padding = sizeof(void *) - 1;

// How many bytes the function writes, seen with two backgrounds so that no value of a byte can hide.
template <typename Function> size_t written(Function * defaults) {
    alignas(wide) static unsigned char memory[sizeof(wide)];
    size_t                             extent = 0;
    for (int background : { 0x55, 0xaa }) {
        memset(memory, background, sizeof(memory));
        new (memory) wide(reinterpret_cast<wide (*)()>(defaults)());
        for (size_t i = 0; i < sizeof(memory); i++) {
            if (memory[i] != background && i + 1 > extent) {
                extent = i + 1;
            }
        }
    }
    return extent;
}

bool differs(const char * name, size_t expected, size_t found) {
    if (found <= expected && found + padding >= expected) {
        return false;
    }
    printf("%s: %zu bytes in the header, %zu in the library\n", name, expected, found);
    return true;
}

}  // namespace

int main() {
    const bool model    = differs("llama_model_params", sizeof(llama_model_params), written(llama_model_default_params));
    const bool context  = differs("llama_context_params", sizeof(llama_context_params), written(llama_context_default_params));
    const bool quantize = differs("llama_model_quantize_params", sizeof(llama_model_quantize_params),
                                  written(llama_model_quantize_default_params));
    return model || context || quantize;
}
