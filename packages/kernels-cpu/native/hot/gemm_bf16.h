// The matrix product with both operands rounded to bf16 and sums in f32 (`precision: "bf16"`), on processors with AVX512-BF16.
// Included inside an ISA namespace, after gemm.h.
//
// The product is that of gemm.h over other words: one holds two neighbours of the contraction, so that a stretch of words is twice as long and one instruction
// does the work of two. Every f32 operand is rounded once (to nearest, ties to even) while it is packed; a weight is first decoded to its exact f32 value. The
// second pair of operands (a LoRA rank) stays f32.
//
// The instruction adds the two products of a word to the sum one after the other, each with one rounding, and takes denormals as 0.

// A weight gradient (the only product with a transposed A) whose smaller side is below this stays f32: the factors of an adapter.
static const int64_t BF_SIDE = 128;
// Products with a stored weight over up to this many rows are not these: they have a path of their own (linear.h).
static const int64_t BF_ROWS = 32;

SLOTH_INLINE __m512bh bf_operand(__m512i v) { return reinterpret_cast<__m512bh>(v); }
// 32 neighbours, lo before hi, as 16 words.
SLOTH_INLINE __m512i bf_words(vf lo, vf hi) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(hi, lo)); }
// Words of 16 columns: `even` is the row of the contraction in the low halves.
SLOTH_INLINE __m512i bf_interleave(vf even, vf odd) {
  const __m512i order = _mm512_add_epi32(_mm512_set1_epi32(0x00100000), _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(0x00010001)));
  return _mm512_permutexvar_epi16(order, bf_words(even, odd));
}
SLOTH_INLINE void bf_store(float* p, __m512i v) { _mm512_storeu_si512(p, v); }

// Words of a stretch of `kc` elements; an odd last one is completed with 0.
SLOTH_INLINE int64_t bf_count(int64_t kc) { return (kc + 1) / 2; }

// --- packing: as in gemm.h, panels are [words][NR]

