// Products of few rows with the stored integers of blocks on AVX-512: the sums of a block are those of its integers, and its scales are applied to them. In f32 of 2 to 8
// rows, and with x rounded to bf16 (`precision: "bf16"`) of 2 to 32.
// Included inside an ISA namespace, after few_columns.h.
//
// The integers of a block go into the product as they are: halves as 16 + q, which a shift and one logical operation make of them, in f32 as well as in bf16, where
// every integer below 256 is exact. What was added is taken off again by the sum of x over the block, from which the sums begin.

#if defined(SLOTH_SIMD_AVX512)
static const int64_t BLOCK_ROWS = 2;          // from how many rows on: one is limited by memory
static const int BLOCK_STRIP = 16;            // most rows of x that one pass over the weights serves
static const int64_t BLOCK_STRETCH = 48;      // blocks that a pass walks through before the next strip of x
static const int64_t BLOCK_WIDE = 8;          // most vectors of columns in a task

// Words of a block of 32 elements, in halves as they are stored. Packed x holds behind them, for each row, the sum of the block's elements and that times -16 and -24.
template <class P>
SLOTH_INLINE int64_t block_words() {
  return 32 / P::DEEP + 3;
}

// The integers of 16 stored rows as words; lane r is row r.
//
// OFFSET  what a word's elements are too large by, where it is not 0
// begin   one block
// half    must be called before the words of its elements 0..15 (0) and 16..31 (1)
// word    t of that half: element t in f32; elements 4i + j and 4i + j + 2 with t = 2i + j in bf16
template <class F, class P>
struct Integers;

template <class P, int HEAD>
struct Halves {
  __m512i w[4];
  SLOTH_INLINE void begin(Halves& s, const uint8_t* p, int64_t rowBytes) { word_columns(p + HEAD, rowBytes, s.w); }
  SLOTH_INLINE void half(Halves& s, const uint8_t*, int64_t, int64_t which) {
    if (which == 0) return;
    SLOTH_UNROLL
    for (int i = 0; i < 4; i++) s.w[i] = _mm512_srli_epi32(s.w[i], 4);
  }
  SLOTH_INLINE vf word(const Halves& s, int t) {
    // The four bits go to the top of the mantissa of 16.
    const int top = P::DEEP == 2 ? 3 : 19, from = P::DEEP == 2 ? t % 2 * 8 : t % 4 * 8;
    const __m512i mask = _mm512_set1_epi32(P::DEEP == 2 ? 0x00780078 : 0x00780000), sixteen = _mm512_set1_epi32(P::DEEP == 2 ? 0x41804180 : 0x41800000);
    const __m512i w = s.w[P::DEEP == 2 ? t / 2 : t / 4];
    const __m512i moved = top >= from ? _mm512_slli_epi32(w, top >= from ? top - from : 0) : _mm512_srli_epi32(w, top >= from ? 0 : from - top);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(moved, mask, sixteen, 0xea));  // (moved & mask) | 16
  }
};
template <class P>
struct Integers<FormatQ4_0, P> : Halves<P, 2> {
  static const int OFFSET = 24;
  SLOTH_INLINE vf scale(__m512i scales, vf*) { return low_halves(scales); }
};
template <class P>
struct Integers<FormatQ4_1, P> : Halves<P, 4> {
  static const int OFFSET = 16;
  SLOTH_INLINE vf scale(__m512i scales, vf* low) {
    *low = high_halves(scales);
    return low_halves(scales);
  }
};
template <class P>
struct Integers<FormatQ8_0, P> {
  static const int OFFSET = 0;
  __m512i w[4];
  SLOTH_INLINE void begin(Integers&, const uint8_t*, int64_t) {}
  SLOTH_INLINE void half(Integers& s, const uint8_t* p, int64_t rowBytes, int64_t which) { word_columns(p + 2 + 16 * which, rowBytes, s.w); }
  // Bytes are converted where they lie in the top of a word: 2^24 times too large. Of eight bits nothing is lost in bf16, the upper half of f32.
  SLOTH_INLINE __m512i top(__m512i w, int byte) {
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xff000000u));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(byte == 0 ? _mm512_slli_epi32(w, 24) : _mm512_and_si512(byte == 3 ? w : _mm512_slli_epi32(w, 24 - 8 * byte), mask)));
  }
  SLOTH_INLINE vf word(const Integers& s, int t) {
    if (P::DEEP == 1) return _mm512_castsi512_ps(top(s.w[t / 4], t % 4));
    const __m512i first = top(s.w[t / 2], t % 2), second = top(s.w[t / 2], t % 2 + 2);
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32(first, 16), second));
  }
  SLOTH_INLINE vf scale(__m512i scales, vf*) { return vmul(low_halves(scales), vset(0x1p-24f)); }
};

