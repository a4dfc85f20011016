// Products of few rows with stored weights, summed along the contraction: every weight block is read once for all rows.
// Included inside an ISA namespace, after gemm.h.

// Rows up to which the few-row path is used.
static const int64_t SKINNY = 32;
// Rows of x that one pass over decoded weights serves.
static const int SKINNY_TILE = 8;
// Outputs that are finished together.
static const int SKINNY_BLOCK = 16;
// Weight rows in flight for M rows of x. AVX-512 has registers for the decoded weights of several rows, so that x is loaded once for all of them.
template <int M>
struct RowsInFlight {
#if defined(SLOTH_SIMD_AVX512)
  static const int R = M <= 4 ? 4 : 2;
#elif defined(SLOTH_SIMD_NEON)
  static const int R = M <= 4 ? 4 : 2;
#else
  static const int R = M <= 4 ? 2 : 1;
#endif
};

// out[i] = sum over the lanes of v[i].
template <int COUNT>
SLOTH_INLINE void vsum_each(const vf* v, float* out) {
#if defined(SLOTH_SIMD_AVX512)
  if (COUNT > 16) {
    vsum_each<(COUNT > 16 ? 16 : 1)>(v, out);
    vsum_each<(COUNT > 16 ? COUNT - 16 : 1)>(v + 16, out + 16);
    return;
  }
  vf t[16];
  SLOTH_UNROLL
  for (int i = 0; i < 16; i += 2) {
    // Past COUNT lie copies, so that no operand is undefined; equal work is removed by the compiler.
    const vf a = v[i < COUNT ? i : 0], b = v[i + 1 < COUNT ? i + 1 : 0];
    t[i / 2] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  SLOTH_UNROLL
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
    t[8 + i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  const vf p = _mm512_add_ps(_mm512_shuffle_f32x4(t[8], t[9], 0x88), _mm512_shuffle_f32x4(t[8], t[9], 0xdd));
  const vf q = _mm512_add_ps(_mm512_shuffle_f32x4(t[10], t[11], 0x88), _mm512_shuffle_f32x4(t[10], t[11], 0xdd));
  const vf s = _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
  if (COUNT >= 16) vstore(out, s);
  else vstoren(out, COUNT, s);
#elif defined(SLOTH_SIMD_AVX2)
  SLOTH_UNROLL
  for (int i = 0; i < COUNT; i += 4) {
    const vf a = v[i], b = v[i + 1 < COUNT ? i + 1 : i], c = v[i + 2 < COUNT ? i + 2 : i], d = v[i + 3 < COUNT ? i + 3 : i];
    const __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    const __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    if (i + 4 <= COUNT) {
      _mm_storeu_ps(out + i, s);
    } else {
      float r[4];
      _mm_storeu_ps(r, s);
      for (int j = i; j < COUNT; j++) out[j] = r[j - i];
    }
  }
#else
  SLOTH_UNROLL
  for (int i = 0; i < COUNT; i++) out[i] = vsum(v[i]);
#endif
}

// For up to DOT_ROWS rows of x and formats with DOT_SCALES, a block of 32 values of x is kept as: the 16 that meet the low halves in the order of dot_lane, the 16
// that meet the high ones, the lane-wise sum of both times -(16 + DOT_ZERO), and (0, sum of all, 0, 0).
static const int DOT_ROWS = 1;
static const int64_t DOT_FLOATS = 64;

struct Skinny {
  float* y;
  int64_t ldy;
  const float* x;  // [m, ldx], rows zero-filled to whole blocks of 32
  int64_t m, ldx;
  const uint8_t* w;
  int64_t rowBytes;
  const float* bias;
  const float* t;  // [m, ldt], zero-filled to whole vectors, or nullptr
  int64_t ldt;
  const float* b;  // [n, r]
  int64_t r;
  int64_t k;
  int64_t accumulate;
  const float* dots;  // AVX-512, few rows: x block by block as dot_values wants it
  int64_t ldd;
};

// acc[i * R + r] = lane-wise sums of x[i] · W[n + r] over the stretch k0 .. k0+kc of the contraction; `last` adds the low-rank part.
template <class F, int M, int R>
SLOTH_INLINE void skinny_tile(const Skinny& s, const float* x, const float* t, int64_t n, int64_t k0, int64_t kc, bool last, vf* acc) {
  SLOTH_UNROLL
  for (int i = 0; i < M * R; i++) acc[i] = vzero();
  const uint8_t* p = s.w + n * s.rowBytes + format_offset<F>(k0);
  // The R rows lie behind one another: what comes next is fetched in the order of memory, a few KB ahead.
  const uint8_t* ahead = p + 4096;
  const float* xp = x + k0;
  int64_t k = 0;
#if defined(SLOTH_SIMD_AVX512)
  if constexpr (M <= DOT_ROWS && F::DOT_SCALES > 0) {
    __m128 low[M * R];
    alignas(16) float scales[R][4];
    SLOTH_UNROLL
    for (int i = 0; i < M * R; i++) low[i] = _mm_setzero_ps();
    const float* dots = s.dots + k0 / 32 * DOT_FLOATS;
    for (; k < kc; k += 32) {
      SLOTH_UNROLL
      for (int64_t b = 0; b < R * F::BYTES32; b += 64) SLOTH_PREFETCH(ahead + b);
      ahead += R * F::BYTES32;
      vf x[M][3];
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        SLOTH_UNROLL
        for (int j = 0; j < 3; j++) {
          x[i][j] = vload(dots + i * s.ldd + j * VW);
          __asm__("" : "+v"(x[i][j]));  // kept in a register: loads are what limits this loop
        }
      }
      SLOTH_UNROLL
      for (int r = 0; r < R; r++) {
        const __m128 d = block_scales(p + r * s.rowBytes);
        // Through memory, from where a broadcast costs no shuffle; the statement keeps the compiler from seeing through it.
        _mm_store_ss(scales[r], d);
        __asm__("" : "+m"(scales[r][0]));
        vf lo, hi;
        dot_values(p + r * s.rowBytes + 2 * F::DOT_SCALES, &lo, &hi);
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) {
          acc[i * R + r] = vfma(vfma(hi, x[i][1], vfma(lo, x[i][0], x[i][2])), vset(scales[r][0]), acc[i * R + r]);
          if (F::DOT_SCALES == 2) low[i * R + r] = _mm_fmadd_ps(d, _mm_load_ps(dots + i * s.ldd + 48), low[i * R + r]);  // lane 1: m times the sum of x
        }
      }
      p += F::BYTES32;
      dots += DOT_FLOATS;
    }
    if (F::DOT_SCALES == 2) {
      SLOTH_UNROLL
      for (int i = 0; i < M * R; i++) acc[i] = vadd(acc[i], _mm512_maskz_mov_ps(2, _mm512_castps128_ps512(low[i])));
    }
  }
#endif
  for (; k + 32 <= kc; k += 32) {
    SLOTH_UNROLL
    for (int64_t b = 0; b < R * F::BYTES32; b += 64) SLOTH_PREFETCH(ahead + b);
    ahead += R * F::BYTES32;
#if defined(SLOTH_SIMD_AVX512)
    vf w[R][V32];
    SLOTH_UNROLL
    for (int r = 0; r < R; r++) F::decode32(p + r * s.rowBytes, w[r]);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      SLOTH_UNROLL
      for (int j = 0; j < V32; j++) {
        const vf xv = vload(xp + i * s.ldx + j * VW);
        SLOTH_UNROLL
        for (int r = 0; r < R; r++) acc[i * R + r] = vfma(xv, w[r][j], acc[i * R + r]);
      }
    }
#else
    SLOTH_UNROLL
    for (int r = 0; r < R; r++) {
      vf w[V32];
      F::decode32(p + r * s.rowBytes, w);
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        SLOTH_UNROLL
        for (int j = 0; j < V32; j++) acc[i * R + r] = vfma(vload(xp + i * s.ldx + j * VW), w[j], acc[i * R + r]);
      }
    }