// From W [n, k]. k0 is a multiple of 32.
template <class F>
SLOTH_NOINLINE void bf_pack_transposed(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
  const int64_t words = bf_count(kc);
  for (int64_t c = 0; c < cols; c += NR) {
    float* panel = out + c * words;
    for (int g = 0; g < NV; g++) {
      const int64_t first = c + g * VW;
      const int64_t left = cols - first;
      const int64_t n = left < 0 ? 0 : left > VW ? VW : left;
      float* dst = panel + g * VW;
      if (n == 0) {
        for (int64_t k = 0; k < words; k++) bf_store(dst + k * NR, _mm512_setzero_si512());
        continue;
      }
      const uint8_t* src = w + (n0 + first) * rowBytes + format_offset<F>(k0);
      const int64_t after = left < 2 * VW ? left - n : VW;
      for (int64_t k = 0; k < kc; k += 32, src += F::BYTES32) {
        if (k + 32 <= kc) fetch_column<F>(src + VW * rowBytes, rowBytes, after);
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
SLOTH_NOINLINE void bf_pack_straight(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
  alignas(64) float even[PACK_COLUMNS + NR + 32], odd[PACK_COLUMNS + NR + 32];
  const int64_t padded = (cols + NR - 1) / NR * NR, words = bf_count(kc);
  for (int64_t c = cols; c < padded; c++) even[c] = odd[c] = 0.0f;
  for (int64_t k = 0; k < words; k++) {
    for (int64_t p = 2 * k + ROWS_AHEAD; p < min_i(kc, 2 * k + ROWS_AHEAD + 2); p++) fetch_row<F>(w + (k0 + p) * rowBytes, n0, cols);
    if (F::BYTES32 == 128 && cols % NR == 0 && 2 * k + 1 < kc) {
      // f32: as it lies.
      const float* e = reinterpret_cast<const float*>(w + (k0 + 2 * k) * rowBytes) + n0;
      const float* o = reinterpret_cast<const float*>(w + (k0 + 2 * k + 1) * rowBytes) + n0;
      float* dst = out + k * NR;
      for (int64_t c = 0; c < cols; c += NR, dst += words * NR) {
        SLOTH_UNROLL
        for (int j = 0; j < NV; j++) bf_store(dst + j * VW, bf_interleave(vload(e + c + j * VW), vload(o + c + j * VW)));
      }
      continue;
    }
    decode_row<F>(w + (k0 + 2 * k) * rowBytes, n0, cols, even);
    if (2 * k + 1 < kc) decode_row<F>(w + (k0 + 2 * k + 1) * rowBytes, n0, cols, odd);
    else memset(odd, 0, static_cast<size_t>(cols) * 4);
    float* dst = out + k * NR;
    for (int64_t c = 0; c < padded; c += NR, dst += words * NR) {
      SLOTH_UNROLL
      for (int j = 0; j < NV; j++) bf_store(dst + j * VW, bf_interleave(vload(even + c + j * VW), vload(odd + c + j * VW)));
    }
  }
}

// Rows of A side by side, from A [m, k].
SLOTH_INLINE void bf_pack_rows(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
  for (int64_t i = 0; i < rows; i++) {
    const float* s = a + i * lda + k0;
    float* d = out + i * SA;
    int64_t k = 0;
    for (; k + 32 <= kc; k += 32) bf_store(d + k / 2, bf_words(vload(s + k), vload(s + k + VW)));
    if (k < kc) bf_store(d + k / 2, bf_words(vloadn(s + k, min_i(VW, kc - k)), vloadn(s + k + VW, max_i(0, kc - k - VW))));
  }
}

// From A stored [k, m], rows m0 .. m0+rows of its transpose.
SLOTH_NOINLINE void bf_pack_rows_transposed(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
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
        SLOTH_UNROLL
        for (int r = 0; r < VW; r++) {
          const vf even = 2 * r < deep ? vloadn(s + 2 * r * lda, n) : vzero(), odd = 2 * r + 1 < deep ? vloadn(s + (2 * r + 1) * lda, n) : vzero();
          v[r] = _mm512_castsi512_ps(bf_interleave(even, odd));
        }
      }
      vtranspose(v);
      SLOTH_UNROLL
      for (int r = 0; r < VW; r++) {
        if (r < n) vstore(out + (i + r) * SA + k / 2, v[r]);
      }
    }
  }
}

// Words of two bf16.
struct BfWords {
  static const int64_t DEEP = 2;
  static const bool TOGETHER = false;
  SLOTH_INLINE int64_t count(int64_t kc) { return bf_count(kc); }
  SLOTH_INLINE vf madd(vf a, vf b, vf sum) { return _mm512_dpbf16_ps(sum, bf_operand(_mm512_castps_si512(a)), bf_operand(_mm512_castps_si512(b))); }
  template <class F>
  SLOTH_INLINE void transposed(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
    bf_pack_transposed<F>(w, rowBytes, n0, cols, k0, kc, out);
  }
  template <class F>
  SLOTH_INLINE void straight(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
    bf_pack_straight<F>(w, rowBytes, n0, cols, k0, kc, out);
  }
  SLOTH_INLINE void strip(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) { bf_pack_rows(a, lda, rows, k0, kc, out); }
  SLOTH_INLINE void strip_across(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
    bf_pack_rows_transposed(a, lda, rows, k0, kc, out);
  }
};

// Runs a product: with rounded operands where it is one of those that `precision: "bf16"` rounds, those with a stored weight over more rows than the few-row
// path takes and the gradients of weights. Products with the factors of an adapter are plain products without a transposed A, or have a side that is its rank.
static void product_run(Pool* pool, const Gemm& g, bool stored) {
  if (g.k1 <= 0 || (stored ? g.m <= BF_ROWS : !g.transA || min_i(g.m, g.n) < BF_SIDE)) {
    gemm_run(pool, g);
    return;
  }
  if (g.k2 <= KC) {
    gemm_run<BfWords>(pool, g);
    return;
  }
  // A rank too long for the strips: its own product.
  Gemm first = g, second = g;
  first.k2 = 0;
  gemm_run<BfWords>(pool, first);
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
