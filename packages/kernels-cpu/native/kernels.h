// The table of kernels: plain C types, one table an instruction set.
//
// Arguments stand in the order of `RequiredKernels` (packages/core/src/backend.ts), which holds the exact semantics. A handle becomes a pointer (nullptr for
// NONE), a count or flag an int64_t, a real number a double. The binding has checked before that every pointer is alive and large enough for the shapes,
// that counts are not negative, that formats are known and that k is a multiple of the format's block; a `const` pointer may be a read-only file mapping, any
// other is writable. A few kernels get row counts of their buffers as extra arguments at the end. What the binding cannot check is the data: indices (ids, targets, segments, block tables) must be checked by the kernel (pool_fail).
//
// Each ISA translation unit defines these functions inside namespace sloth::SLOTH_ISA; `hot/table.h` (products, attention, loss, weight formats) provides
// `static void hot_fill(KernelTable& t)` and kernels_table.h fills the rest.
#ifndef SLOTH_KERNELS_H
#define SLOTH_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "pool.h"

namespace sloth {

// Numeric codes of weight formats (ggml type ids).
enum WeightFormatCode : int64_t { FORMAT_F32 = 0, FORMAT_F16 = 1, FORMAT_Q4_0 = 2, FORMAT_Q4_1 = 3, FORMAT_Q8_0 = 8, FORMAT_BF16 = 30 };

// Elements and bytes of one block; bytes 0 means an unknown format.
struct FormatLayout { int64_t block; int64_t bytes; };

static inline FormatLayout format_layout(int64_t format) {
  switch (format) {
    case FORMAT_F32: return {1, 4};
    case FORMAT_F16: return {1, 2};
    case FORMAT_BF16: return {1, 2};
    case FORMAT_Q4_0: return {32, 18};
    case FORMAT_Q4_1: return {32, 20};
    case FORMAT_Q8_0: return {32, 34};
    default: return {1, 0};
  }
}

// Bytes of one stored row of `cols` elements.
static inline int64_t format_row_bytes(int64_t format, int64_t cols) {
  FormatLayout l = format_layout(format);
  return cols / l.block * l.bytes;
}

struct KernelTable {
  const char* isa;

  void (*fill)(Pool*, float* out, double value, int64_t n);
  void (*copy)(Pool*, void* out, const void* src, int64_t bytes);
  void (*add)(Pool*, float* out, const float* a, const float* b, int64_t n);
  void (*mul)(Pool*, float* out, const float* a, const float* b, int64_t n);
  void (*scale)(Pool*, float* out, const float* x, double alpha, int64_t n, int64_t accumulate);
  void (*scaleRows)(Pool*, float* out, const float* x, const float* rowScale, int64_t rows, int64_t cols, int64_t accumulate);
  void (*dropout)(Pool*, float* out, const float* x, double p, int64_t n, int64_t seed, int64_t stream, int64_t step, int64_t first);
  void (*randomUniform)(Pool*, float* out, double low, double high, int64_t n, int64_t seed, int64_t stream);
  void (*randomNormal)(Pool*, float* out, double mean, double std, int64_t n, int64_t seed, int64_t stream);

  void (*sumSquares)(Pool*, double* out, int64_t slot, const float* x, int64_t n);
  void (*sum)(Pool*, double* out, int64_t slot, const float* x, int64_t n);
  void (*sumRows)(Pool*, float* out, const float* x, int64_t rows, int64_t cols, int64_t accumulate);
  void (*countNonFinite)(Pool*, int32_t* out, int64_t slot, const float* x, int64_t n);

  void (*matmul)(Pool*, float* c, const float* a, const float* b, int64_t m, int64_t n, int64_t k, int64_t transA, int64_t transB, double alpha,
                 int64_t accumulate);
  void (*linear)(Pool*, float* y, const float* x, const void* w, int64_t format, int64_t m, int64_t n, int64_t k, const float* bias, const float* t,
                 const float* b, int64_t r, int64_t accumulate);
  void (*linearGroup)(Pool*, const float* x, int64_t m, int64_t k, float* y0, const void* w0, int64_t format0, int64_t n0, const float* bias0, const float* a0,
                      const float* b0, int64_t r0, double scale0, float* y1, const void* w1, int64_t format1, int64_t n1, const float* bias1, const float* a1,
                      const float* b1, int64_t r1, double scale1, float* y2, const void* w2, int64_t format2, int64_t n2, const float* bias2, const float* a2,
                      const float* b2, int64_t r2, double scale2);
  void (*linearBackwardInput)(Pool*, float* dx, const float* dy, const void* w, int64_t format, int64_t m, int64_t n, int64_t k, const float* dt,
                              const float* a, int64_t r, int64_t accumulate);

