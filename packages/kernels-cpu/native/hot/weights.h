// Stored weight formats: each is one struct; a further format is one more struct and one more line in SLOTH_WITH_FORMAT.
// Included inside an ISA namespace, after simd.h.
//
//   BLOCK        elements a stored block (row lengths are multiples of it)
//   BYTES32      bytes of 32 elements
//   decode32     32 elements into 32 / VW vectors
//   decode_tail  n < 32 elements (formats with BLOCK 1 only)
//   DOT_SCALES   for blocks of 32 halves: 1 = d·(q - DOT_ZERO), 2 = d·q + m, with f16 d (and m) in front; 0 for other formats
//   encode       n elements of one row (n a multiple of BLOCK), rounding as ggml's reference quantisers do
// Block layouts and rounding: ggml (ggml-common.h, ggml-quants.c), see the formats chapter of the documentation.

// Vectors in 32 elements.
static const int V32 = 32 / VW;

// Products and sums of the quantisers must not be fused: their rounding is the file format.
#if defined(__GNUC__) && !defined(__clang__)
#define SLOTH_NO_CONTRACT __attribute__((optimize("fp-contract=off")))
#else
#define SLOTH_NO_CONTRACT
#endif

#if defined(SLOTH_SIMD_AVX512)
// Another way to multiply a block of halves with a single row of x, with less work for the two execution ports that shuffle: the 16 bytes are loaded into
// every quarter of a vector and rotated so that quarter g holds the half of byte 4·i + g in the top of a mantissa, as 16 + q. Rows of x come in that order
// (DOT_ORDER), and 16 (and the zero of the format) times their sum is taken off again.
SLOTH_INLINE void dot_values(const uint8_t* p, vf* lo, vf* hi) {
  const __m512i b = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i low = _mm512_set_epi32(27, 27, 27, 27, 3, 3, 3, 3, 11, 11, 11, 11, 19, 19, 19, 19);
  const __m512i high = _mm512_set_epi32(23, 23, 23, 23, 31, 31, 31, 31, 7, 7, 7, 7, 15, 15, 15, 15);
  const __m512i mask = _mm512_set1_epi32(0x780000), sixteen = _mm512_set1_epi32(0x41800000);
  *lo = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_rolv_epi32(b, low), mask, sixteen, 0xea));  // (b & mask) | 16.0
  *hi = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_rolv_epi32(b, high), mask, sixteen, 0xea));
}
// Lane of a dot_values vector that holds the half of byte j.
SLOTH_INLINE int dot_lane(int j) { return j % 4 * 4 + j / 4; }
// The first two halves of a block as floats 0 and 1.
SLOTH_INLINE __m128 block_scales(const uint8_t* p) { return _mm_cvtph_ps(_mm_castps_si128(_mm_load_ss(reinterpret_cast<const float*>(p)))); }
#endif

struct FormatF32 {
  static const int DOT_SCALES = 0;
  static const int DOT_ZERO = 0;
  static const int64_t BLOCK = 1;
  static const int64_t BYTES32 = 128;
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    SLOTH_UNROLL
    for (int i = 0; i < V32; i++) w[i] = vload(reinterpret_cast<const float*>(p) + i * VW);
  }
  SLOTH_INLINE void decode_tail(const uint8_t* p, int64_t n, float* out) { memcpy(out, p, static_cast<size_t>(n) * 4); }
  static void encode(const float* x, int64_t n, uint8_t* out) { memcpy(out, x, static_cast<size_t>(n) * 4); }
};

struct FormatF16 {
  static const int DOT_SCALES = 0;
  static const int DOT_ZERO = 0;
  static const int64_t BLOCK = 1;
  static const int64_t BYTES32 = 64;
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    SLOTH_UNROLL
    for (int i = 0; i < V32; i++) w[i] = vload_f16(reinterpret_cast<const uint16_t*>(p) + i * VW);
  }
  SLOTH_INLINE void decode_tail(const uint8_t* p, int64_t n, float* out) {
    const uint16_t* h = reinterpret_cast<const uint16_t*>(p);
    for (int64_t i = 0; i < n; i++) out[i] = half_to_float(h[i]);
  }
  static void encode(const float* x, int64_t n, uint8_t* out) {
    uint16_t* h = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < n; i += VW) {
      const int64_t left = n - i;
      if (left >= VW) {
        vstore_f16(h + i, vload(x + i));
      } else {
        uint16_t t[VW];
        vstore_f16(t, vloadn(x + i, left));
        memcpy(h + i, t, static_cast<size_t>(left) * 2);
      }
    }
  }
};

