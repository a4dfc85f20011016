// The limits of this machine: arithmetic peak in f32, int8 and bf16, and read bandwidth of memory, on any number of threads.
//
// A plain program without dependencies: c++ -O3 -std=c++17 -pthread peak.cpp. Started without arguments it answers one request a line, "<kind> <threads> <seconds>", with one number a line:
// operations per second (a multiply-add counts two) for f32, int8 and bf16, bytes per second for read; "-" for what the processor does not have. "kinds" lists what it has, with
// the instructions used; "quit" or the end of the input ends it.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

namespace {

// One measured loop: returns how many operations (or bytes) a call does. `lane` addresses a thread's own part of the buffer.
struct Loop {
  const char* kind;
  const char* name;
  double (*run)(int lane, int lanes);
};

volatile float float_sink;
volatile int32_t int_sink;

constexpr int ROUNDS = 20000;
constexpr int ACCUMULATORS = 12;

// Repeats M(i) for all accumulators.
#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)

constexpr size_t BUFFER = size_t(256) << 20;
char* buffer() {
  static char* memory = [] {
    char* p = static_cast<char*>(aligned_alloc(4096, BUFFER));
    for (size_t i = 0; i < BUFFER; i += 8) *reinterpret_cast<uint64_t*>(p + i) = i * 0x9E3779B97F4A7C15ull;
    return p;
  }();
  return memory;
}

struct Part { const char* begin; const char* end; };
// A piece of a thread's share of the buffer; successive calls walk through the share, so that nothing is read again from a cache.
Part next_part(int lane, int lanes) {
  constexpr size_t PIECE = size_t(4) << 20;
  static thread_local size_t at = 0;
  const size_t share = BUFFER / static_cast<size_t>(lanes) / PIECE * PIECE;
  const char* base = buffer() + share * static_cast<size_t>(lane);
  if (at + PIECE > share) at = 0;
  const char* begin = base + at;
  at += PIECE;
  return {begin, begin + PIECE};
}
constexpr int AHEAD = 4096;

#if defined(__x86_64__)

__attribute__((target("avx512f"))) double fma_avx512(int, int) {
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
#define DECLARE(i) __m512 c##i = _mm512_set1_ps(1.0f + i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm512_fmadd_ps(c##i, a, b);
    EACH(STEP)
#undef STEP
  }
  __m512 sum = _mm512_setzero_ps();
#define ADD(i) sum = _mm512_add_ps(sum, c##i);
  EACH(ADD)
#undef ADD
  float_sink = _mm512_cvtss_f32(sum);
  return 2.0 * 16 * ACCUMULATORS * ROUNDS;
}

__attribute__((target("avx2,fma"))) double fma_avx2(int, int) {
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
#define DECLARE(i) __m256 c##i = _mm256_set1_ps(1.0f + i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm256_fmadd_ps(c##i, a, b);
    EACH(STEP)
#undef STEP
  }
  __m256 sum = _mm256_setzero_ps();
#define ADD(i) sum = _mm256_add_ps(sum, c##i);
  EACH(ADD)
#undef ADD
  float_sink = _mm256_cvtss_f32(sum);
  return 2.0 * 8 * ACCUMULATORS * ROUNDS;
}

// Baseline x86-64 has no fused multiply-add: a product and a sum, six of each, so that both units are busy.
double fma_sse(int, int) {
  const __m128 a = _mm_set1_ps(0.999f), b = _mm_set1_ps(0.001f);
#define DECLARE(i) __m128 c##i = _mm_set1_ps(1.0f + i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm_add_ps(_mm_mul_ps(c##i, a), b);
    EACH(STEP)
#undef STEP
  }
  __m128 sum = _mm_setzero_ps();
#define ADD(i) sum = _mm_add_ps(sum, c##i);
  EACH(ADD)
#undef ADD
  float_sink = _mm_cvtss_f32(sum);
  return 2.0 * 4 * ACCUMULATORS * ROUNDS;
}

