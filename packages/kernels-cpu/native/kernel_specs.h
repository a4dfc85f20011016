// What the binding knows of each kernel: the names of its JavaScript arguments and the check made before it is enqueued.
// A check may fill arguments that only the native side has (after the JavaScript ones).
#ifndef SLOTH_KERNEL_SPECS_H
#define SLOTH_KERNEL_SPECS_H

#include <stdint.h>
#include <stdio.h>

#include "kernels.h"

namespace sloth {

// Products of sizes that stop at the top instead of wrapping, so that an absurd shape is "too small a buffer", not a small number.
inline int64_t times(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_mul_overflow(a, b, &r) ? INT64_MAX : r;
}
inline int64_t times(int64_t a, int64_t b, int64_t c) { return times(times(a, b), c); }
inline int64_t plus(int64_t a, int64_t b) {
  int64_t r;
  return __builtin_add_overflow(a, b, &r) ? INT64_MAX : r;
}

struct Check {
  struct Arg {
    char* ptr;
    int64_t bytes;
    int64_t integer;
    double real;
  };
  Arg args[30];
  int failed = -1;  // index of the argument at fault
  char message[128];

  int64_t n(int i) const { return args[i].integer; }
  double x(int i) const { return args[i].real; }
  bool given(int i) const { return args[i].ptr != nullptr; }