struct FormatBF16 {
  static const int DOT_SCALES = 0;
  static const int DOT_ZERO = 0;
  static const int64_t BLOCK = 1;
  static const int64_t BYTES32 = 64;
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    SLOTH_UNROLL
    for (int i = 0; i < V32; i++) w[i] = vload_bf16(reinterpret_cast<const uint16_t*>(p) + i * VW);
  }
  SLOTH_INLINE void decode_tail(const uint8_t* p, int64_t n, float* out) {
    const uint16_t* h = reinterpret_cast<const uint16_t*>(p);
    for (int64_t i = 0; i < n; i++) out[i] = bf16_to_float(h[i]);
  }
  static void encode(const float* x, int64_t n, uint8_t* out) {
    uint16_t* h = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < n; i++) h[i] = float_to_bf16(x[i]);
  }
};

struct FormatQ8_0 {
  static const int DOT_SCALES = 0;
  static const int DOT_ZERO = 0;
  static const int64_t BLOCK = 32;
  static const int64_t BYTES32 = 34;  // f16 d; 32 i8
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    const vf d = vset_f16(p);
    SLOTH_UNROLL
    for (int i = 0; i < V32; i++) w[i] = vmul(vload_i8(reinterpret_cast<const int8_t*>(p + 2) + i * VW), d);
  }
  SLOTH_INLINE void decode_tail(const uint8_t*, int64_t, float*) {}
  SLOTH_NO_CONTRACT static void encode(const float* x, int64_t n, uint8_t* out) {
    for (int64_t b = 0; b < n; b += 32, x += 32, out += 34) {
      vf most = vzero();
      for (int i = 0; i < 32; i += VW) most = vmax(vabs(vload(x + i)), most);
      const float d = vhmax(most) / 127.0f;
      const float id = d != 0.0f ? 1.0f / d : 0.0f;
      const uint16_t h = float_to_half(d);
      memcpy(out, &h, 2);
      for (int i = 0; i < 32; i++) {
        // Round half away from zero.
        const float v = x[i] * id;
        const int whole = static_cast<int>(v);
        const float rest = v - static_cast<float>(whole);
        out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(whole + (rest >= 0.5f) - (rest <= -0.5f)));
      }
    }
  }
};

struct FormatQ4_0 {
  static const int DOT_SCALES = 1;
  static const int DOT_ZERO = 8;
  static const int64_t BLOCK = 32;
  static const int64_t BYTES32 = 18;  // f16 d; 16 bytes: element j in the low, j + 16 in the high half; d * (q - 8)
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    const vf d = vset_f16(p);
#if defined(SLOTH_SIMD_AVX512)
    vnibbles_of(p + 2, vmul(vsub(viota(), vset(8.0f)), d), &w[0], &w[1]);
    return;
#endif
    const vf m = vmul(d, vset(-8.0f));
    SLOTH_UNROLL
    for (int i = 0; i < V32 / 2; i++) {
      vf lo, hi;
      vnibbles(p + 2 + i * VW, &lo, &hi);
      w[i] = vfma(lo, d, m);  // exact: 4 times 11 bits
      w[i + V32 / 2] = vfma(hi, d, m);
    }
  }
  SLOTH_INLINE void decode_tail(const uint8_t*, int64_t, float*) {}
  SLOTH_NO_CONTRACT static void encode(const float* x, int64_t n, uint8_t* out) {
    for (int64_t b = 0; b < n; b += 32, x += 32, out += 18) {
      float amax = 0.0f, most = 0.0f;  // the signed value of the first largest magnitude becomes -8
      for (int i = 0; i < 32; i++) {
        const float a = fabsf(x[i]);
        if (amax < a) {
          amax = a;
          most = x[i];
        }
      }
      const float d = most / -8.0f;
      const float id = d != 0.0f ? 1.0f / d : 0.0f;
      const uint16_t h = float_to_half(d);
      memcpy(out, &h, 2);
      for (int i = 0; i < 16; i++) {
        const float v0 = x[i] * id;
        const float v1 = x[i + 16] * id;
        const int q0 = static_cast<int8_t>(static_cast<int>(v0 + 8.5f));
        const int q1 = static_cast<int8_t>(static_cast<int>(v1 + 8.5f));
        out[2 + i] = static_cast<uint8_t>((q0 < 15 ? q0 : 15) | ((q1 < 15 ? q1 : 15) << 4));
      }
    }
  }
};

