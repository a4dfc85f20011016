// Attention over a forest of segments, forward and backward, in tiles that stay in the caches; scores never reach main memory.
// Included inside an ISA namespace, after gemm.h and linear.h. Method: Dao 2023 (FlashAttention-2), with the query heads that share a key head stacked as
// rows of one product: stacked row r = position * group + head.
//
// The products are of the words of the unit (gemm.h). Where those are two bf16, both operands of each product are rounded: scaled queries, keys, values, gradients,
// probabilities and their gradients; sums, exponentials and everything else stay f32.
//
// Positions are counted along the path from the root of a segment. A key is seen when its position is not after the query's and, with a window, less than
// `window` before it; that covers the segment itself and all its ancestors.

static const int64_t HEAD_MAX = 256;   // channels of a head
static_assert(HEAD_MAX <= PACK_COLUMNS, "");
static const int64_t STACK_MAX = 192;  // stacked query rows of a tile
static const int64_t KEYS = 256;       // keys of a tile

// Shared scratch slots.
static const int SLOT_SEGMENTS = 1;
static const int SLOT_TILES = 2;
static const int SLOT_DELTA = 3;
static const int SLOT_PAIRS = 4;
static const int SLOT_SORTED = 5;
static const int SLOT_PARTS = 7;

struct Segment {
  int64_t start, length, parent;
  int64_t base;   // position of its first row
  int64_t depth;  // number of chunks above it (backward)
  int64_t chunk;  // index of its first chunk (backward)
};

// Reads and checks the segments; nullptr when they cannot be used. *covered gets the number of rows in them.
static Segment* read_segments(Pool* pool, const char* kernel, const int32_t* segments, int64_t count, int64_t tokens, int64_t* covered) {
  Segment* s = static_cast<Segment*>(pool_shared(pool, SLOT_SEGMENTS, static_cast<size_t>(count + 1) * sizeof(Segment)));
  int64_t end = 0;
  *covered = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t start = segments[3 * i], length = segments[3 * i + 1], parent = segments[3 * i + 2];
    if (start < end || length < 0 || length > tokens - start) {
      pool_fail(pool, kernel, "segments must be in row order, apart from each other and inside the tokens", i, start);
      return nullptr;
    }
    if (parent < -1 || parent >= i) {
      pool_fail(pool, kernel, "the parent of a segment must be -1 or an earlier segment", i, parent);
      return nullptr;
    }
    s[i].start = start;
    s[i].length = length;
    s[i].parent = parent;
    s[i].base = parent < 0 ? 0 : s[parent].base + s[parent].length;
    end = start + length;
    *covered += length;
  }
  return s;
}

static bool attention_shape(Pool* pool, const char* kernel, int64_t heads, int64_t kvHeads, int64_t headDim) {
  if (headDim > HEAD_MAX) {
    pool_fail(pool, kernel, "headDim is larger than this backend supports (256)", -1, headDim);
    return false;
  }
  if (heads / kvHeads > STACK_MAX) {
    pool_fail(pool, kernel, "more query heads share a key head than this backend supports (192)", -1, heads / kvHeads);
    return false;
  }
  return true;
}

SLOTH_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// `rows` positions of the `group` heads beginning at `x`, stacked, times `scale`; rows `ldo` apart.
SLOTH_INLINE void stack_rows(const float* x, int64_t ldx, int64_t rows, int64_t group, int64_t headDim, float scale, float* out, int64_t ldo) {
  const vf f = vset(scale);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t h = 0; h < group; h++) {
      const float* s = x + i * ldx + h * headDim;
      float* d = out + (i * group + h) * ldo;
      int64_t c = 0;
      for (; c + VW <= headDim; c += VW) vstore(d + c, vmul(vload(s + c), f));
      if (c < headDim) vstoren(d + c, headDim - c, vmul(vloadn(s + c, headDim - c), f));
    }
  }
}

// --- the forward tile, shared with the paged cache

struct FlashState {
  int64_t rows, group, headDim, width;  // stacked rows; width = headDim in whole panels
  float softcap;
  int64_t window;
  float* q;       // [rows, SA]
  float* scores;  // [MR, SA]
  float* words;   // [MR, SA] scores as an operand, where they are not one as they lie
  float* keys;    // panels [KEYS / NR][headDim][NR]
  float* values;  // panels [width / NR][keys][NR]
  float* o;       // [rows, width]
  float* m;       // [rows]
  float* l;       // [rows]
};

