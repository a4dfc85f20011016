// Choice of the next token. Included inside an ISA namespace (isa.inc.h).
//
// All filters keep a prefix of the tokens in order of falling logit (ties: lower id first), so nothing is sorted beyond what the filters and the draw reach:
// ids are put into bins of 1/64 nat below the largest logit by one counting pass, and a bin is sorted when the walk gets to it.

static const int BINS = 2048;
static const float BINS_PER_NAT = 64.0f;
// Bins that are filled first: 8 nats below the largest logit a token is 3000 times less likely, and the walk seldom gets there.
static const int FIRST_BINS = 512;

struct SampleRow {
  const float* logits;  // after the repetition penalty
  int64_t vocab;
  double temperature;
  float binScale;   // bins per unit of a logit
  float most;
  int32_t* order;
  int32_t* bin;     // [BINS + 1] start of each bin in order
  int32_t* found;      // [vocab] ids that lie in bins, and which
  int32_t* foundBin;
  int64_t sorted;   // order[0 .. sorted) is final
  int nextBin;
  int skipped;      // bins that were passed over unsorted
  int bins;         // that are filled
};

static inline float row_max(const float* x, int64_t n) {
  vf most = vset(-INFINITY);
  int64_t i = 0;
  for (; i + VW <= n; i += VW) most = vmax(vload(x + i), most);
  float best = vhmax(most);
  for (; i < n; i++) best = x[i] > best ? x[i] : best;
  return best;
}

// Σ exp((x - most) · inverse), in double over chunks.
static inline double exp_sum(const float* x, int64_t n, float most, float inverse) {
  double total = 0;
  const vf shift = vset(most);
  const vf factor = vset(inverse);
  for (int64_t from = 0; from < n; from += 1024) {
    const int64_t to = min_i(n, from + 1024);
    vf s = vzero();
    int64_t i = from;
    for (; i + VW <= to; i += VW) s = vadd(s, vexp(vmul(vsub(vload(x + i), shift), factor)));
    total += static_cast<double>(vsum(s));
    for (; i < to; i++) total += exp(static_cast<double>(x[i] - most) * static_cast<double>(inverse));
  }
  return total;
}

static inline int sample_bin(const SampleRow& s, float x) {
  const float below = (s.most - x) * s.binScale;  // rises as x falls, whatever the rounding
  return below < static_cast<float>(BINS - 1) ? static_cast<int>(below) : BINS - 1;  // NaN and -infinity go to the last bin
}

// a stands before b. NaN stands after everything.
static inline bool sample_before(const SampleRow& s, int32_t a, int32_t b) {
  const float x = s.logits[a];
  const float y = s.logits[b];
  if (x > y) return true;
  if (y > x) return false;
  const bool xNan = x != x;
  const bool yNan = y != y;
  if (xNan != yNan) return yNan;
  return a < b;
}

static inline void sift(const SampleRow& s, int32_t* a, int64_t root, int64_t n) {
  for (;;) {
    int64_t child = 2 * root + 1;
    if (child >= n) return;
    if (child + 1 < n && sample_before(s, a[child], a[child + 1])) child++;
    if (!sample_before(s, a[root], a[child])) return;
    const int32_t t = a[root];
    a[root] = a[child];
    a[child] = t;
    root = child;
  }
}

// Insertion sort for short bins, heap sort for long ones.
static inline void sort_bin(const SampleRow& s, int32_t* a, int64_t n) {
  if (n <= 24) {
    for (int64_t i = 1; i < n; i++) {
      const int32_t v = a[i];
      int64_t j = i;
      for (; j > 0 && sample_before(s, v, a[j - 1]); j--) a[j] = a[j - 1];
      a[j] = v;
    }
    return;
  }
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(s, a, i, n);
  for (int64_t end = n - 1; end > 0; end--) {
    const int32_t t = a[0];
    a[0] = a[end];
    a[end] = t;
    sift(s, a, 0, end);
  }
}