// sum + word * the broadcast word at x, which must be an operand of the instruction: a register of its own for every broadcast costs a third of the speed.
SLOTH_INLINE vf block_madd(const float* x, vf word, vf sum, Words) { return vfma(vset(*x), word, sum); }
#if defined(SLOTH_PRECISION_BF16)
SLOTH_INLINE vf block_madd(const float* x, vf word, vf sum, BfWords) {
  __asm__("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(*x), "v"(word));
  return sum;
}
#endif

// totals[M][VW] (+)= x[M, 32 * blocks] * the 16 stored rows at w. `ahead` will be wanted soon.
template <class F, class P, int M>
SLOTH_NOINLINE void block_tile(int64_t blocks, const float* SLOTH_RESTRICT x, const uint8_t* SLOTH_RESTRICT w, int64_t rowBytes, const uint8_t* ahead,
                               float* SLOTH_RESTRICT totals, bool begin) {
  typedef Integers<F, P> Source;
  const int WORDS = 16 / P::DEEP;
  if (begin) {
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) vstore(totals + i * VW, vzero());
  }
  __m512i scales[4];
  for (int64_t b = 0; b < blocks; b++, w += F::BYTES32) {
    if (ahead) {
      SLOTH_UNROLL
      for (int64_t i = 0; i < VW * F::BYTES32; i += 64) SLOTH_PREFETCH(ahead + i);
      ahead += VW * F::BYTES32;
    }
    if (b % 4 == 0) block_scales_of<F>(w, rowBytes, blocks - b, scales);
    const float* sums = x + 2 * WORDS * M;
    vf acc[M];
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) acc[i] = Source::OFFSET == 0 ? vzero() : vset(sums[(Source::OFFSET == 16 ? 1 : 2) * M + i]);
    Source s;
    Source::begin(s, w, rowBytes);
    for (int64_t h = 0; h < 2; h++, x += WORDS * M) {
      Source::half(s, w, rowBytes, h);
      SLOTH_UNROLL
      for (int t = 0; t < WORDS; t++) {
        const vf word = Source::word(s, t);
        SLOTH_UNROLL
        for (int i = 0; i < M; i++) acc[i] = block_madd(x + t * M + i, word, acc[i], P());
      }
    }
    __asm__ __volatile__("" : : : "memory");  // the totals stay in memory: in registers they would push out the sums
    vf low;
    const vf d = Source::scale(scales[b % 4], &low);
    SLOTH_UNROLL
    for (int i = 0; i < M; i++) {
      vf total = vfma(acc[i], d, vload(totals + i * VW));
      if (F::DOT_SCALES == 2) total = vfma(vset(sums[i]), low, total);
      vstore(totals + i * VW, total);
    }
    x += 3 * M;
  }
}
// More than 8 rows only in bf16: the f32 products of those are the general product's, bit for bit (few_columns.h).
template <class F, class P>
SLOTH_INLINE void block_product(int64_t rows, int64_t blocks, const float* x, const uint8_t* w, int64_t rowBytes, const uint8_t* ahead, float* totals, bool begin) {
  if constexpr (P::DEEP == 2) {
    switch (rows) {
      case 9: block_tile<F, P, 9>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 10: block_tile<F, P, 10>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 11: block_tile<F, P, 11>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 12: block_tile<F, P, 12>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 13: block_tile<F, P, 13>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 14: block_tile<F, P, 14>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      case 15: block_tile<F, P, 15>(blocks, x, w, rowBytes, ahead, totals, begin); break;
      default: if (rows >= 16) block_tile<F, P, 16>(blocks, x, w, rowBytes, ahead, totals, begin);
    }
    if (rows > 8) return;
  }
  switch (rows) {
    case 1: block_tile<F, P, 1>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 2: block_tile<F, P, 2>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 3: block_tile<F, P, 3>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 4: block_tile<F, P, 4>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 5: block_tile<F, P, 5>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 6: block_tile<F, P, 6>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    case 7: block_tile<F, P, 7>(blocks, x, w, rowBytes, ahead, totals, begin); break;
    default: block_tile<F, P, 8>(blocks, x, w, rowBytes, ahead, totals, begin); break;
  }
}

