// Computed rows to the form in which the caller has them.
#pragma once

#include <cstdint>

#include "rawllama.h"

namespace rawllama {

// Write a row of `rows.width` floats as row `index`. Returns 0, RAWLLAMA_NOT_FINITE or RAWLLAMA_TOO_LARGE.
int32_t write_row(const float * row, const rawllama_rows & rows, int64_t index);

}  // namespace rawllama
