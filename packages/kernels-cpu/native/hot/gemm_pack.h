// Packing of the matrix product: panels of B and strips of A. Included inside an ISA namespace, by gemm.h.

// Rows of a weight that are asked for before they are packed: their pieces are too short for the hardware to guess them.
static const int64_t ROWS_AHEAD = 8;
template <class F>
SLOTH_INLINE void fetch_row(const uint8_t* row, int64_t first, int64_t count) {
  const uint8_t* from = row + format_offset<F>(first);
  for (int64_t b = 0; b < format_offset<F>(count); b += 64) SLOTH_FETCH(from + b);
}
// The same stretch of 32 elements in `count` rows.
template <class F>
SLOTH_INLINE void fetch_column(const uint8_t* at, int64_t rowBytes, int64_t count) {
  if (F::BYTES32 < 64) return;  // several stretches share a line
  for (int64_t r = 0; r < count; r++) {
    for (int64_t b = 0; b < F::BYTES32; b += 64) SLOTH_FETCH(at + r * rowBytes + b);
  }
}

// Columns n0 .. n0+cols of B = Wᵀ for W [n, k]: panels [kc][NR], zero beyond cols. k0 and kc are multiples of BLOCK; `out` rows begin at `row` of a panel
// of `height` rows.
template <class F>
SLOTH_NOINLINE void pack_transposed(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out, int64_t row,
                                    int64_t height) {
  alignas(64) float t[VW * 32];
  for (int64_t c = 0; c < cols; c += NR) {
    float* panel = out + c * height + row * NR;
    for (int g = 0; g < NV; g++) {
      const int64_t first = c + g * VW;
      const int64_t left = cols - first;
      const int64_t n = left < 0 ? 0 : left > VW ? VW : left;
      float* dst = panel + g * VW;
      if (n == 0) {
        for (int64_t k = 0; k < kc; k++) vstore(dst + k * NR, vzero());
        continue;
      }
      if (n < VW) memset(t, 0, sizeof(t));
      const uint8_t* src = w + (n0 + first) * rowBytes + format_offset<F>(k0);
#if defined(SLOTH_SIMD_AVX512)
      if constexpr (Columns<F>::SCALED) {
        if (n == VW) {
          decode_columns<F>(src, rowBytes, kc, dst, NR);
          continue;
        }
      }
#endif
      int64_t k = 0;
      const int64_t after = left < 2 * VW ? left - n : VW;
      for (; k + 32 <= kc; k += 32, src += F::BYTES32) {
        fetch_column<F>(src + VW * rowBytes, rowBytes, after);
        for (int64_t r = 0; r < n; r++) {
          vf v[V32];
          F::decode32(src + r * rowBytes, v);
          SLOTH_UNROLL
          for (int j = 0; j < V32; j++) vstore(t + r * 32 + j * VW, v[j]);
        }
        for (int b = 0; b < 32; b += VW) {
          vf v[VW];
          SLOTH_UNROLL
          for (int r = 0; r < VW; r++) v[r] = vload(t + r * 32 + b);
          vtranspose(v);
          SLOTH_UNROLL
          for (int r = 0; r < VW; r++) vstore(dst + (k + b + r) * NR, v[r]);
        }
      }
      if (k < kc) {
        for (int64_t r = 0; r < n; r++) F::decode_tail(src + r * rowBytes, kc - k, t + r * 32);
        for (int64_t i = 0; k + i < kc; i++) {
          for (int64_t r = 0; r < VW; r++) dst[(k + i) * NR + r] = t[r * 32 + i];
        }
      }
    }
  }
}

// Columns n0 .. n0+cols of B = W [k, n]: the same panels. n0 and cols are multiples of BLOCK.
template <class F>
SLOTH_NOINLINE void pack_straight(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out, int64_t row,
                                  int64_t height) {
  alignas(64) float t[PACK_COLUMNS + NR + 32];
  const int64_t padded = (cols + NR - 1) / NR * NR;
  for (int64_t c = cols; c < padded; c++) t[c] = 0.0f;
  for (int64_t k = 0; k < kc; k++) {
    if (k + ROWS_AHEAD < kc) fetch_row<F>(w + (k0 + k + ROWS_AHEAD) * rowBytes, n0, cols);
    decode_row<F>(w + (k0 + k) * rowBytes, n0, cols, t);
    float* dst = out + (row + k) * NR;
    for (int64_t c = 0; c < padded; c += NR, dst += height * NR) {
      SLOTH_UNROLL
      for (int j = 0; j < NV; j++) vstore(dst + j * VW, vload(t + c + j * VW));
    }
  }
}

// Rows of A side by side with stride SA. From A [m, k]:
SLOTH_INLINE void pack_rows(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
  for (int64_t i = 0; i < rows; i++) {
    const float* s = a + i * lda + k0;
    float* d = out + i * SA;
    int64_t k = 0;
    for (; k + VW <= kc; k += VW) vstore(d + k, vload(s + k));
    if (k < kc) vstoren(d + k, kc - k, vloadn(s + k, kc - k));
  }
}

// From A stored [k, m] (lda apart), rows m0 .. m0+rows of its transpose:
SLOTH_NOINLINE void pack_rows_transposed(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
  for (int64_t i = 0; i < rows; i += VW) {
    const int64_t n = rows - i < VW ? rows - i : VW;
    for (int64_t k = 0; k < kc; k += VW) {
      const int64_t deep = kc - k < VW ? kc - k : VW;
      const float* from = a + (k0 + k) * lda + i;
      vf v[VW];
      if (n == VW && deep == VW) {
        SLOTH_UNROLL
        for (int r = 0; r < VW; r++) v[r] = vload(from + r * lda);
      } else {
        SLOTH_UNROLL
        for (int r = 0; r < VW; r++) v[r] = r < deep ? vloadn(from + r * lda, n) : vzero();
      }
      vtranspose(v);
      SLOTH_UNROLL
      for (int r = 0; r < VW; r++) {
        if (r < n) vstore(out + (i + r) * SA + k, v[r]);  // SA leaves room for the last vector
      }
    }
  }
}

// Words of one f32: how they are multiplied and packed.
struct Words {
  static const int64_t DEEP = 1;       // elements of the contraction in a word
  static const bool TOGETHER = true;   // the second pair of operands lies behind the first in the same panels and strips
  SLOTH_INLINE int64_t count(int64_t kc) { return kc; }  // words of kc elements
  SLOTH_INLINE vf madd(vf a, vf b, vf sum) { return vfma(a, b, sum); }
  template <class F>
  SLOTH_INLINE void transposed(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
    pack_transposed<F>(w, rowBytes, n0, cols, k0, kc, out, 0, kc);
  }
  template <class F>
  SLOTH_INLINE void straight(const uint8_t* w, int64_t rowBytes, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
    pack_straight<F>(w, rowBytes, n0, cols, k0, kc, out, 0, kc);
  }
  SLOTH_INLINE void strip(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) { pack_rows(a, lda, rows, k0, kc, out); }
  SLOTH_INLINE void strip_across(const float* a, int64_t lda, int64_t rows, int64_t k0, int64_t kc, float* out) {
    pack_rows_transposed(a, lda, rows, k0, kc, out);
  }
};
