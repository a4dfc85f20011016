// One vector type `vf` of VW floats for every instruction set, and the few operations the kernels need.
// Included inside an ISA namespace (isa.inc.h). All arithmetic is IEEE f32 with round-to-nearest; flush-to-zero is set by the pool's threads.
//
//   vf, vi               VW floats, VW 32-bit integers
//   vload/vstore         any alignment; vloadn/vstoren touch only the first n lanes (0 <= n <= VW), missing lanes read as 0
//   vfma(a, b, c)        a*b + c          vfnma(a, b, c)   c - a*b        (fused where the hardware has it)
//   vload_f16/bf16/i8    VW stored values widened to f32
//   vnibbles             the low and high halves of VW bytes as floats 0..15
//   vsum, vhmax          across lanes
//   vexp (<= 2 ulp), vtanh

#define SLOTH_INLINE static inline __attribute__((always_inline))
#define SLOTH_NOINLINE static __attribute__((noinline))
#define SLOTH_RESTRICT __restrict__
// A row kernel is unrolled by constant bounds only, so that its accumulators live in registers.
#define SLOTH_UNROLL _Pragma("GCC unroll 32")

SLOTH_INLINE uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
SLOTH_INLINE float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

// IEEE half to float in integers alone: denormals must survive flush-to-zero.
SLOTH_INLINE float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0) {
    const float v = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    return float_of(bits_of(v) | sign);
  }
  if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
  return float_of(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

// Float to IEEE half, ties to even; overflow becomes infinity, NaN stays NaN (quiet).
SLOTH_INLINE uint16_t float_to_half(float x) {
  const uint32_t u = bits_of(x);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (a < 0x38800000u) {                                               // below 2^-14: a half denormal or zero
    const uint32_t exponent = a >> 23;
    if (exponent < 102u) return static_cast<uint16_t>(sign);
    const uint32_t mantissa = (a & 0x7fffffu) | 0x800000u;
    const uint32_t shift = 126u - exponent;  // 14..24
    const uint32_t half = 1u << (shift - 1);
    uint32_t r = mantissa >> shift;
    const uint32_t rest = mantissa & ((1u << shift) - 1u);
    if (rest > half || (rest == half && (r & 1u))) r++;
    return static_cast<uint16_t>(sign | r);
  }
  const uint32_t r = a - 0x38000000u;
  return static_cast<uint16_t>(sign | ((r + 0xfffu + ((r >> 13) & 1u)) >> 13));
}

SLOTH_INLINE uint16_t float_to_bf16(float x) {
  const uint32_t u = bits_of(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
SLOTH_INLINE float bf16_to_float(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }

#if defined(__AVX512F__)
// ------------------------------------------------------------------------------------------------------------------------------------- AVX-512
#define SLOTH_SIMD_AVX512 1
#if defined(__GNUC__) && !defined(__clang__)
// GCC's own AVX-512 headers start unused operands from an uninitialised variable on purpose, and GCC warns of it here.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
static const int VW = 16;
typedef __m512 vf;
typedef __m512i vi;
SLOTH_INLINE __mmask16 tail_mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

SLOTH_INLINE vf vzero() { return _mm512_setzero_ps(); }
SLOTH_INLINE vf vset(float x) { return _mm512_set1_ps(x); }
SLOTH_INLINE vf vload(const float* p) { return _mm512_loadu_ps(p); }
SLOTH_INLINE void vstore(float* p, vf v) { _mm512_storeu_ps(p, v); }
SLOTH_INLINE vf vloadn(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(tail_mask(n), p); }
SLOTH_INLINE void vstoren(float* p, int64_t n, vf v) { _mm512_mask_storeu_ps(p, tail_mask(n), v); }
SLOTH_INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
SLOTH_INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
SLOTH_INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
SLOTH_INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
SLOTH_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
SLOTH_INLINE vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
SLOTH_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }  // b where either is NaN
SLOTH_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }  // b where either is NaN
SLOTH_INLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
SLOTH_INLINE vf vabs(vf a) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff))); }
SLOTH_INLINE vf vcopysign(vf magnitude, vf sign) {
  const __m512i m = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_and_si512(_mm512_castps_si512(sign), m), _mm512_andnot_si512(m, _mm512_castps_si512(magnitude))));
}
SLOTH_INLINE vf vselect_lt(vf a, vf b, vf yes, vf no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes); }  // a < b ? yes : no
SLOTH_INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SLOTH_INLINE vi vtoint(vf a) { return _mm512_cvtps_epi32(a); }
SLOTH_INLINE vf vtofloat(vi a) { return _mm512_cvtepi32_ps(a); }
SLOTH_INLINE float vsum(vf v) { return _mm512_reduce_add_ps(v); }
SLOTH_INLINE float vhmax(vf v) { return _mm512_reduce_max_ps(v); }
SLOTH_INLINE vf viota() { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
SLOTH_INLINE vf vscale2(vf y, vf n) { return _mm512_scalef_ps(y, n); }  // y * 2^n

SLOTH_INLINE vf vload_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
SLOTH_INLINE vf vload_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
SLOTH_INLINE vf vload_i8(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))); }
SLOTH_INLINE void vnibbles(const uint8_t* p, vf* lo, vf* hi) {
  // The permutation reads only the low four bits of each index: a table of 0..15 converts without masking.
  const __m512 table = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  *lo = _mm512_permutexvar_ps(b, table);
  *hi = _mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), table);
}
// Broadcast of one stored half; four bytes may be read at p. Straight into a vector register: the way through a general one costs more.
SLOTH_INLINE vf vset_f16(const uint8_t* p) {
  return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_castps_si128(_mm_load_ss(reinterpret_cast<const float*>(p)))));
}
// Values 0..15 of the low and high halves of 16 bytes looked up in a table. The permutation reads only the low four bits of each index, so nothing is masked.
SLOTH_INLINE void vnibbles_of(const uint8_t* p, vf table, vf* lo, vf* hi) {
  const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  *lo = _mm512_permutexvar_ps(b, table);
  *hi = _mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), table);
}
SLOTH_INLINE void vstore_f16(uint16_t* p, vf v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// r[i] lane j -> r[j] lane i, 16 x 16.
SLOTH_INLINE void vtranspose(vf* r) {
  __m512 t[16], u[16];
  SLOTH_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  SLOTH_UNROLL
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    u[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
    u[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    u[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
  }
  SLOTH_UNROLL
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
  }
  SLOTH_UNROLL
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
#define SLOTH_PREFETCH(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)

#elif defined(__AVX2__) && defined(__FMA__)
// ---------------------------------------------------------------------------------------------------------------------------------- AVX2 + FMA
#define SLOTH_SIMD_AVX2 1
static const int VW = 8;
typedef __m256 vf;
typedef __m256i vi;
alignas(64) static const int32_t tail_table[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
SLOTH_INLINE __m256i tail_mask(int64_t n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tail_table + 8 - n)); }

SLOTH_INLINE vf vzero() { return _mm256_setzero_ps(); }
SLOTH_INLINE vf vset(float x) { return _mm256_set1_ps(x); }
SLOTH_INLINE vf vload(const float* p) { return _mm256_loadu_ps(p); }
SLOTH_INLINE void vstore(float* p, vf v) { _mm256_storeu_ps(p, v); }
SLOTH_INLINE vf vloadn(const float* p, int64_t n) { return _mm256_maskload_ps(p, tail_mask(n)); }
SLOTH_INLINE void vstoren(float* p, int64_t n, vf v) { _mm256_maskstore_ps(p, tail_mask(n), v); }
SLOTH_INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
SLOTH_INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
SLOTH_INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
SLOTH_INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
SLOTH_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SLOTH_INLINE vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
SLOTH_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
SLOTH_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
SLOTH_INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
SLOTH_INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SLOTH_INLINE vf vcopysign(vf magnitude, vf sign) {
  const __m256 m = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_and_ps(m, sign), _mm256_andnot_ps(m, magnitude));
}
SLOTH_INLINE vf vselect_lt(vf a, vf b, vf yes, vf no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
SLOTH_INLINE vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SLOTH_INLINE vi vtoint(vf a) { return _mm256_cvtps_epi32(a); }
SLOTH_INLINE vf vtofloat(vi a) { return _mm256_cvtepi32_ps(a); }
SLOTH_INLINE float vsum(vf v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SLOTH_INLINE float vhmax(vf v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
SLOTH_INLINE vf viota() { return _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0); }
SLOTH_INLINE vf vscale2(vf y, vf n) {
  // Two factors, so that 2^n may lie outside the normal range while the result lies inside or rounds to 0 or infinity.
  const __m256i i = _mm256_cvtps_epi32(n);
  const __m256i a = _mm256_srai_epi32(i, 1);
  const __m256i b = _mm256_sub_epi32(i, a);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 fa = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(a, bias), 23));
  const __m256 fb = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(b, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(y, fa), fb);
}

SLOTH_INLINE vf vload_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
SLOTH_INLINE vf vload_bf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
SLOTH_INLINE vf vload_i8(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))); }
SLOTH_INLINE void vnibbles(const uint8_t* p, vf* lo, vf* hi) {
  const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  *lo = _mm256_cvtepi32_ps(_mm256_and_si256(b, _mm256_set1_epi32(15)));
  *hi = _mm256_cvtepi32_ps(_mm256_srli_epi32(b, 4));
}
SLOTH_INLINE vf vset_f16(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
SLOTH_INLINE void vstore_f16(uint16_t* p, vf v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

SLOTH_INLINE void vtranspose(vf* r) {
  __m256 t[8], u[8];
  SLOTH_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  SLOTH_UNROLL
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  SLOTH_UNROLL
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}
#define SLOTH_PREFETCH(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)

#elif defined(__aarch64__)
// ---------------------------------------------------------------------------------------------------------------------------------------- NEON
#define SLOTH_SIMD_NEON 1
static const int VW = 4;
typedef float32x4_t vf;
typedef int32x4_t vi;

SLOTH_INLINE vf vzero() { return vdupq_n_f32(0); }
SLOTH_INLINE vf vset(float x) { return vdupq_n_f32(x); }
SLOTH_INLINE vf vload(const float* p) { return vld1q_f32(p); }
SLOTH_INLINE void vstore(float* p, vf v) { vst1q_f32(p, v); }
SLOTH_INLINE vf vloadn(const float* p, int64_t n) {
  float t[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i < n; i++) t[i] = p[i];
  return vld1q_f32(t);
}
SLOTH_INLINE void vstoren(float* p, int64_t n, vf v) {
  float t[4];
  vst1q_f32(t, v);
  for (int64_t i = 0; i < n; i++) p[i] = t[i];
}
SLOTH_INLINE vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
SLOTH_INLINE vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
SLOTH_INLINE vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
SLOTH_INLINE vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
SLOTH_INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
SLOTH_INLINE vf vfnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
SLOTH_INLINE vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SLOTH_INLINE vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SLOTH_INLINE vf vsqrt(vf a) { return vsqrtq_f32(a); }
SLOTH_INLINE vf vabs(vf a) { return vabsq_f32(a); }
SLOTH_INLINE vf vcopysign(vf magnitude, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
SLOTH_INLINE vf vselect_lt(vf a, vf b, vf yes, vf no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
SLOTH_INLINE vf vround(vf a) { return vrndnq_f32(a); }
SLOTH_INLINE vi vtoint(vf a) { return vcvtnq_s32_f32(a); }
SLOTH_INLINE vf vtofloat(vi a) { return vcvtq_f32_s32(a); }
SLOTH_INLINE float vsum(vf v) { return vaddvq_f32(v); }
SLOTH_INLINE float vhmax(vf v) { return vmaxvq_f32(v); }
SLOTH_INLINE vf viota() {
  const float t[4] = {0, 1, 2, 3};
  return vld1q_f32(t);
}
SLOTH_INLINE vf vscale2(vf y, vf n) {
  const int32x4_t i = vcvtnq_s32_f32(n);
  const int32x4_t a = vshrq_n_s32(i, 1);
  const int32x4_t b = vsubq_s32(i, a);
  const int32x4_t bias = vdupq_n_s32(127);
  return vmulq_f32(vmulq_f32(y, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(a, bias), 23))), vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(b, bias), 23)));
}