static int64_t flash_bytes(int64_t headDim) {
  const int64_t width = round_up(headDim, NR);
  return Carver::bytes(STACK_MAX * SA) + 2 * Carver::bytes(MR * SA) + Carver::bytes(round_up(KEYS, NR) * headDim) + Carver::bytes(KEYS * width) +
         Carver::bytes(STACK_MAX * width) + 2 * Carver::bytes(STACK_MAX);
}

static void flash_begin(FlashState& f, char* scratch) {
  f.width = round_up(f.headDim, NR);
  Carver c = {scratch};
  f.q = Carver::take(c, STACK_MAX * SA);
  f.scores = Carver::take(c, MR * SA);
  f.words = Carver::take(c, MR * SA);
  f.keys = Carver::take(c, round_up(KEYS, NR) * f.headDim);
  f.values = Carver::take(c, KEYS * f.width);
  f.o = Carver::take(c, STACK_MAX * f.width);
  f.m = Carver::take(c, STACK_MAX);
  f.l = Carver::take(c, STACK_MAX);
  memset(f.o, 0, static_cast<size_t>(f.rows * f.width) * 4);
  for (int64_t r = 0; r < f.rows; r++) {
    f.m[r] = -INFINITY;
    f.l[r] = 0;
  }
}

// One row of scores [from, to) of which [lo, hi) are seen: caps them, turns them into exp(s - max) with the running maximum, and returns the factor by which
// older sums must shrink.
SLOTH_INLINE float softmax_row(float* s, int64_t from, int64_t to, int64_t lo, int64_t hi, float softcap, float* m, float* l) {
  if (softcap > 0) {
    const vf inner = vset(1.0f / softcap), outer = vset(softcap);
    for (int64_t c = from; c < to; c += VW) vstore(s + c, vmul(vtanh(vmul(vload(s + c), inner)), outer));
  }
  for (int64_t c = from; c < lo; c++) s[c] = -INFINITY;
  for (int64_t c = hi; c < to; c++) s[c] = -INFINITY;
  vf top = vset(*m);
  for (int64_t c = from; c < to; c += VW) top = vmax(vload(s + c), top);
  const float most = vhmax(top);
  // A row that has seen nothing yet keeps -inf as its maximum; 0 in its place gives exp(-inf) = 0 rather than exp(NaN).
  const vf shift = vset(most == -INFINITY ? 0.0f : most);
  vf sum = vzero();
  for (int64_t c = from; c < to; c += VW) {
    const vf p = vexp(vsub(vload(s + c), shift));
    vstore(s + c, p);
    sum = vadd(sum, p);
  }
  const float factor = *m == most ? 1.0f : exp_one(*m - most);
  *l = *l * factor + vsum(sum);
  *m = most;
  return factor;
}

// Rows of f32, SA apart, as the left operand of a product: as they lie, or as words in `out`.
template <class P>
SLOTH_INLINE const float* as_strip(const float* x, int64_t rows, int64_t kc, float* out) {
  if (P::DEEP == 1) return x;
  P::strip(x, SA, rows, 0, kc, out);
  return out;
}

// All stacked rows against `count` packed keys, the first at path position keyBase; stacked row 0 is at path position queryBase.
template <class P = Words>
SLOTH_NOINLINE void flash_tile(FlashState& f, int64_t queryBase, int64_t keyBase, int64_t count) {
  const int64_t strips = strip_count(f.rows), deep = P::count(f.headDim), words = P::count(count);
  for (int64_t s = 0; s < strips; s++) {
    const int64_t r0 = strip_begin(f.rows, strips, s), rows = strip_begin(f.rows, strips, s + 1) - r0;
    const int64_t firstAt = queryBase + r0 / f.group, lastAt = queryBase + (r0 + rows - 1) / f.group;
    const int64_t end = min_i(count, lastAt - keyBase + 1);
    const int64_t begin = f.window > 0 ? max_i(0, firstAt - f.window + 1 - keyBase) / NR * NR : 0;
    if (end <= begin) continue;
    const int64_t padded = begin + round_up(end - begin, NR);
    for (int64_t c = begin; c < end; c += NR) Tiles<NR, P>::get(rows, NR)(deep, f.q + r0 * SA, f.keys + c * deep, f.scores + c, SA, NR, 0, 1.0f, nullptr);
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = queryBase + (r0 + i) / f.group;
      const int64_t hi = max_i(begin, min_i(end, at - keyBase + 1));
      const int64_t lo = f.window > 0 ? min_i(hi, max_i(begin, at - f.window + 1 - keyBase)) : begin;
      const float factor = softmax_row(f.scores + i * SA, begin, padded, lo, hi, f.softcap, f.m + r0 + i, f.l + r0 + i);
      if (factor != 1.0f) {
        float* o = f.o + (r0 + i) * f.width;
        const vf shrink = vset(factor);
        for (int64_t c = 0; c < f.width; c += VW) vstore(o + c, vmul(vload(o + c), shrink));
      }
    }
    const float* strip = as_strip<P>(f.scores + begin, rows, end - begin, f.words);
    for (int64_t c = 0; c < f.width; c += NR) {
      Tiles<NR, P>::get(rows, NR)(P::count(end - begin), strip, f.values + c * words + begin / P::DEEP * NR, f.o + r0 * f.width + c, f.width, NR, TILE_ADD, 1.0f, nullptr);
    }
  }
}

