// What the processor-specific files offer: the inner loops of matrix products, attention and GELU.
//
// Each result depends on its own row alone, summed in one order: not on the rows beside it, nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rawllama::cpu {

using Half = uint16_t;  // the bits of an IEEE float16

// One head of one sequence: consecutive queries that see the same first key.
struct Attention {
    const float * queries;  // of the first query; row i is at queries + i * query_stride
    size_t        query_stride;
    const Half *  keys;  // of the first key that is seen
    size_t        key_stride;
    const Half *  values;
    size_t        value_stride;
    const Half *  mask;  // row 0 at the first key; nullptr where nothing is masked
    size_t        mask_stride;
    const int *   n_keys_of;  // keys that each query sees, counted from the first key; those between may be masked
    int           n_queries;
    int           n_keys;  // the largest of n_keys_of
    int           key_width;
    int           value_width;
    float         scale;
    float         slope;  // of the mask (ALiBi), else 1
    float *       output;
    size_t        output_stride;
    float *       scratch;  // attention_scratch() floats
};

// What a panel holds, [k][panel].
enum class Type {
    floats,
    halves,
    brain_halves,  // bfloat16
    bytes,         // Q8_0: for each `byte_block` of k the numbers [k][panel], then their scales [panel] as float16
};

constexpr int byte_block = 32;

// output[row][0..columns) = the sum over k of input[row][k] * weights[k][0..columns)
struct Product {
    const float * input;
    size_t        input_stride;
    const void *  weights;  // one panel
    Type          type;
    int64_t       depth;
    float *       output;
    size_t        output_stride;
    int64_t       rows;
    int           columns;  // at most `panel`
    float *       scratch;  // depth * panel; for floats none is needed
};

struct Kernels {
    const char * name;
    int          panel;  // rows of a weight that lie interleaved

    void (*multiply)(const Product & job);
    size_t (*attention_scratch)(int n_keys, int key_width, int value_width);
    void (*attention)(const Attention & job);
    void (*gelu)(const float * from, float * to, size_t count);
};

// The best that this processor runs, or nullptr if there is none for it.
const Kernels * kernels();

}  // namespace rawllama::cpu