SLOTH_INLINE vf vload_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
SLOTH_INLINE vf vload_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
SLOTH_INLINE vf vload_i8(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  const int8x8_t b = vreinterpret_s8_s32(vdup_n_s32(four));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(b))));
}
SLOTH_INLINE void vnibbles(const uint8_t* p, vf* lo, vf* hi) {
  uint32_t four;
  memcpy(&four, p, 4);
  const uint32x4_t b = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
  *lo = vcvtq_f32_u32(vandq_u32(b, vdupq_n_u32(15)));
  *hi = vcvtq_f32_u32(vshrq_n_u32(b, 4));
}
SLOTH_INLINE vf vset_f16(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h)));
}
SLOTH_INLINE void vstore_f16(uint16_t* p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }

SLOTH_INLINE void vtranspose(vf* r) {
  const float32x4x2_t a = vtrnq_f32(r[0], r[1]);
  const float32x4x2_t b = vtrnq_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
#define SLOTH_PREFETCH(p) __builtin_prefetch(p)

#elif defined(__SSE2__)
// ------------------------------------------------------------------------------------------------------------------------- SSE2 (x86-64 baseline)
#define SLOTH_SIMD_SSE2 1
static const int VW = 4;
typedef __m128 vf;
typedef __m128i vi;

SLOTH_INLINE vf vzero() { return _mm_setzero_ps(); }
SLOTH_INLINE vf vset(float x) { return _mm_set1_ps(x); }
SLOTH_INLINE vf vload(const float* p) { return _mm_loadu_ps(p); }
SLOTH_INLINE void vstore(float* p, vf v) { _mm_storeu_ps(p, v); }
SLOTH_INLINE vf vloadn(const float* p, int64_t n) {
  float t[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i < n; i++) t[i] = p[i];
  return _mm_loadu_ps(t);
}
SLOTH_INLINE void vstoren(float* p, int64_t n, vf v) {
  float t[4];
  _mm_storeu_ps(t, v);
  for (int64_t i = 0; i < n; i++) p[i] = t[i];
}
SLOTH_INLINE vf vadd(vf a, vf b) { return _mm_add_ps(a, b); }
SLOTH_INLINE vf vsub(vf a, vf b) { return _mm_sub_ps(a, b); }
SLOTH_INLINE vf vmul(vf a, vf b) { return _mm_mul_ps(a, b); }
SLOTH_INLINE vf vdiv(vf a, vf b) { return _mm_div_ps(a, b); }
SLOTH_INLINE vf vfma(vf a, vf b, vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
SLOTH_INLINE vf vfnma(vf a, vf b, vf c) { return _mm_sub_ps(c, _mm_mul_ps(a, b)); }
SLOTH_INLINE vf vmin(vf a, vf b) { return _mm_min_ps(a, b); }
SLOTH_INLINE vf vmax(vf a, vf b) { return _mm_max_ps(a, b); }
SLOTH_INLINE vf vsqrt(vf a) { return _mm_sqrt_ps(a); }
SLOTH_INLINE vf vabs(vf a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
SLOTH_INLINE vf vcopysign(vf magnitude, vf sign) {
  const __m128 m = _mm_set1_ps(-0.0f);
  return _mm_or_ps(_mm_and_ps(m, sign), _mm_andnot_ps(m, magnitude));
}
SLOTH_INLINE vf vselect_lt(vf a, vf b, vf yes, vf no) {
  const __m128 m = _mm_cmplt_ps(a, b);
  return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no));
}
SLOTH_INLINE vf vround(vf a) { return _mm_cvtepi32_ps(_mm_cvtps_epi32(a)); }  // |a| < 2^31
SLOTH_INLINE vi vtoint(vf a) { return _mm_cvtps_epi32(a); }
SLOTH_INLINE vf vtofloat(vi a) { return _mm_cvtepi32_ps(a); }
SLOTH_INLINE float vsum(vf v) {
  const __m128 s = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
SLOTH_INLINE float vhmax(vf v) {
  const __m128 s = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
SLOTH_INLINE vf viota() { return _mm_set_ps(3, 2, 1, 0); }
SLOTH_INLINE vf vscale2(vf y, vf n) {
  const __m128i i = _mm_cvtps_epi32(n);
  const __m128i a = _mm_srai_epi32(i, 1);
  const __m128i b = _mm_sub_epi32(i, a);
  const __m128i bias = _mm_set1_epi32(127);
  const __m128 fa = _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(a, bias), 23));
  const __m128 fb = _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(b, bias), 23));
  return _mm_mul_ps(_mm_mul_ps(y, fa), fb);
}