// Output row r (headDim values) and, when wanted, its log-sum-exp.
SLOTH_INLINE void flash_row(const FlashState& f, int64_t r, const float* sink, float* out, float* lse) {
  float m = f.m[r], l = f.l[r], factor = 1.0f;
  if (sink) {
    const float most = m > *sink ? m : *sink;
    factor = exp_one(m - most);
    l = l * factor + exp_one(*sink - most);
    m = most;
  }
  const vf inverse = vset(l > 0 ? factor / l : 0.0f);
  const float* o = f.o + r * f.width;
  int64_t c = 0;
  for (; c + VW <= f.headDim; c += VW) vstore(out + c, vmul(vload(o + c), inverse));
  if (c < f.headDim) vstoren(out + c, f.headDim - c, vmul(vloadn(o + c, f.headDim - c), inverse));
  if (lse) *lse = m + logf(l);
}

struct QueryTile {
  int64_t segment, first, rows;  // rows `first` .. of the segment
};

static void zero_uncovered(const Segment* s, int64_t count, int64_t tokens, float* x, int64_t width) {
  int64_t at = 0;
  for (int64_t i = 0; i <= count; i++) {
    const int64_t to = i < count ? s[i].start : tokens;
    if (to > at) memset(x + at * width, 0, static_cast<size_t>((to - at) * width) * 4);
    if (i < count) at = s[i].start + s[i].length;
  }
}

static void attention(Pool* pool, float* out, float* lse, const float* q, int64_t ldq, const float* k, int64_t ldk, const float* v, int64_t ldv,
                      const int32_t* segments, int64_t count, int64_t tokens, int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window,
                      double softcap, const float* sinks) {
  if (tokens <= 0 || !attention_shape(pool, "attention", heads, kvHeads, headDim)) return;
  int64_t covered = 0;
  const Segment* seg = read_segments(pool, "attention", segments, count, tokens, &covered);
  if (!seg) return;
  if (covered != tokens) {
    zero_uncovered(seg, count, tokens, out, heads * headDim);
    zero_uncovered(seg, count, tokens, lse, heads);
  }
  const int64_t group = heads / kvHeads;
  const int64_t most = max_i(1, STACK_MAX / group);
  int64_t tiles = 0;
  for (int64_t i = 0; i < count; i++) tiles += ceil_div(seg[i].length, most);
  QueryTile* tile_list = static_cast<QueryTile*>(pool_shared(pool, SLOT_TILES, static_cast<size_t>(tiles + 1) * sizeof(QueryTile)));
  int64_t at = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t parts = ceil_div(seg[i].length, most);
    for (int64_t p = 0; p < parts; p++) {
      const int64_t first = seg[i].length * p / parts;
      tile_list[at++] = {i, first, seg[i].length * (p + 1) / parts - first};
    }
  }
  // Later tiles see more keys: they go first, so that the last tasks are short.
  pool_for(pool, static_cast<int>(tiles * kvHeads), [&](int task, int worker) {
    const QueryTile t = tile_list[tiles - 1 - task / kvHeads];
    const int64_t head = task % kvHeads;
    FlashState f = {};
    f.rows = t.rows * group;
    f.group = group;
    f.headDim = headDim;
    f.softcap = static_cast<float>(softcap);
    f.window = window;
    flash_begin(f, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(flash_bytes(headDim)))));
    const int64_t row0 = seg[t.segment].start + t.first;
    stack_rows(q + row0 * ldq + head * group * headDim, ldq, t.rows, group, headDim, static_cast<float>(scale), f.q, SA);
    // Words take the place of the floats that they are made of.
    if (Product::DEEP > 1) Product::strip(f.q, SA, f.rows, 0, headDim, f.q);
    const int64_t queryBase = seg[t.segment].base + t.first;
    // From the segment itself up to the root.
    for (int64_t s = t.segment; s >= 0; s = seg[s].parent) {
      const int64_t seen = s == t.segment ? t.first + t.rows : seg[s].length;
      for (int64_t j = 0; j < seen; j += KEYS) {
        const int64_t n = min_i(KEYS, seen - j);
        const int64_t keyBase = seg[s].base + j;
        if (window > 0 && keyBase + n - 1 < queryBase - window + 1) continue;
        const int64_t row = seg[s].start + j;
        Product::transposed<FormatF32>(reinterpret_cast<const uint8_t*>(k + row * ldk + head * headDim), ldk * 4, 0, n, 0, headDim, f.keys);
        Product::straight<FormatF32>(reinterpret_cast<const uint8_t*>(v + row * ldv + head * headDim), ldv * 4, 0, headDim, 0, n, f.values);
        flash_tile<Product>(f, queryBase, keyBase, n);
      }
    }
    for (int64_t r = 0; r < f.rows; r++) {
      const int64_t h = head * group + r % group, row = row0 + r / group;
      flash_row(f, r, sinks ? sinks + h : nullptr, out + (row * heads + h) * headDim, lse + row * heads + h);
    }
  });
}

