// See zeros.cpp.
#pragma once

#include "ggml-backend-impl.h"

namespace rawllama::cpu {

// Let the CPU device have buffers of zeros as its host buffers, in which libllama puts a context's outputs.
void offer_zeros(ggml_backend_dev_t cpu);

}  // namespace rawllama::cpu
