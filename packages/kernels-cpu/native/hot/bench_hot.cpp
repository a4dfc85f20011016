// Checks the kernels of this folder against plain double-precision loops, and measures them as fractions of the machine's own f32 peak and read bandwidth,
// both taken in the same seconds. Built and run by bench_hot.sh: `bench_hot.sh test`, `bench_hot.sh bench [threads]`.
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#define SLOTH_ISA bench
#include "../kernels.h"
#include "../pool.h"
#include "../pool_impl.h"

namespace sloth {
namespace bench {
#include "simd.h"
#include "../parallel.h"
#include "table.h"
}  // namespace bench
}  // namespace sloth

using namespace sloth;
using namespace sloth::bench;

typedef std::vector<float> Floats;

static uint64_t state = 88172645463325252ull;
static double uniform() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<double>(state >> 11) * (1.0 / 9007199254740992.0);
}
static Floats randoms(int64_t n, double scale = 1.0) {
  Floats r(static_cast<size_t>(n > 0 ? n : 1));
  for (auto& x : r) x = static_cast<float>((uniform() + uniform() + uniform() - 1.5) * 2.0 * scale);
  return r;
}

static int failures = 0;
static int checks = 0;
// Largest error against the reference, relative to the typical size of the reference.
static void check(const std::string& name, const float* got, const std::vector<double>& want, double tolerance) {
  double worst = 0, size = 0;
  for (size_t i = 0; i < want.size(); i++) size += want[i] * want[i];
  size = std::max(0.1, sqrt(size / static_cast<double>(want.empty() ? 1 : want.size())));
  for (size_t i = 0; i < want.size(); i++) {
    const double e = fabs(static_cast<double>(got[i]) - want[i]);
    if (!(e <= worst)) worst = e;
  }
  checks++;
  if (!(worst / size <= tolerance)) {
    failures++;
    printf("FAIL %s: error %.3g of rms %.3g (allowed %.3g)\n", name.c_str(), worst, size, tolerance * size);
  }
}
static void check_same(const std::string& name, const Floats& a, const Floats& b) {
  checks++;
  if (memcmp(a.data(), b.data(), a.size() * 4) != 0) {
    failures++;
    printf("FAIL %s: not the same bits\n", name.c_str());
  }
}

static const int64_t formats[] = {FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0, FORMAT_Q4_0, FORMAT_Q4_1};
static const char* format_name(int64_t f) {
  return f == FORMAT_F32 ? "f32" : f == FORMAT_F16 ? "f16" : f == FORMAT_BF16 ? "bf16" : f == FORMAT_Q8_0 ? "q8_0" : f == FORMAT_Q4_0 ? "q4_0" : "q4_1";
}

// A stored weight and its exact values by a scalar reading of the format.
struct Weight {
  std::vector<uint8_t> data;
  Floats values;
  int64_t rows, cols, format;
};
static Weight make_weight(int64_t format, int64_t rows, int64_t cols, double scale = 1.0) {
  Weight w;
  w.rows = rows;
  w.cols = cols;
  w.format = format;
  const int64_t bytes = format_row_bytes(format, cols);
  w.data.assign(static_cast<size_t>(rows * bytes + 64), 0);
  const Floats x = randoms(rows * cols, scale);
  w.values.resize(x.size());
  for (int64_t r = 0; r < rows; r++) {
    uint8_t* p = w.data.data() + r * bytes;
    SLOTH_WITH_FORMAT(format, F, F::encode(x.data() + r * cols, cols, p))
    for (int64_t c = 0; c < cols; c++) {
      float v = 0;
      uint16_t h = 0, g = 0;
      const uint8_t* b = p + (c / 32) * format_layout(format).bytes;
      const int64_t j = c % 32;
      if (format == FORMAT_F32) memcpy(&v, p + c * 4, 4);
      if (format == FORMAT_F16 || format == FORMAT_BF16) {
        memcpy(&h, p + c * 2, 2);
        v = format == FORMAT_F16 ? half_to_float(h) : bf16_to_float(h);
      }
      if (format_layout(format).block == 32) {
        memcpy(&h, b, 2);
        const float d = half_to_float(h);
        if (format == FORMAT_Q8_0) v = d * static_cast<float>(static_cast<int8_t>(b[2 + j]));
        if (format == FORMAT_Q4_0) v = d * static_cast<float>(static_cast<int>(j < 16 ? b[2 + j] & 15 : b[2 + j - 16] >> 4) - 8);
        if (format == FORMAT_Q4_1) {
          memcpy(&g, b + 2, 2);
          v = d * static_cast<float>(j < 16 ? b[4 + j] & 15 : b[4 + j - 16] >> 4) + half_to_float(g);
        }
      }
      w.values[static_cast<size_t>(r * cols + c)] = v;
    }
  }
  return w;
}

static std::vector<double> to_double(const Floats& f) { return std::vector<double>(f.begin(), f.end()); }

