// The matrix product that everything else is made of: packed panels, an outer-product register tile, masked edges.
// Included inside an ISA namespace, after simd.h, parallel.h and weights.h.
//
// c[m, n] (+)= alpha * (A1 | A2) * (B1 | B2) + bias. The second pair of operands is a further stretch of the contraction (a LoRA rank), so that c is
// written once. B1 is in any weight format and is decoded while it is packed; it is [n, k] (a linear layer) or [k, n] (the way back through it).
//
// Loops: B is packed once, for all tasks, into panels of NR columns by stretches of at most KC of the contraction (they stay in the last cache). A task owns a range of
// rows and columns of c; for each stretch it packs its rows of A into strips of MR rows (they stay in L2), asks for the rows that come after them while it multiplies, and runs
// the register tile over a few panels at a time. The contraction is never divided between tasks and its stretches depend on k alone: an element of c is the same sum in
// the same order whatever the number of threads and wherever its tile lies.
#include "carver.h"
#include "gemm_tile.h"
#include "gemm_pack.h"

struct Gemm {
  float* c;
  int64_t ldc, m, n;
  const float* a1;  // [m, k1], or [k1, m] when transA
  int64_t lda1, k1;
  int64_t transA;
  const void* b1;  // [n, k1] when rowsAreN, else [k1, n]
  int64_t format, rowBytes1;
  int64_t rowsAreN;
  const float* a2;  // [m, k2] or nullptr
  int64_t lda2, k2;
  const float* b2;  // f32, the orientation of b1
  int64_t ldb2;
  const float* bias;  // [n] or nullptr
  float alpha;
  int64_t accumulate;
};

// Length of the stretches that a contraction of k is cut into (all but the last), in elements.
template <class P = Words>
SLOTH_INLINE int64_t stretch_length(int64_t k) {
  const int64_t count = ceil_div(k, KC * P::DEEP);
  return count <= 1 ? max_i(k, 1) : ceil_div(ceil_div(k, count), 32) * 32;
}

// Strips of a task: they stay in L2.
static const int64_t STRIP_FLOATS = MR * SA;
static const int64_t STRIPS = (192 << 10) / 4 / STRIP_FLOATS;
// Bytes of panels that are packed at a time: they stay in the last cache.
static const int64_t PANELS_BYTES = 4 << 20;
static const int SLOT_PANELS = 0;

template <class F, class P>
SLOTH_INLINE void pack_b(const Gemm& g, int64_t n0, int64_t cols, int64_t k0, int64_t kc, float* out) {
  const uint8_t* w = static_cast<const uint8_t*>(g.b1);
  const int64_t first = k0 < g.k1 ? min_i(kc, g.k1 - k0) : 0;
  if (first == kc) {
    if (g.rowsAreN) P::template transposed<F>(w, g.rowBytes1, n0, cols, k0, kc, out);
    else P::template straight<F>(w, g.rowBytes1, n0, cols, k0, kc, out);
    return;
  }
  // Only where the pairs are packed together: f32 words.
  if (first > 0) {
    if (g.rowsAreN) pack_transposed<F>(w, g.rowBytes1, n0, cols, k0, first, out, 0, kc);
    else pack_straight<F>(w, g.rowBytes1, n0, cols, k0, first, out, 0, kc);
  }
  const uint8_t* b2 = reinterpret_cast<const uint8_t*>(g.b2);
  const int64_t from = k0 + first - g.k1;
  if (g.rowsAreN) pack_transposed<FormatF32>(b2, g.ldb2 * 4, n0, cols, from, kc - first, out, first, kc);
  else pack_straight<FormatF32>(b2, g.ldb2 * 4, n0, cols, from, kc - first, out, first, kc);
}

template <class P = Words>
SLOTH_INLINE void pack_a(const Gemm& g, int64_t m0, int64_t rows, int64_t k0, int64_t kc, float* out) {
  const int64_t first = k0 < g.k1 ? min_i(kc, g.k1 - k0) : 0;
  if (first > 0) {
    if (g.transA) P::strip_across(g.a1 + m0, g.lda1, rows, k0, first, out);
    else P::strip(g.a1 + m0 * g.lda1, g.lda1, rows, k0, first, out);
  }
  if (first < kc) pack_rows(g.a2 + m0 * g.lda2, g.lda2, rows, k0 + first - g.k1, kc - first, out + first);
}