// --- backward
//
// The rows of every segment are cut into chunks of at most KEYS rows. A pair (a, b) is the part of the scores between the queries of chunk a and the keys of
// chunk b, which lies on a's path. Pairs run in stages: the stage of a pair is how many chunks b lies above a. Within a stage every a occurs once, and all
// pairs of one b form one task; so each element of dq, dk and dv is added to by one task at a time, in an order that depends on the forest alone. Where a stage has
// few such tasks, as for many completions of one prompt, the pairs of a b are dealt to parts: each has its own sums for b's keys, which are added up in order.

struct Chunk {
  int64_t segment, first, rows, depth;
};
struct Pair {
  int32_t stage, b, a;
};

// Pairs [from, to) of one b in a stage, and which of its parts they are.
struct Part {
  int32_t from, to, index;
};
static const int64_t PART_ROWS = 96;   // query rows of a part at least
static const int64_t PARTS_MOST = 4;   // of one b
static const int64_t FEW_TASKS = 16;   // stages with more tasks are not cut

struct BackwardArgs {
  float* dq;
  const float *dout, *lse, *delta, *q, *k, *v;
  int64_t ldq, ldk, ldv;
  const Segment* seg;
  const Chunk* chunks;
  int64_t heads, kvHeads, headDim, group, window;
  float scale, softcap;
};

struct BackwardScratch {
  float *keysT;            // [headDim, SA]: keys of b, transposed
  float *key, *value;      // strips [MR, SA]
  float *p, *dp;           // strips [MR, SA], scores transposed: [key, stacked row]
  float *ds;               // [KEYS, SA]
  float *rowsQ, *rowsO;    // stacked rows [STACK_MAX, headDim] of scale·q and dout
  float *qT, *oT;          // panels of their transposes, [rows / NR][headDim][NR]
  float *qP, *oP;          // panels [width / NR][rows][NR]
  float *dqT;              // [headDim, SA]
  float *dqRows;           // [STACK_MAX, SA]
  float *lse, *delta;      // stacked
  float *words;            // [MR, SA] p or ds as an operand, where they are not one as they lie
  float *panel;            // [KEYS / DEEP][NR] ds as the right operand, likewise
};

template <class P>
static int64_t backward_layout(BackwardScratch* s, char* at, int64_t headDim) {
  const int64_t width = round_up(headDim, NR), stack = round_up(STACK_MAX, NR);
  Carver c = {at};
  s->keysT = Carver::take(c, headDim * SA);
  s->key = Carver::take(c, MR * SA);
  s->value = Carver::take(c, MR * SA);
  s->p = Carver::take(c, MR * SA);
  s->dp = Carver::take(c, MR * SA);
  s->ds = Carver::take(c, KEYS * SA);
  s->rowsQ = Carver::take(c, STACK_MAX * headDim);
  s->rowsO = Carver::take(c, STACK_MAX * headDim);
  s->qT = Carver::take(c, stack * headDim);
  s->oT = Carver::take(c, stack * headDim);
  s->qP = Carver::take(c, STACK_MAX * width);
  s->oP = Carver::take(c, STACK_MAX * width);
  s->dqT = Carver::take(c, headDim * SA);
  s->dqRows = Carver::take(c, STACK_MAX * SA);
  s->lse = Carver::take(c, stack);
  s->delta = Carver::take(c, stack);
  s->words = Carver::take(c, P::DEEP > 1 ? MR * SA : 0);
  s->panel = Carver::take(c, P::DEEP > 1 ? KEYS * NR : 0);
  return c.at - at;
}

