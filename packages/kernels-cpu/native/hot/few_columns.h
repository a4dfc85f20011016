// Products of 9 to 32 rows with stored weights on AVX-512, column by column, with the bits of the general product.
// Included inside an ISA namespace, after few_rows.h.

#if defined(SLOTH_SIMD_AVX512)
// From how many rows on the few-row path of formats with blocks multiplies column by column, as the general product does: every decoded vector of 16 weights goes from its
// register into the sums of all rows of a strip. The sums are those of the general product, bit for bit.
static const int64_t COLUMN_ROWS = 9;
static const int COLUMN_STRIP = 16;  // most rows of a strip: its sums and what is being decoded fill the registers
static const int64_t COLUMN_STRIPS = SKINNY / COLUMN_STRIP;
static const int64_t COLUMN_WIDE = 8;  // most vectors of columns in a task

// sums[M][VW] = a[M, 32 * blocks] * the 16 stored rows at w. What lies at `ahead` will be wanted soon, as many bytes as are read here.
template <class F, int M>
SLOTH_NOINLINE void column_tile(int64_t blocks, const float* SLOTH_RESTRICT a, const uint8_t* SLOTH_RESTRICT w, int64_t rowBytes, const uint8_t* ahead,
                                float* SLOTH_RESTRICT sums) {
  vf acc[M];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) acc[i] = vzero();
  __m512i scales[4];
  for (int64_t b = 0; b < blocks; b++, w += F::BYTES32, ahead += 16 * F::BYTES32) {
    if (b % 4 == 0) block_scales_of<F>(w, rowBytes, blocks - b, scales);
    Columns<F> c;
    Columns<F>::begin(c, w, rowBytes, scales[b % 4]);
    for (int64_t h = 0; h < 2; h++, a += 16) {
      // A few at a time: asked for all at once they would keep other loads waiting.
      for (int64_t i = h * 8 * F::BYTES32; i < (h + 1) * 8 * F::BYTES32; i += 64) SLOTH_PREFETCH(ahead + i);
      Columns<F>::half(c, w, rowBytes, h);
      SLOTH_UNROLL
      for (int k = 0; k < 16; k++) {
        const vf v = Columns<F>::column(c, k / 4, k % 4);
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) acc[i] = vfma(vset(a[i * SA + k]), v, acc[i]);
      }
    }
  }
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) vstore(sums + i * VW, acc[i]);
}
// sums[M][VW] (+)= a[M, kc] * b[kc, VW] of values that are decoded already.
template <int M>
SLOTH_NOINLINE void column_tile_plain(int64_t kc, const float* SLOTH_RESTRICT a, const float* SLOTH_RESTRICT b, float* SLOTH_RESTRICT sums, bool first) {
  vf acc[M];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) acc[i] = first ? vzero() : vload(sums + i * VW);
  for (int64_t k = 0; k < kc; k++, a++, b += VW) {
    const vf v = vload(b);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) acc[i] = vfma(vset(a[i * SA]), v, acc[i]);
  }
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) vstore(sums + i * VW, acc[i]);
}
// For strips of 8 to 16 rows: others are not made.
template <class F>
SLOTH_INLINE void column_product(int64_t rows, int64_t blocks, const float* a, const uint8_t* w, int64_t rowBytes, const uint8_t* ahead, float* sums) {
  switch (rows) {
    case 8: column_tile<F, 8>(blocks, a, w, rowBytes, ahead, sums); break;
    case 9: column_tile<F, 9>(blocks, a, w, rowBytes, ahead, sums); break;
    case 10: column_tile<F, 10>(blocks, a, w, rowBytes, ahead, sums); break;
    case 11: column_tile<F, 11>(blocks, a, w, rowBytes, ahead, sums); break;
    case 12: column_tile<F, 12>(blocks, a, w, rowBytes, ahead, sums); break;
    case 13: column_tile<F, 13>(blocks, a, w, rowBytes, ahead, sums); break;
    case 14: column_tile<F, 14>(blocks, a, w, rowBytes, ahead, sums); break;
    case 15: column_tile<F, 15>(blocks, a, w, rowBytes, ahead, sums); break;
    default: column_tile<F, 16>(blocks, a, w, rowBytes, ahead, sums); break;
  }
}
SLOTH_INLINE void column_product_plain(int64_t rows, int64_t kc, const float* a, const float* b, float* sums, bool first) {
  switch (rows) {
    case 8: column_tile_plain<8>(kc, a, b, sums, first); break;
    case 9: column_tile_plain<9>(kc, a, b, sums, first); break;
    case 10: column_tile_plain<10>(kc, a, b, sums, first); break;
    case 11: column_tile_plain<11>(kc, a, b, sums, first); break;
    case 12: column_tile_plain<12>(kc, a, b, sums, first); break;
    case 13: column_tile_plain<13>(kc, a, b, sums, first); break;
    case 14: column_tile_plain<14>(kc, a, b, sums, first); break;
    case 15: column_tile_plain<15>(kc, a, b, sums, first); break;
    default: column_tile_plain<16>(kc, a, b, sums, first); break;
  }
}

