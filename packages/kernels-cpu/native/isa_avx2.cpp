#define SLOTH_ISA avx2
#define SLOTH_ISA_NAME "avx2"
#include "isa.inc.h"
