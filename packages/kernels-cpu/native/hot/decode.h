// Attention over a paged cache. Included inside an ISA namespace, after attention.h.
//
// Rows of a prompt (neighbours of one sequence at successive positions) go through the tiles of attention.h. Single rows, as in generation, are cut along the
// context into stretches; a task reads every key and value of its stretch once for all query heads that share them, and the stretches are combined in order. Where
// neighbouring rows' tables begin with the same blocks (completions of one prompt), the stretches of these blocks are read once for all of them, by the tiles again.
// Caches are stored as f32, f16 or q8_0 rows and widened in registers as they are read.

static const int64_t DECODE_KEYS = 256;   // positions of a stretch
static const int64_t DECODE_AHEAD = 16;   // positions to fetch ahead
static const int64_t PREFILL_STACK = 16;  // stacked query rows from which the tiles are used
static const int SLOT_DECODE = 1;
static const int SLOT_DECODE_PARTS = 2;

// Query heads that one pass over the keys serves, and accumulators that fit the registers.
static const int DECODE_HEADS = 4;
#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_NEON)
static const int DECODE_SUMS = 16;
#else
static const int DECODE_SUMS = 8;
#endif

// Runs BODY with F as the struct of a cache format; the binding has checked that the code is one of these.
#define SLOTH_WITH_CACHE_FORMAT(code, F, ...)                       \
  switch (code) {                                                   \
    case FORMAT_F32: { typedef FormatF32 F; __VA_ARGS__; break; }   \
    case FORMAT_F16: { typedef FormatF16 F; __VA_ARGS__; break; }   \
    case FORMAT_Q8_0: { typedef FormatQ8_0 F; __VA_ARGS__; break; } \
    default: break;                                                 \
  }

static const int64_t CACHE_STRIP = 128;  // columns of a task of cacheWrite, whole blocks of every format

static void cacheWrite(Pool* pool, void* kCache, void* vCache, int64_t format, const float* k, int64_t ldk, const float* v, int64_t ldv, const int32_t* slots,
                       int64_t rows, int64_t width, int64_t cacheSlots) {
  // Two caches times strips of columns; within a strip the rows go in order, so that the last row of a slot wins.
  const int64_t strips = ceil_div(width, CACHE_STRIP), rowBytes = format_row_bytes(format, width);
  par_pieces(pool, strips * 2, 1, rows * width <= SERIAL_LIMIT, [=](int64_t first, int64_t end, int, int) {
    for (int64_t piece = first; piece < end; piece++) {
      const bool second = piece >= strips;
      const int64_t from = (second ? piece - strips : piece) * CACHE_STRIP;
      const int64_t to = min_i(width, from + CACHE_STRIP);
      uint8_t* cache = static_cast<uint8_t*>(second ? vCache : kCache);
      const float* source = second ? v : k;
      const int64_t ld = second ? ldv : ldk;
      for (int64_t i = 0; i < rows; i++) {
        const int64_t slot = slots[i];
        if (slot == -1) continue;
        if (slot < 0 || slot >= cacheSlots) {
          if (piece == 0) pool_fail(pool, "cacheWrite", "a slot lies outside the caches", i, slot);
          continue;
        }
        SLOTH_WITH_CACHE_FORMAT(format, F, F::encode(source + i * ld + from, to - from, cache + slot * rowBytes + format_offset<F>(from)))
      }
    }
  });
}

// VW stored values of a head from column c (a multiple of VW); `tail` reads n < VW of them, the rest are 0.
template <class F>
struct Cached;
template <>
struct Cached<FormatF32> {
  SLOTH_INLINE vf load(const uint8_t* head, int64_t c) { return vload(reinterpret_cast<const float*>(head) + c); }
  SLOTH_INLINE vf tail(const uint8_t* head, int64_t c, int64_t n) { return vloadn(reinterpret_cast<const float*>(head) + c, n); }
};
template <>
struct Cached<FormatF16> {
  SLOTH_INLINE vf load(const uint8_t* head, int64_t c) { return vload_f16(reinterpret_cast<const uint16_t*>(head) + c); }
  SLOTH_INLINE vf tail(const uint8_t* head, int64_t c, int64_t n) {
    float t[VW];
    FormatF16::decode_tail(head + 2 * c, n, t);
    return vloadn(t, n);
  }
};
template <>
struct Cached<FormatQ8_0> {
  SLOTH_INLINE vf load(const uint8_t* head, int64_t c) {
    const uint8_t* block = head + c / 32 * 34;
    return vmul(vload_i8(reinterpret_cast<const int8_t*>(block + 2) + c % 32), vset_f16(block));
  }
  SLOTH_INLINE vf tail(const uint8_t*, int64_t, int64_t) { return vzero(); }  // whole blocks have no tail
};