#endif
    p += F::BYTES32;
    xp += 32;
  }
  if (k < kc) {
    alignas(64) float u[32];
    SLOTH_UNROLL
    for (int r = 0; r < R; r++) {
      memset(u, 0, sizeof(u));
      F::decode_tail(p + r * s.rowBytes, kc - k, u);
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        SLOTH_UNROLL
        for (int j = 0; j < V32; j++) acc[i * R + r] = vfma(vload(xp + i * s.ldx + j * VW), vload(u + j * VW), acc[i * R + r]);
      }
    }
  }
  if (last && t) {
    for (int64_t j = 0; j < s.r; j += VW) {
      const int64_t left = min_i(VW, s.r - j);
      SLOTH_UNROLL
      for (int r = 0; r < R; r++) {
        const vf b = vloadn(s.b + (n + r) * s.r + j, left);
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) acc[i * R + r] = vfma(vload(t + i * s.ldt + j), b, acc[i * R + r]);
      }
    }
  }
}

// Sums of a tile into sums[i][at + r].
template <int M, int R>
SLOTH_INLINE void skinny_sums(const vf* acc, float* sums, int64_t at) {
  alignas(64) float u[M * R];
  vsum_each<M * R>(acc, u);
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) memcpy(sums + i * SKINNY_BLOCK + at, u + i * R, R * 4);
}

