// The body of every ISA translation unit. System headers come first, outside the namespace; kernel headers are included inside it, so that the same source
// compiled for another instruction set has other symbols. Kernel headers use no std:: templates: an inline function that the compiler emits as a weak symbol
// here would carry this unit's instructions into code that runs on lesser machines (scripts/build.mjs checks that there is none).
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"
#include "pool.h"

namespace sloth {
namespace SLOTH_ISA {

#include "hot/simd.h"
#include "parallel.h"
#include "vmath.h"
#include "elementwise.h"
#include "reduce.h"
#include "philox.h"
#include "random.h"
#include "rows.h"
#include "norm_rope.h"
#include "activation.h"
#include "optimizer.h"
#include "sample.h"

#if __has_include("hot/table.h")
#include "hot/table.h"
#define SLOTH_HOT 1
#endif

const KernelTable* table() {
  static KernelTable t;
  static bool filled = false;
  if (!filled) {
    t.isa = SLOTH_ISA_NAME;
    elementwise_fill(t);
    reduce_fill(t);
    random_fill(t);
    rows_fill(t);
    norm_rope_fill(t);
    activation_fill(t);
    optimizer_fill(t);
    sample_fill(t);
#if defined(SLOTH_HOT)
    hot_fill(t);
#endif
    filled = true;
  }
  return &t;
}

#if defined(SLOTH_HOT) && (defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_AVX2))
void fill_int8(KernelTable& t) { int8_fill(t); }
#endif

}  // namespace SLOTH_ISA
}  // namespace sloth
