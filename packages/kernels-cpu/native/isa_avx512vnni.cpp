// The kernels of `precision: "int8"` for processors with AVX512-VNNI. Everything else is avx512's.
#define SLOTH_ISA avx512vnni
#include "precision.inc.h"

namespace sloth {
namespace SLOTH_ISA {

#include "hot/gemm_int8.h"

void fill_int8(KernelTable& t) { int8_fill(t); }

}  // namespace SLOTH_ISA
}  // namespace sloth