// Columns n0 .. n0 + n (at most VW) of f32 rows [_, ld], elements k0 .. k0 + kc, as [kc][VW].
SLOTH_NOINLINE void column_values(const float* b, int64_t ld, int64_t n0, int64_t n, int64_t k0, int64_t kc, float* out) {
  for (int64_t k = 0; k < kc; k += VW) {
    vf v[VW];
    SLOTH_UNROLL
    for (int r = 0; r < VW; r++) v[r] = r < n ? vloadn(b + (n0 + r) * ld + k0 + k, min_i(VW, kc - k)) : vzero();
    vtranspose(v);
    SLOTH_UNROLL
    for (int r = 0; r < VW; r++) vstore(out + (k + r) * VW, v[r]);
  }
}

// All rows of x | t, stretch by stretch, in strips as the tile wants them: strip s of the stretch that begins at k0 lies at column_strip(k0, step, s).
SLOTH_INLINE int64_t column_strips(int64_t rows) { return ceil_div(rows, COLUMN_STRIP); }
SLOTH_INLINE int64_t column_strip(int64_t k0, int64_t step, int64_t s) { return (k0 / step * COLUMN_STRIPS + s) * COLUMN_STRIP * SA; }
static void column_pack(const Gemm& g, float* out) {
  const int64_t total = g.k1 + g.k2, step = stretch_length(total), strips = column_strips(g.m);
  for (int64_t k0 = 0; k0 < total; k0 += step) {
    for (int64_t s = 0; s < strips; s++) {
      const int64_t from = strip_begin(g.m, strips, s);
      pack_a(g, from, strip_begin(g.m, strips, s + 1) - from, k0, min_i(step, total - k0), out + column_strip(k0, step, s));
    }
  }
}

// Columns n0 .. n1 of c for the strips s0 .. s1. All stretches of a vector of columns follow one another, so that the stored rows are read as they lie. `F` is FormatF32 or one with columns.
template <class F>
SLOTH_NOINLINE void column_task(const Gemm& g, const float* packed, int64_t s0, int64_t s1, int64_t n0, int64_t n1) {
  const bool blocks = Columns<F>::SCALED;
  const int64_t BLOCKS = KC / 32;
  alignas(64) float values[(KC + VW) * VW];  // of the low-rank part, or all of them
  alignas(64) float sums[COLUMN_STRIP * VW];
  alignas(64) float totals[SKINNY * VW];     // of the stretches before: rows of c may push each other out of L1
  alignas(64) uint8_t rest[blocks ? VW * BLOCKS * F::BYTES32 + 16 : 1];  // the last rows of the weight, where they are no whole vector
  const int64_t total = g.k1 + g.k2, step = stretch_length(total), strips = column_strips(g.m);
  const auto stored = [&](int64_t column, int64_t k) { return static_cast<const uint8_t*>(g.b1) + column * g.rowBytes1 + format_offset<F>(k); };
  const auto stored_of = [&](int64_t k0) { return max_i(0, min_i(min_i(step, total - k0), g.k1 - k0)); };
  const auto place = [&](int64_t k0, int64_t s, int64_t c) {
    const int64_t kc = min_i(step, total - k0), first = stored_of(k0), n = min_i(VW, n1 - c);
    const int64_t r0 = strip_begin(g.m, strips, s), rows = strip_begin(g.m, strips, s + 1) - r0;
    const float* x = packed + column_strip(k0, step, s);
    if constexpr (blocks) {
      if (first > 0 && n == VW) {
        // The rows of the next vector lie behind those of this one.
        const uint8_t* ahead = stored(c + VW, 0) + VW * format_offset<F>(k0);
        column_product<F>(rows, first / 32, x, stored(c, k0), g.rowBytes1, ahead, sums);
      } else if (first > 0) {
        const int64_t rowBytes = format_offset<F>(first);
        memset(rest, 0, sizeof(rest));
        for (int64_t r = 0; r < n; r++) memcpy(rest + r * rowBytes, stored(c + r, k0), static_cast<size_t>(rowBytes));
        column_product<F>(rows, first / 32, x, rest, rowBytes, rest, sums);
      }
    } else if (first > 0) {
      column_values(static_cast<const float*>(g.b1), g.k1, c, n, k0, first, values);
      column_product_plain(rows, first, x, values, sums, true);
    }
    if (first < kc) {
      column_values(g.b2, g.ldb2, c, n, k0 + first - g.k1, kc - first, values);
      column_product_plain(rows, kc - first, x + first, values, sums, first == 0);
    }
    // As `tile` does behind its sums.
    const bool last = k0 + kc == total;
    const vf bias = k0 == 0 && g.bias ? vloadn(g.bias + c, n) : vzero();
    for (int64_t i = 0; i < rows; i++) {
      float* to = g.c + (r0 + i) * g.ldc + c;
      float* t = totals + (r0 + i) * VW;
      vf v = vload(sums + i * VW);
      if (g.alpha != 1.0f) v = vmul(v, vset(g.alpha));
      if (k0 == 0 && g.bias) v = vadd(v, bias);
      if (k0 > 0) v = vadd(v, vload(t));
      else if (g.accumulate) v = vadd(v, vloadn(to, n));
      if (last) vstoren(to, n, v);
      else vstore(t, v);
    }
  };
  for (int64_t c = n0; c < n1; c += VW) {
    for (int64_t k0 = 0; k0 < total; k0 += step) {
      for (int64_t s = s0; s < s1; s++) place(k0, s, c);
    }
  }
}

