// The products, attention, losses and weight formats of one instruction set. Included inside an ISA namespace (isa.inc.h), after simd.h and parallel.h.
#include "weights.h"
#include "gemm.h"
#include "linear.h"
#if __has_include("attention.h")
#include "attention.h"
#define SLOTH_HAVE_ATTENTION 1
#endif
#if __has_include("loss.h")
#include "loss_stream.h"
#include "loss.h"
#define SLOTH_HAVE_LOSS 1
#endif
#if __has_include("decode.h")
#include "decode.h"
#define SLOTH_HAVE_DECODE 1
#endif

static void hot_fill(KernelTable& t) {
  t.matmul = matmul;
  t.linear = linear;
  t.linearBackwardInput = linearBackwardInput;
  t.dequantize = dequantize;
  t.quantize = quantize;
  t.embedding = embedding;
  t.logits = logits;
#if defined(SLOTH_HAVE_ATTENTION)
  t.attention = attention;
  t.attentionBackward = attentionBackward;
#endif
#if defined(SLOTH_HAVE_LOSS)
  t.linearCrossEntropy = linearCrossEntropy;
  t.linearLogprobs = linearLogprobs;
  t.linearLogprobsBackward = linearLogprobsBackward;
#endif
#if defined(SLOTH_HAVE_DECODE)
  t.pagedAttention = pagedAttention;
#endif
}