struct Paged {
  const float* q;
  const uint8_t *kCache, *vCache;
  const int32_t* blockTable;
  int64_t ldq, maxBlocks, blockSize, group, kvHeads, headDim, window;
  int64_t rowBytes, headBytes;  // of a slot, and of one head in it
  float scale, cap;

  SLOTH_INLINE int64_t cache_row(const Paged& c, int64_t sequence, int64_t position) {
    return static_cast<int64_t>(c.blockTable[sequence * c.maxBlocks + position / c.blockSize]) * c.blockSize + position % c.blockSize;
  }
  SLOTH_INLINE int64_t first(const Paged& c, int64_t position) { return c.window > 0 && position >= c.window ? position - c.window + 1 : 0; }
};

// out[g * ldo + j] = q[g] · k[j] for G heads and J keys.
template <class F, int G, int J>
SLOTH_INLINE void decode_scores(const float* q, int64_t headDim, const uint8_t* const* k, float* out, int64_t ldo) {
  vf acc[G * J];
  SLOTH_UNROLL
  for (int i = 0; i < G * J; i++) acc[i] = vzero();
  int64_t c = 0;
  for (; c + VW <= headDim; c += VW) {
    SLOTH_UNROLL
    for (int j = 0; j < J; j++) {
      const vf kv = Cached<F>::load(k[j], c);
      SLOTH_UNROLL
      for (int g = 0; g < G; g++) acc[g * J + j] = vfma(kv, vload(q + g * headDim + c), acc[g * J + j]);
    }
  }
  if (c < headDim) {
    const int64_t n = headDim - c;
    SLOTH_UNROLL
    for (int j = 0; j < J; j++) {
      const vf kv = Cached<F>::tail(k[j], c, n);
      SLOTH_UNROLL
      for (int g = 0; g < G; g++) acc[g * J + j] = vfma(kv, vloadn(q + g * headDim + c, n), acc[g * J + j]);
    }
  }
  alignas(64) float sums[G * J];
  vsum_each<G * J>(acc, sums);
  SLOTH_UNROLL
  for (int g = 0; g < G; g++) memcpy(out + g * ldo, sums + g * J, J * 4);
}

// o[g] += sum over n keys of p[g * ldp + j] · v[j], for C vectors of channels; the sums stay in registers. `tail` < VW: only that many channels (C is 1).
template <class F, int G, int C>
SLOTH_INLINE void decode_values(const float* p, int64_t ldp, const uint8_t* const* v, int64_t n, int64_t channel, float* o, int64_t headDim, int64_t tail) {
  vf acc[G * C];
  SLOTH_UNROLL
  for (int i = 0; i < G * C; i++) acc[i] = vzero();
  for (int64_t j = 0; j < n; j++) {
    if (j + DECODE_AHEAD < n) {
      SLOTH_UNROLL
      for (int64_t c = 0; c < C * VW * F::BYTES32 / 32; c += 64) SLOTH_PREFETCH(v[j + DECODE_AHEAD] + channel * F::BYTES32 / 32 + c);
    }
    vf x[C];
    SLOTH_UNROLL
    for (int c = 0; c < C; c++) x[c] = tail < VW ? Cached<F>::tail(v[j], channel, tail) : Cached<F>::load(v[j], channel + c * VW);
    SLOTH_UNROLL
    for (int g = 0; g < G; g++) {
      const vf w = vset(p[g * ldp + j]);
      SLOTH_UNROLL
      for (int c = 0; c < C; c++) acc[g * C + c] = vfma(w, x[c], acc[g * C + c]);
    }
  }
  SLOTH_UNROLL
  for (int g = 0; g < G; g++) {
    SLOTH_UNROLL
    for (int c = 0; c < C; c++) {
      if (tail < VW) vstoren(o + g * headDim + channel, tail, acc[g * C + c]);
      else vstore(o + g * headDim + channel + c * VW, acc[g * C + c]);
    }
  }
}