struct FormatQ4_1 {
  static const int DOT_SCALES = 2;
  static const int DOT_ZERO = 0;
  static const int64_t BLOCK = 32;
  static const int64_t BYTES32 = 20;  // f16 d, m; 16 bytes of halves as in q4_0; d * q + m
  SLOTH_INLINE void decode32(const uint8_t* p, vf* w) {
    const vf d = vset_f16(p);
    const vf m = vset_f16(p + 2);
#if defined(SLOTH_SIMD_AVX512)
    vnibbles_of(p + 4, vfma(viota(), d, m), &w[0], &w[1]);
    return;
#endif
    SLOTH_UNROLL
    for (int i = 0; i < V32 / 2; i++) {
      vf lo, hi;
      vnibbles(p + 4 + i * VW, &lo, &hi);
      w[i] = vfma(lo, d, m);
      w[i + V32 / 2] = vfma(hi, d, m);
    }
  }
  SLOTH_INLINE void decode_tail(const uint8_t*, int64_t, float*) {}
  SLOTH_NO_CONTRACT static void encode(const float* x, int64_t n, uint8_t* out) {
    for (int64_t b = 0; b < n; b += 32, x += 32, out += 20) {
      float low = FLT_MAX, high = -FLT_MAX;
      for (int i = 0; i < 32; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
      }
      const float d = (high - low) / 15.0f;
      const float id = d != 0.0f ? 1.0f / d : 0.0f;
      const uint16_t hd = float_to_half(d), hm = float_to_half(low);
      memcpy(out, &hd, 2);
      memcpy(out + 2, &hm, 2);
      for (int i = 0; i < 16; i++) {
        const float v0 = (x[i] - low) * id;
        const float v1 = (x[i + 16] - low) * id;
        const int q0 = static_cast<int8_t>(static_cast<int>(v0 + 0.5f));
        const int q1 = static_cast<int8_t>(static_cast<int>(v1 + 0.5f));
        out[4 + i] = static_cast<uint8_t>((q0 < 15 ? q0 : 15) | ((q1 < 15 ? q1 : 15) << 4));
      }
    }
  }
};

#if defined(SLOTH_SIMD_AVX512)
// Blocks of 16 rows decoded column by column, lane r for row r: quants are transposed in groups of four bytes, several times fewer than floats, and decoded behind it. The
// values are those of decode32.
//
// SCALED  false: the format has no columns
// begin   one block, with its scales as block_scales_of leaves them
// half    must be called before the elements 0..15 (0) and 16..31 (1)
// column  element 4 * quarter + m of that half
template <class F>
struct Columns {
  static const bool SCALED = false;
};

