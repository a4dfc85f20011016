#define SLOTH_ISA base
#if defined(__x86_64__)
#define SLOTH_ISA_NAME "x86-64"
#else
#define SLOTH_ISA_NAME "generic"
#endif
#include "isa.inc.h"
