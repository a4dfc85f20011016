// aᵀ · b with a narrow side. Included inside an ISA namespace, by gemm.h.
//
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