  bool fail(int i, const char* what) {
    if (failed < 0) {
      failed = i;
      snprintf(message, sizeof(message), "%s", what);
    }
    return false;
  }
  // A buffer of at least `bytes`; NONE is accepted only where nothing is needed.
  void need(int i, int64_t bytes) {
    if (failed >= 0 || (bytes == 0 && !given(i))) return;
    if (!given(i)) {
      fail(i, "must not be NONE");
    } else if (args[i].bytes < bytes) {
      failed = i;
      snprintf(message, sizeof(message), "needs %lld bytes for these shapes and has %lld", static_cast<long long>(bytes), static_cast<long long>(args[i].bytes));
    }
  }
  void optional(int i, int64_t bytes) {
    if (given(i)) need(i, bytes);
  }
  void f32(int i, int64_t count) { need(i, times(count, 4)); }
  void f32(int i, int64_t a, int64_t b) { f32(i, times(a, b)); }
  void optionalF32(int i, int64_t count) {
    if (given(i)) f32(i, count);
  }
  // Rows of `width` elements that begin `n(ldIndex)` elements apart.
  void strided(int i, int ldIndex, int64_t rows, int64_t width) {
    if (n(ldIndex) < width) fail(ldIndex, "must be at least the row width");
    if (rows > 0) f32(i, plus(times(rows - 1, n(ldIndex)), width));
  }
  void weight(int i, int formatIndex, int64_t rows, int64_t cols) {
    const FormatLayout l = format_layout(n(formatIndex));
    if (l.bytes == 0) {
      fail(formatIndex, "is not a weight format of this backend (f32 0, f16 1, q4_0 2, q4_1 3, q8_0 8, bf16 30)");
      return;
    }
    if (cols % l.block != 0) {
      fail(formatIndex, "has a block size that does not divide the row length");
      return;
    }
    need(i, times(rows, cols / l.block, l.bytes));
  }
  void atMost(int i, int64_t limit, const char* what) {
    if (n(i) > limit) fail(i, what);
  }
  void word(int i) { atMost(i, 0xffffffff, "must fit 32 bits"); }
  void finite(int i) {
    if (!(x(i) - x(i) == 0)) fail(i, "must be finite");
  }
  void fraction(int i) {
    if (!(x(i) >= 0 && x(i) < 1)) fail(i, "must be in [0, 1)");
  }
  void unit(int i) {
    if (!(x(i) >= 0 && x(i) <= 1)) fail(i, "must be in [0, 1]");
  }
  void flag(int i) { atMost(i, 1, "must be 0 or 1"); }
  void positive(int i) {
    if (n(i) < 1) fail(i, "must be at least 1");
  }
  // Set a native-only argument.
  void extra(int i, int64_t value) { args[i].integer = value; }
  int64_t rowsOf(int i, int64_t rowElements) const { return rowElements > 0 ? args[i].bytes / times(rowElements, 4) : 0; }
  int64_t unitsOf(int i, int64_t bytes) const { return bytes > 0 ? args[i].bytes / bytes : 0; }
  // The format of a cache, whose rows (or heads) of n(colsIndex) elements must be whole blocks.
  void cache(int formatIndex, int colsIndex) {
    const int64_t f = n(formatIndex);
    if (f != FORMAT_F32 && f != FORMAT_F16 && f != FORMAT_Q8_0) fail(formatIndex, "is not a format of a cache (f32 0, f16 1, q8_0 8)");
    else if (n(colsIndex) % format_layout(f).block != 0) fail(formatIndex, "has a block size that does not divide the row length");
  }
  // Counts that kernels keep in 32 bits.
  void heads(int headsIndex, int kvIndex) {
    positive(headsIndex);
    positive(kvIndex);
    if (failed < 0 && n(headsIndex) % n(kvIndex) != 0) fail(kvIndex, "must divide heads");
  }
};

// SPEC(name, "argument names", { check }) for every kernel; in the block `c` is the Check.
#define SLOTH_KERNEL_LIST(SPEC)                                                                                                                        \
  SPEC(fill, "out,value,n", { c.f32(0, c.n(2)); })                                                                                                     \
  SPEC(copy, "out,src,bytes", {                                                                                                                        \
    c.need(0, c.n(2));                                                                                                                                 \
    c.need(1, c.n(2));                                                                                                                                 \
  })                                                                                                                                                   \
  SPEC(add, "out,a,b,n", {                                                                                                                             \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(3));                                                                                                                                  \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(mul, "out,a,b,n", {                                                                                                                             \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(3));                                                                                                                                  \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(scale, "out,x,alpha,n,accumulate", {                                                                                                            \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(3));                                                                                                                                  \
    c.flag(4);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(scaleRows, "out,x,rowScale,rows,cols,accumulate", {                                                                                             \
    c.f32(0, c.n(3), c.n(4));                                                                                                                          \
    c.f32(1, c.n(3), c.n(4));                                                                                                                          \
    c.f32(2, c.n(3));                                                                                                                                  \
    c.flag(5);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(dropout, "out,x,p,n,seed,stream,step,first", {                                                                                                  \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(3));                                                                                                                                  \
    if (!(c.x(2) >= 0 && c.x(2) < 1)) c.fail(2, "must be in [0, 1)");                                                                                  \
    c.word(5);                                                                                                                                         \
    c.word(6);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(randomUniform, "out,low,high,n,seed,stream", {                                                                                                  \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.finite(1);                                                                                                                                       \
    c.finite(2);                                                                                                                                       \
    if (!(c.x(1) <= c.x(2))) c.fail(1, "must not be above high");                                                                                      \
    c.word(5);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(randomNormal, "out,mean,std,n,seed,stream", {                                                                                                   \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.finite(1);                                                                                                                                       \
    c.finite(2);                                                                                                                                       \
    c.word(5);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(sumSquares, "out,slot,x,n", {                                                                                                                   \
    c.need(0, times(plus(c.n(1), 1), 8));                                                                                                              \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(sum, "out,slot,x,n", {                                                                                                                          \
    c.need(0, times(plus(c.n(1), 1), 8));                                                                                                              \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(sumRows, "out,x,rows,cols,accumulate", {                                                                                                        \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(2), c.n(3));                                                                                                                          \
    c.flag(4);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(countNonFinite, "out,slot,x,n", {                                                                                                               \
    c.need(0, times(plus(c.n(1), 1), 4));                                                                                                              \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(matmul, "c,a,b,m,n,k,transA,transB,alpha,accumulate", {                                                                                         \
    c.f32(0, c.n(3), c.n(4));                                                                                                                          \
    c.f32(1, c.n(3), c.n(5));                                                                                                                          \
    c.f32(2, c.n(5), c.n(4));                                                                                                                          \
    c.flag(6);                                                                                                                                         \
    c.flag(7);                                                                                                                                         \
    c.flag(9);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(linear, "y,x,w,format,m,n,k,bias,t,b,r,accumulate", {                                                                                           \
    c.f32(0, c.n(4), c.n(5));                                                                                                                          \
    c.f32(1, c.n(4), c.n(6));                                                                                                                          \
    c.weight(2, 3, c.n(5), c.n(6));                                                                                                                    \
    c.optionalF32(7, c.n(5));                                                                                                                          \
    if (c.given(8) != c.given(9)) c.fail(c.given(8) ? 9 : 8, "and its partner (t, b) must both be given or both be NONE");                             \
    if (c.given(8)) {                                                                                                                                  \
      c.f32(8, c.n(4), c.n(10));                                                                                                                       \
      c.f32(9, c.n(5), c.n(10));                                                                                                                       \
    }                                                                                                                                                  \
    c.flag(11);                                                                                                                                        \
  })                                                                                                                                                   \
  SPEC(linearGroup, "x,m,k,y0,w0,format0,n0,bias0,a0,b0,r0,scale0,y1,w1,format1,n1,bias1,a1,b1,r1,scale1,y2,w2,format2,n2,bias2,a2,b2,r2,scale2", {    \
    c.f32(0, c.n(1), c.n(2));                                                                                                                          \
    for (int at = 3; at < 30; at += 9) {                                                                                                               \
      c.f32(at, c.n(1), c.n(at + 3));                                                                                                                  \
      if (c.n(at + 3) == 0) continue;                                                                                                                  \
      c.weight(at + 1, at + 2, c.n(at + 3), c.n(2));                                                                                                   \
      c.optionalF32(at + 4, c.n(at + 3));                                                                                                              \
      if (c.given(at + 5) != c.given(at + 6)) c.fail(c.given(at + 5) ? at + 6 : at + 5, "and its partner (a, b) must both be given or both be NONE");  \
      if (c.given(at + 5)) {                                                                                                                           \
        c.f32(at + 5, c.n(at + 7), c.n(2));                                                                                                            \
        c.f32(at + 6, c.n(at + 3), c.n(at + 7));                                                                                                       \
        c.finite(at + 8);                                                                                                                              \
      }                                                                                                                                                \
    }                                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(linearBackwardInput, "dx,dy,w,format,m,n,k,dt,a,r,accumulate", {                                                                                \
    c.f32(0, c.n(4), c.n(6));                                                                                                                          \
    c.f32(1, c.n(4), c.n(5));                                                                                                                          \
    c.weight(2, 3, c.n(5), c.n(6));                                                                                                                    \
    if (c.given(7) != c.given(8)) c.fail(c.given(7) ? 8 : 7, "and its partner (dt, a) must both be given or both be NONE");                            \
    if (c.given(7)) {                                                                                                                                  \
      c.f32(7, c.n(4), c.n(9));                                                                                                                        \
      c.f32(8, c.n(9), c.n(6));                                                                                                                        \
    }                                                                                                                                                  \
    c.flag(10);                                                                                                                                        \
  })                                                                                                                                                   \
  SPEC(dequantize, "out,w,format,rows,cols", {                                                                                                         \
    c.f32(0, c.n(3), c.n(4));                                                                                                                          \
    c.weight(1, 2, c.n(3), c.n(4));                                                                                                                    \
  })                                                                                                                                                   \
  SPEC(quantize, "out,x,format,rows,cols", {                                                                                                           \
    c.weight(0, 2, c.n(3), c.n(4));                                                                                                                    \
    c.f32(1, c.n(3), c.n(4));                                                                                                                          \
  })                                                                                                                                                   \
  SPEC(embedding, "out,w,format,ids,rows,vocab,cols,scale", {                                                                                          \
    c.f32(0, c.n(4), c.n(6));                                                                                                                          \
    c.weight(1, 2, c.n(5), c.n(6));                                                                                                                    \
    c.f32(3, c.n(4));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(embeddingBackward, "dw,dy,ids,rows,vocab,cols,scale", {                                                                                         \
    c.f32(0, c.n(4), c.n(5));                                                                                                                          \
    c.f32(1, c.n(3), c.n(5));                                                                                                                          \
    c.f32(2, c.n(3));                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(gatherRows, "out,x,index,rows,cols", {                                                                                                          \
    c.f32(0, c.n(3), c.n(4));                                                                                                                          \
    c.f32(1, 0);                                                                                                                                       \
    c.f32(2, c.n(3));                                                                                                                                  \
    c.extra(5, c.rowsOf(1, c.n(4)));                                                                                                                   \
  })                                                                                                                                                   \
  SPEC(scatterRows, "out,x,index,rows,cols,outRows,accumulate", {                                                                                      \
    c.f32(0, c.n(5), c.n(4));                                                                                                                          \
    c.f32(1, c.n(3), c.n(4));                                                                                                                          \
    c.f32(2, c.n(3));                                                                                                                                  \
    c.flag(6);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(rmsNorm, "y,rstd,x,w,rows,cols,eps,offset", {                                                                                                   \
    c.f32(0, c.n(4), c.n(5));                                                                                                                          \
    c.optionalF32(1, c.n(4));                                                                                                                          \
    c.f32(2, c.n(4), c.n(5));                                                                                                                          \
    c.optionalF32(3, c.n(5));                                                                                                                          \
  })                                                                                                                                                   \
  SPEC(rmsNormBackward, "dx,dw,dy,x,w,rstd,rows,cols,offset,accumulate", {                                                                             \
    c.optionalF32(0, times(c.n(6), c.n(7)));                                                                                                           \
    c.optionalF32(1, c.n(7));                                                                                                                          \
    c.f32(2, c.n(6), c.n(7));                                                                                                                          \
    c.f32(3, c.n(6), c.n(7));                                                                                                                          \
    c.optionalF32(4, c.n(7));                                                                                                                          \
    c.f32(5, c.n(6));                                                                                                                                  \
    c.flag(9);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(rope, "x,ldx,cos,sin,positions,rows,heads,headDim,rotary,inverse", {                                                                            \
    c.strided(0, 1, c.n(5), times(c.n(6), c.n(7)));                                                                                                    \
    c.f32(4, c.n(5));                                                                                                                                  \
    c.atMost(8, c.n(7), "must be at most headDim");                                                                                                    \
    if (c.n(8) % 2 != 0) c.fail(8, "must be even");                                                                                                    \
    c.flag(9);                                                                                                                                         \
    if (c.n(5) > 0 && c.n(8) > 0) {                                                                                                                    \
      c.f32(2, c.n(8) / 2);                                                                                                                            \
      c.f32(3, c.n(8) / 2);                                                                                                                            \
      const int64_t a = c.rowsOf(2, c.n(8) / 2);                                                                                                       \
      const int64_t b = c.rowsOf(3, c.n(8) / 2);                                                                                                       \
      c.extra(10, a < b ? a : b);                                                                                                                      \
    }                                                                                                                                                  \
  })                                                                                                                                                   \
  SPEC(gatedActivation, "h,gate,up,act,n", {                                                                                                           \
    c.f32(0, c.n(4));                                                                                                                                  \
    c.f32(1, c.n(4));                                                                                                                                  \
    c.f32(2, c.n(4));                                                                                                                                  \
    c.atMost(3, 2, "must be 0 (silu), 1 (gelu tanh) or 2 (gelu exact)");                                                                               \
  })                                                                                                                                                   \
  SPEC(gatedActivationBackward, "dgate,dup,dh,gate,up,act,n", {                                                                                        \
    for (int i = 0; i < 5; i++) c.f32(i, c.n(6));                                                                                                      \
    c.atMost(5, 2, "must be 0 (silu), 1 (gelu tanh) or 2 (gelu exact)");                                                                               \
  })                                                                                                                                                   \
  SPEC(attention, "out,lse,q,ldq,k,ldk,v,ldv,segments,count,tokens,heads,kvHeads,headDim,scale,window,softcap,sinks", {                                \
    const int64_t qWidth = times(c.n(11), c.n(13));                                                                                                    \
    const int64_t kvWidth = times(c.n(12), c.n(13));                                                                                                   \
    c.heads(11, 12);                                                                                                                                   \
    c.positive(13);                                                                                                                                    \
    c.f32(0, c.n(10), qWidth);                                                                                                                         \
    c.f32(1, c.n(10), c.n(11));                                                                                                                        \
    c.strided(2, 3, c.n(10), qWidth);                                                                                                                  \
    c.strided(4, 5, c.n(10), kvWidth);                                                                                                                 \
    c.strided(6, 7, c.n(10), kvWidth);                                                                                                                 \
    c.need(8, times(c.n(9), 12));                                                                                                                      \
    c.optionalF32(17, c.n(11));                                                                                                                        \
  })                                                                                                                                                   \
  SPEC(attentionBackward,                                                                                                                              \
       "dq,dk,dv,dsinks,dout,out,lse,q,ldq,k,ldk,v,ldv,segments,count,tokens,heads,kvHeads,headDim,scale,window,softcap,sinks", {                      \
         const int64_t qWidth = times(c.n(16), c.n(18));                                                                                               \
         const int64_t kvWidth = times(c.n(17), c.n(18));                                                                                              \
         c.heads(16, 17);                                                                                                                              \
         c.positive(18);                                                                                                                               \
         c.f32(0, c.n(15), qWidth);                                                                                                                    \
         c.f32(1, c.n(15), kvWidth);                                                                                                                   \
         c.f32(2, c.n(15), kvWidth);                                                                                                                   \
         c.optionalF32(3, c.n(16));                                                                                                                    \
         c.f32(4, c.n(15), qWidth);                                                                                                                    \
         c.f32(5, c.n(15), qWidth);                                                                                                                    \
         c.f32(6, c.n(15), c.n(16));                                                                                                                   \
         c.strided(7, 8, c.n(15), qWidth);                                                                                                             \
         c.strided(9, 10, c.n(15), kvWidth);                                                                                                           \
         c.strided(11, 12, c.n(15), kvWidth);                                                                                                          \
         c.need(13, times(c.n(14), 12));                                                                                                               \
         c.optionalF32(22, c.n(16));                                                                                                                   \
         if (c.given(3) && !c.given(22)) c.fail(22, "must be given when dsinks is");                                                                   \
       })                                                                                                                                              \
  SPEC(linearCrossEntropy, "nll,dh,dw,h,w,format,targets,coef,rows,vocab,hidden,softcap,logitScale", {                                                 \
    c.f32(0, c.n(8));                                                                                                                                  \
    c.optionalF32(1, times(c.n(8), c.n(10)));                                                                                                          \
    c.optionalF32(2, times(c.n(9), c.n(10)));                                                                                                          \
    c.f32(3, c.n(8), c.n(10));                                                                                                                         \
    c.weight(4, 5, c.n(9), c.n(10));                                                                                                                   \
    c.f32(6, c.n(8));                                                                                                                                  \
    if (c.given(1) || c.given(2)) c.f32(7, c.n(8));                                                                                                    \
    else c.optionalF32(7, c.n(8));                                                                                                                     \
    c.positive(9);                                                                                                                                     \
  })                                                                                                                                                   \
  SPEC(linearLogprobs, "logp,lse,entropy,dh,h,w,format,targets,rows,vocab,hidden,softcap,logitScale", {                                                \
    c.f32(0, c.n(8));                                                                                                                                  \
    c.f32(1, c.n(8));                                                                                                                                  \
    c.optionalF32(2, c.n(8));                                                                                                                          \
    c.optionalF32(3, times(c.n(8), c.n(10)));                                                                                                          \
    c.f32(4, c.n(8), c.n(10));                                                                                                                         \
    c.weight(5, 6, c.n(9), c.n(10));                                                                                                                   \
    c.f32(7, c.n(8));                                                                                                                                  \
    c.positive(9);                                                                                                                                     \
  })                                                                                                                                                   \
  SPEC(linearLogprobsBackward, "dh,dw,dlogp,lse,dentropy,entropy,h,w,format,targets,rows,vocab,hidden,softcap,logitScale", {                           \
    c.f32(0, c.n(10), c.n(12));                                                                                                                        \
    c.optionalF32(1, times(c.n(11), c.n(12)));                                                                                                         \
    c.f32(2, c.n(10));                                                                                                                                 \
    c.f32(3, c.n(10));                                                                                                                                 \
    c.optionalF32(4, c.n(10));                                                                                                                         \
    if (c.given(4)) c.f32(5, c.n(10));                                                                                                                 \
    else c.optionalF32(5, c.n(10));                                                                                                                    \
    c.f32(6, c.n(10), c.n(12));                                                                                                                        \
    c.weight(7, 8, c.n(11), c.n(12));                                                                                                                  \
    c.f32(9, c.n(10));                                                                                                                                 \
    c.positive(11);                                                                                                                                    \
  })                                                                                                                                                   \
  SPEC(adamw, "p,g,m,v,n,lr,beta1,beta2,eps,weightDecay,step,gradScale", {                                                                             \
    for (int i = 0; i < 4; i++) c.f32(i, c.n(4));                                                                                                      \
    c.fraction(6);                                                                                                                                     \
    c.fraction(7);                                                                                                                                     \
    c.positive(10);                                                                                                                                    \
  })                                                                                                                                                   \
  SPEC(adamw8bit, "p,g,m8,v8,mAbs,vAbs,n,lr,beta1,beta2,eps,weightDecay,step,gradScale", {                                                             \
    c.f32(0, c.n(6));                                                                                                                                  \
    c.f32(1, c.n(6));                                                                                                                                  \
    c.need(2, c.n(6));                                                                                                                                 \
    c.need(3, c.n(6));                                                                                                                                 \
    c.f32(4, (c.n(6) + 255) / 256);                                                                                                                    \
    c.f32(5, (c.n(6) + 255) / 256);                                                                                                                    \
    c.fraction(8);                                                                                                                                     \
    c.fraction(9);                                                                                                                                     \
    c.positive(12);                                                                                                                                    \
  })                                                                                                                                                   \
  SPEC(cacheWrite, "kCache,vCache,format,k,ldk,v,ldv,slots,rows,width", {                                                                              \
    c.cache(2, 9);                                                                                                                                     \
    c.strided(3, 4, c.n(8), c.n(9));                                                                                                                   \
    c.strided(5, 6, c.n(8), c.n(9));                                                                                                                   \
    c.f32(7, c.n(8));                                                                                                                                  \
    c.need(0, c.n(8) > 0 ? 1 : 0);                                                                                                                     \
    c.need(1, c.n(8) > 0 ? 1 : 0);                                                                                                                     \
    const int64_t row = format_row_bytes(c.n(2), c.n(9));                                                                                              \
    const int64_t a = c.unitsOf(0, row);                                                                                                               \
    const int64_t b = c.unitsOf(1, row);                                                                                                               \
    c.extra(10, a < b ? a : b);                                                                                                                        \
  })                                                                                                                                                   \
  SPEC(pagedAttention,                                                                                                                                 \
       "out,q,ldq,kCache,vCache,format,blockTable,maxBlocks,blockSize,rowSequence,rowPosition,rows,heads,kvHeads,headDim,scale,window,softcap,sinks", {\
         const int64_t qWidth = times(c.n(12), c.n(14));                                                                                               \
         c.heads(12, 13);                                                                                                                              \
         c.positive(14);                                                                                                                               \
         c.positive(8);                                                                                                                                \
         c.positive(7);                                                                                                                                \
         c.cache(5, 14);                                                                                                                               \
         c.f32(0, c.n(11), qWidth);                                                                                                                    \
         c.strided(1, 2, c.n(11), qWidth);                                                                                                             \
         c.f32(9, c.n(11));                                                                                                                            \
         c.f32(10, c.n(11));                                                                                                                           \
         if (c.n(11) > 0) {                                                                                                                            \
           c.need(3, 1);                                                                                                                               \
           c.need(4, 1);                                                                                                                               \
           c.f32(6, 1);                                                                                                                                \
         }                                                                                                                                             \
         c.optionalF32(18, c.n(12));                                                                                                                   \
         const int64_t block = times(c.n(8), c.n(13), format_row_bytes(c.n(5), c.n(14)));                                                              \
         const int64_t a = c.unitsOf(3, block);                                                                                                        \
         const int64_t b = c.unitsOf(4, block);                                                                                                        \
         c.extra(19, a < b ? a : b);                                                                                                                   \
         c.extra(20, c.rowsOf(6, c.n(7)));                                                                                                             \
       })                                                                                                                                              \
  SPEC(logits, "out,h,w,format,rows,vocab,hidden,softcap,logitScale", {                                                                                \
    c.f32(0, c.n(4), c.n(5));                                                                                                                          \
    c.f32(1, c.n(4), c.n(6));                                                                                                                          \
    c.weight(2, 3, c.n(5), c.n(6));                                                                                                                    \
  })                                                                                                                                                   \
  SPEC(divergence, "out,dz,zs,zt,coef,rows,vocab,beta,softcap,logitScale", {                                                                           \
    c.f32(0, c.n(5));                                                                                                                                  \
    c.optionalF32(1, times(c.n(5), c.n(6)));                                                                                                           \
    c.f32(2, c.n(5), c.n(6));                                                                                                                          \
    c.f32(3, c.n(5), c.n(6));                                                                                                                          \
    if (c.given(1)) c.f32(4, c.n(5));                                                                                                                  \
    else c.optionalF32(4, c.n(5));                                                                                                                     \
    c.positive(6);                                                                                                                                     \
    c.unit(7);                                                                                                                                         \
  })                                                                                                                                                   \
  SPEC(sample, "ids,logp,logits,rows,vocab,params,rng,history,maxHistory", {                                                                           \
    c.f32(0, c.n(3));                                                                                                                                  \
    c.f32(1, c.n(3));                                                                                                                                  \
    c.f32(2, c.n(3), c.n(4));                                                                                                                          \
    c.f32(5, c.n(3), 8);                                                                                                                               \
    c.f32(6, c.n(3), 4);                                                                                                                               \
    c.f32(7, c.n(3), c.n(8));                                                                                                                          \
    c.positive(4);                                                                                                                                     \
    c.atMost(4, INT32_MAX, "must fit 32 bits");                                                                                                        \
  })

}  // namespace sloth

#endif
