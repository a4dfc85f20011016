// The matrix product with both operands rounded to bf16 and sums in f32 (`precision: "bf16"`), on processors with AVX512-BF16.
// Included inside an ISA namespace, after gemm.h.
//
// The shape is that of gemm.h with one difference: a 32-bit word holds two neighbours of the contraction, so that a stretch of words is twice as long and one
// instruction does the work of two. Every f32 operand is rounded once (to nearest, ties to even) while it is packed; a weight is first decoded to its exact f32
// value. The second pair of operands (a LoRA rank) stays f32 and is added strip by strip while c is in the cache.
//
// The instruction adds the two products of a word to the sum one after the other, each with one rounding, and takes denormals as 0.

// Longest stretch of the contraction and distance of the rows of a strip, both in words; as KC and SA.
static const int64_t BF_KC = 384;
static const int64_t BF_SA = 400;
// A weight gradient (the only product with a transposed A) whose smaller side is below this stays f32: the factors of an adapter.
static const int64_t BF_SIDE = 128;
// Products with a stored weight over up to this many rows stay f32: memory limits them, not arithmetic.
static const int64_t BF_ROWS = 32;

SLOTH_INLINE __m512bh bf_operand(__m512i v) { return reinterpret_cast<__m512bh>(v); }
// 32 neighbours, lo before hi, as 16 words.
SLOTH_INLINE __m512i bf_words(vf lo, vf hi) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(hi, lo)); }
// Words of 16 columns: `even` is the row of the contraction in the low halves.
SLOTH_INLINE __m512i bf_interleave(vf even, vf odd) {
  const __m512i order = _mm512_add_epi32(_mm512_set1_epi32(0x00100000), _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(0x00010001)));
  return _mm512_permutexvar_epi16(order, bf_words(even, odd));
}
SLOTH_INLINE void bf_store(uint32_t* p, __m512i v) { _mm512_storeu_si512(p, v); }

// c[M, cols] (+)= alpha * a[M, kc words] * b[kc words, cols] + bias; a has rows BF_SA words apart, b has rows of NR words, cols <= V * VW.
template <int M, int V>
SLOTH_NOINLINE void bf_tile(int64_t kc, const uint32_t* SLOTH_RESTRICT a, const uint32_t* SLOTH_RESTRICT b, float* SLOTH_RESTRICT c, int64_t ldc, int64_t cols,
                            int flags, float alpha, const float* bias) {
  vf acc[M][V];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) {
    SLOTH_UNROLL
    for (int j = 0; j < V; j++) acc[i][j] = vzero();
  }
  for (int64_t p = 0; p < kc; p++) {
    __m512bh bv[V];
    SLOTH_UNROLL
    for (int j = 0; j < V; j++) bv[j] = bf_operand(_mm512_loadu_si512(b + j * VW));
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      const __m512bh av = bf_operand(_mm512_set1_epi32(static_cast<int>(a[i * BF_SA])));
      SLOTH_UNROLL
      for (int j = 0; j < V; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], av, bv[j]);
    }
    a += 1;
    b += NR;
  }
  const vf s = vset(alpha);
  SLOTH_UNROLL
  for (int j = 0; j < V; j++) {
    const int64_t left = cols - j * VW;
    const int64_t n = left < 0 ? 0 : left > VW ? VW : left;
    const vf w = (flags & TILE_BIAS) ? vloadn(bias + j * VW, n) : vzero();
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      vf v = acc[i][j];
      if (flags & TILE_SCALE) v = vmul(v, s);
      if (flags & TILE_BIAS) v = vadd(v, w);
      if (flags & TILE_ADD) v = vadd(v, vloadn(c + i * ldc + j * VW, n));
      vstoren(c + i * ldc + j * VW, n, v);
    }
  }
}

typedef void (*BfTileFn)(int64_t, const uint32_t*, const uint32_t*, float*, int64_t, int64_t, int, float, const float*);
#define SLOTH_BF_TILES(V)                                                                                                                        \
  { bf_tile<1, V>, bf_tile<2, V>, bf_tile<3, V>, bf_tile<4, V>, bf_tile<5, V>, bf_tile<6, V>, bf_tile<7, V>, bf_tile<8, V>, bf_tile<9, V>, \
    bf_tile<10, V>, bf_tile<11, V>, bf_tile<12, V>, bf_tile<13, V>, bf_tile<14, V> }