// G heads of one row against the positions from .. from + n (n <= DECODE_KEYS): o [G, headDim] without the division, and (m, l) of each head.
template <class F, int G>
SLOTH_NOINLINE void decode_part(const Paged& a, const float* q, int64_t sequence, int64_t kvHead, int64_t from, int64_t n, float* o, float* ml) {
  const int J = DECODE_SUMS / G;
  const uint8_t* rows[DECODE_KEYS];
  alignas(64) float scores[G * DECODE_KEYS];
  for (int64_t j = 0; j < n; j++) rows[j] = a.kCache + Paged::cache_row(a, sequence, from + j) * a.rowBytes + kvHead * a.headBytes;
  int64_t j = 0;
  for (; j + J <= n; j += J) {
    // Rows of a page are short and far apart for the hardware's own prefetching.
    for (int64_t i = j + DECODE_AHEAD; i < min_i(n, j + J + DECODE_AHEAD); i++) {
      for (int64_t c = 0; c < a.headBytes; c += 64) SLOTH_PREFETCH(rows[i] + c);
    }
    decode_scores<F, G, J>(q, a.headDim, rows + j, scores + j, DECODE_KEYS);
  }
  for (; j < n; j++) decode_scores<F, G, 1>(q, a.headDim, rows + j, scores + j, DECODE_KEYS);
  for (int g = 0; g < G; g++) {
    float* s = scores + g * DECODE_KEYS;
    soft_cap_row(s, n, a.scale, a.cap);
    for (int64_t c = n; c < round_up(n, VW); c++) s[c] = -INFINITY;
    vf top = vset(-INFINITY);
    for (int64_t c = 0; c < n; c += VW) top = vmax(vload(s + c), top);
    const float m = vhmax(top);
    const vf shift = vset(m == -INFINITY ? 0.0f : m);
    vf sum = vzero();
    for (int64_t c = 0; c < n; c += VW) {
      const vf e = vexp(vsub(vload(s + c), shift));
      vstore(s + c, e);
      sum = vadd(sum, e);
    }
    ml[2 * g] = m;
    ml[2 * g + 1] = vsum(sum);
  }
  for (int64_t i = 0; i < n; i++) rows[i] = a.vCache + (rows[i] - a.kCache);
  const int C = DECODE_SUMS / G < 4 ? DECODE_SUMS / G : 4;
  int64_t c = 0;
  for (; c + C * VW <= a.headDim; c += C * VW) decode_values<F, G, C>(scores, DECODE_KEYS, rows, n, c, o, a.headDim, VW);
  for (; c < a.headDim; c += VW) decode_values<F, G, 1>(scores, DECODE_KEYS, rows, n, c, o, a.headDim, min_i(VW, a.headDim - c));
}

// A tile of a prompt: rows of one sequence at successive positions, all query heads of one key head.
template <class F>
static void paged_tile(const Paged& a, int64_t row, int64_t rows, int64_t sequence, int64_t position, int64_t kvHead, const float* sinks, float* out,
                       char* scratch) {
  FlashState f = {};
  f.rows = rows * a.group;
  f.group = a.group;
  f.headDim = a.headDim;
  f.softcap = a.cap;
  f.window = a.window;
  flash_begin(f, scratch);
  float* gathered = reinterpret_cast<float*>(scratch + flash_bytes(a.headDim));
  const int64_t hd = a.headDim, heads = a.kvHeads * a.group;
  stack_rows(a.q + row * a.ldq + kvHead * a.group * hd, a.ldq, rows, a.group, hd, a.scale, f.q, SA);
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(gathered);
  for (int64_t j = Paged::first(a, position); j < position + rows; j += KEYS) {
    const int64_t n = min_i(KEYS, position + rows - j);
    for (int64_t i = 0; i < n; i++) decode_row<F>(a.kCache + Paged::cache_row(a, sequence, j + i) * a.rowBytes + kvHead * a.headBytes, 0, hd, gathered + i * hd);
    pack_transposed<FormatF32>(bytes, hd * 4, 0, n, 0, hd, f.keys, 0, hd);
    for (int64_t i = 0; i < n; i++) decode_row<F>(a.vCache + Paged::cache_row(a, sequence, j + i) * a.rowBytes + kvHead * a.headBytes, 0, hd, gathered + i * hd);
    pack_straight<FormatF32>(bytes, hd * 4, 0, hd, 0, n, f.values, 0, n);
    flash_tile(f, position, j, n);
  }
  for (int64_t r = 0; r < f.rows; r++) {
    const int64_t h = kvHead * a.group + r % a.group;
    flash_row(f, r, sinks ? sinks + h : nullptr, out + ((row + r / a.group) * heads + h) * hd, nullptr);
  }
}

