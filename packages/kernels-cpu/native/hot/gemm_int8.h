// Linear layers with integer products (`precision: "int8"`, inference only): activations are rounded to int8 in blocks of 32 with one f32 scale each, weights of
// Q4_0, Q4_1 and Q8_0 take part as they are stored, and every block's integer sum is scaled and added up in f32. Included inside an ISA namespace, after linear.h.
//
// With d = max |x| / 127 and q = round(x / d) (to nearest, ties to even) of a block: y = sum over blocks of dw · d · (sum q·w - zero · sum q) + m · d · sum q. A
// block's integer sum is exact; its f32 terms are added in the order of the blocks. ggml's q8_0 and q8_1 round the same way, but keep d as an f16.
//
// More than a few rows: weights are unpacked once a task into panels of VW columns, whose 32-bit lanes hold 4 neighbours of the contraction, and a register tile
// of Q_ROWS rows goes over them. Few rows: one weight row at a time straight from its blocks.

#if defined(__AVX512VNNI__)
typedef __m512i qi;
static const int Q_ROWS = 12;
#define SLOTH_Q_UNSIGNED_ONLY 1  // u8 · s8 with no limit on the sums: signed weights are moved by 128
#elif defined(SLOTH_SIMD_AVX512)
typedef __m512i qi;
static const int Q_ROWS = 10;
#else
typedef __m256i qi;
static const int Q_ROWS = 4;
#endif
// Rows up to which weights are used straight from their blocks, and rows of one pass over them.
static const int Q_DIRECT = 8;
#if defined(SLOTH_SIMD_AVX512)
static const int Q_GROUP = 4;
#else
static const int Q_GROUP = 2;
#endif
// Columns of a task.
static const int64_t Q_COLUMNS = 64;
static const int SLOT_INT8 = 3;

SLOTH_INLINE qi qzero() {
#if defined(SLOTH_SIMD_AVX512)
  return _mm512_setzero_si512();
#else
  return _mm256_setzero_si256();
#endif
}
SLOTH_INLINE qi qload(const void* p) {
#if defined(SLOTH_SIMD_AVX512)
  return _mm512_loadu_si512(p);
#else
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
#endif
}
SLOTH_INLINE qi qset(int32_t x) {
#if defined(SLOTH_SIMD_AVX512)
  return _mm512_set1_epi32(x);
#else
  return _mm256_set1_epi32(x);
#endif
}
SLOTH_INLINE vf qfloat(qi x) {
#if defined(SLOTH_SIMD_AVX512)
  return _mm512_cvtepi32_ps(x);
#else
  return _mm256_cvtepi32_ps(x);
#endif
}
// acc + w · x for four neighbours a lane; w is unsigned, or signed and at least -128 (SIGNED), x in [-127, 127]. Pairs of sums fit 16 bits where they are formed:
// 15 · 127 · 2, or 128 · 127 · 2.
template <bool SIGNED>
SLOTH_INLINE qi qdot(qi acc, qi w, qi x) {
#if defined(__AVX512VNNI__)
  return _mm512_dpbusd_epi32(acc, w, x);
#elif defined(SLOTH_SIMD_AVX512)
  if (SIGNED) {
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    w = _mm512_abs_epi8(w);
  }
  return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
#else
  if (SIGNED) {
    x = _mm256_sign_epi8(x, w);
    w = _mm256_abs_epi8(w);
  }
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
#endif
}
SLOTH_INLINE int32_t qsum8(__m256i v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// How a format's stored integers become operands: `unpack` gives 32 bytes in the order of the elements; ZERO is taken off each.
struct QuantQ4_0 {
  static const bool MINS = false, SIGNED = false;
  static const int ZERO = 8;
  static const int64_t BYTES = 18;
  SLOTH_INLINE __m256i unpack(const uint8_t* p) {
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 2)), mask = _mm_set1_epi8(15);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_and_si128(b, mask)), _mm_and_si128(_mm_srli_epi16(b, 4), mask), 1);
  }
};
struct QuantQ4_1 {
  static const bool MINS = true, SIGNED = false;
  static const int ZERO = 0;
  static const int64_t BYTES = 20;
  SLOTH_INLINE __m256i unpack(const uint8_t* p) { return QuantQ4_0::unpack(p + 2); }
};
struct QuantQ8_0 {
  static const bool MINS = false;
#if defined(SLOTH_Q_UNSIGNED_ONLY)
  static const bool SIGNED = false;
  static const int ZERO = 128;
#else
  static const bool SIGNED = true;
  static const int ZERO = 0;
#endif
  static const int64_t BYTES = 34;
  SLOTH_INLINE __m256i unpack(const uint8_t* p) {
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 2));
    return SIGNED ? b : _mm256_xor_si256(b, _mm256_set1_epi8(static_cast<char>(0x80)));
  }
};
SLOTH_INLINE bool int8_format(int64_t format) { return format == FORMAT_Q4_0 || format == FORMAT_Q4_1 || format == FORMAT_Q8_0; }
#define SLOTH_WITH_QUANT(code, Q, ...)                              \
  switch (code) {                                                   \
    case FORMAT_Q4_0: { typedef QuantQ4_0 Q; __VA_ARGS__; break; }  \
    case FORMAT_Q4_1: { typedef QuantQ4_1 Q; __VA_ARGS__; break; }  \
    case FORMAT_Q8_0: { typedef QuantQ8_0 Q; __VA_ARGS__; break; }  \
    default: break;                                                 \
  }
