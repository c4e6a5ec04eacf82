// Computed rows to the caller's array: cut, normalised, cast.

#include "rows.hpp"

#include <algorithm>
#include <cmath>

#include "ggml.h"

namespace {

constexpr double MAX_F16 = 65504;
constexpr float  MAX_I8  = 127;

// As numpy's double sums in normalize.py; relative to the largest, or high powers would vanish or overflow.
double norm_of(const float * row, const rawllama_rows & rows) {
    double largest = 0;
    for (int32_t i = 0; i < rows.dims; i++) {
        largest = std::max(largest, std::fabs(static_cast<double>(row[i])));
    }
    if (rows.norm == RAWLLAMA_NORM_MAX_ABS) {
        return largest / 32760.0;
    }
    if (largest == 0) {
        return 0;
    }
    double sum = 0;
    for (int32_t i = 0; i < rows.dims; i++) {
        const double relative = std::fabs(row[i]) / largest;
        sum += rows.p == 2 ? relative * relative : std::pow(relative, rows.p);
    }
    return largest * std::pow(sum, 1 / rows.p);
}

bool is_finite(const float * row, int32_t n) {
    return std::all_of(row, row + n, [](float value) { return std::isfinite(value); });
}

void write_f32(const float * row, double norm, int32_t n, float * target) {
    for (int32_t i = 0; i < n; i++) {
        target[i] = static_cast<float>(row[i] / norm);
    }
}

bool write_f16(const float * row, double norm, int32_t n, ggml_fp16_t * target) {
    for (int32_t i = 0; i < n; i++) {
        const double value = row[i] / norm;
        if (std::fabs(value) > MAX_F16) {
            std::fill(target, target + n, static_cast<ggml_fp16_t>(0));
            return false;
        }
        target[i] = ggml_fp32_to_fp16(static_cast<float>(value));
    }
    return true;
}

// The largest magnitude becomes 127.
void write_i8(const float * row, double norm, int32_t n, int8_t * target, float & scale) {
    double largest = 0;
    for (int32_t i = 0; i < n; i++) {
        largest = std::max(largest, std::fabs(row[i] / norm));
    }
    scale = static_cast<float>(largest / MAX_I8);
    for (int32_t i = 0; i < n; i++) {
        const float value = scale > 0 ? static_cast<float>(row[i] / norm) / scale : 0;
        target[i]         = static_cast<int8_t>(std::nearbyint(std::clamp(value, -MAX_I8, MAX_I8)));
    }
}

// numpy.packbits(row > 0)
void write_bits(const float * row, int32_t n, uint8_t * target) {
    std::fill(target, target + (n + 7) / 8, static_cast<uint8_t>(0));
    for (int32_t i = 0; i < n; i++) {
        target[i / 8] |= static_cast<uint8_t>((row[i] > 0) << (7 - i % 8));
    }
}

}  // namespace

namespace rawllama {

int32_t write_row(const float * row, const rawllama_rows & rows, int64_t index) {
    if (!is_finite(row, rows.width)) {
        return RAWLLAMA_NOT_FINITE;
    }
    const double  found = rows.norm == RAWLLAMA_NORM_NONE ? 1 : norm_of(row, rows);
    const double  norm  = found > 0 ? found : 1;
    const int64_t n     = rows.dims;
    switch (rows.dtype) {
        case RAWLLAMA_DTYPE_F32:
            write_f32(row, norm, rows.dims, static_cast<float *>(rows.values) + index * n);
            return 0;
        case RAWLLAMA_DTYPE_F16:
            return write_f16(row, norm, rows.dims, static_cast<ggml_fp16_t *>(rows.values) + index * n) ?
                       0 : RAWLLAMA_TOO_LARGE;
        case RAWLLAMA_DTYPE_I8:
            write_i8(row, norm, rows.dims, static_cast<int8_t *>(rows.values) + index * n, rows.scales[index]);
            return 0;
        case RAWLLAMA_DTYPE_BITS:
            write_bits(row, rows.dims, static_cast<uint8_t *>(rows.values) + index * ((n + 7) / 8));
            return 0;
    }
    return 0;
}

}  // namespace rawllama

extern "C" int32_t rawllama_write_rows(
    const struct rawllama_rows * rows, const float * source, const int64_t * indices, int64_t n, int64_t * failed) {
    for (int64_t i = 0; i < n; i++) {
        const int32_t code = rawllama::write_row(source + i * rows->width, *rows, indices[i]);
        if (code != 0) {
            *failed = i;
            return code;
        }
    }
    return 0;
}