// A piece of work: `rows` > 0 is a tile of a prompt; 0 is one stretch of a single row, or of `shared` rows with the same keys, whose results go to the partial slots
// firstPart[row] + part.
struct PagedTask {
  int64_t row, rows, from, n, part, shared;
};

// Rows from which on a stretch is worth a tile, and the least positions that they must have in common.
static const int64_t SHARED_ROWS = 2;
static const int64_t SHARED_KEYS = 32;
// Positions of a task of theirs: fewer than of a single row, so that they spread evenly.
static const int64_t SHARED_STRETCH = 128;

// The part of a stretch that `shared` rows see as one.
template <class F>
static void paged_shared(const Paged& a, const PagedTask& t, int64_t sequence, int64_t kvHead, const int64_t* firstPart, float* partial, char* scratch) {
  FlashState f = {};
  f.rows = t.shared * a.group;
  f.group = a.group;
  f.headDim = a.headDim;
  f.softcap = a.cap;
  flash_begin(f, scratch);
  float* gathered = reinterpret_cast<float*>(scratch + flash_bytes(a.headDim));
  const int64_t hd = a.headDim, heads = a.kvHeads * a.group;
  stack_rows(a.q + t.row * a.ldq + kvHead * a.group * hd, a.ldq, t.shared, a.group, hd, a.scale, f.q, SA);
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(gathered);
  int64_t slots[SHARED_STRETCH];
  for (int64_t i = 0; i < t.n; i++) slots[i] = Paged::cache_row(a, sequence, t.from + i) * a.rowBytes + kvHead * a.headBytes;
  // Rows of a page are short and far apart for the hardware's own prefetching: those DECODE_AHEAD further are fetched on the way, of the values behind the keys.
  const auto gather = [&](const uint8_t* cache) {
    for (int64_t i = 0; i < t.n; i++) {
      const int64_t far = i + DECODE_AHEAD;
      const uint8_t* ahead = far < t.n ? cache + slots[far] : a.vCache + slots[far - t.n];
      for (int64_t c = 0; c < a.headBytes; c += 64) SLOTH_PREFETCH(ahead + c);
      decode_row<F>(cache + slots[i], 0, hd, gathered + i * hd);
    }
  };
  gather(a.kCache);
  pack_transposed<FormatF32>(bytes, hd * 4, 0, t.n, 0, hd, f.keys, 0, hd);
  gather(a.vCache);
  pack_straight<FormatF32>(bytes, hd * 4, 0, hd, 0, t.n, f.values, 0, t.n);
  flash_tile(f, t.from + t.n, t.from, t.n);  // all keys lie before all rows
  for (int64_t r = 0; r < f.rows; r++) {
    const int64_t h = kvHead * a.group + r % a.group;
    float* o = partial + (firstPart[t.row + r / a.group] + t.part) * heads * (hd + 2);
    memcpy(o + h * hd, f.o + r * f.width, static_cast<size_t>(hd) * 4);
    o[heads * hd + 2 * h] = f.m[r];
    o[heads * hd + 2 * h + 1] = f.l[r];
  }
}