__attribute__((target("avx512f,avx512vnni"))) double int8_avx512vnni(int, int) {
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
#define DECLARE(i) __m512i c##i = _mm512_set1_epi32(i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm512_dpbusd_epi32(c##i, a, b);
    EACH(STEP)
#undef STEP
  }
  __m512i sum = _mm512_setzero_si512();
#define ADD(i) sum = _mm512_add_epi32(sum, c##i);
  EACH(ADD)
#undef ADD
  int_sink = _mm512_cvtsi512_si32(sum);
  return 2.0 * 64 * ACCUMULATORS * ROUNDS;
}

#if defined(__clang__) || __GNUC__ >= 11
#define HAVE_AVXVNNI 1
__attribute__((target("avx2,avxvnni"))) double int8_avxvnni(int, int) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
#define DECLARE(i) __m256i c##i = _mm256_set1_epi32(i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm256_dpbusd_avx_epi32(c##i, a, b);
    EACH(STEP)
#undef STEP
  }
  __m256i sum = _mm256_setzero_si256();
#define ADD(i) sum = _mm256_add_epi32(sum, c##i);
  EACH(ADD)
#undef ADD
  int_sink = _mm256_cvtsi256_si32(sum);
  return 2.0 * 32 * ACCUMULATORS * ROUNDS;
}
#endif

// Without dot-product instructions: u8 · s8 in pairs, pairs widened, sums: three instructions for 32 products.
__attribute__((target("avx2"))) double int8_avx2(int, int) {
  const __m256i a = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
#define DECLARE(i) __m256i c##i = _mm256_set1_epi32(i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
    const __m256i b = _mm256_set1_epi8(static_cast<char>(n & 15));
#define STEP(i) c##i = _mm256_add_epi32(c##i, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(a, c##i), b), ones));
    EACH(STEP)
#undef STEP
  }
  __m256i sum = _mm256_setzero_si256();
#define ADD(i) sum = _mm256_add_epi32(sum, c##i);
  EACH(ADD)
#undef ADD
  int_sink = _mm256_cvtsi256_si32(sum);
  return 2.0 * 32 * ACCUMULATORS * ROUNDS;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512(int, int) {
  const __m512 one = _mm512_set1_ps(0.01f);
  const __m512bh a = _mm512_cvtne2ps_pbh(one, one);
#define DECLARE(i) __m512 c##i = _mm512_set1_ps(1.0f + i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = _mm512_dpbf16_ps(c##i, a, a);
    EACH(STEP)
#undef STEP
  }
  __m512 sum = _mm512_setzero_ps();
#define ADD(i) sum = _mm512_add_ps(sum, c##i);
  EACH(ADD)
#undef ADD
  float_sink = _mm512_cvtss_f32(sum);
  return 2.0 * 32 * ACCUMULATORS * ROUNDS;
}

__attribute__((target("avx512f"))) double read_avx512(int lane, int lanes) {
  const Part p = next_part(lane, lanes);
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
  for (const char* at = p.begin; at < p.end; at += 256) {
    for (int i = 0; i < 256; i += 64) _mm_prefetch(at + AHEAD + i, _MM_HINT_T0);
    s0 = _mm512_xor_si512(s0, _mm512_load_si512(at));
    s1 = _mm512_xor_si512(s1, _mm512_load_si512(at + 64));
    s2 = _mm512_xor_si512(s2, _mm512_load_si512(at + 128));
    s3 = _mm512_xor_si512(s3, _mm512_load_si512(at + 192));
  }
  int_sink = _mm512_cvtsi512_si32(_mm512_xor_si512(_mm512_xor_si512(s0, s1), _mm512_xor_si512(s2, s3)));
  return static_cast<double>(p.end - p.begin);
}

