// What the translation units of other precisions than f32 share: the products of hot/ for their instruction set. As isa.inc.h, inside a namespace of their own.
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Of each header only a part is used here.
#pragma GCC diagnostic ignored "-Wunused-function"

#include "kernels.h"
#include "pool.h"

namespace sloth {
namespace SLOTH_ISA {

#include "hot/simd.h"
#include "parallel.h"
#include "hot/weights.h"
#include "hot/gemm.h"
#include "hot/linear.h"

}  // namespace SLOTH_ISA
}  // namespace sloth