SLOTH_INLINE vf vload_f16(const uint16_t* p) {
  const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16);
  const __m128i magnitude = _mm_and_si128(h, _mm_set1_epi32(0x7fff));
  const __m128i normal = _mm_add_epi32(_mm_slli_epi32(magnitude, 13), _mm_set1_epi32(112 << 23));
  const __m128i special = _mm_or_si128(normal, _mm_set1_epi32(0x7f800000));  // exponent 31
  const __m128i tiny = _mm_castps_si128(_mm_mul_ps(_mm_cvtepi32_ps(magnitude), _mm_set1_ps(5.9604644775390625e-8f)));
  const __m128i is_tiny = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x400));
  const __m128i is_special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff));
  __m128i r = _mm_or_si128(_mm_and_si128(is_tiny, tiny), _mm_andnot_si128(is_tiny, normal));
  r = _mm_or_si128(_mm_and_si128(is_special, special), _mm_andnot_si128(is_special, r));
  return _mm_castsi128_ps(_mm_or_si128(r, sign));
}
SLOTH_INLINE vf vload_bf16(const uint16_t* p) {
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
SLOTH_INLINE vf vload_i8(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  const __m128i b = _mm_cvtsi32_si128(four);
  const __m128i w = _mm_unpacklo_epi8(b, b);
  return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(w, w), 24));
}
SLOTH_INLINE void vnibbles(const uint8_t* p, vf* lo, vf* hi) {
  int32_t four;
  memcpy(&four, p, 4);
  const __m128i z = _mm_setzero_si128();
  const __m128i b = _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), z), z);
  *lo = _mm_cvtepi32_ps(_mm_and_si128(b, _mm_set1_epi32(15)));
  *hi = _mm_cvtepi32_ps(_mm_srli_epi32(b, 4));
}
SLOTH_INLINE vf vset_f16(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return _mm_set1_ps(half_to_float(h));
}
SLOTH_INLINE void vstore_f16(uint16_t* p, vf v) {
  float t[4];
  _mm_storeu_ps(t, v);
  for (int i = 0; i < 4; i++) p[i] = float_to_half(t[i]);
}