template <class F, int M, int R>
SLOTH_NOINLINE void skinny_rows(const Skinny& s, const float* x, const float* t, float* y, int64_t n0, int64_t n1, int64_t k0, int64_t kc, bool first,
                                bool last) {
  alignas(64) float sums[M * SKINNY_BLOCK];
#if defined(SLOTH_SIMD_AVX512)
  // A sum over lanes costs nearly the same for 4 vectors and for 16: small tiles wait until there are 16.
  const bool wait = M * R < 10;
  vf waiting[(M * R < 10 ? M : 1) * SKINNY_BLOCK];
#endif
  for (int64_t base = n0; base < n1; base += SKINNY_BLOCK) {
    const int64_t count = min_i(SKINNY_BLOCK, n1 - base);
    int64_t c = 0;
    for (; c + R <= count; c += R) {
      vf acc[M * R];
      skinny_tile<F, M, R>(s, x, t, base + c, k0, kc, last, acc);
#if defined(SLOTH_SIMD_AVX512)
      if (wait) {
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) {
          SLOTH_UNROLL
          for (int r = 0; r < R; r++) waiting[(M * R < 10 ? i : 0) * SKINNY_BLOCK + c + r] = acc[i * R + r];
        }
        continue;
      }
#endif
      skinny_sums<M, R>(acc, sums, c);
    }
#if defined(SLOTH_SIMD_AVX512)
    if (wait) {
      for (int64_t r = c; r < SKINNY_BLOCK; r++) {
        for (int i = 0; i < M; i++) waiting[(M * R < 10 ? i : 0) * SKINNY_BLOCK + r] = vzero();
      }
      for (int i = 0; i < M; i++) vsum_each<16>(waiting + (M * R < 10 ? i : 0) * SKINNY_BLOCK, sums + i * SKINNY_BLOCK);
    }
#endif
    for (; c < count; c++) {
      vf acc[M];
      skinny_tile<F, M, 1>(s, x, t, base + c, k0, kc, last, acc);
      skinny_sums<M, 1>(acc, sums, c);
    }
    for (int i = 0; i < M; i++) {
      for (int64_t j = 0; j < count; j += VW) {
        const int64_t left = min_i(VW, count - j);
        float* o = y + i * s.ldy + base + j;
        vf v = vload(sums + i * SKINNY_BLOCK + j);
        if (!first || s.accumulate) v = vadd(v, vloadn(o, left));
        if (first && s.bias) v = vadd(v, vloadn(s.bias + base + j, left));
        vstoren(o, left, v);
      }
    }
  }
}