double read_sse(int lane, int lanes) {
  const Part p = next_part(lane, lanes);
  __m128i s0 = _mm_setzero_si128(), s1 = s0, s2 = s0, s3 = s0;
  for (const char* at = p.begin; at < p.end; at += 64) {
    _mm_prefetch(at + AHEAD, _MM_HINT_T0);
    const __m128i* v = reinterpret_cast<const __m128i*>(at);
    s0 = _mm_xor_si128(s0, _mm_load_si128(v));
    s1 = _mm_xor_si128(s1, _mm_load_si128(v + 1));
    s2 = _mm_xor_si128(s2, _mm_load_si128(v + 2));
    s3 = _mm_xor_si128(s3, _mm_load_si128(v + 3));
  }
  int_sink = _mm_cvtsi128_si32(_mm_xor_si128(_mm_xor_si128(s0, s1), _mm_xor_si128(s2, s3)));
  return static_cast<double>(p.end - p.begin);
}

// The system must save the wide registers too: GCC's and clang's __builtin_cpu_supports check XCR0 for avx names.
std::vector<Loop> loops() {
  __builtin_cpu_init();
  std::vector<Loop> all;
  const bool avx512 = __builtin_cpu_supports("avx512f");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  all.push_back(avx512 ? Loop{"f32", "avx512f", fma_avx512} : avx2 ? Loop{"f32", "avx2+fma", fma_avx2} : Loop{"f32", "sse", fma_sse});
  if (avx512 && __builtin_cpu_supports("avx512vnni")) all.push_back({"int8", "avx512vnni", int8_avx512vnni});
#if defined(HAVE_AVXVNNI)
  // Leaf 7.1 EAX bit 4; not every compiler that knows the instructions knows the name in __builtin_cpu_supports.
  else if (avx2 && [] {
             uint32_t a = 7, b = 0, c = 1, d = 0;
             __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
             return (a >> 4 & 1) != 0;
           }())
    all.push_back({"int8", "avxvnni", int8_avxvnni});
#endif
  else if (avx2) all.push_back({"int8", "avx2", int8_avx2});
  if (avx512 && __builtin_cpu_supports("avx512bf16")) all.push_back({"bf16", "avx512bf16", bf16_avx512});
  all.push_back(avx512 ? Loop{"read", "avx512f, prefetch 4 KB ahead", read_avx512} : Loop{"read", "sse, prefetch 4 KB ahead", read_sse});
  return all;
}

#elif defined(__aarch64__)

double fma_neon(int, int) {
  const float32x4_t a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
#define DECLARE(i) float32x4_t c##i = vdupq_n_f32(1.0f + i), d##i = vdupq_n_f32(2.0f + i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = vfmaq_f32(b, c##i, a); d##i = vfmaq_f32(b, d##i, a);
    EACH(STEP)
#undef STEP
  }
  float32x4_t sum = vdupq_n_f32(0);
#define ADD(i) sum = vaddq_f32(sum, vaddq_f32(c##i, d##i));
  EACH(ADD)
#undef ADD
  float_sink = vgetq_lane_f32(sum, 0);
  return 2.0 * 4 * 2 * ACCUMULATORS * ROUNDS;
}

#if defined(__linux__) || defined(__ARM_FEATURE_DOTPROD)
#define HAVE_DOT 1
#if !defined(__ARM_FEATURE_DOTPROD)
__attribute__((target("arch=armv8.2-a+dotprod")))
#endif
double int8_dot(int, int) {
  const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
#define DECLARE(i) int32x4_t c##i = vdupq_n_s32(i);
  EACH(DECLARE)
#undef DECLARE
  for (int n = 0; n < ROUNDS; n++) {
#define STEP(i) c##i = vdotq_s32(c##i, a, b);
    EACH(STEP)
#undef STEP
  }
  int32x4_t sum = vdupq_n_s32(0);
#define ADD(i) sum = vaddq_s32(sum, c##i);
  EACH(ADD)
#undef ADD
  int_sink = vgetq_lane_s32(sum, 0);
  return 2.0 * 16 * ACCUMULATORS * ROUNDS;
}
#endif

