// The register tile of the matrix product. Included inside an ISA namespace, by gemm.h.
//
// What lies in panels and strips are words of 32 bits: an f32 (Words, gemm_pack.h), or two bf16 that are neighbours of the contraction (BfWords, gemm_bf16.h).

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
// Most columns that are packed at once: NC of a product's task, or those of a head.
static const int64_t PACK_COLUMNS = 256;
static_assert(NC <= PACK_COLUMNS, "");
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