// Fills the first `bins` bins.
static inline void sample_prepare(SampleRow& s, int bins) {
  int32_t* start = s.bin;
  memset(start, 0, (BINS + 1) * sizeof(int32_t));
  // Nearly all tokens lie below the first bins and are told by one comparison, many at a time. One bin further, so that rounding leaves none out; what does not
  // belong is counted in bins that are not used.
  const bool all = bins >= BINS;
  const float cut = static_cast<float>(static_cast<double>(s.most) - (bins + 1) * s.temperature / static_cast<double>(BINS_PER_NAT));
  int64_t found = 0;
  const int64_t width = 4 * VW;
  for (int64_t from = 0; from < s.vocab; from += width) {
    const int64_t to = min_i(s.vocab, from + width);
    if (!all && to - from == width) {
      vf top = vload(s.logits + from);
      for (int64_t i = VW; i < width; i += VW) top = vmax(vload(s.logits + from + i), top);
      if (vhmax(top) < cut) continue;
    }
    int64_t i = from;
#if defined(SLOTH_SIMD_AVX512)
    // Flat distributions have many tokens here: a vector at a time, without a branch for each.
    for (; !all && i + VW <= to; i += VW) {
      const vf x = vload(s.logits + i);
      const __mmask16 in = _mm512_cmp_ps_mask(x, vset(cut), _CMP_GE_OQ);
      // Of a number and NaN the smaller is the second operand.
      const vf below = _mm512_min_ps(vmul(vsub(vset(s.most), x), vset(s.binScale)), vset(static_cast<float>(BINS - 1)));
      const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(i)), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
      // Whole vectors, of which the next one overwrites what does not belong: found <= i, so they end within the row.
      _mm512_storeu_si512(s.found + found, _mm512_maskz_compress_epi32(in, at));
      _mm512_storeu_si512(s.foundBin + found, _mm512_maskz_compress_epi32(in, _mm512_cvttps_epi32(below)));
      found += __builtin_popcount(in);
    }
#endif
    for (; i < to; i++) {
      // Written in any case and kept if it belongs here: a branch would be guessed wrong.
      s.found[found] = static_cast<int32_t>(i);
      s.foundBin[found] = sample_bin(s, s.logits[i]);
      found += all || s.logits[i] >= cut;
    }
  }
  for (int64_t i = 0; i < found; i++) start[s.foundBin[i] + 1]++;
  for (int b = 0; b < BINS; b++) start[b + 1] += start[b];
  int32_t next[BINS];
  memcpy(next, start, sizeof(next));
  for (int64_t i = 0; i < found; i++) s.order[next[s.foundBin[i]]++] = s.found[i];
  s.bins = bins;
}

// The id at a place of the order.
static inline int32_t sample_at(SampleRow& s, int64_t place) {
  while (place >= s.sorted) {
    // The bins filled so far keep their place in the order of all.
    if (s.nextBin == s.bins) {
      sample_prepare(s, BINS);
      for (int b = s.skipped; b < s.nextBin; b++) sort_bin(s, s.order + s.bin[b], s.bin[b + 1] - s.bin[b]);
    }
    const int b = s.nextBin++;
    sort_bin(s, s.order + s.bin[b], s.bin[b + 1] - s.bin[b]);
    s.sorted = s.bin[b + 1];
  }
  return s.order[place];
}

static inline double sample_weight(const SampleRow& s, int32_t id) { return exp(static_cast<double>(s.logits[id] - s.most) / s.temperature); }

// Sum of the weights of a bin, which need not be sorted for it.
static inline double sample_bin_weight(const SampleRow& s, int bin) {
  const vf shift = vset(s.most), factor = vset(static_cast<float>(1.0 / s.temperature));
  alignas(64) float x[8 * VW];
  double sum = 0;
  for (int64_t from = s.bin[bin]; from < s.bin[bin + 1]; from += 8 * VW) {
    const int64_t n = min_i(8 * VW, s.bin[bin + 1] - from);
    for (int64_t i = 0; i < n; i++) x[i] = s.logits[s.order[from + i]];
    for (int64_t i = n; i < ceil_div(n, VW) * VW; i++) x[i] = -INFINITY;
    vf total = vzero();
    for (int64_t i = 0; i < n; i += VW) total = vadd(total, vexp(vmul(vsub(vload(x + i), shift), factor)));
    sum += static_cast<double>(vsum(total));
  }
  return sum;
}

// `whole` is the sum of all weights where the caller knows it, or 0.
static inline int32_t sample_one(SampleRow& s, int64_t topK, double topP, double minP, double whole, double uniform) {
  s.sorted = 0;
  s.nextBin = 0;
  s.skipped = 0;
  sample_prepare(s, FIRST_BINS);
  int64_t limit = topK > 0 && topK < s.vocab ? topK : s.vocab;
  double mass = 0;
  if (limit < s.vocab) {
    for (int64_t i = 0; i < limit; i++) mass += sample_weight(s, sample_at(s, i));
  } else {
    mass = whole > 0 ? whole : exp_sum(s.logits, s.vocab, s.most, static_cast<float>(1.0 / s.temperature));
  }
  if (topP > 0 && topP < 1) {
    // The fewest likeliest tokens whose probabilities, among those left so far, reach topP.
    const double wanted = topP * mass;
    int64_t keep = 0;
    double before = 0;
    while (keep < limit && (keep == 0 || before < wanted)) before += sample_weight(s, sample_at(s, keep++));
    limit = keep;
    mass = before;
  }
  if (minP > 0) {
    // At least minP times the probability of the likeliest.
    const double least = static_cast<double>(s.logits[sample_at(s, 0)]) / s.temperature + log(minP);
    int64_t keep = 1;
    double kept = sample_weight(s, sample_at(s, 0));
    while (keep < limit) {
      const int32_t id = sample_at(s, keep);
      if (!(static_cast<double>(s.logits[id]) / s.temperature >= least)) break;
      kept += sample_weight(s, id);
      keep++;
    }
    limit = keep;
    mass = kept;
  }
  const double target = uniform * mass;
  double cumulative = 0;
  int64_t passed = 0;
  // Bins that the draw passes over as a whole are not sorted. Their sums are rounded as `mass` is: single ones, 2^-24 of a weight, the step of `uniform`.
  if (limit == s.vocab && s.sorted == 0 && target == target) {
    for (;;) {
      if (s.nextBin == s.bins) sample_prepare(s, BINS);
      if (s.nextBin == BINS - 1) break;
      const double weight = sample_bin_weight(s, s.nextBin);
      if (cumulative + weight > target) break;
      cumulative += weight;
      passed = s.sorted = s.bin[++s.nextBin];
    }
    s.skipped = s.nextBin;
  }
  for (int64_t i = passed; i < limit; i++) {
    const int32_t id = sample_at(s, i);
    cumulative += sample_weight(s, id);
    if (cumulative > target) return id;
  }
  return sample_at(s, limit - 1);
}