SLOTH_INLINE void vtranspose(vf* r) { _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]); }
#define SLOTH_PREFETCH(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)

#else
// -------------------------------------------------------------------------------------------------------------------- portable: four plain floats
#define SLOTH_SIMD_SCALAR 1
static const int VW = 4;
struct vf { float f[4]; };
struct vi { int32_t i[4]; };
#define SLOTH_LANES for (int l = 0; l < 4; l++)

SLOTH_INLINE vf vset(float x) { vf r; SLOTH_LANES r.f[l] = x; return r; }
SLOTH_INLINE vf vzero() { return vset(0); }
SLOTH_INLINE vf vload(const float* p) { vf r; SLOTH_LANES r.f[l] = p[l]; return r; }
SLOTH_INLINE void vstore(float* p, vf v) { SLOTH_LANES p[l] = v.f[l]; }
SLOTH_INLINE vf vloadn(const float* p, int64_t n) { vf r; SLOTH_LANES r.f[l] = l < n ? p[l] : 0; return r; }
SLOTH_INLINE void vstoren(float* p, int64_t n, vf v) { for (int64_t l = 0; l < n; l++) p[l] = v.f[l]; }
SLOTH_INLINE vf vadd(vf a, vf b) { SLOTH_LANES a.f[l] += b.f[l]; return a; }
SLOTH_INLINE vf vsub(vf a, vf b) { SLOTH_LANES a.f[l] -= b.f[l]; return a; }
SLOTH_INLINE vf vmul(vf a, vf b) { SLOTH_LANES a.f[l] *= b.f[l]; return a; }
SLOTH_INLINE vf vdiv(vf a, vf b) { SLOTH_LANES a.f[l] /= b.f[l]; return a; }
SLOTH_INLINE vf vfma(vf a, vf b, vf c) { SLOTH_LANES c.f[l] += a.f[l] * b.f[l]; return c; }
SLOTH_INLINE vf vfnma(vf a, vf b, vf c) { SLOTH_LANES c.f[l] -= a.f[l] * b.f[l]; return c; }
SLOTH_INLINE vf vmin(vf a, vf b) { SLOTH_LANES a.f[l] = a.f[l] < b.f[l] ? a.f[l] : b.f[l]; return a; }
SLOTH_INLINE vf vmax(vf a, vf b) { SLOTH_LANES a.f[l] = a.f[l] > b.f[l] ? a.f[l] : b.f[l]; return a; }
SLOTH_INLINE vf vsqrt(vf a) { SLOTH_LANES a.f[l] = sqrtf(a.f[l]); return a; }
SLOTH_INLINE vf vabs(vf a) { SLOTH_LANES a.f[l] = fabsf(a.f[l]); return a; }
SLOTH_INLINE vf vcopysign(vf magnitude, vf sign) { SLOTH_LANES magnitude.f[l] = copysignf(magnitude.f[l], sign.f[l]); return magnitude; }
SLOTH_INLINE vf vselect_lt(vf a, vf b, vf yes, vf no) { SLOTH_LANES yes.f[l] = a.f[l] < b.f[l] ? yes.f[l] : no.f[l]; return yes; }
SLOTH_INLINE vf vround(vf a) { SLOTH_LANES a.f[l] = nearbyintf(a.f[l]); return a; }
SLOTH_INLINE vi vtoint(vf a) { vi r; SLOTH_LANES r.i[l] = static_cast<int32_t>(nearbyintf(a.f[l])); return r; }
SLOTH_INLINE vf vtofloat(vi a) { vf r; SLOTH_LANES r.f[l] = static_cast<float>(a.i[l]); return r; }
SLOTH_INLINE float vsum(vf v) { return (v.f[0] + v.f[2]) + (v.f[1] + v.f[3]); }
SLOTH_INLINE float vhmax(vf v) { float m = v.f[0]; SLOTH_LANES m = v.f[l] > m ? v.f[l] : m; return m; }
SLOTH_INLINE vf viota() { vf r; SLOTH_LANES r.f[l] = static_cast<float>(l); return r; }
SLOTH_INLINE vf vscale2(vf y, vf n) { SLOTH_LANES y.f[l] = ldexpf(y.f[l], static_cast<int>(n.f[l])); return y; }
SLOTH_INLINE vf vload_f16(const uint16_t* p) { vf r; SLOTH_LANES r.f[l] = half_to_float(p[l]); return r; }
SLOTH_INLINE vf vload_bf16(const uint16_t* p) { vf r; SLOTH_LANES r.f[l] = bf16_to_float(p[l]); return r; }
SLOTH_INLINE vf vload_i8(const int8_t* p) { vf r; SLOTH_LANES r.f[l] = p[l]; return r; }
SLOTH_INLINE void vnibbles(const uint8_t* p, vf* lo, vf* hi) {
  SLOTH_LANES {
    lo->f[l] = static_cast<float>(p[l] & 15);
    hi->f[l] = static_cast<float>(p[l] >> 4);
  }
}
SLOTH_INLINE vf vset_f16(const uint8_t* p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return vset(half_to_float(h));
}
SLOTH_INLINE void vstore_f16(uint16_t* p, vf v) { SLOTH_LANES p[l] = float_to_half(v.f[l]); }
SLOTH_INLINE void vtranspose(vf* r) {
  for (int i = 0; i < 4; i++) {
    for (int j = i + 1; j < 4; j++) {
      const float t = r[i].f[j];
      r[i].f[j] = r[j].f[i];
      r[j].f[i] = t;
    }
  }
}
#define SLOTH_PREFETCH(p) __builtin_prefetch(p)
#endif