template <class F>
static void skinny_pass(const Skinny& s, int64_t from, int64_t rows, int64_t n0, int64_t n1, int64_t k0, int64_t kc, bool first, bool last) {
  const float* x = s.x + from * s.ldx;
  const float* t = s.t ? s.t + from * s.ldt : nullptr;
  float* y = s.y + from * s.ldy;
  switch (rows) {
    case 1: skinny_rows<F, 1, RowsInFlight<1>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 2: skinny_rows<F, 2, RowsInFlight<2>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 3: skinny_rows<F, 3, RowsInFlight<3>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 4: skinny_rows<F, 4, RowsInFlight<4>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 5: skinny_rows<F, 5, RowsInFlight<5>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 6: skinny_rows<F, 6, RowsInFlight<6>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    case 7: skinny_rows<F, 7, RowsInFlight<7>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
    default: skinny_rows<F, 8, RowsInFlight<8>::R>(s, x, t, y, n0, n1, k0, kc, first, last); break;
  }
}

#if !defined(SLOTH_SIMD_AVX512)
// When more than SKINNY_TILE rows of x share the weights: weight rows decoded at a time, and the tile over them. More weight rows and fewer rows of x than
// above, because x no longer fits L1 and each of its vectors must serve more products.
static const int DECODED_ROWS = 4;
#if defined(SLOTH_SIMD_NEON)
static const int DECODED_TILE = 6;
static const int DECODED_FLIGHT = 4;
#else
static const int DECODED_TILE = 4;
static const int DECODED_FLIGHT = 2;
#endif

static void skinny_decoded(const Skinny& s, int64_t from, int64_t rows, int64_t n, int64_t kc, bool first, bool last) {
  const float* x = s.x + from * s.ldx;
  const float* t = s.t ? s.t + from * s.ldt : nullptr;
  float* y = s.y + from * s.ldy;
  switch (rows) {
    case 1: skinny_rows<FormatF32, 1, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
    case 2: skinny_rows<FormatF32, 2, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
    case 3: skinny_rows<FormatF32, 3, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
    case 4: skinny_rows<FormatF32, 4, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
    case 5: skinny_rows<FormatF32, 5, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
    default: skinny_rows<FormatF32, 6, DECODED_FLIGHT>(s, x, t, y, 0, n, 0, kc, first, last); break;
  }
}
#endif

template <class F>
SLOTH_NOINLINE void skinny_task(const Skinny& s, int64_t n0, int64_t n1, float* decoded) {
  // The rows of x that a pass uses, and the decoded weights, should stay in L1.
  const int64_t together = min_i(s.m, SKINNY_TILE);
  const int64_t longest = max_i(256, 6144 / together / 32 * 32);
  const int64_t pieces = ceil_div(s.k, longest);
  const int64_t step = ceil_div(ceil_div(s.k, pieces), 32) * 32;
#if defined(SLOTH_SIMD_AVX512)
  // Decoding runs beside the products there, on units that they leave free, so every group of rows does it again; the weights of a task stay in L1.
  (void)decoded;
  const int64_t groups = ceil_div(s.m, SKINNY_TILE);
  for (int64_t k0 = 0; k0 < s.k; k0 += step) {
    const int64_t kc = min_i(step, s.k - k0);
    for (int64_t g = 0; g < groups; g++) {
      const int64_t from = strip_begin(s.m, groups, g);
      skinny_pass<F>(s, from, strip_begin(s.m, groups, g + 1) - from, n0, n1, k0, kc, k0 == 0, k0 + kc == s.k);
    }
  }
#else
  const int64_t groups = s.m <= SKINNY_TILE ? 1 : ceil_div(s.m, DECODED_TILE);
  for (int64_t k0 = 0; k0 < s.k; k0 += step) {
    const int64_t kc = min_i(step, s.k - k0);
    const bool first = k0 == 0, last = k0 + kc == s.k;
    if (groups == 1) {
      skinny_pass<F>(s, 0, s.m, n0, n1, k0, kc, first, last);
      continue;
    }
    const int64_t padded = (kc + 31) / 32 * 32;
    for (int64_t n = n0; n < n1; n += DECODED_ROWS) {
      const int64_t rows = min_i(DECODED_ROWS, n1 - n);
      for (int64_t i = 0; i < rows; i++) {
        float* d = decoded + i * padded;
        decode_row<F>(s.w + (n + i) * s.rowBytes, k0, kc, d);
        for (int64_t c = kc; c < padded; c++) d[c] = 0.0f;
      }
      // The decoded rows stand in for a weight of `rows` rows whose stretch begins at column 0 of the decoded buffer.
      Skinny u = s;
      u.w = reinterpret_cast<const uint8_t*>(decoded);
      u.rowBytes = padded * 4;
      u.x = s.x + k0;
      u.y = s.y + n;
      u.bias = s.bias ? s.bias + n : nullptr;
      u.b = s.b ? s.b + n * s.r : nullptr;
      for (int64_t g = 0; g < groups; g++) {
        const int64_t from = strip_begin(s.m, groups, g);
        skinny_decoded(u, from, strip_begin(s.m, groups, g + 1) - from, rows, padded, first, last);
      }
    }
  }
#endif
}

