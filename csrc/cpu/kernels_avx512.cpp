#define RAWLLAMA_ISA     avx512
#define RAWLLAMA_NAME    "avx512"
#define RAWLLAMA_LANES   16
#define RAWLLAMA_VECTORS 2
#define RAWLLAMA_ROWS    12
#include "kernels.inc"