SLOTH_INLINE float quant_half(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

// One block of 32 activations: 32 int8, its scale and the sum of the integers.
struct QuantBlock {
  float d;
  int32_t sum;
};
SLOTH_INLINE QuantBlock quant_block(const float* x, int8_t* q) {
  vf most = vzero(), nothing = vzero();
  SLOTH_UNROLL
  for (int i = 0; i < 32; i += VW) {
    const vf v = vload(x + i);
    most = vmax(vabs(v), most);
    nothing = vfma(v, vzero(), nothing);
  }
  const float amax = vhmax(most);
  QuantBlock r;
  r.d = amax / 127.0f + vsum(nothing);  // NaN where a value is not finite: integers cannot carry it on
  // A block of denormals counts as 0: 127 / amax would be infinite.
  const vf id = vset(amax > 1e-36f ? 127.0f / amax : 0.0f);
#if defined(SLOTH_SIMD_AVX512)
  const __m128i a = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(vmul(vload(x), id))), b = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(vmul(vload(x + 16), id)));
  const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
#else
  __m256i v[4];
  SLOTH_UNROLL
  for (int i = 0; i < 4; i++) v[i] = _mm256_cvtps_epi32(vmul(vload(x + i * 8), id));
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
  const __m256i bytes = _mm256_permutevar8x32_epi32(packed, _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
#endif
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), bytes);
  r.sum = qsum8(_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1)));
  return r;
}

// --- many rows

// A block of a strip of Q_ROWS rows of activations.
struct QuantStrip {
  int8_t q[Q_ROWS][32];
  float d[Q_ROWS];
  float s[Q_ROWS];     // d · sum q
  int32_t z[Q_ROWS];   // -ZERO · sum q
};
// A block of a panel of VW columns: lane n of q[g] holds elements 4g .. 4g+3 of column n.
struct QuantPanel {
  uint8_t q[8][VW * 4];
  float d[VW];
  float m[VW];
};

struct Int8Product {
  float* y;
  const uint8_t* w;
  const float* bias;
  int64_t m, n, blocks, rowBytes, accumulate;
  const QuantStrip* strips;  // [ceil(m / Q_ROWS)][blocks]
};

template <class Q>
SLOTH_NOINLINE void quant_pack(const Int8Product& g, int64_t n0, int64_t cols, QuantPanel* out) {
  const uint8_t* w = g.w + n0 * g.rowBytes;
  for (int64_t b = 0; b < g.blocks; b++, out++) {
    alignas(64) uint8_t t[VW][32];
    for (int64_t r = 0; r < VW; r++) {
      const uint8_t* p = w + r * g.rowBytes + b * Q::BYTES;
      if (r < cols) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(t[r]), Q::unpack(p));
        out->d[r] = quant_half(p);
        out->m[r] = Q::MINS ? quant_half(p + 2) : 0.0f;
      } else {
        memset(t[r], 0, 32);
        out->d[r] = out->m[r] = 0.0f;
      }
    }
    // Words [VW rows][8] to [8][VW rows].
