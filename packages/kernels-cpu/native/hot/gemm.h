// The matrix product that everything else is made of: packed panels, an outer-product register tile, masked edges.
// Included inside an ISA namespace, after simd.h, parallel.h and weights.h.
//
// c[m, n] (+)= alpha * (A1 | A2) * (B1 | B2) + bias. The second pair of operands is a further stretch of the contraction (a LoRA rank), so that c is
// written once. B1 is in any weight format and is decoded while it is packed; it is [n, k] (a linear layer) or [k, n] (the way back through it).
//
// Loops: a task owns a range of rows and columns of c. For each stretch of at most KC of the contraction it packs its columns of B into panels of NR
// columns (they stay in L2), then goes over strips of MR rows, copies a strip of A next to each other (it stays in L1), and runs the register tile over the
// panels. The contraction is never divided between tasks and its stretches depend on k alone: an element of c is the same sum in the same order
// whatever the number of threads and wherever its tile lies.
//
// What lies in panels and strips are words of 32 bits: an f32 (Words, below), or two bf16 that are neighbours of the contraction (gemm_bf16.h).

#if defined(SLOTH_SIMD_AVX512)
static const int MR = 14;
static const int NV = 2;
static const int NC = 192;
#elif defined(SLOTH_SIMD_AVX2)
static const int MR = 6;
static const int NV = 2;
static const int NC = 192;
#elif defined(SLOTH_SIMD_NEON)
static const int MR = 8;
static const int NV = 3;
static const int NC = 192;
#else
static const int MR = 4;
static const int NV = 2;
static const int NC = 192;
#endif
// Hints of what will soon be read from L2, and of what will soon be written.
#define SLOTH_FETCH(p) __builtin_prefetch(p, 0, 2)
#define SLOTH_FETCH_WRITE(p) __builtin_prefetch(p, 1, 3)
// Columns of a register tile, and of a packed panel.
static const int NR = NV * VW;
// Longest stretch of the contraction; strips of A and of attention scores have rows SA floats apart. A constant distance lets the tile address its rows
// with immediate offsets; it is no multiple of 1024 bytes, so that the rows fall into different cache sets.
static const int64_t KC = 384;
static const int64_t SA = 400;

enum { TILE_ADD = 1, TILE_SCALE = 2, TILE_BIAS = 4 };

struct Words;

// c[M, cols] (+)= alpha * a[M, kc] * b[kc, cols] + bias; kc in words, a has rows SA apart, b has rows LDB apart, cols <= V * VW.
template <class P, int M, int V, int64_t LDB>
SLOTH_NOINLINE void tile(int64_t kc, const float* SLOTH_RESTRICT a, const float* SLOTH_RESTRICT b, float* SLOTH_RESTRICT c, int64_t ldc, int64_t cols,
                         int flags, float alpha, const float* bias) {
  vf acc[M][V];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) {
    SLOTH_UNROLL
    for (int j = 0; j < V; j++) acc[i][j] = vzero();
  }
  for (int64_t p = 0; p < kc; p++) {
    vf bv[V];
    SLOTH_UNROLL
    for (int j = 0; j < V; j++) bv[j] = vload(b + j * VW);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      const vf av = vset(a[i * SA]);
      SLOTH_UNROLL
      for (int j = 0; j < V; j++) acc[i][j] = P::madd(av, bv[j], acc[i][j]);
    }
    a += 1;
    b += LDB;
  }
  if (flags & TILE_SCALE) {
    const vf s = vset(alpha);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      SLOTH_UNROLL
      for (int j = 0; j < V; j++) acc[i][j] = vmul(acc[i][j], s);
    }
  }
  if (cols == V * VW) {
    if (flags & TILE_BIAS) {
      SLOTH_UNROLL
      for (int j = 0; j < V; j++) {
        const vf w = vload(bias + j * VW);
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) acc[i][j] = vadd(acc[i][j], w);
      }
    }
    if (flags & TILE_ADD) {
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        SLOTH_UNROLL
        for (int j = 0; j < V; j++) acc[i][j] = vadd(acc[i][j], vload(c + i * ldc + j * VW));
      }
    }
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      SLOTH_UNROLL
      for (int j = 0; j < V; j++) vstore(c + i * ldc + j * VW, acc[i][j]);
    }
    return;
  }
  SLOTH_UNROLL
  for (int j = 0; j < V; j++) {
    const int64_t left = cols - j * VW;
    const int64_t n = left < 0 ? 0 : left > VW ? VW : left;
    if (n == 0) continue;
    const vf w = (flags & TILE_BIAS) ? vloadn(bias + j * VW, n) : vzero();
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      vf v = acc[i][j];
      if (flags & TILE_BIAS) v = vadd(v, w);
      if (flags & TILE_ADD) v = vadd(v, vloadn(c + i * ldc + j * VW, n));
      vstoren(c + i * ldc + j * VW, n, v);
    }
  }
}

