/* Does llama.h describe the library that is linked? The functions below return structs by value: the library
 * writes as many bytes as its own version of the struct has, which the header's sizeof must match. The buffer is
 * filled with two patterns in turn, so that a byte is seen as written whatever its value. */
#include <stdio.h>
#include <string.h>

#include "llama.h"

typedef struct {
    unsigned char bytes[4096];
} wide;

/* The last bytes may be padding, which need not be written. */
enum { padding = sizeof(void *) - 1 };

static size_t written(wide (*defaults)(void)) {
    size_t extent = 0;
    for (int pattern = 0x55; pattern <= 0xaa; pattern += 0x55) {
        union {
            wide value;
            unsigned char bytes[sizeof(wide)];
        } result;
        memset(&result, pattern, sizeof(result));
        result.value = defaults();
        for (size_t i = 0; i < sizeof(wide); i++) {
            if (result.bytes[i] != pattern && i + 1 > extent) {
                extent = i + 1;
            }
        }
    }
    return extent;
}

static int differs(const char * name, size_t expected, size_t found) {
    if (found <= expected && found + padding >= expected) {
        return 0;
    }
    printf("%s: %zu bytes in the header, %zu in the library\n", name, expected, found);
    return 1;
}

int main(void) {
    return differs("struct llama_model_params", sizeof(struct llama_model_params),
                   written((wide (*)(void)) llama_model_default_params)) |
           differs("struct llama_context_params", sizeof(struct llama_context_params),
                   written((wide (*)(void)) llama_context_default_params)) |
           differs("llama_model_quantize_params", sizeof(llama_model_quantize_params),
                   written((wide (*)(void)) llama_model_quantize_default_params));
}