#if defined(SLOTH_SIMD_AVX512)
    vf v[16];
    SLOTH_UNROLL
    for (int i = 0; i < 8; i++) {
      // The second half of the rows beside the first: one transposition of 16 x 16 words, of which rows 0-7 and 8-15 are two halves of the panel's lanes.
      v[i] = _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256(reinterpret_cast<const __m256i*>(t[i]))), _mm256_load_si256(reinterpret_cast<const __m256i*>(t[i + 8])), 1));
      v[i + 8] = vzero();
    }
    vtranspose(v);
    // v[j] lanes 0-7: word j of rows 0-7; v[j + 8] lanes 0-7: word j of rows 8-15.
    SLOTH_UNROLL
    for (int j = 0; j < 8; j++) _mm512_store_si512(out->q[j], _mm512_inserti64x4(_mm512_castps_si512(v[j]), _mm512_castsi512_si256(_mm512_castps_si512(v[j + 8])), 1));
#else
    vf v[8];
    SLOTH_UNROLL
    for (int i = 0; i < 8; i++) v[i] = _mm256_load_ps(reinterpret_cast<const float*>(t[i]));
    vtranspose(v);
    SLOTH_UNROLL
    for (int j = 0; j < 8; j++) _mm256_store_ps(reinterpret_cast<float*>(out->q[j]), v[j]);
#endif
  }
}

// y[M, cols] (+)= strip · panel + bias.
template <class Q, int M>
SLOTH_NOINLINE void quant_tile(const Int8Product& g, const QuantStrip* SLOTH_RESTRICT a, const QuantPanel* SLOTH_RESTRICT b, int64_t r0, int64_t n0, int64_t cols) {
  vf acc[M];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) acc[i] = vzero();
  for (int64_t k = 0; k < g.blocks; k++, a++, b++) {
    qi sum[M];
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) sum[i] = Q::ZERO != 0 ? qset(a->z[i]) : qzero();
    SLOTH_UNROLL
    for (int j = 0; j < 8; j++) {
      const qi w = qload(b->q[j]);
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        int32_t four;
        memcpy(&four, a->q[i] + j * 4, 4);
        sum[i] = qdot<Q::SIGNED>(sum[i], w, qset(four));
      }
    }
    const vf d = vload(b->d);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) acc[i] = vfma(qfloat(sum[i]), vmul(d, vset(a->d[i])), acc[i]);
    if (Q::MINS) {
      const vf m = vload(b->m);
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) acc[i] = vfma(m, vset(a->s[i]), acc[i]);
    }
  }
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) {
    float* y = g.y + (r0 + i) * g.n + n0;
    vf v = acc[i];
    if (g.bias) v = vadd(v, vloadn(g.bias + n0, cols));
    if (g.accumulate) v = vadd(v, vloadn(y, cols));
    vstoren(y, cols, v);
  }
}

typedef void (*QuantTileFn)(const Int8Product&, const QuantStrip*, const QuantPanel*, int64_t, int64_t, int64_t);
template <class Q>
SLOTH_INLINE QuantTileFn quant_tile_for(int64_t rows) {
  static const QuantTileFn table[Q_ROWS] = {
      quant_tile<Q, 1>, quant_tile<Q, 2>, quant_tile<Q, 3>, quant_tile<Q, 4>,
#if defined(SLOTH_SIMD_AVX512)
      quant_tile<Q, 5>, quant_tile<Q, 6>, quant_tile<Q, 7>, quant_tile<Q, 8>, quant_tile<Q, 9>, quant_tile<Q, 10>,
#endif
#if defined(__AVX512VNNI__)
      quant_tile<Q, 11>, quant_tile<Q, 12>,
#endif
  };
  return table[rows - 1];
}