typedef void (*TileFn)(int64_t, const float*, const float*, float*, int64_t, int64_t, int, float, const float*);

// Tiles of fewer rows and vectors, [vectors - 1][rows - 1].
#define SLOTH_TILE_ROW(V, L) \
  { tile<P, 1, V, L>, tile<P, 2, V, L>, tile<P, 3, V, L>, tile<P, 4, V, L> SLOTH_TILE_MORE(V, L) }
#if defined(SLOTH_SIMD_AVX512)
#define SLOTH_TILE_MORE(V, L)                                                                                                                    \
  , tile<P, 5, V, L>, tile<P, 6, V, L>, tile<P, 7, V, L>, tile<P, 8, V, L>, tile<P, 9, V, L>, tile<P, 10, V, L>, tile<P, 11, V, L>, \
      tile<P, 12, V, L>, tile<P, 13, V, L>, tile<P, 14, V, L>
#elif defined(SLOTH_SIMD_AVX2)
#define SLOTH_TILE_MORE(V, L) , tile<P, 5, V, L>, tile<P, 6, V, L>
#elif defined(SLOTH_SIMD_NEON)
#define SLOTH_TILE_MORE(V, L) , tile<P, 5, V, L>, tile<P, 6, V, L>, tile<P, 7, V, L>, tile<P, 8, V, L>
#else
#define SLOTH_TILE_MORE(V, L)
#endif
template <int64_t LDB, class P = Words>
struct Tiles {
  SLOTH_INLINE TileFn get(int64_t rows, int64_t cols) {
    static const TileFn table[NV][MR] = {
        SLOTH_TILE_ROW(1, LDB),
        SLOTH_TILE_ROW(2, LDB),
#if defined(SLOTH_SIMD_NEON)
        SLOTH_TILE_ROW(3, LDB),
#endif
    };
    return table[(cols - 1) / VW][rows - 1];
  }
};

// Rows [0, rows) cut into strips of at most MR rows of nearly equal height: strip s begins at strip_begin(rows, strips, s).
SLOTH_INLINE int64_t strip_count(int64_t rows) { return (rows + MR - 1) / MR; }
SLOTH_INLINE int64_t strip_begin(int64_t rows, int64_t strips, int64_t s) { return rows * s / strips; }

