// Weights in panels: `panel` rows of a matrix interleaved, so that the innermost loop reads them one after the other.
#pragma once

#include "ggml-backend-impl.h"
#include "ggml.h"
#include "kernels.hpp"

namespace rawllama::cpu {

// Whether a weight of this type and shape can be packed.
bool packable(const ggml_tensor * weight);

// Whether a tensor's data are packed.
bool packed(const ggml_tensor * tensor);

// The buffers of packed weights; `context` is for ggml, which finds our operations by it.
ggml_backend_buffer_type_t packed_buffer_type(void * context);

// Bytes of one panel.
size_t panel_size(const ggml_tensor * weight);

// The type of its panels, and where one begins.
Type         panel_type(const ggml_tensor * weight);
const void * panel_at(const ggml_tensor * weight, int64_t index);

}  // namespace rawllama::cpu