// Rounds x [rows, blocks * 32] into a strip. A function of its own: GCC 12 at -O2 drops these loops when they are inlined into the task's lambda (its pass
// "ivopts"; -fno-ivopts keeps them).
template <class Q>
SLOTH_NOINLINE void quant_strip(const float* x, int64_t rows, int64_t blocks, QuantStrip* out) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t b = 0; b < blocks; b++, x += 32) {
      const QuantBlock r = quant_block(x, out[b].q[i]);
      out[b].d[i] = r.d;
      out[b].s[i] = r.d * static_cast<float>(r.sum);
      out[b].z[i] = -Q::ZERO * r.sum;
    }
  }
}

template <class Q>
static void int8_many(Pool* pool, Int8Product g, const float* x) {
  // Equal strips, by the number of rows alone.
  const int64_t strips = ceil_div(g.m, Q_ROWS), k = g.blocks * 32;
  QuantStrip* quantized = static_cast<QuantStrip*>(pool_shared(pool, SLOT_INT8, static_cast<size_t>(strips * g.blocks) * sizeof(QuantStrip)));
  par_pieces(pool, strips, max_i(1, GRAIN / max_i(1, k * Q_ROWS)), strips <= 2, [&](int64_t from, int64_t to, int, int) {
    for (int64_t s = from; s < to; s++) {
      const int64_t r0 = strip_begin(g.m, strips, s), rows = strip_begin(g.m, strips, s + 1) - r0;
      quant_strip<Q>(x + r0 * k, rows, g.blocks, quantized + s * g.blocks);
    }
  });
  g.strips = quantized;
  const int64_t across = ceil_div(g.n, Q_COLUMNS);
  // More rows of tasks only where there are few columns: each unpacks the weights again.
  const int64_t down = max_i(1, min_i(ceil_div(4 * pool_threads(pool), across), strips / 8));
  pool_for(pool, static_cast<int>(across * down), [&](int task, int worker) {
    const int64_t n0 = task / down * Q_COLUMNS, n1 = min_i(g.n, n0 + Q_COLUMNS);
    const int64_t s0 = strips * (task % down) / down, s1 = strips * (task % down + 1) / down;
    QuantPanel* panels = static_cast<QuantPanel*>(pool_scratch(pool, worker, static_cast<size_t>(Q_COLUMNS / VW * g.blocks) * sizeof(QuantPanel)));
    for (int64_t c = n0; c < n1; c += VW) quant_pack<Q>(g, c, min_i(VW, n1 - c), panels + (c - n0) / VW * g.blocks);
    for (int64_t s = s0; s < s1; s++) {
      const int64_t r0 = strip_begin(g.m, strips, s), rows = strip_begin(g.m, strips, s + 1) - r0;
      const QuantTileFn tile = quant_tile_for<Q>(rows);
      for (int64_t c = n0; c < n1; c += VW) tile(g, quantized + s * g.blocks, panels + (c - n0) / VW * g.blocks, r0, c, min_i(VW, n1 - c));
    }
  });
}

// --- few rows

struct QuantRow {
  int8_t q[32];
  int32_t z[8];  // -ZERO · sum q, 0 ...
  float d, s;
};