// --- packing

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
      for (; k + 32 <= kc; k += 32, src += F::BYTES32) {
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
  alignas(64) float t[NC + NR + 32];
  const int64_t padded = (cols + NR - 1) / NR * NR;
  for (int64_t c = cols; c < padded; c++) t[c] = 0.0f;
  for (int64_t k = 0; k < kc; k++) {
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

// --- the product

struct Gemm {
  float* c;
  int64_t ldc, m, n;
  const float* a1;  // [m, k1], or [k1, m] when transA
  int64_t lda1, k1;
  int64_t transA;
  const void* b1;  // [n, k1] when rowsAreN, else [k1, n]
  int64_t format, rowBytes1;
  int64_t rowsAreN;
  const float* a2;  // [m, k2] or nullptr
  int64_t lda2, k2;
  const float* b2;  // f32, the orientation of b1
  int64_t ldb2;
  const float* bias;  // [n] or nullptr
  float alpha;
  int64_t accumulate;
};

// Length of the stretches that a contraction of k is cut into (all but the last), in elements.
template <class P = Words>
SLOTH_INLINE int64_t stretch_length(int64_t k) {
  const int64_t count = ceil_div(k, KC * P::DEEP);
  return count <= 1 ? max_i(k, 1) : ceil_div(ceil_div(k, count), 32) * 32;
}

template <class F, class P>
SLOTH_INLINE void pack_b(const Gemm& g, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
  const uint8_t* w = static_cast<const uint8_t*>(g.b1);
  const int64_t first = k0 < g.k1 ? min_i(kc, g.k1 - k0) : 0;
  if (first == kc) {
    if (g.rowsAreN) P::template transposed<F>(w, g.rowBytes1, n0, cols, k0, kc, out);
    else P::template straight<F>(w, g.rowBytes1, n0, cols, k0, kc, out);
    return;
  }
  // Only where the pairs are packed together: f32 words.
  if (first > 0) {
    if (g.rowsAreN) pack_transposed<F>(w, g.rowBytes1, n0, cols, k0, first, out, 0, kc);
    else pack_straight<F>(w, g.rowBytes1, n0, cols, k0, first, out, 0, kc);
  }
  const uint8_t* b2 = reinterpret_cast<const uint8_t*>(g.b2);
  const int64_t from = k0 + first - g.k1;
  if (g.rowsAreN) pack_transposed<FormatF32>(b2, g.ldb2 * 4, n0, cols, from, kc - first, out, first, kc);
  else pack_straight<FormatF32>(b2, g.ldb2 * 4, n0, cols, from, kc - first, out, first, kc);
}

template <class P = Words>
SLOTH_INLINE void pack_a(const Gemm& g, int64_t m0, int64_t rows, int64_t k0, int64_t kc, float* out) {
  const int64_t first = k0 < g.k1 ? min_i(kc, g.k1 - k0) : 0;
  if (first > 0) {
    if (g.transA) P::strip_across(g.a1 + m0, g.lda1, rows, k0, first, out);
    else P::strip(g.a1 + m0 * g.lda1, g.lda1, rows, k0, first, out);
  }
  if (first < kc) pack_rows(g.a2 + m0 * g.lda2, g.lda2, rows, k0 + first - g.k1, kc - first, out + first);
}

// Asks for the share `part` of `parts` of what pack_a will read for these rows, so that it is in L2 when its turn comes: the rows are too short and too many for
// the hardware to guess them (measured: 5 % of the products of a training step).
SLOTH_INLINE void fetch_a(const Gemm& g, int64_t m0, int64_t rows, int64_t k0, int64_t kc, int64_t part, int64_t parts) {
  const int64_t first = min_i(kc, g.k1 - k0);
  if (first <= 0) return;
  if (g.transA) {
    const float* from = g.a1 + k0 * g.lda1 + m0;
    for (int64_t k = first * part / parts; k < first * (part + 1) / parts; k++) {
      SLOTH_FETCH(from + k * g.lda1);
      SLOTH_FETCH(from + k * g.lda1 + rows - 1);
    }
    return;
  }
  for (int64_t i = rows * part / parts; i < rows * (part + 1) / parts; i++) {
    const float* from = g.a1 + (m0 + i) * g.lda1 + k0;
    for (int64_t k = 0; k < first; k += 16) SLOTH_FETCH(from + k);
  }
}

// Scratch of a task.
struct GemmScratch {
  float* strip;   // [MR, SA]
  float* panels;  // [words][NC + NR]
  float* strip2;  // the second pair, where it does not lie behind the first: [MR, SA]
  float* panels2; // [k2][NC + NR]
};
template <class P>
static int64_t gemm_layout(GemmScratch* s, char* at, int64_t k2) {
  int64_t used = 0;
  auto take = [&](int64_t floats) {
    float* p = reinterpret_cast<float*>(at + used);
    used += (floats * 4 + 63) / 64 * 64 + 64;
    return p;
  };
  const bool apart = !P::TOGETHER && k2 > 0;
  s->strip = take(MR * SA);
  s->panels = take((NC + NR) * KC);
  s->strip2 = take(apart ? MR * SA : 0);
  s->panels2 = take(apart ? (NC + NR) * k2 : 0);
  return used;
}

// One task: rows m0 .. m1, columns n0 .. n1 (n0 a multiple of the panel and of the block).
template <class F, class P>
SLOTH_NOINLINE void gemm_task(const Gemm& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const GemmScratch& x) {
  const int64_t total = P::TOGETHER ? g.k1 + g.k2 : g.k1;
  const int64_t step = stretch_length<P>(total);
  const int64_t strips = strip_count(m1 - m0);
  for (int64_t k0 = 0; k0 < total; k0 += step) {
    const int64_t kc = min_i(step, total - k0), words = P::count(kc);
    pack_b<F, P>(g, n0, n1 - n0, k0, kc, x.panels);
    // The second pair of rounded operands stays f32, and is added while c is in the cache.
    const bool pair = !P::TOGETHER && k0 + kc == total && g.k2 > 0;
    if (pair) {
      const uint8_t* b2 = reinterpret_cast<const uint8_t*>(g.b2);
      if (g.rowsAreN) pack_transposed<FormatF32>(b2, g.ldb2 * 4, n0, n1 - n0, 0, g.k2, x.panels2, 0, g.k2);
      else pack_straight<FormatF32>(b2, g.ldb2 * 4, n0, n1 - n0, 0, g.k2, x.panels2, 0, g.k2);
    }
    int flags = 0;
    if (k0 > 0 || g.accumulate) flags |= TILE_ADD;
    if (g.alpha != 1.0f) flags |= TILE_SCALE;
    if (k0 == 0 && g.bias) flags |= TILE_BIAS;
    for (int64_t s = 0; s < strips; s++) {
      const int64_t r0 = m0 + strip_begin(m1 - m0, strips, s);
      const int64_t rows = m0 + strip_begin(m1 - m0, strips, s + 1) - r0;
      pack_a<P>(g, r0, rows, k0, kc, x.strip);
      if (pair) pack_rows(g.a2 + r0 * g.lda2, g.lda2, rows, 0, g.k2, x.strip2);
      const int64_t next = r0 + rows;
      const int64_t nextRows = s + 1 < strips ? m0 + strip_begin(m1 - m0, strips, s + 2) - next : 0;
      for (int64_t c = n0; c < n1; c += NR) {
        const int64_t cols = min_i(NR, n1 - c);
        float* out = g.c + r0 * g.ldc + c;
        // Lines of 16 floats: the tile takes longer than memory.
        for (int64_t i = 0; i < rows; i++) {
          for (int64_t j = 0; j < cols; j += 16) SLOTH_FETCH_WRITE(out + i * g.ldc + j);
        }
        if (nextRows > 0) fetch_a(g, next, nextRows, k0, kc, (c - n0) / NR, ceil_div(n1 - n0, NR));
        Tiles<NR, P>::get(rows, cols)(words, x.strip, x.panels + (c - n0) * words, out, g.ldc, cols, flags, g.alpha, g.bias ? g.bias + c : nullptr);
        if (pair) Tiles<NR>::get(rows, cols)(g.k2, x.strip2, x.panels2 + (c - n0) * g.k2, out, g.ldc, cols, (flags & TILE_SCALE) | TILE_ADD, g.alpha, nullptr);
      }
    }
  }
}

// How c is cut among `threads`: rows into `down` parts and panels into `across`. Any cut gives the same result; this picks the one that a simple model of the
// work (products, packing of both operands, the last wave of tasks) finds cheapest.
struct Cut {
  int64_t down, across;
};
static Cut gemm_cut(int64_t m, int64_t n, int64_t unit, int threads) {
  const int64_t units = ceil_div(n, unit);
  const int64_t widest = max_i(1, NC / unit);
  const int64_t strips = strip_count(m);
  Cut best = {1, ceil_div(units, widest)};
  double least = 1e300;
  for (int64_t down = 1; down <= strips && down <= 4 * threads; down++) {
    const int64_t rows = ceil_div(strips, down) * MR;
    for (int64_t wide = widest; wide >= 1; wide--) {
      const int64_t across = ceil_div(units, wide);
      const int64_t tasks = across * down;
      const double cols = static_cast<double>(ceil_div(units, across) * unit);
      const double one = cols * (static_cast<double>(rows) / 16.0 + 0.7) + static_cast<double>(rows) * 0.35 + 8.0;
      const double waves = threads == 1 ? static_cast<double>(tasks) : static_cast<double>(ceil_div(tasks, threads)) + 0.1;
      if (one * waves < least) {
        least = one * waves;
        best = {down, across};
      }
    }
  }
  return best;
}

template <class P = Words>
static void gemm_run(Pool* pool, const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k1 + g.k2 <= 0) {
    for (int64_t i = 0; i < g.m; i++) {
      for (int64_t j = 0; j < g.n; j++) {
        float* c = g.c + i * g.ldc + j;
        *c = (g.accumulate ? *c : 0.0f) + (g.bias ? g.bias[j] : 0.0f);
      }
    }
    return;
  }
  // Columns are dealt in units that are whole panels and, where W's rows run along n, whole blocks.
  const int64_t block = format_layout(g.format).block;
  int64_t unit = NR;
  if (!g.rowsAreN) {
    while (unit % block != 0) unit += NR;
  }
  const Cut cut = gemm_cut(g.m, g.n, unit, pool_threads(pool));
  const int64_t units = ceil_div(g.n, unit);
  const int64_t strips = strip_count(g.m);
  pool_for(pool, static_cast<int>(cut.down * cut.across), [&](int task, int worker) {
    const int64_t i = task % cut.down, j = task / cut.down;
    const int64_t m0 = min_i(g.m, strips * i / cut.down * MR), m1 = min_i(g.m, strips * (i + 1) / cut.down * MR);
    const int64_t n0 = units * j / cut.across * unit, n1 = min_i(g.n, units * (j + 1) / cut.across * unit);
    GemmScratch x;
    const int64_t bytes = gemm_layout<P>(&x, nullptr, g.k2);
    gemm_layout<P>(&x, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(bytes))), g.k2);
    SLOTH_WITH_FORMAT(g.format, F, gemm_task<F, P>(g, m0, m1, n0, n1, x))
  });
}