SLOTH_INLINE BfTileFn bf_tile_for(int64_t rows, int64_t cols) {
  static_assert(MR == 14 && NV == 2, "tiles of bf16 products are listed for this register tile");
  static const BfTileFn table[NV][MR] = {SLOTH_BF_TILES(1), SLOTH_BF_TILES(2)};
  return table[(cols - 1) / VW][rows - 1];
}

// Words of a stretch of `kc` elements; an odd last one is completed with 0.
SLOTH_INLINE int64_t bf_count(int64_t kc) { return (kc + 1) / 2; }

// --- packing: as in gemm.h, panels are [words][NR]

// From W [n, k]. k0 is a multiple of 32.
template <class F>
SLOTH_NOINLINE void bf_pack_transposed(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, uint32_t* out) {
  const int64_t words = bf_count(kc);
  for (int64_t c = 0; c < cols; c += NR) {
    uint32_t* panel = out + c * words;
    for (int g = 0; g < NV; g++) {
      const int64_t first = c + g * VW;
      const int64_t left = cols - first;
      const int64_t n = left < 0 ? 0 : left > VW ? VW : left;
      uint32_t* dst = panel + g * VW;
      if (n == 0) {
        for (int64_t k = 0; k < words; k++) bf_store(dst + k * NR, _mm512_setzero_si512());
        continue;
      }
      const uint8_t* src = w + (n0 + first) * rowBytes + format_offset<F>(k0);
      for (int64_t k = 0; k < kc; k += 32, src += F::BYTES32) {
        vf v[VW];
        for (int r = 0; r < VW; r++) v[r] = vzero();
        for (int64_t r = 0; r < n; r++) {
          vf e[V32];
          if (k + 32 <= kc) {
            F::decode32(src + r * rowBytes, e);
          } else {
            alignas(64) float t[32] = {0};
            F::decode_tail(src + r * rowBytes, kc - k, t);
            e[0] = vload(t);
            e[1] = vload(t + VW);
          }
          v[r] = _mm512_castsi512_ps(bf_words(e[0], e[1]));
        }
        vtranspose(v);
        const int64_t deep = min_i(16, words - k / 2);
        if (deep == 16) {
          SLOTH_UNROLL
          for (int i = 0; i < 16; i++) bf_store(dst + (k / 2 + i) * NR, _mm512_castps_si512(v[i]));
        } else {
          for (int64_t i = 0; i < deep; i++) bf_store(dst + (k / 2 + i) * NR, _mm512_castps_si512(v[i]));
        }
      }
    }
  }
}

// From W [k, n]. n0 and cols are multiples of BLOCK.
template <class F>
SLOTH_NOINLINE void bf_pack_straight(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, uint32_t* out) {
  alignas(64) float even[NC + NR + 32], odd[NC + NR + 32];
  const int64_t padded = (cols + NR - 1) / NR * NR, words = bf_count(kc);
  for (int64_t c = cols; c < padded; c++) even[c] = odd[c] = 0.0f;
  for (int64_t k = 0; k < words; k++) {
    decode_row<F>(w + (k0 + 2 * k) * rowBytes, n0, cols, even);
    if (2 * k + 1 < kc) decode_row<F>(w + (k0 + 2 * k + 1) * rowBytes, n0, cols, odd);
    else memset(odd, 0, static_cast<size_t>(cols) * 4);
    uint32_t* dst = out + k * NR;
    for (int64_t c = 0; c < padded; c += NR, dst += words * NR) {
      SLOTH_UNROLL
      for (int j = 0; j < NV; j++) bf_store(dst + j * VW, bf_interleave(vload(even + c + j * VW), vload(odd + c + j * VW)));
    }
  }
}