#if defined(__AVX512VNNI__)
SLOTH_INLINE __m256i qdot_row(__m256i acc, __m256i w, __m256i x, bool) { return _mm256_dpbusd_epi32(acc, w, x); }
#else
SLOTH_INLINE __m256i qdot_row(__m256i acc, __m256i w, __m256i x, bool isSigned) {
  if (isSigned) {
    x = _mm256_sign_epi8(x, w);
    w = _mm256_abs_epi8(w);
  }
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
#endif

// out[i * 4 + r] = x[i] · W[n + r] for M rows of x and four rows of W.
template <class Q, int M>
SLOTH_INLINE void quant_rows(const uint8_t* w, int64_t rowBytes, int64_t blocks, const QuantRow* x, __m128* out) {
  __m256 acc[M][4];
  __m128 low[M];
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) {
    SLOTH_UNROLL
    for (int r = 0; r < 4; r++) acc[i][r] = _mm256_setzero_ps();
    low[i] = _mm_setzero_ps();
  }
  const uint8_t* ahead = w + 4096;
  for (int64_t b = 0; b < blocks; b++, w += Q::BYTES) {
    SLOTH_UNROLL
    for (int64_t p = 0; p < 4 * Q::BYTES; p += 64) SLOTH_PREFETCH(ahead + p);
    ahead += 4 * Q::BYTES;
    uint64_t halves = 0, mins = 0;
    SLOTH_UNROLL
    for (int r = 0; r < 4; r++) {
      uint16_t h;
      memcpy(&h, w + r * rowBytes, 2);
      halves |= static_cast<uint64_t>(h) << (16 * r);
      if (Q::MINS) {
        memcpy(&h, w + r * rowBytes + 2, 2);
        mins |= static_cast<uint64_t>(h) << (16 * r);
      }
    }
    const __m128 d = _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<int64_t>(halves)));
    alignas(16) float scales[M][4];
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      const QuantRow* q = x + i * blocks + b;
      // Through memory, from where a broadcast costs no shuffle; the statement keeps the compiler from seeing through it.
      _mm_store_ps(scales[i], _mm_mul_ps(d, _mm_set1_ps(q->d)));
      __asm__("" : "+m"(scales[i]));
      if (Q::MINS) low[i] = _mm_fmadd_ps(_mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<int64_t>(mins))), _mm_set1_ps(q->s), low[i]);
    }
    SLOTH_UNROLL
    for (int r = 0; r < 4; r++) {
      const __m256i v = Q::unpack(w + r * rowBytes);
      SLOTH_UNROLL
      for (int i = 0; i < M; i++) {
        const QuantRow* q = x + i * blocks + b;
        const __m256i z = Q::ZERO != 0 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q->z)) : _mm256_setzero_si256();
        const __m256i sum = qdot_row(z, v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q->q)), Q::SIGNED);
        acc[i][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scales[i][r]), acc[i][r]);
      }
    }
  }
  SLOTH_UNROLL
  for (int i = 0; i < M; i++) {
    const __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(acc[i][0], acc[i][1]), _mm256_hadd_ps(acc[i][2], acc[i][3]));
    out[i] = _mm_add_ps(low[i], _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
  }
}

template <class Q, int M>
SLOTH_NOINLINE void quant_direct(const Int8Product& g, const QuantRow* x, float* out, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; n += 4) {
    // The last rows go together with some before them (computed twice, to the same values), or one by one in a matrix of fewer than four.
    const int64_t from = g.n >= 4 ? min_i(n, g.n - 4) : n, count = min_i(4, n1 - n);
    __m128 sums[M];
    alignas(16) float u[4];
    if (g.n >= 4) {
      quant_rows<Q, M>(g.w + from * g.rowBytes, g.rowBytes, g.blocks, x, sums);
    } else {
      for (int64_t r = 0; r < count; r++) {
        __m128 one[M];
        quant_rows<Q, M>(g.w + (n + r) * g.rowBytes, 0, g.blocks, x, one);
        for (int i = 0; i < M; i++) reinterpret_cast<float*>(sums + i)[r] = _mm_cvtss_f32(one[i]);
      }
    }
    for (int i = 0; i < M; i++) {
      float* y = out + i * g.n + n;
      _mm_store_ps(u, sums[i]);
      for (int64_t r = 0; r < count; r++) {
        float v = u[r + (n - from)];
        if (g.bias) v += g.bias[n + r];
        if (g.accumulate) v += y[r];
        y[r] = v;
      }
    }
  }
}