// --- aᵀ · b with a narrow side

// The gradients of a LoRA's matrices, dtᵀ · x and dyᵀ · t, sum over many rows of a wide operand X [k, width] and a narrow one T [k, narrow]. Packing X, as the product
// above does, would cost about as much as multiplying it: here X is read where it lies, in blocks of rows few enough for the address cache, and every block
// is summed for itself before it is added, whatever the number of threads.
static const int64_t NARROW = 64;
static const int64_t NARROW_ROWS = 64;
#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_NEON)
static const int NARROW_J = 8;
static const int NARROW_V = 3;
#else
static const int NARROW_J = 4;
static const int NARROW_V = 2;
#endif
// Columns of X in a group, and most of them in a task.
static const int64_t NARROW_GROUP = NARROW_V * VW;
static const int64_t NARROW_WIDTH = 4 * NARROW_GROUP;

// sums[j][cols] (+)= Σ_p t[p][j] · x[p][cols]; sums has rows NARROW_WIDTH apart. `next` is where the group that follows lies; `kept` gets x side by side, for the
// tiles that use it again: rows of X may be a power of two apart and push each other out of L1.
template <int J, bool FULL>
SLOTH_NOINLINE void narrow_tile(int64_t rows, const float* SLOTH_RESTRICT t, int64_t ldt, const float* SLOTH_RESTRICT x, int64_t ldx, int64_t cols,
                                const float* next, float* SLOTH_RESTRICT kept, float* SLOTH_RESTRICT sums, bool first) {
  vf acc[J][NARROW_V];
  SLOTH_UNROLL
  for (int i = 0; i < J; i++) {
    SLOTH_UNROLL
    for (int v = 0; v < NARROW_V; v++) acc[i][v] = vzero();
  }
  for (int64_t p = 0; p < rows; p++) {
    vf xv[NARROW_V];
    SLOTH_UNROLL
    for (int v = 0; v < NARROW_V; v++) {
      if (FULL) xv[v] = vload(x + v * VW);
      else xv[v] = vloadn(x + v * VW, max_i(0, min_i(VW, cols - v * VW)));
    }
    if (kept) {
      SLOTH_UNROLL
      for (int v = 0; v < NARROW_V; v++) vstore(kept + v * VW, xv[v]);
      kept += NARROW_GROUP;
    }
    if (next) {
      for (int64_t c = 0; c < NARROW_GROUP; c += 16) SLOTH_FETCH(next + c);
      next += ldx;
    }
    SLOTH_UNROLL
    for (int i = 0; i < J; i++) {
      const vf tv = vset(t[i]);
      SLOTH_UNROLL
      for (int v = 0; v < NARROW_V; v++) acc[i][v] = vfma(tv, xv[v], acc[i][v]);
    }
    x += ldx;
    t += ldt;
  }
  SLOTH_UNROLL
  for (int i = 0; i < J; i++) {
    SLOTH_UNROLL
    for (int v = 0; v < NARROW_V; v++) {
      float* s = sums + i * NARROW_WIDTH + v * VW;
      vstore(s, first ? acc[i][v] : vadd(vload(s), acc[i][v]));
    }
  }
}