static void sample(Pool* pool, int32_t* ids, float* logp, const float* logits, int64_t rows, int64_t vocab, const float* params, const int32_t* rng,
                   const int32_t* history, int64_t maxHistory) {
  const size_t logitBytes = (static_cast<size_t>(vocab) * sizeof(float) + 63) / 64 * 64;
  const size_t orderBytes = (static_cast<size_t>(vocab) * sizeof(int32_t) + 63) / 64 * 64;
  par_pieces(pool, rows, 1, rows * vocab <= SERIAL_LIMIT / 4, [=](int64_t r, int64_t, int, int worker) {
    const float* row = logits + r * vocab;
    const float* set = params + r * 8;
    char* scratch = static_cast<char*>(pool_scratch(pool, worker, logitBytes + 3 * orderBytes + (BINS + 1) * sizeof(int32_t)));
    const float rawMost = row_max(row, vocab);
    const double rawSum = exp_sum(row, vocab, rawMost, 1.0f);
    const double logSum = static_cast<double>(rawMost) + log(rawSum);
    const double penalty = static_cast<double>(set[4]);
    const float* adjusted = row;
    if (maxHistory > 0 && penalty != 1.0 && penalty != 0.0) {
      // Keskar et al. 2019: positive logits divided, negative ones multiplied. Each is computed from the untouched logit, so an id counts once.
      float* copied = reinterpret_cast<float*>(scratch);
      memcpy(copied, row, static_cast<size_t>(vocab) * sizeof(float));
      for (int64_t h = 0; h < maxHistory; h++) {
        const int64_t id = history[r * maxHistory + h];
        if (id < 0 || id >= vocab) continue;
        const double x = static_cast<double>(row[id]);
        copied[id] = static_cast<float>(x > 0 ? x / penalty : x * penalty);
      }
      adjusted = copied;
    }
    int32_t id = 0;
    if (!(set[0] > 0)) {
      const float best = row_max(adjusted, vocab);
      while (id < vocab - 1 && adjusted[id] != best) id++;
      if (adjusted[id] != best || adjusted[0] != adjusted[0]) {
        // Not a number somewhere: one by one.
        id = 0;
        for (int64_t i = 1; i < vocab; i++) {
          if (adjusted[i] > adjusted[id]) id = static_cast<int32_t>(i);
        }
      }
    } else {
      SampleRow s;
      s.logits = adjusted;
      s.vocab = vocab;
      s.temperature = static_cast<double>(set[0]);
      s.binScale = static_cast<float>(static_cast<double>(BINS_PER_NAT) / s.temperature);
      s.most = adjusted == row ? rawMost : row_max(adjusted, vocab);
      s.order = reinterpret_cast<int32_t*>(scratch + logitBytes);
      s.found = reinterpret_cast<int32_t*>(scratch + logitBytes + orderBytes);
      s.foundBin = reinterpret_cast<int32_t*>(scratch + logitBytes + 2 * orderBytes);
      s.bin = reinterpret_cast<int32_t*>(scratch + logitBytes + 3 * orderBytes);
      uint32_t words[PHILOX_WORDS];
      const int32_t* address = rng + r * 4;
      const uint64_t seed = static_cast<uint64_t>(static_cast<uint32_t>(address[0])) | static_cast<uint64_t>(static_cast<uint32_t>(address[1])) << 32;
      philox_blocks(0, static_cast<uint32_t>(address[3]), static_cast<uint32_t>(address[2]), seed, words);
      const float topK = set[1] < 2147483000.0f ? set[1] : 0.0f;
      const double whole = adjusted == row && set[0] == 1.0f ? rawSum : 0;
      id = sample_one(s, static_cast<int64_t>(topK), static_cast<double>(set[2]), static_cast<double>(set[3]), whole, static_cast<double>(words[0] >> 8) * 0x1p-24);
    }
    ids[r] = id;
    logp[r] = static_cast<float>(static_cast<double>(row[id]) - logSum);
  });
}

static void sample_fill(KernelTable& t) { t.sample = sample; }
