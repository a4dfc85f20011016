// Choice of the instruction set at load.
#ifndef SLOTH_ISA_H
#define SLOTH_ISA_H

#include "kernels.h"

namespace sloth {

struct IsaEntry {
  const char* name;
  const KernelTable* (*table)();
  // Put the kernels of another precision into a copy of the table; nullptr where this build or this machine has none.
  void (*fillBf16)(KernelTable&);
  void (*fillInt8)(KernelTable&);
};

// Instruction sets that were built in and that this machine has, best first; *count gets their number.
const IsaEntry* isa_supported(int* count);

}  // namespace sloth

#endif
