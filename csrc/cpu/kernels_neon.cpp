#define RAWLLAMA_ISA     neon
#define RAWLLAMA_NAME    "neon"
#define RAWLLAMA_LANES   4
#define RAWLLAMA_VECTORS 4
#define RAWLLAMA_ROWS    6
#include "kernels.inc"