// totals[rows][VW] += t[rows, r] * b[r, VW], all f32.
SLOTH_NOINLINE void block_low_rank(int64_t rows, int64_t r, const float* t, int64_t ldt, const float* b, float* totals) {
  for (int64_t from = 0; from < rows; from += 8) {
    const int64_t n = min_i(8, rows - from);
    vf acc[8];
    const float* row[8];
    for (int64_t i = 0; i < 8; i++) {
      row[i] = t + (from + min_i(i, n - 1)) * ldt;
      acc[i] = vload(totals + (from + min_i(i, n - 1)) * VW);
    }
    for (int64_t k = 0; k < r; k++) {
      const vf v = vload(b + k * VW);
      SLOTH_UNROLL
      for (int i = 0; i < 8; i++) acc[i] = vfma(vset(row[i][k]), v, acc[i]);
    }
    for (int64_t i = 0; i < n; i++) vstore(totals + (from + i) * VW, acc[i]);
  }
}

// All rows of x in strips: strip s begins at from(s) * words of a row, and holds for each block its words [words][rows of the strip].
SLOTH_INLINE int64_t block_strips(int64_t rows) { return ceil_div(rows, BLOCK_STRIP); }
template <class P>
SLOTH_INLINE int64_t block_floats(int64_t m, int64_t k) {
  return m * (k / 32) * block_words<P>() + VW;
}
// 32 elements of one row as words, and their sum.
SLOTH_INLINE float block_words_of(const float* x, Words, vf* w) {
  w[0] = vload(x);
  w[1] = vload(x + VW);
  return vsum(vadd(w[0], w[1]));
}
#if defined(SLOTH_PRECISION_BF16)
alignas(64) static const uint16_t block_order[32] = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 16, 18, 17, 19, 20, 22, 21, 23, 24, 26, 25, 27, 28, 30, 29, 31};
SLOTH_INLINE float block_words_of(const float* x, BfWords, vf* w) {
  const __m512i words = bf_words(vload(x), vload(x + VW));
  w[0] = _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(block_order), words));
  const __m512i upper = _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  return vsum(vadd(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), _mm512_castsi512_ps(upper)));
}
#endif
template <class P>
static void block_pack(const float* x, int64_t m, int64_t k, float* out) {
  const int64_t strips = block_strips(m);
  const int GROUPS = 2 / P::DEEP;
  for (int64_t s = 0; s < strips; s++) {
    const int64_t from = strip_begin(m, strips, s), rows = strip_begin(m, strips, s + 1) - from;
    for (int64_t b = 0; b < k; b += 32) {
      vf v[GROUPS][VW];  // [row] -> [word]
      float sums[BLOCK_STRIP];
      for (int g = 0; g < GROUPS; g++) {
        for (int64_t i = rows; i < VW; i++) v[g][i] = vzero();
      }
      for (int64_t i = 0; i < rows; i++) {
        vf w[2];
        sums[i] = block_words_of(x + (from + i) * k + b, P(), w);
        for (int g = 0; g < GROUPS; g++) v[g][i] = w[g];
      }
      for (int g = 0; g < GROUPS; g++) {
        vtranspose(v[g]);
        for (int i = 0; i < VW; i++, out += rows) vstoren(out, rows, v[g][i]);
      }
      for (int64_t i = 0; i < rows; i++) {
        out[i] = sums[i];
        out[rows + i] = -16.0f * sums[i];
        out[2 * rows + i] = -24.0f * sums[i];
      }
      out += 3 * rows;
    }
  }
}

struct BlockLayer {
  const GroupMember* layer;
  const float* t;  // [m, r]
  int64_t m, k, rowBytes;
  const float* packed;
};