// w[i]: lane r holds word i of the four that `words` returns for row r.
template <class R>
SLOTH_INLINE void columns_of(R&& words, __m512i* w) {
  __m512i z[4];
  SLOTH_UNROLL
  for (int q = 0; q < 4; q++) {
    z[q] = _mm512_castsi128_si512(words(q));
    z[q] = _mm512_inserti32x4(z[q], words(q + 4), 1);
    z[q] = _mm512_inserti32x4(z[q], words(q + 8), 2);
    z[q] = _mm512_inserti32x4(z[q], words(q + 12), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
  const __m512i c = _mm512_unpacklo_epi32(z[2], z[3]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  w[0] = _mm512_unpacklo_epi64(a, c);
  w[1] = _mm512_unpackhi_epi64(a, c);
  w[2] = _mm512_unpacklo_epi64(b, d);
  w[3] = _mm512_unpackhi_epi64(b, d);
}
// w[i]: lane r holds the bytes 4 * i .. 4 * i + 3 of row r.
SLOTH_INLINE void word_columns(const uint8_t* p, int64_t rowBytes, __m512i* w) {
  columns_of([&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + r * rowBytes)); }, w);
}

// The first words of four blocks that lie behind one another; of a word only the bytes of the scales are meant. `bytes` are there, which may be those of fewer blocks.
SLOTH_INLINE __m512i some_bytes(const uint8_t* p, int64_t bytes) {
  return bytes >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(bytes > 0 ? (1ull << bytes) - 1 : 0, p);
}
SLOTH_INLINE __m128i four_scales(const uint8_t* p, int64_t bytes, FormatQ4_0) {
  const __m512i order = _mm512_castsi128_si512(_mm_setr_epi16(0, 0, 9, 9, 18, 18, 27, 27));
  return _mm512_castsi512_si128(_mm512_permutexvar_epi16(order, some_bytes(p, bytes)));
}
SLOTH_INLINE __m128i four_scales(const uint8_t* p, int64_t bytes, FormatQ4_1) {
  const __m512i order = _mm512_castsi128_si512(_mm_setr_epi32(0, 5, 10, 15));
  return _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, some_bytes(p, bytes)));
}
SLOTH_INLINE __m128i four_scales(const uint8_t* p, int64_t bytes, FormatQ8_0) {
  // The third and fourth scales are the words 14 and 31 behind byte 40.
  const __m512i order = _mm512_castsi128_si512(_mm_setr_epi16(0, 0, 17, 17, 46, 46, 63, 63));
  return _mm512_castsi512_si128(_mm512_permutex2var_epi16(some_bytes(p, bytes), order, some_bytes(p + 40, bytes - 40)));
}
// Scales of up to four blocks of 16 rows: block b is out[b], one word a row.
template <class F>
SLOTH_INLINE void block_scales_of(const uint8_t* p, int64_t rowBytes, int64_t blocks, __m512i* out) {
  if (blocks >= 4) columns_of([&](int r) { return four_scales(p + r * rowBytes, 4 * F::BYTES32, F()); }, out);
  else columns_of([&](int r) { return four_scales(p + r * rowBytes, blocks * F::BYTES32, F()); }, out);
}
SLOTH_INLINE vf low_halves(__m512i words) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)); }
SLOTH_INLINE vf high_halves(__m512i words) { return low_halves(_mm512_srli_epi32(words, 16)); }

template <>
struct Columns<FormatQ4_0> {
  static const bool SCALED = true;
  __m512i w[4];
  vf d, table;
  SLOTH_INLINE void begin(Columns& s, const uint8_t* p, int64_t rowBytes, __m512i scales) {
    s.d = low_halves(scales);
    s.table = vsub(viota(), vset(8.0f));
    word_columns(p + 2, rowBytes, s.w);
  }
  SLOTH_INLINE void half(Columns& s, const uint8_t*, int64_t, int64_t which) {
    if (which == 0) return;
    SLOTH_UNROLL
    for (int i = 0; i < 4; i++) s.w[i] = _mm512_srli_epi32(s.w[i], 4);
  }
  // The permutation reads only the low four bits of each lane.
  SLOTH_INLINE vf column(const Columns& s, int quarter, int m) { return vmul(_mm512_permutexvar_ps(_mm512_srli_epi32(s.w[quarter], 8 * m), s.table), s.d); }
};
template <>
struct Columns<FormatQ4_1> {
  static const bool SCALED = true;
  __m512i w[4];
  vf d, m, table;
  SLOTH_INLINE void begin(Columns& s, const uint8_t* p, int64_t rowBytes, __m512i scales) {
    s.d = low_halves(scales);
    s.m = high_halves(scales);
    s.table = viota();
    word_columns(p + 4, rowBytes, s.w);
  }
  SLOTH_INLINE void half(Columns& s, const uint8_t*, int64_t, int64_t which) {
    if (which == 0) return;
    SLOTH_UNROLL
    for (int i = 0; i < 4; i++) s.w[i] = _mm512_srli_epi32(s.w[i], 4);
  }
  SLOTH_INLINE vf column(const Columns& s, int quarter, int m) { return vfma(_mm512_permutexvar_ps(_mm512_srli_epi32(s.w[quarter], 8 * m), s.table), s.d, s.m); }
};
template <>
struct Columns<FormatQ8_0> {
  static const bool SCALED = true;
  __m512i w[4], mask;
  vf d;
  SLOTH_INLINE void begin(Columns& s, const uint8_t*, int64_t, __m512i scales) {
    // Bytes are converted where they lie in the top of a word: 2^24 times too large.
    s.d = vmul(low_halves(scales), vset(0x1p-24f));
    s.mask = _mm512_set1_epi32(static_cast<int>(0xff000000u));
  }
  SLOTH_INLINE void half(Columns& s, const uint8_t* p, int64_t rowBytes, int64_t which) { word_columns(p + 2 + 16 * which, rowBytes, s.w); }
  SLOTH_INLINE vf column(const Columns& s, int quarter, int m) {
    return vmul(_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(s.w[quarter], 24 - 8 * m), s.mask)), s.d);
  }
};

