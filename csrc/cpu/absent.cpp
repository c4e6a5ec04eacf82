// In place of the others where they cannot be built: another compiler, processor or system, or a foreign libllama.

#include "rawllama.h"

extern "C" {

void rawllama_cpu_install(void) {}

const char * rawllama_kernels_name(void) {
    return nullptr;
}

void rawllama_kernels_pack(bool) {}

}  // extern "C"
