// The products, attention, losses and weight formats of one instruction set. Included inside an ISA namespace (isa.inc.h), after simd.h and parallel.h.
#include "weights.h"
#include "gemm.h"
#include "linear.h"
#include "attention.h"
#include "decode.h"
#include "loss_stream.h"
#include "loss.h"
#include "divergence.h"
#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_AVX2)
#include "gemm_int8.h"
#endif

static void hot_fill(KernelTable& t) {
  t.matmul = matmul;
  t.linear = linear;
  t.linearGroup = linearGroup;
  t.linearBackwardInput = linearBackwardInput;
  t.dequantize = dequantize;
  t.quantize = quantize;
  t.embedding = embedding;
  t.logits = logits;
  t.attention = attention;
  t.attentionBackward = attentionBackward;
  t.linearCrossEntropy = linearCrossEntropy;
  t.linearLogprobs = linearLogprobs;
  t.linearLogprobsBackward = linearLogprobsBackward;
  t.divergence = divergence;
  t.cacheWrite = cacheWrite;
  t.pagedAttention = pagedAttention;
}