template <bool FULL>
SLOTH_INLINE void narrow_tiles(int64_t left, int64_t rows, const float* t, int64_t ldt, const float* x, int64_t ldx, int64_t cols, const float* next,
                               float* kept, float* sums, bool first) {
  switch (left) {
    case 1: narrow_tile<1, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
    case 2: narrow_tile<2, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
    case 3: narrow_tile<3, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_NEON)
    case 4: narrow_tile<4, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
    case 5: narrow_tile<5, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
    case 6: narrow_tile<6, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
    case 7: narrow_tile<7, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
#endif
    default: narrow_tile<NARROW_J, FULL>(rows, t, ldt, x, ldx, cols, next, kept, sums, first); break;
  }
}

// The result is [narrow, width], or [width, narrow] when `across`.
static void narrow_run(Pool* pool, float* c, const float* t, int64_t narrow, const float* x, int64_t width, int64_t k, float alpha, int64_t accumulate,
                       bool across) {
  const int64_t groups = ceil_div(width, NARROW_GROUP);
  const int64_t tasks = max_i(ceil_div(groups, 4), min_i(groups, 2 * pool_threads(pool)));
  pool_for(pool, static_cast<int>(tasks), [&](int task, int worker) {
    const int64_t c0 = groups * task / tasks * NARROW_GROUP, c1 = min_i(width, groups * (task + 1) / tasks * NARROW_GROUP);
    float* kept = static_cast<float*>(pool_scratch(pool, worker, static_cast<size_t>(NARROW_ROWS * NARROW_GROUP + narrow * NARROW_WIDTH) * 4));
    float* sums = kept + NARROW_ROWS * NARROW_GROUP;
    for (int64_t p = 0; p < k; p += NARROW_ROWS) {
      const int64_t rows = min_i(NARROW_ROWS, k - p);
      for (int64_t g = c0; g < c1; g += NARROW_GROUP) {
        const int64_t cols = min_i(NARROW_GROUP, c1 - g);
        // Whole groups only: nothing outside X is asked for.
        const float* next = nullptr;
        if (g + 2 * NARROW_GROUP <= c1) next = x + p * width + g + NARROW_GROUP;
        else if (p + NARROW_ROWS + rows <= k && c0 + NARROW_GROUP <= c1) next = x + (p + NARROW_ROWS) * width + c0;
        for (int64_t j = 0; j < narrow; j += NARROW_J) {
          const float* tp = t + p * narrow + j;
          float* s = sums + j * NARROW_WIDTH + g - c0;
          const int64_t left = min_i(NARROW_J, narrow - j);
          float* keep = j == 0 && narrow > NARROW_J ? kept : nullptr;
          if (j > 0) narrow_tiles<true>(left, rows, tp, narrow, kept, NARROW_GROUP, cols, nullptr, nullptr, s, p == 0);
          else if (cols == NARROW_GROUP) narrow_tiles<true>(left, rows, tp, narrow, x + p * width + g, width, cols, next, keep, s, p == 0);
          else narrow_tiles<false>(left, rows, tp, narrow, x + p * width + g, width, cols, next, keep, s, p == 0);
        }
      }
    }
    for (int64_t i = 0; i < (across ? c1 - c0 : narrow); i++) {
      float* out = across ? c + (c0 + i) * narrow : c + i * width + c0;
      const float* s = across ? sums + i : sums + i * NARROW_WIDTH;
      const int64_t n = across ? narrow : c1 - c0, step = across ? NARROW_WIDTH : 1;
      if (accumulate) {
        for (int64_t j = 0; j < n; j++) out[j] += alpha * s[j * step];
      } else {
        for (int64_t j = 0; j < n; j++) out[j] = alpha * s[j * step];
      }
    }
  });
}