// Strips s0 .. s1 of A over one stretch.
template <class P>
SLOTH_NOINLINE void pack_strips(const Gemm& g, int64_t strips, int64_t s0, int64_t s1, int64_t k0, int64_t kc, float* out) {
  // A transposed A is read some rows at a time, by all strips: they share its lines.
  const int64_t deep = g.transA ? 32 : kc;
  for (int64_t k = 0; k < kc; k += deep) {
    for (int64_t s = s0; s < s1; s++) {
      const int64_t r0 = strip_begin(g.m, strips, s);
      pack_a<P>(g, r0, strip_begin(g.m, strips, s + 1) - r0, k0 + k, min_i(deep, kc - k), out + (s - s0) * STRIP_FLOATS + P::count(k));
    }
  }
}

// Asks for the share `part` of `parts` of what pack_strips will read for these rows, so that it is in L2 when its turn comes.
SLOTH_INLINE void fetch_a(const Gemm& g, int64_t m0, int64_t rows, int64_t k0, int64_t kc, int64_t part, int64_t parts) {
  const int64_t first = min_i(kc, g.k1 - k0);
  if (first <= 0) return;
  if (g.transA) {
    for (int64_t k = first * part / parts; k < first * (part + 1) / parts; k++) {
      const float* from = g.a1 + (k0 + k) * g.lda1 + m0;
      for (int64_t r = 0; r < rows; r += 16) SLOTH_FETCH(from + r);
      SLOTH_FETCH(from + rows - 1);
    }
    return;
  }
  const int64_t lines = ceil_div(first, 16);
  for (int64_t i = rows * lines * part / parts; i < rows * lines * (part + 1) / parts; i++) SLOTH_FETCH(g.a1 + (m0 + i / lines) * g.lda1 + k0 + i % lines * 16);
}

// --- tasks

// Scratch of a task: its strips, and those of the second pair, where it does not lie behind the first.
struct GemmScratch {
  float *strips, *strips2;  // [STRIPS, MR, SA]
};
template <class P>
static int64_t gemm_layout(GemmScratch* s, char* at, int64_t k2) {
  Carver c = {at};
  s->strips = Carver::take(c, STRIPS * STRIP_FLOATS);
  s->strips2 = Carver::take(c, !P::TOGETHER && k2 > 0 ? STRIPS * STRIP_FLOATS : 0);
  return c.at - at;
}

// What a task computes: strips s0 .. s1 of `strips`, columns n0 .. n1 (n0 a multiple of the panel), the stretches from k0 to k1. The panels of a stretch begin with
// that of column `first` and are `stretch` floats long together; those of the second pair lie in panels2.
struct GemmPart {
  int64_t strips, s0, s1, n0, n1, k0, k1;
  int64_t first, stretch;
  const float *panels, *panels2;
};

