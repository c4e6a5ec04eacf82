// Picks the kernels for the processor that runs.

#include "kernels.hpp"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#    include <cpuid.h>
#endif

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

#if defined(__x86_64__)

// libgcc knows AVX and all that the system must support for it, but F16C only from GCC 11 on.
bool has_f16c() {
    unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

#endif

const Kernels * best() {
    const Kernels * found = nullptr;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        found = allowed(avx512::table);
    }
    if (!found && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
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