// Rows of A side by side, from A [m, k].
SLOTH_INLINE void bf_pack_rows(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, uint32_t* out) {
  for (int64_t i = 0; i < rows; i++) {
    const float* s = a + i * lda + k0;
    uint32_t* d = out + i * BF_SA;
    int64_t k = 0;
    for (; k + 32 <= kc; k += 32) bf_store(d + k / 2, bf_words(vload(s + k), vload(s + k + VW)));
    if (k < kc) bf_store(d + k / 2, bf_words(vloadn(s + k, min_i(VW, kc - k)), vloadn(s + k + VW, max_i(0, kc - k - VW))));
  }
}

// From A stored [k, m], rows m0 .. m0+rows of its transpose.
SLOTH_NOINLINE void bf_pack_rows_transposed(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, uint32_t* out) {
  for (int64_t i = 0; i < rows; i += VW) {
    const int64_t n = rows - i < VW ? rows - i : VW;
    for (int64_t k = 0; k < kc; k += 32) {
      const int64_t deep = min_i(32, kc - k);
      const float* s = a + (k0 + k) * lda + i;
      vf v[VW];
      if (n == VW && deep == 32) {
        SLOTH_UNROLL
        for (int r = 0; r < VW; r++) v[r] = _mm512_castsi512_ps(bf_interleave(vload(s + 2 * r * lda), vload(s + (2 * r + 1) * lda)));
      } else {
        for (int r = 0; r < VW; r++) {
          const vf even = 2 * r < deep ? vloadn(s + 2 * r * lda, n) : vzero(), odd = 2 * r + 1 < deep ? vloadn(s + (2 * r + 1) * lda, n) : vzero();
          v[r] = _mm512_castsi512_ps(bf_interleave(even, odd));
        }
      }
      vtranspose(v);
      alignas(64) uint32_t u[VW * VW];
      SLOTH_UNROLL
      for (int r = 0; r < VW; r++) bf_store(u + r * VW, _mm512_castps_si512(v[r]));
      for (int64_t r = 0; r < n; r++) bf_store(out + (i + r) * BF_SA + k / 2, _mm512_loadu_si512(u + r * VW));
    }
  }
}

// --- the product

// Elements of a stretch of a contraction of k: whole blocks of 32, by k alone.
SLOTH_INLINE int64_t bf_stretch(int64_t k) {
  const int64_t count = ceil_div(k, 2 * BF_KC);
  return count <= 1 ? max_i(k, 1) : ceil_div(ceil_div(k, count), 32) * 32;
}

struct BfScratch {
  uint32_t* strip;   // [MR, BF_SA]
  uint32_t* panels;  // [words][NC + NR]
  float* strip2;     // the low-rank pair, f32: [MR, SA]
  float* panels2;    // [k2][NC + NR]
};
static int64_t bf_scratch(BfScratch* s, char* at, int64_t k2) {
  int64_t used = 0;
  auto take = [&](int64_t bytes) {
    char* p = at + used;
    used += (bytes + 63) / 64 * 64;
    return p;
  };
  s->strip = reinterpret_cast<uint32_t*>(take(MR * BF_SA * 4 + 64));
  s->panels = reinterpret_cast<uint32_t*>(take((NC + NR) * BF_KC * 4));
  s->strip2 = reinterpret_cast<float*>(take(k2 > 0 ? MR * SA * 4 + 64 : 0));
  s->panels2 = reinterpret_cast<float*>(take(k2 > 0 ? (NC + NR) * k2 * 4 : 0));
  return used;
}