template <class P>
SLOTH_NOINLINE void gemm_task(const Gemm& g, const GemmPart& t, const GemmScratch& x) {
  const int64_t total = P::TOGETHER ? g.k1 + g.k2 : g.k1;
  const int64_t step = stretch_length<P>(total);
  const float* panels = t.panels;
  const int64_t count = t.s1 - t.s0, tiles = count * ceil_div(t.n1 - t.n0, NR);
  for (int64_t k0 = t.k0; k0 < t.k1; k0 += step, panels += t.stretch) {
    const int64_t kc = min_i(step, total - k0), words = P::count(kc);
    pack_strips<P>(g, t.strips, t.s0, t.s1, k0, kc, x.strips);
    // The second pair of rounded operands stays f32, and is added while c is in the cache.
    const bool pair = !P::TOGETHER && k0 + kc == total && g.k2 > 0;
    if (pair) {
      for (int64_t s = t.s0; s < t.s1; s++) {
        const int64_t r0 = strip_begin(g.m, t.strips, s);
        pack_rows(g.a2 + r0 * g.lda2, g.lda2, strip_begin(g.m, t.strips, s + 1) - r0, 0, g.k2, x.strips2 + (s - t.s0) * STRIP_FLOATS);
      }
    }
    int flags = 0;
    if (k0 > 0 || g.accumulate) flags |= TILE_ADD;
    if (g.alpha != 1.0f) flags |= TILE_SCALE;
    if (k0 == 0 && g.bias) flags |= TILE_BIAS;
    // What is packed next: these rows in the next stretch, or the rows behind them, which most often are this worker's next task.
    const bool more = k0 + kc < t.k1;
    const int64_t nextK = more ? k0 + kc : t.k0, nextDeep = min_i(step, total - nextK);
    const int64_t next = more ? t.s0 : t.s1, nextEnd = more ? t.s1 : min_i(t.strips, t.s1 + count);
    const int64_t nextRow = strip_begin(g.m, t.strips, next), nextRows = strip_begin(g.m, t.strips, nextEnd) - nextRow;
    int64_t tile = 0;
    for (int64_t c0 = t.n0; c0 < t.n1; c0 += NC) {
      for (int64_t s = t.s0; s < t.s1; s++) {
        const int64_t r0 = strip_begin(g.m, t.strips, s), rows = strip_begin(g.m, t.strips, s + 1) - r0;
        const float* strip = x.strips + (s - t.s0) * STRIP_FLOATS;
        for (int64_t c = c0; c < min_i(t.n1, c0 + NC); c += NR, tile++) {
          const int64_t cols = min_i(NR, t.n1 - c);
          float* out = g.c + r0 * g.ldc + c;
          // Lines of 16 floats: the tile takes longer than memory.
          for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < cols; j += 16) SLOTH_FETCH_WRITE(out + i * g.ldc + j);
          }
          if (nextRows > 0) fetch_a(g, nextRow, nextRows, nextK, nextDeep, tile, tiles);
          Tiles<NR, P>::get(rows, cols)(words, strip, panels + (c - t.first) * words, out, g.ldc, cols, flags, g.alpha, g.bias ? g.bias + c : nullptr);
          if (pair) {
            Tiles<NR>::get(rows, cols)(g.k2, x.strips2 + (s - t.s0) * STRIP_FLOATS, t.panels2 + (c - t.first) * g.k2, out, g.ldc, cols, (flags & TILE_SCALE) | TILE_ADD, g.alpha, nullptr);
          }
        }
      }
    }
  }
}

// How c is cut among `threads`: strips into `down` parts and panels into `across`. Any cut gives the same result; this picks the one that a simple model of the
// work (products, packing of A, the last wave of tasks) finds cheapest.
struct Cut {
  int64_t down, across;
};
static Cut gemm_cut(int64_t strips, int64_t panels, int threads) {
  const int64_t fewest = ceil_div(strips, STRIPS);
  Cut best = {fewest, 1};
  double least = 1e300;
  for (int64_t down = fewest; down <= strips && (down == fewest || down <= 8 * threads); down++) {
    for (int64_t across = 1; across <= panels && across <= 2 * threads; across++) {
      const double rows = static_cast<double>(ceil_div(strips, down)), cols = static_cast<double>(ceil_div(panels, across));
      const double one = rows * (cols + 0.5) + 0.1;
      const double waves = threads == 1 ? static_cast<double>(down * across) : static_cast<double>(ceil_div(down * across, threads)) + 0.1;
      if (one * waves < least) {
        least = one * waves;
        best = {down, across};
      }
    }
  }
  return best;
}