double read_neon(int lane, int lanes) {
  const Part p = next_part(lane, lanes);
  uint8x16_t s0 = vdupq_n_u8(0), s1 = s0, s2 = s0, s3 = s0;
  for (const char* at = p.begin; at < p.end; at += 64) {
    __builtin_prefetch(at + AHEAD);
    const uint8_t* v = reinterpret_cast<const uint8_t*>(at);
    s0 = veorq_u8(s0, vld1q_u8(v));
    s1 = veorq_u8(s1, vld1q_u8(v + 16));
    s2 = veorq_u8(s2, vld1q_u8(v + 32));
    s3 = veorq_u8(s3, vld1q_u8(v + 48));
  }
  int_sink = vgetq_lane_u8(veorq_u8(veorq_u8(s0, s1), veorq_u8(s2, s3)), 0);
  return static_cast<double>(p.end - p.begin);
}

std::vector<Loop> loops() {
  std::vector<Loop> all;
  all.push_back({"f32", "neon", fma_neon});
#if defined(__ARM_FEATURE_DOTPROD)
  all.push_back({"int8", "neon dotprod", int8_dot});
#elif defined(HAVE_DOT)
  if (getauxval(AT_HWCAP) >> 20 & 1) all.push_back({"int8", "neon dotprod", int8_dot});
#endif
  all.push_back({"read", "neon, prefetch 4 KB ahead", read_neon});
  return all;
}

#else

double fma_plain(int, int) {
  float c[64];
  for (int i = 0; i < 64; i++) c[i] = 1.0f + static_cast<float>(i);
  for (int n = 0; n < ROUNDS; n++)
    for (int i = 0; i < 64; i++) c[i] = c[i] * 0.999f + 0.001f;
  float sum = 0;
  for (float v : c) sum += v;
  float_sink = sum;
  return 2.0 * 64 * ROUNDS;
}

double read_plain(int lane, int lanes) {
  const Part p = next_part(lane, lanes);
  uint64_t sum = 0;
  for (const char* at = p.begin; at < p.end; at += 8) sum ^= *reinterpret_cast<const uint64_t*>(at);
  int_sink = static_cast<int32_t>(sum);
  return static_cast<double>(p.end - p.begin);
}

std::vector<Loop> loops() { return {{"f32", "plain C++", fma_plain}, {"read", "plain C++", read_plain}}; }

#endif

using Clock = std::chrono::steady_clock;

// Sum of the threads' own rates over a common window.
double measure(const Loop& loop, int threads, double seconds) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; t++)
    pool.emplace_back([&, t] {
      loop.run(t, threads);
      ready++;
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      const auto start = Clock::now();
      double work = 0, elapsed = 0;
      do {
        work += loop.run(t, threads);
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      } while (elapsed < seconds);
      rates[static_cast<size_t>(t)] = work / elapsed;
    });
  while (ready.load() < threads) std::this_thread::yield();
  go.store(true, std::memory_order_release);
  for (auto& t : pool) t.join();
  double sum = 0;
  for (double r : rates) sum += r;
  return sum;
}

}  // namespace

int main() {
  const std::vector<Loop> all = loops();
  char line[256];
  while (fgets(line, sizeof line, stdin) != nullptr) {
    char kind[32] = "";
    int threads = 1;
    double seconds = 0.05;
    sscanf(line, "%31s %d %lf", kind, &threads, &seconds);
    if (strcmp(kind, "quit") == 0) break;
    if (strcmp(kind, "kinds") == 0) {
      for (size_t i = 0; i < all.size(); i++) printf("%s%s=%s", i == 0 ? "" : ";", all[i].kind, all[i].name);
      printf("\n");
    } else {
      const Loop* found = nullptr;
      for (const Loop& l : all)
        if (strcmp(l.kind, kind) == 0) found = &l;
      if (found == nullptr || threads < 1 || threads > 1024) printf("-\n");
      else printf("%.6e\n", measure(*found, threads, seconds));
    }
    fflush(stdout);
  }
  return 0;
}