// `stored`: b1 is the weight of a layer (the precision of the products of one can be chosen).
#if defined(SLOTH_PRECISION_BF16)
#include "gemm_bf16.h"
// The words of the products that the precision of this unit rounds.
typedef BfWords Product;
#else
typedef Words Product;
static void product_run(Pool* pool, const Gemm& g, bool) { gemm_run(pool, g); }
#endif

// --- kernels

static void matmul(Pool* pool, float* c, const float* a, const float* b, int64_t m, int64_t n, int64_t k, int64_t transA, int64_t transB, double alpha,
                   int64_t accumulate) {
  if (transA && !transB && k > 0 && m > 0 && n > 0 && min_i(m, n) <= NARROW) {
    const bool across = n < m;
    narrow_run(pool, c, across ? b : a, min_i(m, n), across ? a : b, across ? m : n, k, static_cast<float>(alpha), accumulate, across);
    return;
  }
  Gemm g = {};
  g.c = c;
  g.ldc = n;
  g.m = m;
  g.n = n;
  g.a1 = a;
  g.lda1 = transA ? m : k;
  g.k1 = k;
  g.transA = transA;
  g.b1 = b;
  g.format = FORMAT_F32;
  g.rowBytes1 = (transB ? k : n) * 4;
  g.rowsAreN = transB;
  g.alpha = static_cast<float>(alpha);
  g.accumulate = accumulate;
  product_run(pool, g, false);
}