template <class F>
static void decode_row_part(const Paged& a, const PagedTask& t, int64_t sequence, int64_t kvHead, float* o, float* ml) {
  for (int64_t g = 0; g < a.group; g += DECODE_HEADS) {
    const int64_t h = kvHead * a.group + g;
    const float* qr = a.q + t.row * a.ldq + h * a.headDim;
    float* to = o + h * a.headDim;
    switch (min_i(DECODE_HEADS, a.group - g)) {
      case 1: decode_part<F, 1>(a, qr, sequence, kvHead, t.from, t.n, to, ml + 2 * h); break;
      case 2: decode_part<F, 2>(a, qr, sequence, kvHead, t.from, t.n, to, ml + 2 * h); break;
      case 3: decode_part<F, 3>(a, qr, sequence, kvHead, t.from, t.n, to, ml + 2 * h); break;
      default: decode_part<F, 4>(a, qr, sequence, kvHead, t.from, t.n, to, ml + 2 * h); break;
    }
  }
}

static void pagedAttention(Pool* pool, float* out, const float* q, int64_t ldq, const void* kCache, const void* vCache, int64_t format,
                           const int32_t* blockTable, int64_t maxBlocks, int64_t blockSize, const int32_t* rowSequence, const int32_t* rowPosition,
                           int64_t rows, int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window, double softcap, const float* sinks,
                           int64_t cacheBlocks, int64_t sequences) {
  if (rows <= 0 || heads <= 0 || !attention_shape(pool, "pagedAttention", heads, kvHeads, headDim)) return;
  Paged a = {};
  a.q = q;
  a.kCache = static_cast<const uint8_t*>(kCache);
  a.vCache = static_cast<const uint8_t*>(vCache);
  a.headBytes = format_row_bytes(format, headDim);
  a.rowBytes = a.headBytes * kvHeads;
  a.blockTable = blockTable;
  a.ldq = ldq;
  a.maxBlocks = maxBlocks;
  a.blockSize = blockSize;
  a.group = heads / kvHeads;
  a.kvHeads = kvHeads;
  a.headDim = headDim;
  a.window = window;
  a.scale = static_cast<float>(scale);
  a.cap = static_cast<float>(softcap);
  int64_t most = 0;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t s = rowSequence[i], p = rowPosition[i];
    if (s < 0 || s >= sequences || p < 0 || p >= maxBlocks * blockSize) {
      pool_fail(pool, "pagedAttention", "a row's sequence or position lies outside the block table", i, s < 0 || s >= sequences ? s : p);
      return;
    }
    const int64_t first = Paged::first(a, p);
    for (int64_t b = first / blockSize; b <= p / blockSize; b++) {
      const int64_t block = blockTable[s * maxBlocks + b];
      if (block < 0 || block >= cacheBlocks) {
        pool_fail(pool, "pagedAttention", "the block table names a block that the cache does not have", s * maxBlocks + b, block);
        return;
      }
    }
    most += ceil_div(p - first + 1, SHARED_STRETCH) + 2;
  }
  char* lists = static_cast<char*>(pool_shared(pool, SLOT_DECODE, static_cast<size_t>(most) * sizeof(PagedTask) + static_cast<size_t>(rows + 1) * sizeof(int64_t)));
  PagedTask* tasks = reinterpret_cast<PagedTask*>(lists);
  int64_t* firstPart = reinterpret_cast<int64_t*>(lists + static_cast<size_t>(most) * sizeof(PagedTask));  // partial slots of a row; none for rows of tiles
  const int64_t tall = max_i(1, STACK_MAX / a.group);
  int64_t count = 0, parts = 0;
  const auto run_at = [&](int64_t i) {
    int64_t run = 1;
    while (i + run < rows && rowSequence[i + run] == rowSequence[i] && rowPosition[i + run] == rowPosition[i] + run) run++;
    return run;
  };
  // Positions n of a stretch that begins at `from`, cut into tasks of equal size.
  const auto cut = [&](int64_t row, int64_t from, int64_t n, int64_t part, int64_t shared) {
    const int64_t pieces = ceil_div(n, shared > 0 ? SHARED_STRETCH : DECODE_KEYS);
    for (int64_t t = 0; t < pieces; t++) tasks[count++] = {row, 0, from + n * t / pieces, n * (t + 1) / pieces - n * t / pieces, part + t, shared};
    return pieces;
  };
  for (int64_t i = 0; i < rows;) {
    const int64_t run = run_at(i);
    if (run > 1 && run * a.group >= PREFILL_STACK) {
      const int64_t tiles = ceil_div(run, tall);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t from = run * t / tiles;
        tasks[count++] = {i + from, run * (t + 1) / tiles - from, 0, 0, 0, 0};
      }
      for (int64_t r = i; r < i + run; r++) firstPart[r] = parts;
      i += run;
      continue;
    }
    // Rows of other texts behind it that begin with the same blocks; whoever would halve what they have in common stays out.
    int64_t shared = 1, blocks = window > 0 ? 0 : rowPosition[i] / blockSize;
    const int32_t* table = blockTable + rowSequence[i] * maxBlocks;
    while (run == 1 && i + shared < rows && run_at(i + shared) == 1 && shared < tall) {
      const int32_t* other = blockTable + rowSequence[i + shared] * maxBlocks;
      const int64_t limit = min_i(blocks, rowPosition[i + shared] / blockSize);
      int64_t same = 0;
      while (same < limit && other[same] == table[same]) same++;
      if (same * blockSize < SHARED_KEYS || 2 * same < blocks) break;
      blocks = same;
      shared++;
    }
    const bool together = shared >= SHARED_ROWS;
    const int64_t common = together ? blocks * blockSize : 0, before = together ? cut(i, 0, common, 0, shared) : 0, end = i + (together ? shared : run);
    for (; i < end; i++) {
      const int64_t from = max_i(common, Paged::first(a, rowPosition[i]));
      firstPart[i] = parts;
      parts += before + cut(i, from, rowPosition[i] - from + 1, before, 0);
    }
  }
  firstPart[rows] = parts;
  // A partial result: o [heads, headDim], then (m, l) of each head.
  const int64_t partFloats = heads * (headDim + 2);
  float* partial = static_cast<float*>(pool_shared(pool, SLOT_DECODE_PARTS, static_cast<size_t>(parts * partFloats + 16) * 4));
  const int64_t scratch = flash_bytes(headDim) + Carver::bytes(KEYS * headDim);
  pool_for(pool, static_cast<int>(count * kvHeads), [&](int task, int worker) {
    // Later pieces of a prompt see more: they go first.
    const PagedTask& t = tasks[count - 1 - task / kvHeads];
    const int64_t kvHead = task % kvHeads, sequence = rowSequence[t.row];
    if (t.rows > 0) {
      char* space = static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(scratch)));
      SLOTH_WITH_CACHE_FORMAT(format, F, paged_tile<F>(a, t.row, t.rows, sequence, rowPosition[t.row], kvHead, sinks, out, space))
      return;
    }
    if (t.shared > 0) {
      char* space = static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(scratch)));
      SLOTH_WITH_CACHE_FORMAT(format, F, paged_shared<F>(a, t, sequence, kvHead, firstPart, partial, space))
      return;
    }
    float* o = partial + (firstPart[t.row] + t.part) * partFloats;
    SLOTH_WITH_CACHE_FORMAT(format, F, decode_row_part<F>(a, t, sequence, kvHead, o, o + heads * headDim))
  });
  // Few numbers: combined here, in order.
  for (int64_t row = 0; row < rows; row++) {
    const int64_t part = firstPart[row], n = firstPart[row + 1] - part;
    if (n == 0) continue;
    for (int64_t h = 0; h < heads; h++) {
      float* to = out + (row * heads + h) * headDim;
      float m = sinks ? sinks[h] : -INFINITY;
      for (int64_t p = 0; p < n; p++) {
        const float pm = partial[(part + p) * partFloats + heads * headDim + 2 * h];
        if (pm > m) m = pm;
      }
      float l = sinks ? exp_one(sinks[h] - m) : 0.0f;
      for (int64_t p = 0; p < n; p++) {
        const float* o = partial + (part + p) * partFloats;
        const float* ml = o + heads * headDim + 2 * h;
        const float f = ml[0] == m ? 1.0f : exp_one(ml[0] - m);
        l += ml[1] * f;
        o += h * headDim;
        if (p == 0) {
          for (int64_t c = 0; c < headDim; c++) to[c] = o[c] * f;
        } else {
          for (int64_t c = 0; c < headDim; c++) to[c] += o[c] * f;
        }
      }
      const float inverse = 1.0f / l;
      for (int64_t c = 0; c < headDim; c++) to[c] *= inverse;
    }
  }
}
