// What a context takes of each device's memory, as libllama counts it. The function that tells is exported, but in no
// public header and with a C++ interface: only a source tree has its declaration.

#include "rawllama.h"

#ifdef RAWLLAMA_HAS_llama_get_memory_breakdown

#include "ggml-backend.h"
#include "llama-ext.h"

#include "guard.hpp"

extern "C" int32_t rawllama_footprints(const struct llama_context * ctx, struct rawllama_footprint * footprints, int32_t n) {
    int32_t count = -1;
    guard_done([&] {
        const llama_memory_breakdown parts = llama_get_memory_breakdown(ctx);
        count = 0;
        for (const auto & [kind, bytes] : parts) {
            if (count < n) {
                footprints[count] = { ggml_backend_buft_name(kind), ggml_backend_buft_is_host(kind), bytes.model,
                                      bytes.context, bytes.compute };
            }
            count++;
        }
    });
    return count;
}

#else

extern "C" int32_t rawllama_footprints(const struct llama_context * ctx, struct rawllama_footprint * footprints, int32_t n) {
    (void) ctx;
    (void) footprints;
    (void) n;
    return -1;
}

#endif