// p = exp(s - lse), ds = p · (dp - delta) · (slope of the soft cap), zero outside the seen rows [lo, hi).
SLOTH_INLINE void backward_row(float* p, const float* dp, float* ds, const float* lse, const float* delta, int64_t from, int64_t to, int64_t lo, int64_t hi,
                               float softcap) {
  if (softcap > 0) {
    const vf inner = vset(1.0f / softcap), outer = vset(softcap), one = vset(1.0f);
    for (int64_t c = from; c < to; c += VW) {
      const vf t = vtanh(vmul(vload(p + c), inner));
      const vf e = vexp(vsub(vmul(t, outer), vload(lse + c)));
      vstore(p + c, e);
      vstore(ds + c, vmul(vmul(e, vsub(vload(dp + c), vload(delta + c))), vfnma(t, t, one)));
    }
  } else {
    for (int64_t c = from; c < to; c += VW) {
      const vf e = vexp(vsub(vload(p + c), vload(lse + c)));
      vstore(p + c, e);
      vstore(ds + c, vmul(e, vsub(vload(dp + c), vload(delta + c))));
    }
  }
  for (int64_t c = from; c < lo; c++) p[c] = ds[c] = 0.0f;
  for (int64_t c = hi; c < to; c++) p[c] = ds[c] = 0.0f;
}

