// float16 and int8 to float32 with the processor's own instructions. For the files that are compiled for one instruction set only.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#    include <immintrin.h>
#elif defined(__aarch64__)
#    include <arm_neon.h>
#endif

namespace rawllama::cpu::RAWLLAMA_ISA {
namespace {

#if defined(__x86_64__)

inline float from_half(uint16_t half) {
    return _cvtsh_ss(half);
}

template <typename Floats> Floats from_halves(const uint16_t * from) {
    if constexpr (sizeof(Floats) == 32) {
        return reinterpret_cast<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
    }
#    if defined(__AVX512F__)
    else {
        return reinterpret_cast<Floats>(
            _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from))));
    }
#    endif
}

template <typename Floats> Floats from_bytes(const int8_t * from) {
    if constexpr (sizeof(Floats) == 32) {
        const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
        return reinterpret_cast<Floats>(_mm256_cvtepi32_ps(wide));
    }
#    if defined(__AVX512F__)
    else {
        const __m512i wide =
            _mm512_maskz_cvtepi8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
        return reinterpret_cast<Floats>(_mm512_maskz_cvtepi32_ps(0xFFFF, wide));
    }
#    endif
}

#elif defined(__aarch64__)

inline float from_half(uint16_t half) {
    __fp16 value;
    __builtin_memcpy(&value, &half, sizeof(value));
    return value;
}

template <typename Floats> Floats from_halves(const uint16_t * from) {
    return reinterpret_cast<Floats>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
}

template <typename Floats> Floats from_bytes(const int8_t * from) {
    const float values[4] = { static_cast<float>(from[0]), static_cast<float>(from[1]), static_cast<float>(from[2]),
                              static_cast<float>(from[3]) };
    return reinterpret_cast<Floats>(vld1q_f32(values));
}

#endif

}  // namespace
}  // namespace rawllama::cpu::RAWLLAMA_ISA
