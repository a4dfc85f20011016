// Choice of the instruction set at load.
#ifndef SLOTH_ISA_H
#define SLOTH_ISA_H

#include "kernels.h"

namespace sloth {

struct IsaEntry {
  const char* name;
  const KernelTable* (*table)();
};

// Instruction sets that were built in and that this machine has, best first; *count gets their number.
const IsaEntry* isa_supported(int* count);

}  // namespace sloth

#endif