template <class Q>
static void int8_few(Pool* pool, const Int8Product& g, const float* x) {
  QuantRow* rows = static_cast<QuantRow*>(pool_shared(pool, SLOT_INT8, static_cast<size_t>(g.m * g.blocks) * sizeof(QuantRow)));
  for (int64_t i = 0; i < g.m * g.blocks; i++) {
    const QuantBlock r = quant_block(x + i * 32, rows[i].q);
    memset(rows[i].z, 0, sizeof(rows[i].z));
    rows[i].z[0] = -Q::ZERO * r.sum;
    rows[i].d = r.d;
    rows[i].s = r.d * static_cast<float>(r.sum);
  }
  // About 48 KB of weights a task.
  const int64_t grain = max_i(8, min_i(512, 49152 / max_i(1, g.rowBytes))) / 8 * 8;
  pool_for(pool, static_cast<int>(ceil_div(g.n, grain)), [&](int task, int) {
    const int64_t n0 = task * grain, n1 = min_i(g.n, n0 + grain);
    for (int64_t i = 0; i < g.m; i += Q_GROUP) {
      const QuantRow* q = rows + i * g.blocks;
      float* y = g.y + i * g.n;
      switch (min_i(Q_GROUP, g.m - i)) {
        case 1: quant_direct<Q, 1>(g, q, y, n0, n1); break;
        case 2: quant_direct<Q, 2>(g, q, y, n0, n1); break;
        case 3: quant_direct<Q, Q_GROUP < 3 ? Q_GROUP : 3>(g, q, y, n0, n1); break;
        default: quant_direct<Q, Q_GROUP>(g, q, y, n0, n1); break;
      }
    }
  });
}

// --- kernels

static void linear_int8(Pool* pool, float* y, const float* x, const void* w, int64_t format, int64_t m, int64_t n, int64_t k, const float* bias, const float* t,
                        const float* b, int64_t r, int64_t accumulate) {
  if (!int8_format(format) || m <= 0 || n <= 0 || k <= 0) {
    linear(pool, y, x, w, format, m, n, k, bias, t, b, r, accumulate);
    return;
  }
  Int8Product g = {};
  g.y = y;
  g.w = static_cast<const uint8_t*>(w);
  g.bias = bias;
  g.m = m;
  g.n = n;
  g.blocks = k / 32;
  g.rowBytes = format_row_bytes(format, k);
  g.accumulate = accumulate;
  SLOTH_WITH_QUANT(format, Q, if (m <= Q_DIRECT) int8_few<Q>(pool, g, x); else int8_many<Q>(pool, g, x))
  // The adapter's part stays f32.
  if (t && b && r > 0) linear(pool, y, t, b, FORMAT_F32, m, n, r, nullptr, nullptr, nullptr, 0, 1);
}

static void linearGroup_int8(Pool* pool, const float* x, int64_t m, int64_t k, float* y0, const void* w0, int64_t format0, int64_t n0, const float* bias0,
                             const float* a0, const float* b0, int64_t r0, double scale0, float* y1, const void* w1, int64_t format1, int64_t n1,
                             const float* bias1, const float* a1, const float* b1, int64_t r1, double scale1, float* y2, const void* w2, int64_t format2,
                             int64_t n2, const float* bias2, const float* a2, const float* b2, int64_t r2, double scale2) {
  if (m <= 0) return;
  const GroupMember all[GROUP_MOST] = {
      {y0, w0, format0, n0, bias0, nullptr, a0, b0, a0 ? r0 : 0, static_cast<float>(scale0), 0},
      {y1, w1, format1, n1, bias1, nullptr, a1, b1, a1 ? r1 : 0, static_cast<float>(scale1), 0},
      {y2, w2, format2, n2, bias2, nullptr, a2, b2, a2 ? r2 : 0, static_cast<float>(scale2), 0},
  };
  GroupMember members[GROUP_MOST];
  group_by_layers(pool, members, present_members(all, members), x, m, k, linear_int8);
}

static void logits_int8(Pool* pool, float* out, const float* h, const void* w, int64_t format, int64_t rows, int64_t vocab, int64_t hidden, double softcap,
                        double logitScale) {
  linear_int8(pool, out, h, w, format, rows, vocab, hidden, nullptr, nullptr, nullptr, 0, 0);
  if (softcap <= 0 && logitScale == 1) return;
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale);
  par_elements(pool, rows * vocab, [=](int64_t from, int64_t to) { soft_cap_row(out + from, to - from, scale, cap); });
}

static void int8_fill(KernelTable& t) {
  t.linear = linear_int8;
  t.linearGroup = linearGroup_int8;
  t.logits = logits_int8;
}
