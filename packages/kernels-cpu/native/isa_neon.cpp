#define SLOTH_ISA neon
#define SLOTH_ISA_NAME "neon"
#include "isa.inc.h"