#if defined(SLOTH_SIMD_AVX512)
static void dot_blocks(Skinny& s, float* out, int zero) {
  s.dots = out;
  s.ldd = s.k / 32 * DOT_FLOATS;
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // lane l takes the j with dot_lane(j) = l
  const vf taken = vset(-static_cast<float>(16 + zero));
  for (int64_t i = 0; i < s.m; i++) {
    for (int64_t b = 0; b < s.k / 32; b++) {
      const float* x = s.x + i * s.ldx + b * 32;
      float* o = out + i * s.ldd + b * DOT_FLOATS;
      const vf lo = _mm512_permutexvar_ps(order, vload(x)), hi = _mm512_permutexvar_ps(order, vload(x + 16));
      const vf both = vadd(lo, hi);
      vstore(o, lo);
      vstore(o + 16, hi);
      vstore(o + 32, vmul(both, taken));
      o[48] = o[50] = o[51] = 0.0f;
      o[49] = vsum(both);
    }
  }
}
#endif

// Shared scratch slots: copied rows of x and t, and the low-rank products of a group with many rows.
static const int SLOT_SKINNY = 0;
static const int SLOT_GROUP = 6;

// A linear layer of a group that shares x. Its low-rank part is either t and b, or a, b and scale, from which t is made.
struct GroupMember {
  float* y;
  const void* w;
  int64_t format, n;
  const float* bias;
  const float* t;
  const float* a;
  const float* b;
  int64_t r;
  float scale;
  int64_t accumulate;
};
static const int GROUP_MOST = 3;

