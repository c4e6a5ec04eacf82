// Picks the kernels for the processor that runs.

#include "kernels.hpp"

#include <cstdlib>
#include <cstring>

namespace rawllama::cpu {

namespace avx512 {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
namespace neon {
extern const Kernels table;
}

namespace {

// RAWLLAMA_KERNELS names the only ones that may be used, or "none".
const Kernels * allowed(const Kernels & table) {
    const char * wanted = std::getenv("RAWLLAMA_KERNELS");
    return !wanted || !*wanted || std::strcmp(wanted, table.name) == 0 ? &table : nullptr;
}

const Kernels * best() {
    const Kernels * found = nullptr;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        found = allowed(avx512::table);
    }
    if (!found && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        found = allowed(avx2::table);
    }
#elif defined(__aarch64__)
    found = allowed(neon::table);
#endif
    return found;
}

}  // namespace

const Kernels * kernels() {
    static const Kernels * const chosen = best();
    return chosen;
}

}  // namespace rawllama::cpu