// Outputs n0 .. n1 of all rows.
template <class F, class P>
SLOTH_NOINLINE void block_task(const BlockLayer& g, int64_t n0, int64_t n1) {
  alignas(64) float totals[SKINNY * VW];
  alignas(64) float values[(KC + VW) * VW];  // of the low-rank part
  alignas(64) uint8_t rest[VW * BLOCK_STRETCH * F::BYTES32 + 16];  // the last rows of the weight, where they are fewer than a pass
  const GroupMember& e = *g.layer;
  const int64_t blocks = g.k / 32, strips = block_strips(g.m), words = block_words<P>();
  for (int64_t c = n0; c < n1; c += VW) {
    const int64_t n = min_i(VW, n1 - c);
    const uint8_t* stored = static_cast<const uint8_t*>(e.w) + c * g.rowBytes;
    for (int64_t b = 0; b < blocks; b += BLOCK_STRETCH) {
      const int64_t count = min_i(BLOCK_STRETCH, blocks - b);
      const uint8_t* w = stored + b * F::BYTES32;
      int64_t rowBytes = g.rowBytes;
      if (n < VW) {
        rowBytes = count * F::BYTES32;
        memset(rest, 0, sizeof(rest));
        for (int64_t r = 0; r < n; r++) memcpy(rest + r * rowBytes, w + r * g.rowBytes, static_cast<size_t>(rowBytes));
        w = rest;
      }
      // The stored rows of the next pass lie behind those of this one, whatever the stretch.
      const uint8_t* ahead = stored + VW * (g.rowBytes + b * F::BYTES32);
      for (int64_t s = 0; s < strips; s++) {
        const int64_t from = strip_begin(g.m, strips, s), rows = strip_begin(g.m, strips, s + 1) - from;
        const float* x = g.packed + (from * blocks + b * rows) * words;
        block_product<F, P>(rows, count, x, w, rowBytes, s == 0 ? ahead : nullptr, totals + from * VW, b == 0);
      }
    }
    for (int64_t r = 0; r < e.r; r += KC) {
      const int64_t deep = min_i(KC, e.r - r);
      column_values(e.b, e.r, c, n, r, deep, values);
      block_low_rank(g.m, deep, g.t + r, e.r, values, totals);
    }
    const vf bias = e.bias ? vloadn(e.bias + c, n) : vzero();
    for (int64_t i = 0; i < g.m; i++) {
      float* to = e.y + i * e.n + c;
      vf total = vload(totals + i * VW);
      if (e.bias) total = vadd(total, bias);
      if (e.accumulate) total = vadd(total, vloadn(to, n));
      vstoren(to, n, total);
    }
  }
}

// t = scale * x * A^T in f32 of the layers that bring none; how many floats they take.
static int64_t block_rank_floats(const GroupMember* members, int count, int64_t m) {
  int64_t floats = 0;
  for (int i = 0; i < count; i++) floats += members[i].t ? 0 : m * members[i].r;
  return floats;
}

template <class P>
static void block_group(Pool* pool, const GroupMember* members, int count, const float* x, int64_t m, int64_t k) {
  BlockLayer list[GROUP_MOST];
  GroupMember down[GROUP_MOST];
  int downs = 0;
  float* t = static_cast<float*>(pool_shared(pool, SLOT_GROUP, static_cast<size_t>(block_rank_floats(members, count, m) + 1) * 4));
  for (int i = 0; i < count; i++) {
    const GroupMember& e = members[i];
    list[i] = {&e, e.t, m, k, format_row_bytes(e.format, k), nullptr};
    if (e.r <= 0 || e.t) continue;
    list[i].t = t;
    down[downs++] = {t, e.a, FORMAT_F32, e.r, nullptr, nullptr, nullptr, nullptr, 0, e.scale, 0};
    t += m * e.r;
  }
  if (downs > 0) {
    row_group(pool, down, downs, x, m, k);
    for (int d = 0; d < downs; d++) {
      for (int64_t i = 0; i < m * down[d].n; i++) down[d].y[i] *= down[d].scale;
    }
  }
  float* packed = static_cast<float*>(pool_shared(pool, SLOT_SKINNY, static_cast<size_t>(block_floats<P>(m, k)) * 4));
  block_pack<P>(x, m, k, packed);
  // Tasks of a few passes: the shorter they are the closer all workers end together.
  int64_t first[GROUP_MOST + 1], passes = 0;
  for (int i = 0; i < count; i++) passes += ceil_div(members[i].n, VW);
  const int64_t wide = max_i(1, min_i(BLOCK_WIDE, passes / (32 * pool_threads(pool)))) * VW;
  first[0] = 0;
  for (int i = 0; i < count; i++) {
    list[i].packed = packed;
    first[i + 1] = first[i] + ceil_div(members[i].n, wide);
  }
  pool_for(pool, static_cast<int>(first[count]), [&](int task, int) {
    int i = 0;
    while (task >= first[i + 1]) i++;
    const int64_t n0 = (task - first[i]) * wide, n1 = min_i(members[i].n, n0 + wide);
    SLOTH_WITH_FORMAT(members[i].format, F, {
      if constexpr (Columns<F>::SCALED) block_task<F, P>(list[i], n0, n1);
    })
  });
}
#endif
