#define RAWLLAMA_ISA     avx2
#define RAWLLAMA_NAME    "avx2"
#define RAWLLAMA_LANES   8
#define RAWLLAMA_VECTORS 2
#define RAWLLAMA_ROWS    6
#include "kernels.inc"