// Adds the part of the gradients between queries `first` .. `first + rows` of chunk a's segment and all keys of chunk b, whose rows of dk and dv are `ld` apart.
template <class P>
SLOTH_NOINLINE void backward_block(const BackwardArgs& g, const BackwardScratch& s, const Chunk& a, const Chunk& b, int64_t first, int64_t rows, int64_t head,
                                   bool overwrite, float* dk, float* dv, int64_t ld) {
  const Segment& sa = g.seg[a.segment];
  const Segment& sb = g.seg[b.segment];
  const int64_t hd = g.headDim, group = g.group, width = round_up(hd, NR);
  const int64_t n = rows * group;  // stacked rows
  const int64_t panels = round_up(n, NR);
  const int64_t row0 = sa.start + first, key0 = sb.start + b.first;
  const int64_t queryBase = sa.base + first, keyBase = sb.base + b.first;
  stack_rows(g.q + row0 * g.ldq + head * group * hd, g.ldq, rows, group, hd, g.scale, s.rowsQ, hd);
  stack_rows(g.dout + row0 * g.heads * hd + head * group * hd, g.heads * hd, rows, group, hd, 1.0f, s.rowsO, hd);
  const uint8_t* bytesQ = reinterpret_cast<const uint8_t*>(s.rowsQ);
  const uint8_t* bytesO = reinterpret_cast<const uint8_t*>(s.rowsO);
  P::template transposed<FormatF32>(bytesQ, hd * 4, 0, n, 0, hd, s.qT);
  P::template transposed<FormatF32>(bytesO, hd * 4, 0, n, 0, hd, s.oT);
  P::template straight<FormatF32>(bytesQ, hd * 4, 0, hd, 0, n, s.qP);
  P::template straight<FormatF32>(bytesO, hd * 4, 0, hd, 0, n, s.oP);
  const int64_t channels = P::count(hd), height = P::count(n);
  // A pair of words may take in a key that no row of its panel sees: its ds is 0 there.
  if (P::DEEP > 1 && g.window > 0) memset(s.ds, 0, static_cast<size_t>(b.rows * SA) * 4);
  for (int64_t r = 0; r < panels; r++) {
    const int64_t at = (row0 + r / group) * g.heads + head * group + r % group;
    s.lse[r] = r < n ? g.lse[at] : INFINITY;
    s.delta[r] = r < n ? g.delta[at] : 0.0f;
  }
  const int64_t strips = strip_count(b.rows);
  for (int64_t t = 0; t < strips; t++) {
    const int64_t j0 = strip_begin(b.rows, strips, t), keys = strip_begin(b.rows, strips, t + 1) - j0;
    // Stacked rows that see some key of the strip.
    const int64_t begin = max_i(0, (keyBase + j0 - queryBase) * group) / NR * NR;
    const int64_t end = g.window > 0 ? min_i(n, (keyBase + j0 + keys - 1 + g.window - queryBase) * group) : n;
    if (end <= begin) continue;
    const int64_t padded = begin + round_up(end - begin, NR);
    const int64_t key = key0 + j0;
    P::strip(g.k + key * g.ldk + head * hd, g.ldk, keys, 0, hd, s.key);
    P::strip(g.v + key * g.ldv + head * hd, g.ldv, keys, 0, hd, s.value);
    float* ds = s.ds + j0 * SA;
    for (int64_t c = begin; c < padded; c += NR) {
      Tiles<NR, P>::get(keys, NR)(channels, s.key, s.qT + c * channels, s.p + c, SA, NR, 0, 1.0f, nullptr);
      Tiles<NR, P>::get(keys, NR)(channels, s.value, s.oT + c * channels, s.dp + c, SA, NR, 0, 1.0f, nullptr);
    }
    for (int64_t i = 0; i < keys; i++) {
      const int64_t at = keyBase + j0 + i;
      const int64_t lo = min_i(padded, max_i(begin, (at - queryBase) * group));
      const int64_t hi = max_i(lo, g.window > 0 ? min_i(end, (at + g.window - queryBase) * group) : end);
      backward_row(s.p + i * SA, s.dp + i * SA, ds + i * SA, s.lse, s.delta, begin, padded, lo, hi, g.softcap);
    }
    const int64_t deep = min_i(n, padded) - begin;
    auto add = [&](const float* left, const float* right, float* out) {
      const float* strip = as_strip<P>(left + begin, keys, deep, s.words);
      for (int64_t c = 0; c < width; c += NR) {
        const int64_t cols = min_i(NR, hd - c);
        Tiles<NR, P>::get(keys, cols)(P::count(deep), strip, right + c * height + begin / P::DEEP * NR, out + j0 * ld + c, ld, cols, TILE_ADD, 1.0f, nullptr);
      }
    };
    add(s.p, s.oP, dv);
    add(ds, s.qP, dk);
  }
  // dqᵀ = Kᵀ · dsᵀ, panel by panel over the keys that the panel's rows see.
  const int64_t high = strip_count(hd);
  for (int64_t c = 0; c < panels; c += NR) {
    const int64_t firstAt = queryBase + c / group, lastAt = queryBase + min_i(n - 1, c + NR - 1) / group;
    const int64_t to = min_i(b.rows, lastAt - keyBase + 1);
    const int64_t from = g.window > 0 ? min_i(to, max_i(0, firstAt - g.window + 1 - keyBase)) / P::DEEP * P::DEEP : 0;
    if (P::DEEP > 1) P::template straight<FormatF32>(reinterpret_cast<const uint8_t*>(s.ds + from * SA + c), SA * 4, 0, NR, 0, max_i(0, to - from), s.panel);
    for (int64_t t = 0; t < high; t++) {
      const int64_t d0 = strip_begin(hd, high, t), d = strip_begin(hd, high, t + 1) - d0;
      const int64_t words = P::count(max_i(0, to - from));
      if (P::DEEP > 1) Tiles<NR, P>::get(d, NR)(words, s.keysT + d0 * SA + from / P::DEEP, s.panel, s.dqT + d0 * SA + c, SA, NR, 0, 1.0f, nullptr);
      else Tiles<SA>::get(d, NR)(words, s.keysT + d0 * SA + from, s.ds + from * SA + c, s.dqT + d0 * SA + c, SA, NR, 0, 1.0f, nullptr);
    }
  }
  pack_rows_transposed(s.dqT, SA, n, 0, hd, s.dqRows);
  const vf f = vset(g.scale);
  for (int64_t r = 0; r < n; r++) {
    float* o = g.dq + ((row0 + r / group) * g.heads + head * group + r % group) * hd;
    const float* x = s.dqRows + r * SA;
    for (int64_t c = 0; c < hd; c += VW) {
      const int64_t left = min_i(VW, hd - c);
      if (left == VW) vstore(o + c, overwrite ? vmul(vload(x + c), f) : vfma(vload(x + c), f, vload(o + c)));
      else vstoren(o + c, left, overwrite ? vmul(vloadn(x + c, left), f) : vfma(vloadn(x + c, left), f, vloadn(o + c, left)));
    }
  }
}

// Stable counting sort of pairs by one of their fields.
static void sort_pairs(const Pair* in, Pair* out, int64_t n, int64_t keys, int32_t* counts, bool byStage) {
  memset(counts, 0, static_cast<size_t>(keys + 1) * 4);
  for (int64_t i = 0; i < n; i++) counts[(byStage ? in[i].stage : in[i].b) + 1]++;
  for (int64_t i = 0; i < keys; i++) counts[i + 1] += counts[i];
  for (int64_t i = 0; i < n; i++) out[counts[byStage ? in[i].stage : in[i].b]++] = in[i];
}