// e^x within 2 ulp; 0 below the normal range, infinity above, NaN stays. Reduction by ln 2 in two parts and a degree-6 polynomial (coefficients of Cephes expf).
SLOTH_INLINE vf vexp(vf x) {
  x = vmax(vset(-104.0f), x);  // the second operand wins when it is NaN
  x = vmin(vset(104.0f), x);
  const vf n = vround(vmul(x, vset(1.44269504088896341f)));
  vf r = vfnma(n, vset(0.693359375f), x);
  r = vfma(n, vset(2.12194440e-4f), r);
  vf p = vset(1.9875691500e-4f);
  p = vfma(p, r, vset(1.3981999507e-3f));
  p = vfma(p, r, vset(8.3334519073e-3f));
  p = vfma(p, r, vset(4.1665795894e-2f));
  p = vfma(p, r, vset(1.6666665459e-1f));
  p = vfma(p, r, vset(5.0000001201e-1f));
  const vf y = vadd(vfma(p, vmul(r, r), r), vset(1.0f));
  return vscale2(y, n);
}

// tanh x: an odd polynomial near 0 (coefficients of Cephes tanhf), 1 - 2 / (e^2x + 1) elsewhere.
SLOTH_INLINE vf vtanh(vf x) {
  const vf a = vabs(x);
  const vf z = vmul(x, x);
  vf p = vset(-5.70498872745e-3f);
  p = vfma(p, z, vset(2.06390887954e-2f));
  p = vfma(p, z, vset(-5.37397155531e-2f));
  p = vfma(p, z, vset(1.33314422036e-1f));
  p = vfma(p, z, vset(-3.33332819422e-1f));
  const vf near = vfma(vmul(p, z), x, x);
  const vf e = vexp(vadd(a, a));
  const vf far = vcopysign(vsub(vset(1.0f), vdiv(vset(2.0f), vadd(e, vset(1.0f)))), x);
  return vselect_lt(a, vset(0.625f), near, far);
}

// Scalar twins of the two, through the same code, so that every path of a kernel agrees.
SLOTH_INLINE float exp_one(float x) {
  float t[VW];
  vstore(t, vexp(vset(x)));
  return t[0];
}