static void row_group(Pool* pool, const GroupMember* members, int count, const float* x, int64_t m, int64_t k) {
  Skinny list[GROUP_MOST];
  const int64_t ldx = (k + 31) / 32 * 32 + 16;  // 16 more: rows of 1024 floats would share their cache sets
  int64_t low = 0;
  for (int g = 0; g < count; g++) low += members[g].r > 0 ? ceil_div(members[g].r, VW) * VW : 0;
  const int64_t dots = m <= DOT_ROWS ? m * k * 2 : 0;
  float* copy = static_cast<float*>(pool_shared(pool, SLOT_SKINNY, static_cast<size_t>(m * (ldx + low) + count * (dots + 16)) * 4 + 64));
  for (int64_t i = 0; i < m; i++) {
    memcpy(copy + i * ldx, x + i * k, static_cast<size_t>(k) * 4);
    memset(copy + i * ldx + k, 0, static_cast<size_t>(ldx - k) * 4);
  }
  float* at = copy + m * ldx;
  int64_t products = 0;
  for (int g = 0; g < count; g++) {
    const GroupMember& e = members[g];
    Skinny& s = list[g] = {};
    s.y = e.y;
    s.ldy = e.n;
    s.x = copy;
    s.m = m;
    s.ldx = ldx;
    s.w = static_cast<const uint8_t*>(e.w);
    s.rowBytes = format_row_bytes(e.format, k);
    s.bias = e.bias;
    s.k = k;
    s.accumulate = e.accumulate;
    if (e.r <= 0) continue;
    s.ldt = ceil_div(e.r, VW) * VW;
    s.b = e.b;
    s.r = e.r;
    s.t = at;
    for (int64_t i = 0; i < m; i++) {
      if (e.t) memcpy(at + i * s.ldt, e.t + i * e.r, static_cast<size_t>(e.r) * 4);
      memset(at + i * s.ldt + e.r, 0, static_cast<size_t>(s.ldt - e.r) * 4);
    }
    at += m * s.ldt;
    products += e.t ? 0 : ceil_div(e.r, 8);
  }
  const auto decoded_rows = [&](int worker) {
#if defined(SLOTH_SIMD_AVX512)
    (void)worker;
    return static_cast<float*>(nullptr);
#else
    return m > SKINNY_TILE ? static_cast<float*>(pool_scratch(pool, worker, static_cast<size_t>(DECODED_ROWS) * 6176 * 4)) : nullptr;
#endif
  };
  if (products > 0) {
    // t = scale * x * A^T of all members; a task makes 8 columns.
    pool_for(pool, static_cast<int>(products), [&](int task, int worker) {
      float* decoded = decoded_rows(worker);
      for (int g = 0; g < count; g++) {
        const GroupMember& e = members[g];
        const int tasks = e.r > 0 && !e.t ? static_cast<int>(ceil_div(e.r, 8)) : 0;
        if (task >= tasks) {
          task -= tasks;
          continue;
        }
        Skinny s = list[g];
        s.y = const_cast<float*>(s.t);
        s.ldy = s.ldt;
        s.w = reinterpret_cast<const uint8_t*>(e.a);
        s.rowBytes = k * 4;
        s.bias = nullptr;
        s.t = nullptr;
        s.r = 0;
        s.accumulate = 0;
        const int64_t n0 = task * 8, n1 = min_i(e.r, n0 + 8);
        skinny_task<FormatF32>(s, n0, n1, decoded);
        for (int64_t i = 0; i < m; i++) {
          for (int64_t j = n0; j < n1; j++) s.y[i * s.ldy + j] *= e.scale;
        }
        return;
      }
    });
  }
  // Tasks of about 8 KB of weights: a worker's tasks lie behind one another, so they cost little, and the shorter they are the closer all workers end together.
  int64_t grain[GROUP_MOST], first[GROUP_MOST + 1];
  first[0] = 0;
  for (int g = 0; g < count; g++) {
    grain[g] = max_i(SKINNY_BLOCK, min_i(512, 8192 / max_i(1, list[g].rowBytes)) / SKINNY_BLOCK * SKINNY_BLOCK);
    first[g + 1] = first[g] + ceil_div(members[g].n, grain[g]);
#if defined(SLOTH_SIMD_AVX512)
    if (dots > 0) {
      SLOTH_WITH_FORMAT(members[g].format, F, {
        if (F::DOT_SCALES > 0) {
          dot_blocks(list[g], at, F::DOT_ZERO);
          at += dots;
        }
      })
    }
#endif
  }
  pool_for(pool, static_cast<int>(first[count]), [&](int task, int worker) {
    float* decoded = decoded_rows(worker);
    int g = 0;
    while (task >= first[g + 1]) g++;
    const int64_t n0 = (task - first[g]) * grain[g], n1 = min_i(members[g].n, n0 + grain[g]);
    SLOTH_WITH_FORMAT(members[g].format, F, skinny_task<F>(list[g], n0, n1, decoded))
  });
}