static void column_group(Pool* pool, const GroupMember* members, int count, const float* x, int64_t m, int64_t k) {
  Gemm list[GROUP_MOST];
  int64_t offset[GROUP_MOST], rank[GROUP_MOST + 1], floats = 0, low = 0;
  rank[0] = 0;
  const int64_t strips = column_strips(m);
  for (int i = 0; i < count; i++) {
    const GroupMember& e = members[i];
    Gemm& g = list[i] = {};
    g.c = e.y;
    g.ldc = e.n;
    g.m = m;
    g.n = e.n;
    g.a1 = x;
    g.lda1 = k;
    g.k1 = k;
    g.b1 = e.w;
    g.format = e.format;
    g.rowBytes1 = format_row_bytes(e.format, k);
    g.rowsAreN = 1;
    g.a2 = e.t;
    g.lda2 = e.r;
    g.k2 = e.r;
    g.b2 = e.b;
    g.ldb2 = e.r;
    g.bias = e.bias;
    g.alpha = 1.0f;
    g.accumulate = e.accumulate;
    const int64_t stretches = ceil_div(k + e.r, stretch_length(k + e.r));
    offset[i] = floats;
    floats += stretches * COLUMN_STRIPS * COLUMN_STRIP * SA;
    const bool made = e.r > 0 && !e.t;
    low += made ? m * e.r : 0;
    rank[i + 1] = rank[i] + (made ? ceil_div(e.r, VW) * strips : 0);
  }
  const int64_t stretches = ceil_div(k, stretch_length(k)) * COLUMN_STRIPS * COLUMN_STRIP * SA;
  float* packed = static_cast<float*>(pool_shared(pool, SLOT_SKINNY, static_cast<size_t>(floats + low + (low > 0 ? stretches : 0) + 64) * 4));
  float* t = packed + floats;
  float* alone = t + (low + 15) / 16 * 16;  // x without a low-rank part
  if (low > 0) {
    Gemm down[GROUP_MOST];
    for (int i = 0; i < count; i++) {
      const GroupMember& e = members[i];
      if (e.r <= 0 || e.t) continue;
      Gemm& g = down[i] = list[i];
      g.c = t;
      g.ldc = g.n = e.r;
      g.b1 = e.a;
      g.format = FORMAT_F32;
      g.rowBytes1 = k * 4;
      g.k2 = 0;
      g.bias = nullptr;
      g.alpha = e.scale;
      g.accumulate = 0;
      list[i].a2 = t;
      t += m * e.r;
    }
    for (int i = 0; i < count; i++) {
      if (rank[i + 1] == rank[i]) continue;
      column_pack(down[i], alone);  // of x alone: the same for all members
      break;
    }
    pool_for(pool, static_cast<int>(rank[count]), [&](int task, int) {
      int i = 0;
      while (task >= rank[i + 1]) i++;
      const int64_t strip = (task - rank[i]) % strips, n0 = (task - rank[i]) / strips * VW;
      column_task<FormatF32>(down[i], alone, strip, strip + 1, n0, min_i(down[i].n, n0 + VW));
    });
  }
  // Tasks of a few groups of columns: the shorter they are the closer all workers end together.
  int64_t first[GROUP_MOST + 1], groups = 0;
  for (int i = 0; i < count; i++) groups += ceil_div(members[i].n, VW);
  const int64_t wide = max_i(1, min_i(COLUMN_WIDE, groups / (32 * pool_threads(pool)))) * VW;
  first[0] = 0;
  for (int i = 0; i < count; i++) {
    column_pack(list[i], packed + offset[i]);
    first[i + 1] = first[i] + ceil_div(members[i].n, wide);
  }
  pool_for(pool, static_cast<int>(first[count]), [&](int task, int) {
    int i = 0;
    while (task >= first[i + 1]) i++;
    const Gemm& g = list[i];
    const int64_t n0 = (task - first[i]) * wide, n1 = min_i(g.n, n0 + wide);
    SLOTH_WITH_FORMAT(g.format, F, column_task<F>(g, packed + offset[i], 0, strips, n0, n1))
  });
}
#endif
