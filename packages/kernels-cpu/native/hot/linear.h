// Linear layers over stored weights: one, or a group that shares its input, by the path for few rows or the general product.
// Included inside an ISA namespace, after gemm.h.
#include "few_rows.h"
#include "few_columns.h"
#include "few_blocks.h"

static void skinny_group(Pool* pool, const GroupMember* members, int count, const float* x, int64_t m, int64_t k) {
#if defined(SLOTH_SIMD_AVX512)
  bool blocks = true;
  for (int i = 0; i < count; i++) {
    SLOTH_WITH_FORMAT(members[i].format, F, blocks = blocks && Columns<F>::SCALED)
  }
  if (blocks && m >= BLOCK_ROWS) {
    // In f32 the products of more rows are those of the general product.
    if (Product::DEEP == 1 && m >= COLUMN_ROWS) column_group(pool, members, count, x, m, k);
    else block_group<Product>(pool, members, count, x, m, k);
    return;
  }
#endif
  row_group(pool, members, count, x, m, k);
}

// --- kernels

static void linear(Pool* pool, float* y, const float* x, const void* w, int64_t format, int64_t m, int64_t n, int64_t k, const float* bias, const float* t,
                   const float* b, int64_t r, int64_t accumulate) {
  if (!t || !b || r <= 0) {
    t = nullptr;
    b = nullptr;
    r = 0;
  }
  if (m <= 0 || n <= 0) return;
  if (m <= SKINNY && k > 0) {
    const GroupMember only = {y, w, format, n, bias, t, nullptr, b, r, 1.0f, accumulate};
    skinny_group(pool, &only, 1, x, m, k);
    return;
  }
  Gemm g = {};
  g.c = y;
  g.ldc = n;
  g.m = m;
  g.n = n;
  g.a1 = x;
  g.lda1 = k;
  g.k1 = k;
  g.b1 = w;
  g.format = format;
  g.rowBytes1 = format_row_bytes(format, k);
  g.rowsAreN = 1;
  g.a2 = t;
  g.lda2 = r;
  g.k2 = r;
  g.b2 = b;
  g.ldb2 = r;
  g.bias = bias;
  g.alpha = 1.0f;
  g.accumulate = accumulate;
  product_run(pool, g, true);
}

// The layers that are there, in order; how many.
static int present_members(const GroupMember (&all)[GROUP_MOST], GroupMember* members) {
  int count = 0;
  for (const GroupMember& e : all) {
    if (e.n > 0) members[count++] = e;
  }
  return count;
}

// The layers of a group one after the other, by a linear layer of any precision.
static void group_by_layers(Pool* pool, const GroupMember* members, int count, const float* x, int64_t m, int64_t k, decltype(&linear) layer) {
  for (int g = 0; g < count; g++) {
    const GroupMember& e = members[g];
    float* t = nullptr;
    if (e.r > 0) {
      t = static_cast<float*>(pool_shared(pool, SLOT_GROUP, static_cast<size_t>(m * e.r) * 4));
      matmul(pool, t, x, e.a, m, e.r, k, 0, 1, static_cast<double>(e.scale), 0);
    }
    layer(pool, e.y, x, e.w, e.format, m, e.n, k, e.bias, t, e.b, e.r, 0);
  }
}

static void linearGroup(Pool* pool, const float* x, int64_t m, int64_t k, float* y0, const void* w0, int64_t format0, int64_t n0, const float* bias0,
                        const float* a0, const float* b0, int64_t r0, double scale0, float* y1, const void* w1, int64_t format1, int64_t n1, const float* bias1,
                        const float* a1, const float* b1, int64_t r1, double scale1, float* y2, const void* w2, int64_t format2, int64_t n2, const float* bias2,
                        const float* a2, const float* b2, int64_t r2, double scale2) {
  if (m <= 0) return;
  const GroupMember all[GROUP_MOST] = {
      {y0, w0, format0, n0, bias0, nullptr, a0, b0, a0 ? r0 : 0, static_cast<float>(scale0), 0},
      {y1, w1, format1, n1, bias1, nullptr, a1, b1, a1 ? r1 : 0, static_cast<float>(scale1), 0},
      {y2, w2, format2, n2, bias2, nullptr, a2, b2, a2 ? r2 : 0, static_cast<float>(scale2), 0},
  };
  GroupMember members[GROUP_MOST];
  const int count = present_members(all, members);
  if (count == 0) return;
  if (m <= SKINNY && k > 0) skinny_group(pool, members, count, x, m, k);
  else group_by_layers(pool, members, count, x, m, k, linear);
}

static void linearBackwardInput(Pool* pool, float* dx, const float* dy, const void* w, int64_t format, int64_t m, int64_t n, int64_t k, const float* dt,
                                const float* a, int64_t r, int64_t accumulate) {
  if (!dt || !a || r <= 0) {
    dt = nullptr;
    a = nullptr;
    r = 0;
  }
  Gemm g = {};
  g.c = dx;
  g.ldc = k;
  g.m = m;
  g.n = k;
  g.a1 = dy;
  g.lda1 = n;
  g.k1 = n;
  g.b1 = w;
  g.format = format;
  g.rowBytes1 = format_row_bytes(format, k);
  g.a2 = dt;
  g.lda2 = r;
  g.k2 = r;
  g.b2 = a;
  g.ldb2 = k;
  g.alpha = 1.0f;
  g.accumulate = accumulate;
  product_run(pool, g, true);
}

// s -> softcap(scale * s) over n elements.
SLOTH_INLINE void soft_cap_row(float* s, int64_t n, float scale, float cap) {
  const float inner = cap > 0 ? scale / cap : scale;
  const vf a = vset(inner), c = vset(cap);
  for (int64_t i = 0; i < n; i += VW) {
    const int64_t left = n - i < VW ? n - i : VW;
    vf v = vmul(left == VW ? vload(s + i) : vloadn(s + i, left), a);
    if (cap > 0) v = vmul(vtanh(v), c);
    if (left == VW) vstore(s + i, v);
    else vstoren(s + i, left, v);
  }
}

static void logits(Pool* pool, float* out, const float* h, const void* w, int64_t format, int64_t rows, int64_t vocab, int64_t hidden, double softcap,
                   double logitScale) {
  linear(pool, out, h, w, format, rows, vocab, hidden, nullptr, nullptr, nullptr, 0, 0);
  if (softcap <= 0 && logitScale == 1) return;
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale);
  par_elements(pool, rows * vocab, [=](int64_t from, int64_t to) { soft_cap_row(out + from, to - from, scale, cap); });
}
