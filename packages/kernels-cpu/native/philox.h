// Philox4x32-10 over vector lanes. Included inside an ISA namespace (isa.inc.h).
//
// One group makes PHILOX_GROUP blocks. Which lane holds which counter is chosen so that a 4 x 4 transpose inside every 128 bits puts the words of consecutive
// blocks one after the other: with J = lanes / 4, lane 4j + k holds counter kJ + j.

#if defined(SLOTH_SIMD_AVX512)
static const int PHILOX_GROUP = 16;
typedef __m512i vu;
SLOTH_INLINE vu vu_set(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
SLOTH_INLINE vu vu_load(const uint32_t* p) { return _mm512_loadu_si512(p); }
SLOTH_INLINE void vu_store(uint32_t* p, vu v) { _mm512_storeu_si512(p, v); }
SLOTH_INLINE vu vu_add(vu a, vu b) { return _mm512_add_epi32(a, b); }
SLOTH_INLINE vu vu_xor3(vu a, vu b, vu c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
SLOTH_INLINE void vu_mul(vu a, vu c, vu* high, vu* low) {
  const vu even = _mm512_mul_epu32(a, c);
  const vu odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), c);
  *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
  *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
}
#define SLOTH_UNPACK(WHICH, BITS, A, B) _mm512_unpack##WHICH##_epi##BITS(A, B)
#elif defined(SLOTH_SIMD_AVX2)
static const int PHILOX_GROUP = 8;
typedef __m256i vu;
SLOTH_INLINE vu vu_set(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
SLOTH_INLINE vu vu_load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SLOTH_INLINE void vu_store(uint32_t* p, vu v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
SLOTH_INLINE vu vu_add(vu a, vu b) { return _mm256_add_epi32(a, b); }
SLOTH_INLINE vu vu_xor3(vu a, vu b, vu c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
SLOTH_INLINE void vu_mul(vu a, vu c, vu* high, vu* low) {
  const vu even = _mm256_mul_epu32(a, c);
  const vu odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), c);
  *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
  *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}
#define SLOTH_UNPACK(WHICH, BITS, A, B) _mm256_unpack##WHICH##_epi##BITS(A, B)
#elif defined(SLOTH_SIMD_SSE2)
static const int PHILOX_GROUP = 4;
typedef __m128i vu;
SLOTH_INLINE vu vu_set(uint32_t x) { return _mm_set1_epi32(static_cast<int>(x)); }
SLOTH_INLINE vu vu_load(const uint32_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
SLOTH_INLINE void vu_store(uint32_t* p, vu v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
SLOTH_INLINE vu vu_add(vu a, vu b) { return _mm_add_epi32(a, b); }
SLOTH_INLINE vu vu_xor3(vu a, vu b, vu c) { return _mm_xor_si128(_mm_xor_si128(a, b), c); }
SLOTH_INLINE void vu_mul(vu a, vu c, vu* high, vu* low) {
  const vu even = _mm_mul_epu32(a, c);
  const vu odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), c);
  const vu upper = _mm_set_epi32(-1, 0, -1, 0);
  *low = _mm_or_si128(_mm_andnot_si128(upper, even), _mm_slli_epi64(odd, 32));
  *high = _mm_or_si128(_mm_srli_epi64(even, 32), _mm_and_si128(upper, odd));
}
#define SLOTH_UNPACK(WHICH, BITS, A, B) _mm_unpack##WHICH##_epi##BITS(A, B)
#elif defined(SLOTH_SIMD_NEON)
static const int PHILOX_GROUP = 4;
typedef uint32x4_t vu;
SLOTH_INLINE vu vu_set(uint32_t x) { return vdupq_n_u32(x); }
SLOTH_INLINE vu vu_load(const uint32_t* p) { return vld1q_u32(p); }
SLOTH_INLINE void vu_store(uint32_t* p, vu v) { vst1q_u32(p, v); }
SLOTH_INLINE vu vu_add(vu a, vu b) { return vaddq_u32(a, b); }
SLOTH_INLINE vu vu_xor3(vu a, vu b, vu c) { return veorq_u32(veorq_u32(a, b), c); }
SLOTH_INLINE void vu_mul(vu a, vu c, vu* high, vu* low) {
  const vu first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(a), vget_low_u32(c)));
  const vu second = vreinterpretq_u32_u64(vmull_high_u32(a, c));
  *low = vuzp1q_u32(first, second);
  *high = vuzp2q_u32(first, second);
}
#define SLOTH_UNPACK_lo_32(A, B) vzip1q_u32(A, B)
#define SLOTH_UNPACK_hi_32(A, B) vzip2q_u32(A, B)
#define SLOTH_UNPACK_lo_64(A, B) vreinterpretq_u32_u64(vzip1q_u64(vreinterpretq_u64_u32(A), vreinterpretq_u64_u32(B)))
#define SLOTH_UNPACK_hi_64(A, B) vreinterpretq_u32_u64(vzip2q_u64(vreinterpretq_u64_u32(A), vreinterpretq_u64_u32(B)))
#define SLOTH_UNPACK(WHICH, BITS, A, B) SLOTH_UNPACK_##WHICH##_##BITS(A, B)
#else
// Portable: one block at a time.
static const int PHILOX_GROUP = 1;
#endif