  void (*dequantize)(Pool*, float* out, const void* w, int64_t format, int64_t rows, int64_t cols);
  void (*quantize)(Pool*, void* out, const float* x, int64_t format, int64_t rows, int64_t cols);
  void (*embedding)(Pool*, float* out, const void* w, int64_t format, const int32_t* ids, int64_t rows, int64_t vocab, int64_t cols, double scale);
  void (*embeddingBackward)(Pool*, float* dw, const float* dy, const int32_t* ids, int64_t rows, int64_t vocab, int64_t cols, double scale);
  void (*gatherRows)(Pool*, float* out, const float* x, const int32_t* index, int64_t rows, int64_t cols, int64_t xRows);
  void (*scatterRows)(Pool*, float* out, const float* x, const int32_t* index, int64_t rows, int64_t cols, int64_t outRows, int64_t accumulate);

  void (*rmsNorm)(Pool*, float* y, float* rstd, const float* x, const float* w, int64_t rows, int64_t cols, double eps, double offset);
  void (*rmsNormBackward)(Pool*, float* dx, float* dw, const float* dy, const float* x, const float* w, const float* rstd, int64_t rows, int64_t cols,
                          double offset, int64_t accumulate);
  void (*rope)(Pool*, float* x, int64_t ldx, const float* cos, const float* sin, const int32_t* positions, int64_t rows, int64_t heads, int64_t headDim,
               int64_t rotary, int64_t inverse, int64_t tableRows);
  void (*gatedActivation)(Pool*, float* h, const float* gate, const float* up, int64_t act, int64_t n);
  void (*gatedActivationBackward)(Pool*, float* dgate, float* dup, const float* dh, const float* gate, const float* up, int64_t act, int64_t n);
  void (*attention)(Pool*, float* out, float* lse, const float* q, int64_t ldq, const float* k, int64_t ldk, const float* v, int64_t ldv,
                    const int32_t* segments, int64_t count, int64_t tokens, int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window,
                    double softcap, const float* sinks);
  void (*attentionBackward)(Pool*, float* dq, float* dk, float* dv, float* dsinks, const float* dout, const float* out, const float* lse, const float* q,
                            int64_t ldq, const float* k, int64_t ldk, const float* v, int64_t ldv, const int32_t* segments, int64_t count, int64_t tokens,
                            int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window, double softcap, const float* sinks);

  void (*linearCrossEntropy)(Pool*, float* nll, float* dh, float* dw, const float* h, const void* w, int64_t format, const int32_t* targets,
                             const float* coef, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale);
  void (*linearLogprobs)(Pool*, float* logp, float* lse, float* entropy, float* dh, const float* h, const void* w, int64_t format,
                         const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale);
  void (*linearLogprobsBackward)(Pool*, float* dh, float* dw, const float* dlogp, const float* lse, const float* dentropy, const float* entropy, const float* h,
                                 const void* w, int64_t format, const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale);
  void (*divergence)(Pool*, float* out, float* dz, const float* zs, const float* zt, const float* coef, int64_t rows, int64_t vocab, double beta,
                     double softcap, double logitScale);

  void (*adamw)(Pool*, float* p, const float* g, float* m, float* v, int64_t n, double lr, double beta1, double beta2, double eps, double weightDecay,
                int64_t step, double gradScale);
  void (*adamw8bit)(Pool*, float* p, const float* g, uint8_t* m8, uint8_t* v8, float* mAbs, float* vAbs, int64_t n, double lr, double beta1, double beta2,
                    double eps, double weightDecay, int64_t step, double gradScale);

  void (*cacheWrite)(Pool*, void* kCache, void* vCache, int64_t format, const float* k, int64_t ldk, const float* v, int64_t ldv, const int32_t* slots,
                     int64_t rows, int64_t width, int64_t cacheSlots);
  // cacheBlocks: blocks that fit in both caches; sequences: rows of the block table (both from the buffers' sizes).
  void (*pagedAttention)(Pool*, float* out, const float* q, int64_t ldq, const void* kCache, const void* vCache, int64_t format,
                         const int32_t* blockTable, int64_t maxBlocks, int64_t blockSize, const int32_t* rowSequence, const int32_t* rowPosition,
                         int64_t rows, int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window, double softcap, const float* sinks,
                         int64_t cacheBlocks, int64_t sequences);
  void (*logits)(Pool*, float* out, const float* h, const void* w, int64_t format, int64_t rows, int64_t vocab, int64_t hidden, double softcap,
                 double logitScale);
  void (*sample)(Pool*, int32_t* ids, float* logp, const float* logits, int64_t rows, int64_t vocab, const float* params, const int32_t* rng,
                 const int32_t* history, int64_t maxHistory);
};

}  // namespace sloth

#endif