// c[m, n] += alpha * op(a) op(b)
static void naive_product(std::vector<double>& c, const float* a, const float* b, int64_t m, int64_t n, int64_t k, bool ta, bool tb, double alpha) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double s = 0;
      for (int64_t p = 0; p < k; p++) s += static_cast<double>(ta ? a[p * m + i] : a[i * k + p]) * static_cast<double>(tb ? b[j * k + p] : b[p * n + j]);
      c[static_cast<size_t>(i * n + j)] += alpha * s;
    }
  }
}

#include "bench_hot_tests.h"

// --- measuring

// SLOTH_BENCH_CPU_TIME=1 counts processor time a thread instead of time on the wall: on a busy machine only that says how good a kernel is, but it does not see
// threads that wait for each other.
static int cpu_time_threads = 0;
static double now() {
  if (cpu_time_threads > 0) return static_cast<double>(clock()) / CLOCKS_PER_SEC / cpu_time_threads;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// f32 operations a second of all threads: independent fused multiply-adds in registers, for about `seconds`.
static double measure_peak(Pool* pool, double seconds) {
  double best = 0;
  const double end = now() + seconds;
  do {
    const int64_t loops = 200000;
    const double start = now();
    pool_for(pool, pool_threads(pool), [&](int, int) {
      vf a[12];
      SLOTH_UNROLL
      for (int i = 0; i < 12; i++) a[i] = vset(static_cast<float>(i));
      vf x = vset(0.999f), y = vset(0.001f);
#if defined(SLOTH_SIMD_SSE2) || defined(SLOTH_SIMD_SCALAR)
      for (int64_t l = 0; l < loops; l++) {
        SLOTH_UNROLL
        for (int i = 0; i < 12; i++) a[i] = vfma(a[i], x, y);
      }
#else
      for (int64_t l = 0; l < loops; l++) {
        SLOTH_UNROLL
        for (int i = 0; i < 12; i++) {
          a[i] = vfma(a[i], x, y);
#if defined(__x86_64__)
          __asm__ volatile("" : "+v"(a[i]));
#endif
        }
      }
#endif
      float s = 0;
      SLOTH_UNROLL
      for (int i = 0; i < 12; i++) s += vsum(a[i]);
      volatile float sink = s;
      (void)sink;
    });
    const double rate = static_cast<double>(loops) * 12 * VW * 2 * pool_threads(pool) / (now() - start);
    best = std::max(best, rate);
  } while (now() < end);
  return best;
}

static double measure_bandwidth(Pool* pool, const Floats& big) {
  double best = 0;
  for (int rep = 0; rep < 3; rep++) {
    const double start = now();
    const int64_t n = static_cast<int64_t>(big.size()), tasks = n / 65536;
    pool_for(pool, static_cast<int>(tasks), [&](int task, int) {
      const float* p = big.data() + static_cast<int64_t>(task) * 65536;
      vf a[4] = {vzero(), vzero(), vzero(), vzero()};
      for (int64_t i = 0; i < 65536; i += 4 * VW) {
        SLOTH_PREFETCH(p + i + 1024);
        SLOTH_PREFETCH(p + i + 1040);
        for (int j = 0; j < 4; j++) a[j] = vadd(a[j], vload(p + i + j * VW));
      }
      volatile float sink = vsum(vadd(vadd(a[0], a[1]), vadd(a[2], a[3])));
      (void)sink;
    });
    best = std::max(best, static_cast<double>(tasks) * 65536 * 4 / (now() - start));
  }
  return best;
}

struct Rate {
  double best, median;
};
// Alternates the peak measurement and the kernel, so that a busy neighbour slows both: fractions of the peak measured next to each run.
static Rate fraction_of_peak(Pool* pool, double operations, const std::function<void()>& run) {
  run();
  std::vector<double> r;
  double total = 0;
  for (int i = 0; i < 60 && (i < 5 || total < 1.5); i++) {
    const double before = measure_peak(pool, 0.004);
    const double start = now();
    int times = 0;
    do {
      run();
      times++;
    } while (now() - start < 0.015);
    const double t = (now() - start) / times;
    const double after = measure_peak(pool, 0.004);
    total += t * times;
    r.push_back(operations / t / ((before + after) / 2));
  }
  std::sort(r.begin(), r.end());
  return {r[r.size() - 1 - r.size() / 10], r[r.size() / 2]};
}

#include "bench_hot_cases.h"

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "test";
  const int threads = argc > 2 ? atoi(argv[2]) : 2;
  const std::string filter = argc > 3 ? argv[3] : "";
  pool_enter_thread();
  if (mode == "test") {
    Pool* one = pool_create(1);
    Pool* many = pool_create(3);
    run_tests(one, many, filter);
    pool_destroy(one);
    pool_destroy(many);
    printf("%s: %d checks, %d failures\n", SLOTH_BENCH_NAME, checks, failures);
    return failures ? 1 : 0;
  }
  Pool* pool = pool_create(threads);
  if (getenv("SLOTH_BENCH_CPU_TIME")) cpu_time_threads = threads;
  run_cases(pool, filter);
  pool_destroy(pool);
  return 0;
}