// kc elements (whole blocks) of 16 rows: element k into out + k * stride.
template <class F>
SLOTH_INLINE void decode_columns(const uint8_t* p, int64_t rowBytes, int64_t kc, float* out, int64_t stride) {
  const int64_t blocks = kc / 32;
  __m512i scales[4];
  for (int64_t b = 0; b < blocks; b++, p += F::BYTES32) {
    if (b % 4 == 0) block_scales_of<F>(p, rowBytes, blocks - b, scales);
    Columns<F> c;
    Columns<F>::begin(c, p, rowBytes, scales[b % 4]);
    for (int64_t h = 0; h < 2; h++) {
      Columns<F>::half(c, p, rowBytes, h);
      SLOTH_UNROLL
      for (int i = 0; i < 16; i++, out += stride) vstore(out, Columns<F>::column(c, i / 4, i % 4));
    }
  }
}
#endif

// Runs BODY with F as the struct of a format code (the binding has checked the code).
#define SLOTH_WITH_FORMAT(code, F, ...)                          \
  switch (code) {                                                \
    case FORMAT_F32: { typedef FormatF32 F; __VA_ARGS__; break; }   \
    case FORMAT_F16: { typedef FormatF16 F; __VA_ARGS__; break; }   \
    case FORMAT_BF16: { typedef FormatBF16 F; __VA_ARGS__; break; } \
    case FORMAT_Q8_0: { typedef FormatQ8_0 F; __VA_ARGS__; break; } \
    case FORMAT_Q4_0: { typedef FormatQ4_0 F; __VA_ARGS__; break; } \
    case FORMAT_Q4_1: { typedef FormatQ4_1 F; __VA_ARGS__; break; } \
    default: break;                                              \
  }

// Byte offset of element c (a multiple of BLOCK) in a row.
template <class F>
SLOTH_INLINE int64_t format_offset(int64_t c) {
  return F::BLOCK == 1 ? c * (F::BYTES32 / 32) : (c / 32) * F::BYTES32;
}

// n elements from column c of a stored row, as f32 (c and n multiples of BLOCK).
template <class F>
SLOTH_INLINE void decode_row(const uint8_t* row, int64_t c, int64_t n, float* SLOTH_RESTRICT out) {
  const uint8_t* p = row + format_offset<F>(c);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32, p += F::BYTES32) {
    vf w[V32];
    F::decode32(p, w);
    SLOTH_UNROLL
    for (int j = 0; j < V32; j++) vstore(out + i + j * VW, w[j]);
  }
  if (i < n) F::decode_tail(p, n - i, out + i);
}

// --- kernels

static void dequantize(Pool* pool, float* out, const void* w, int64_t format, int64_t rows, int64_t cols) {
  const uint8_t* base = static_cast<const uint8_t*>(w);
  const int64_t bytes = format_row_bytes(format, cols);
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) SLOTH_WITH_FORMAT(format, F, decode_row<F>(base + r * bytes, 0, cols, out + r * cols))
  });
}

static void quantize(Pool* pool, void* out, const float* x, int64_t format, int64_t rows, int64_t cols) {
  uint8_t* base = static_cast<uint8_t*>(out);
  const int64_t bytes = format_row_bytes(format, cols);
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) SLOTH_WITH_FORMAT(format, F, F::encode(x + r * cols, cols, base + r * bytes))
  });
}

static void embedding(Pool* pool, float* out, const void* w, int64_t format, const int32_t* ids, int64_t rows, int64_t vocab, int64_t cols, double scale) {
  const uint8_t* base = static_cast<const uint8_t*>(w);
  const int64_t bytes = format_row_bytes(format, cols);
  const float s = static_cast<float>(scale);
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) {
      float* o = out + r * cols;
      const int64_t id = ids[r];
      if (id < 0 || id >= vocab) {
        pool_fail(pool, "embedding", "token id outside the vocabulary", r, id);
        memset(o, 0, static_cast<size_t>(cols) * 4);
        continue;
      }
      SLOTH_WITH_FORMAT(format, F, decode_row<F>(base + id * bytes, 0, cols, o))
      if (s != 1.0f) {
        for (int64_t c = 0; c < cols; c++) o[c] *= s;
      }
    }
  });
}