static void attentionBackward(Pool* pool, float* dq, float* dk, float* dv, float* dsinks, const float* dout, const float* out, const float* lse,
                              const float* q, int64_t ldq, const float* k, int64_t ldk, const float* v, int64_t ldv, const int32_t* segments, int64_t count,
                              int64_t tokens, int64_t heads, int64_t kvHeads, int64_t headDim, double scale, int64_t window, double softcap,
                              const float* sinks) {
  if (tokens <= 0 || !attention_shape(pool, "attentionBackward", heads, kvHeads, headDim)) return;
  int64_t covered = 0;
  Segment* seg = read_segments(pool, "attentionBackward", segments, count, tokens, &covered);
  if (!seg) return;
  if (covered != tokens) {
    zero_uncovered(seg, count, tokens, dq, heads * headDim);
    zero_uncovered(seg, count, tokens, dk, kvHeads * headDim);
    zero_uncovered(seg, count, tokens, dv, kvHeads * headDim);
  }
  // delta[i, h] = dout[i, h] · out[i, h]
  float* delta = static_cast<float*>(pool_shared(pool, SLOT_DELTA, static_cast<size_t>(tokens * heads) * 4));
  par_rows(pool, tokens * heads, headDim, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) {
      vf s = vzero();
      for (int64_t c = 0; c < headDim; c += VW) {
        const int64_t left = min_i(VW, headDim - c);
        s = vfma(vloadn(dout + r * headDim + c, left), vloadn(out + r * headDim + c, left), s);
      }
      delta[r] = vsum(s);
    }
  });
  if (dsinks && sinks) {
    pool_for(pool, static_cast<int>(heads), [&](int head, int) {
      double sum = 0;
      for (int64_t i = 0; i < count; i++) {
        for (int64_t r = seg[i].start; r < seg[i].start + seg[i].length; r++) {
          const int64_t at = r * heads + head;
          sum += static_cast<double>(exp_one(sinks[head] - lse[at])) * static_cast<double>(delta[at]);
        }
      }
      dsinks[head] -= static_cast<float>(sum);
    });
  }

  // Chunks, in row order.
  int64_t chunkCount = 0;
  for (int64_t i = 0; i < count; i++) {
    seg[i].chunk = chunkCount;
    const int64_t parent = seg[i].parent;
    seg[i].depth = parent < 0 ? 0 : seg[parent].depth + ceil_div(seg[parent].length, KEYS);
    chunkCount += ceil_div(seg[i].length, KEYS);
  }
  Chunk* chunks = static_cast<Chunk*>(pool_shared(pool, SLOT_TILES, static_cast<size_t>(chunkCount + 1) * sizeof(Chunk)));
  int64_t pairCount = 0, stages = 0;
  for (int64_t i = 0; i < count; i++) {
    const int64_t parts = ceil_div(seg[i].length, KEYS);
    for (int64_t p = 0; p < parts; p++) {
      const int64_t first = seg[i].length * p / parts;
      chunks[seg[i].chunk + p] = {i, first, seg[i].length * (p + 1) / parts - first, seg[i].depth + p};
      pairCount += seg[i].depth + p + 1;
      stages = max_i(stages, seg[i].depth + p + 1);
    }
  }
  const int64_t keys = max_i(stages, chunkCount);
  Pair* pairs = static_cast<Pair*>(pool_shared(pool, SLOT_PAIRS, static_cast<size_t>(pairCount + 1) * sizeof(Pair) + static_cast<size_t>(keys + 2) * 4));
  Pair* sorted = static_cast<Pair*>(pool_shared(pool, SLOT_SORTED, static_cast<size_t>(pairCount + 1) * (sizeof(Pair) + sizeof(Part)) + 64));
  int32_t* counts = reinterpret_cast<int32_t*>(pairs + pairCount + 1);
  Part* parts = reinterpret_cast<Part*>(sorted + pairCount + 1);
  int64_t n = 0;
  for (int64_t a = 0; a < chunkCount; a++) {
    const Chunk& ca = chunks[a];
    const int64_t firstAt = seg[ca.segment].base + ca.first;
    for (int64_t s = ca.segment; s >= 0; s = seg[s].parent) {
      const int64_t last = s == ca.segment ? a : seg[s].chunk + ceil_div(seg[s].length, KEYS) - 1;
      for (int64_t b = last; b >= seg[s].chunk; b--) {
        const int64_t keyEnd = seg[s].base + chunks[b].first + chunks[b].rows - 1;
        if (window > 0 && keyEnd < firstAt - window + 1) continue;
        pairs[n++] = {static_cast<int32_t>(ca.depth - chunks[b].depth), static_cast<int32_t>(b), static_cast<int32_t>(a)};
      }
    }
  }
  sort_pairs(pairs, sorted, n, chunkCount, counts, false);
  sort_pairs(sorted, pairs, n, stages, counts, true);

  BackwardArgs g = {};
  g.dq = dq;
  g.dout = dout;
  g.lse = lse;
  g.delta = delta;
  g.q = q;
  g.k = k;
  g.v = v;
  g.ldq = ldq;
  g.ldk = ldk;
  g.ldv = ldv;
  g.seg = seg;
  g.chunks = chunks;
  g.heads = heads;
  g.kvHeads = kvHeads;
  g.headDim = headDim;
  g.group = heads / kvHeads;
  g.window = window;
  g.scale = static_cast<float>(scale);
  g.softcap = static_cast<float>(softcap);
  BackwardScratch measure;
  const int64_t bytes = backward_layout<Product>(&measure, nullptr, headDim);
  const int64_t most = max_i(1, STACK_MAX / g.group);

  const int64_t kvWidth = kvHeads * headDim, block = KEYS * headDim;
  for (int64_t at = 0; at < n;) {
    // One stage: groups of pairs with the same b, in parts.
    const int32_t stage = pairs[at].stage;
    int64_t groups = 0, to = at;
    for (; to < n && pairs[to].stage == stage; to++) groups += to == at || pairs[to].b != pairs[to - 1].b;
    const bool cut = groups * kvHeads < FEW_TASKS;
    int64_t made = 0, extra = 0, rows = 0;
    for (int64_t p = at; p < to; p++) {
      const bool same = p > at && pairs[p].b == pairs[p - 1].b;
      if (!same || (cut && rows >= PART_ROWS && parts[made - 1].index + 1 < PARTS_MOST)) {
        parts[made] = {static_cast<int32_t>(p), static_cast<int32_t>(p), same ? parts[made - 1].index + 1 : 0};
        extra = max_i(extra, parts[made].index);
        made++;
        rows = 0;
      }
      parts[made - 1].to++;
      rows += chunks[pairs[p].a].rows;
    }
    // Sums of all parts but the first of a b: [part][head][dk, dv][KEYS, headDim].
    float* sums = extra > 0 ? static_cast<float*>(pool_shared(pool, SLOT_PARTS, static_cast<size_t>(made * kvHeads * 2 * block) * 4)) : nullptr;
    pool_for(pool, static_cast<int>(made * kvHeads), [&](int task, int worker) {
      const int64_t head = task % kvHeads;
      const Part& part = parts[task / kvHeads];
      BackwardScratch s;
      backward_layout<Product>(&s, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(bytes))), headDim);
      const Chunk& b = chunks[pairs[part.from].b];
      const int64_t key0 = seg[b.segment].start + b.first;
      Product::strip_across(k + key0 * ldk + head * headDim, ldk, headDim, 0, b.rows, s.keysT);
      float *dkAt = dk + (key0 * kvHeads + head) * headDim, *dvAt = dv + (key0 * kvHeads + head) * headDim;
      int64_t ld = kvWidth;
      if (part.index > 0) {
        dkAt = sums + task * 2 * block;
        dvAt = dkAt + block;
        ld = headDim;
      }
      if (stage == 0 || part.index > 0) {
        for (int64_t j = 0; j < b.rows; j++) {
          memset(dkAt + j * ld, 0, static_cast<size_t>(headDim) * 4);
          memset(dvAt + j * ld, 0, static_cast<size_t>(headDim) * 4);
        }
      }
      for (int64_t p = part.from; p < part.to; p++) {
        const Chunk& a = chunks[pairs[p].a];
        const int64_t pieces = ceil_div(a.rows, most);
        for (int64_t i = 0; i < pieces; i++) {
          const int64_t first = a.rows * i / pieces;
          backward_block<Product>(g, s, a, b, a.first + first, a.rows * (i + 1) / pieces - first, head, stage == 0, dkAt, dvAt, ld);
        }
      }
    });
    if (extra > 0) {
      pool_for(pool, static_cast<int>(made * kvHeads), [&](int task, int) {
        const int64_t head = task % kvHeads, first = task / kvHeads;
        if (parts[first].index > 0) return;
        const Chunk& b = chunks[pairs[parts[first].from].b];
        const int64_t key0 = seg[b.segment].start + b.first;
        for (int64_t p = first + 1; p < made && parts[p].index > 0; p++) {
          const float* from = sums + (p * kvHeads + head) * 2 * block;
          for (int64_t j = 0; j < b.rows; j++) {
            float* dkAt = dk + ((key0 + j) * kvHeads + head) * headDim;
            float* dvAt = dv + ((key0 + j) * kvHeads + head) * headDim;
            for (int64_t c = 0; c < headDim; c++) dkAt[c] += from[j * headDim + c];
            for (int64_t c = 0; c < headDim; c++) dvAt[c] += from[block + j * headDim + c];
          }
        }
      });
    }
    at = to;
  }
}
