// The kernels of `precision: "bf16"` for processors with AVX512-BF16: products with rounded operands, and what is made of them. Everything else is avx512's.
#define SLOTH_ISA avx512bf16
#define SLOTH_PRECISION_BF16 1
#include "precision.inc.h"

namespace sloth {
namespace SLOTH_ISA {

#include "hot/attention.h"
#include "hot/loss_stream.h"
#include "hot/loss.h"

void fill_bf16(KernelTable& t) {
  t.matmul = matmul;
  t.linear = linear;
  t.linearGroup = linearGroup;
  t.linearBackwardInput = linearBackwardInput;
  t.logits = logits;
  t.attention = attention;
  t.attentionBackward = attentionBackward;
  t.linearCrossEntropy = linearCrossEntropy;
  t.linearLogprobs = linearLogprobs;
  t.linearLogprobsBackward = linearLogprobsBackward;
}

}  // namespace SLOTH_ISA
}  // namespace sloth