template <class F>
SLOTH_NOINLINE void bf_task(const Gemm& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const BfScratch& x) {
  const int64_t step = bf_stretch(g.k1), strips = strip_count(m1 - m0);
  const uint8_t* w = static_cast<const uint8_t*>(g.b1);
  const uint8_t* b2 = reinterpret_cast<const uint8_t*>(g.b2);
  for (int64_t k0 = 0; k0 < g.k1; k0 += step) {
    const int64_t kc = min_i(step, g.k1 - k0), words = bf_count(kc);
    const bool last = k0 + kc == g.k1 && g.k2 > 0;
    if (g.rowsAreN) bf_pack_transposed<F>(w, g.rowBytes1, n0, n1 - n0, k0, kc, x.panels);
    else bf_pack_straight<F>(w, g.rowBytes1, n0, n1 - n0, k0, kc, x.panels);
    if (last) {
      if (g.rowsAreN) pack_transposed<FormatF32>(b2, g.ldb2 * 4, n0, n1 - n0, 0, g.k2, x.panels2, 0, g.k2);
      else pack_straight<FormatF32>(b2, g.ldb2 * 4, n0, n1 - n0, 0, g.k2, x.panels2, 0, g.k2);
    }
    const int scaled = g.alpha != 1.0f ? TILE_SCALE : 0;
    const int flags = scaled | (k0 > 0 || g.accumulate ? TILE_ADD : 0) | (k0 == 0 && g.bias ? TILE_BIAS : 0);
    for (int64_t s = 0; s < strips; s++) {
      const int64_t r0 = m0 + strip_begin(m1 - m0, strips, s);
      const int64_t rows = m0 + strip_begin(m1 - m0, strips, s + 1) - r0;
      if (g.transA) bf_pack_rows_transposed(g.a1 + r0, g.lda1, rows, k0, kc, x.strip);
      else bf_pack_rows(g.a1 + r0 * g.lda1, g.lda1, rows, k0, kc, x.strip);
      if (last) pack_rows(g.a2 + r0 * g.lda2, g.lda2, rows, 0, g.k2, x.strip2);
      for (int64_t c = n0; c < n1; c += NR) {
        const int64_t cols = min_i(NR, n1 - c);
        float* out = g.c + r0 * g.ldc + c;
        bf_tile_for(rows, cols)(words, x.strip, x.panels + (c - n0) * words, out, g.ldc, cols, flags, g.alpha, g.bias ? g.bias + c : nullptr);
        if (last) Tiles<NR>::get(rows, cols)(g.k2, x.strip2, x.panels2 + (c - n0) * g.k2, out, g.ldc, cols, scaled | TILE_ADD, g.alpha, nullptr);
      }
    }
  }
}

static void gemm_bf16_run(Pool* pool, const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  const int64_t block = format_layout(g.format).block;
  int64_t unit = NR;
  if (!g.rowsAreN) {
    while (unit % block != 0) unit += NR;
  }
  const Cut cut = gemm_cut(g.m, g.n, unit, pool_threads(pool));
  const int64_t units = ceil_div(g.n, unit), strips = strip_count(g.m);
  pool_for(pool, static_cast<int>(cut.down * cut.across), [&](int task, int worker) {
    const int64_t i = task % cut.down, j = task / cut.down;
    const int64_t m0 = min_i(g.m, strips * i / cut.down * MR), m1 = min_i(g.m, strips * (i + 1) / cut.down * MR);
    const int64_t n0 = units * j / cut.across * unit, n1 = min_i(g.n, units * (j + 1) / cut.across * unit);
    BfScratch x;
    const int64_t bytes = bf_scratch(&x, nullptr, g.k2);
    bf_scratch(&x, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(bytes))), g.k2);
    SLOTH_WITH_FORMAT(g.format, F, bf_task<F>(g, m0, m1, n0, n1, x))
  });
}

// Runs a product: with rounded operands where it is one of those that `precision: "bf16"` rounds, those with a stored weight over more rows than the few-row
// path takes and the gradients of weights. Products with the factors of an adapter are plain products without a transposed A, or have a side that is its rank.
static void product_run(Pool* pool, const Gemm& g, bool stored) {
  if (g.k1 <= 0 || (stored ? g.m <= BF_ROWS : !g.transA || min_i(g.m, g.n) < BF_SIDE)) {
    gemm_run(pool, g);
    return;
  }
  if (g.k2 <= KC) {
    gemm_bf16_run(pool, g);
    return;
  }
  // A rank too long for the strips: its own product.
  Gemm first = g, second = g;
  first.k2 = 0;
  gemm_bf16_run(pool, first);
  second.a1 = g.a2;
  second.lda1 = g.lda2;
  second.k1 = g.k2;
  second.b1 = g.b2;
  second.format = FORMAT_F32;
  second.rowBytes1 = g.ldb2 * 4;
  second.k2 = 0;
  second.bias = nullptr;
  second.accumulate = 1;
  gemm_run(pool, second);
}