template <class P = Words>
static void gemm_run(Pool* pool, const Gemm& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k1 + g.k2 <= 0) {
    for (int64_t i = 0; i < g.m; i++) {
      for (int64_t j = 0; j < g.n; j++) {
        float* c = g.c + i * g.ldc + j;
        *c = (g.accumulate ? *c : 0.0f) + (g.bias ? g.bias[j] : 0.0f);
      }
    }
    return;
  }
  // Columns are packed in units that are whole panels and, where W's rows run along n, whole blocks.
  const int64_t block = format_layout(g.format).block;
  int64_t unit = NR;
  if (!g.rowsAreN) {
    while (unit % block != 0) unit += NR;
  }
  const int64_t units = ceil_div(g.n, unit), strips = strip_count(g.m);
  const int64_t total = P::TOGETHER ? g.k1 + g.k2 : g.k1, step = stretch_length<P>(total), stretches = ceil_div(total, step);
  const int64_t words = P::count(min_i(step, total)), words2 = P::TOGETHER ? 0 : g.k2;
  // As many panels at a time as stay in the last cache: first fewer stretches together, then fewer columns.
  const int64_t most = PANELS_BYTES / 4, parts = min_i(units, ceil_div(units * unit * words, most));
  for (int64_t p = 0; p < parts; p++) {
    const int64_t u0 = units * p / parts, u1 = units * (p + 1) / parts, n0 = u0 * unit, n1 = min_i(g.n, u1 * unit), wide = (u1 - u0) * unit;
    const int64_t deep = max_i(1, most / (wide * words)), groups = ceil_div(stretches, deep);
    const Cut cut = gemm_cut(strips, ceil_div(n1 - n0, NR), pool_threads(pool));
    for (int64_t group = 0; group < groups; group++) {
      const int64_t t0 = stretches * group / groups, t1 = stretches * (group + 1) / groups;
      float* panels = static_cast<float*>(pool_shared(pool, SLOT_PANELS, static_cast<size_t>(wide * ((t1 - t0) * words + words2)) * 4));
      float* panels2 = panels + (t1 - t0) * wide * words;
      // A few units of a stretch a task; what is small is packed without waking anyone.
      const int64_t per = max_i(1, NC / unit), pieces = ceil_div(u1 - u0, per);
      const auto pack = [&](int task) {
        const int64_t t = task / pieces, i = task % pieces * per, from = n0 + i * unit, cols = min_i(n1 - from, per * unit), k0 = (t0 + t) * step, kc = min_i(step, total - k0);
        float* out = panels + t * wide * words + i * unit * P::count(kc);
        SLOTH_WITH_FORMAT(g.format, F, (pack_b<F, P>(g, from, cols, k0, kc, out)))
        if (words2 > 0 && k0 + kc == total) {
          const uint8_t* b2 = reinterpret_cast<const uint8_t*>(g.b2);
          if (g.rowsAreN) pack_transposed<FormatF32>(b2, g.ldb2 * 4, from, cols, 0, g.k2, panels2 + i * unit * g.k2, 0, g.k2);
          else pack_straight<FormatF32>(b2, g.ldb2 * 4, from, cols, 0, g.k2, panels2 + i * unit * g.k2, 0, g.k2);
        }
      };
      const int tasks = static_cast<int>((t1 - t0) * pieces);
      if (wide * words * (t1 - t0) <= SERIAL_LIMIT) {
        for (int task = 0; task < tasks; task++) pack(task);
      } else {
        pool_for(pool, tasks, [&](int task, int) { pack(task); });
      }
      pool_for(pool, static_cast<int>(cut.down * cut.across), [&](int task, int worker) {
        const int64_t i = task / cut.across, j = task % cut.across, columns = ceil_div(n1 - n0, NR);
        const GemmPart part = {strips, strips * i / cut.down, strips * (i + 1) / cut.down, n0 + columns * j / cut.across * NR, min_i(n1, n0 + columns * (j + 1) / cut.across * NR),
                               t0 * step, min_i(total, t1 * step), n0, wide * words, panels, panels2};
        GemmScratch x;
        const int64_t bytes = gemm_layout<P>(&x, nullptr, g.k2);
        gemm_layout<P>(&x, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(bytes))), g.k2);
        gemm_task<P>(g, part, x);
      });
    }
  }
}

#include "gemm_narrow.h"

// `stored`: b1 is the weight of a layer (the precision of the products of one can be chosen).
#if defined(SLOTH_PRECISION_BF16)
#include "gemm_bf16.h"
// The words of the products that the precision of this unit rounds.
typedef BfWords Product;
#else
typedef Words Product;
static void product_run(Pool* pool, const Gemm& g, bool) { gemm_run(pool, g); }
#endif

// --- kernels

static void matmul(Pool* pool, float* c, const float* a, const float* b, int64_t m, int64_t n, int64_t k, int64_t transA, int64_t transB, double alpha,
                   int64_t accumulate) {
  if (transA && !transB && k > 0 && m > 0 && n > 0 && min_i(m, n) <= NARROW) {
    const bool across = n < m;
    narrow_run(pool, c, across ? b : a, min_i(m, n), across ? a : b, across ? m : n, k, static_cast<float>(alpha), accumulate, across);
    return;
  }
  Gemm g = {};
  g.c = c;
  g.ldc = n;
  g.m = m;
  g.n = n;
  g.a1 = a;
  g.lda1 = transA ? m : k;
  g.k1 = k;
  g.transA = transA;
  g.b1 = b;
  g.format = FORMAT_F32;
  g.rowBytes1 = (transB ? k : n) * 4;
  g.rowsAreN = transB;
  g.alpha = static_cast<float>(alpha);
  g.accumulate = accumulate;
  product_run(pool, g, false);
}
