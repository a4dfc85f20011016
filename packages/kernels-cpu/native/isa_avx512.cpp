#define SLOTH_ISA avx512
#define SLOTH_ISA_NAME "avx512"
#include "isa.inc.h"