#if defined(SLOTH_UNPACK)
// words[4 · b + w] of the blocks first + b.
SLOTH_INLINE void philox_group(uint32_t first, uint32_t step, uint32_t stream, uint64_t seed, uint32_t* words) {
  uint32_t offsets[PHILOX_GROUP];
  for (int lane = 0; lane < PHILOX_GROUP; lane++) offsets[lane] = first + static_cast<uint32_t>((lane % 4) * (PHILOX_GROUP / 4) + lane / 4);
  vu c0 = vu_load(offsets), c1 = vu_set(step), c2 = vu_set(stream), c3 = vu_set(0);
  vu k0 = vu_set(static_cast<uint32_t>(seed)), k1 = vu_set(static_cast<uint32_t>(seed >> 32));
  const vu m0 = vu_set(0xd2511f53u), m1 = vu_set(0xcd9e8d57u), w0 = vu_set(0x9e3779b9u), w1 = vu_set(0xbb67ae85u);
  for (int round = 0; round < 10; round++) {
    vu high0, low0, high1, low1;
    vu_mul(c0, m0, &high0, &low0);
    vu_mul(c2, m1, &high1, &low1);
    c0 = vu_xor3(high1, c1, k0);
    c1 = low1;
    c2 = vu_xor3(high0, c3, k1);
    c3 = low0;
    k0 = vu_add(k0, w0);
    k1 = vu_add(k1, w1);
  }
  const vu t0 = SLOTH_UNPACK(lo, 32, c0, c1);
  const vu t1 = SLOTH_UNPACK(hi, 32, c0, c1);
  const vu t2 = SLOTH_UNPACK(lo, 32, c2, c3);
  const vu t3 = SLOTH_UNPACK(hi, 32, c2, c3);
  vu_store(words, SLOTH_UNPACK(lo, 64, t0, t2));
  vu_store(words + PHILOX_GROUP, SLOTH_UNPACK(hi, 64, t0, t2));
  vu_store(words + 2 * PHILOX_GROUP, SLOTH_UNPACK(lo, 64, t1, t3));
  vu_store(words + 3 * PHILOX_GROUP, SLOTH_UNPACK(hi, 64, t1, t3));
}
#else
SLOTH_INLINE void philox_group(uint32_t first, uint32_t step, uint32_t stream, uint64_t seed, uint32_t* words) {
  uint32_t c0 = first, c1 = step, c2 = stream, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xd2511f53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xcd9e8d57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}
#endif
#undef SLOTH_UNPACK
