// Log-softmax of a linear output layer, and its gradient with respect to the layer's input, in one pass over the vocabulary.
// Included inside an ISA namespace, after linear.h.
//
// This is attention with the vocabulary as keys and values: for a stretch of the vocabulary the logits of a block of rows are made, turned into exp(z - m)
// under a running maximum m, and multiplied back onto the same rows of the weight; sums of earlier stretches shrink when m grows. No logits leave the caches,
// every logit is computed once, and the scratch is a few copies of the block's hidden states.
//
// The target's own term is kept out of all sums: (1 - p[target]) = rest / (rest + exp(z[target] - m)) is then exact also for a sure prediction.
//
// The vocabulary is cut into parts by the shape alone; parts are tasks, and their sums are combined in order.

static const int64_t STREAM_ROWS = 512;      // rows of a block
static const int64_t STREAM_VOCAB = 384;     // vocabulary rows of a stretch: at most KC
static const int64_t STREAM_PARTS = 16;      // most parts of the vocabulary
static const int64_t STREAM_BYTES = 48 << 20;  // of partial gradients
static const int SLOT_STREAM = 2;
static const int SLOT_STREAM_ROWS = 3;

struct Stream {
  const float* h;  // [rows, hidden] of the block
  const void* w;
  const int32_t* targets;
  const float* lse;  // known log-sum-exp of the rows (a backward pass), or nullptr
  // With the gradient by the entropies, which are known then; both or neither. The weights are p · (factor - sharp · (log p + entropy)) instead of p.
  const float* sharp;
  const float* known;
  const float* dlogp;
  int64_t format, rowBytes, rows, vocab, hidden;
  float cap, scale;
  bool gradient, entropy;
  int64_t parts;
  // Per part and row:
  float* m;         // running maximum
  double* rest;     // sum of exp(z - m) without the target
  double* weighted; // sum of exp(z - m) · (z - m) without the target
  float* o;         // [parts][rows][hidden] sum of exp(z - m) · slope · w without the target
  float* chosen;    // [rows] the target's logit
  float* slope;     // [rows] derivative of the soft cap there
};

struct StreamScratch {
  float* strip;   // [MR, SA]
  float* panels;  // [kc][STREAM_VOCAB] or [STREAM_VOCAB][NC]
  float* scores;  // [rows, SA]
  float* factor;  // [rows]
};

static int64_t stream_layout(StreamScratch* s, char* at, int64_t rows) {
  Carver c = {at};
  s->strip = Carver::take(c, MR * SA);
  s->panels = Carver::take(c, (STREAM_VOCAB + NR) * KC);
  s->scores = Carver::take(c, rows * SA);
  s->factor = Carver::take(c, rows);
  return c.at - at;
}

// One row of n logits from vocabulary row v0: soft cap and scale, running maximum, weights exp(z - m) · slope in place (0 from n to `padded`).
SLOTH_INLINE void stream_row(const Stream& s, float* z, int64_t v0, int64_t n, int64_t padded, int64_t row, float* m, double* rest, double* weighted,
                             float* factor) {
  const int64_t target = s.targets[row] - v0;
  if (s.cap > 0 || s.scale != 1.0f) soft_cap_row(z, n, s.scale, s.cap);
  if (target >= 0 && target < n) {
    const float u = s.cap > 0 ? z[target] / s.cap : 0.0f;
    s.chosen[row] = z[target];
    s.slope[row] = 1.0f - u * u;
    z[target] = -INFINITY;
  }
  for (int64_t c = n; c < padded; c++) z[c] = -INFINITY;
  float most = *m;
  if (!s.lse) {
    vf top = vset(most);
    for (int64_t c = 0; c < padded; c += VW) top = vmax(vload(z + c), top);
    most = vhmax(top);
  }
  const vf shift = vset(most == -INFINITY ? 0.0f : most);
  vf sum = vzero(), mean = vzero();
  const vf inv = vset(s.cap > 0 ? 1.0f / s.cap : 0.0f), one = vset(1.0f);
  const vf slope = vset(s.sharp ? -s.sharp[row] : 0.0f), level = vset(s.sharp ? -s.dlogp[row] - s.sharp[row] * s.known[row] : 0.0f);
  for (int64_t c = 0; c < padded; c += VW) {
    const vf v = vload(z + c);
    const vf d = vsub(v, shift);
    vf p = vexp(d);
    sum = vadd(sum, p);
    if (s.entropy) mean = vfma(p, vmax(d, vset(-200.0f)), mean);  // 0 · -inf would be NaN
    if (s.cap > 0) {
      const vf u = vmul(vmax(v, vset(-s.cap)), inv);
      p = vmul(p, vfnma(u, u, one));
    }
    if (s.sharp) p = vmul(p, vfma(slope, vmax(d, vset(-200.0f)), level));
    vstore(z + c, p);
  }
  const float f = most == *m ? 1.0f : exp_one(*m - most);
  if (f != 1.0f) {
    *weighted = f == 0.0f ? 0.0 : (*weighted + *rest * (static_cast<double>(*m) - static_cast<double>(most))) * static_cast<double>(f);
    *rest *= static_cast<double>(f);
  }
  *rest += static_cast<double>(vsum(sum));
  *weighted += static_cast<double>(vsum(mean));
  *factor = f;
  *m = most;
}

// Rows r0 .. r1 of the block against the vocabulary rows of one part. With rounded operands (words of two bf16) those of both products are: hidden states, weights
// and exp(z - m); everything between the products is f32.
template <class F, class P>
SLOTH_NOINLINE void stream_task(const Stream& s, int64_t part, int64_t r0, int64_t r1, const StreamScratch& x) {
  const int64_t stretches = ceil_div(s.vocab, STREAM_VOCAB);
  const int64_t begin = stretches * part / s.parts * STREAM_VOCAB, end = min_i(s.vocab, stretches * (part + 1) / s.parts * STREAM_VOCAB);
  const int64_t rows = r1 - r0, strips = strip_count(rows), step = stretch_length<P>(s.hidden);
  const uint8_t* w = static_cast<const uint8_t*>(s.w);
  float* m = s.m + part * s.rows + r0;
  double* rest = s.rest + part * s.rows + r0;
  double* weighted = s.weighted + part * s.rows + r0;
  float* o = s.gradient ? s.o + (part * s.rows + r0) * s.hidden : nullptr;
  for (int64_t r = 0; r < rows; r++) {
    m[r] = s.lse ? s.lse[r0 + r] : -INFINITY;
    rest[r] = 0;
    weighted[r] = 0;
  }
  int64_t unit = NR;
  while (unit % F::BLOCK != 0) unit += NR;
  const int64_t wide = NC / unit * unit;
  for (int64_t v0 = begin; v0 < end; v0 += STREAM_VOCAB) {
    const int64_t n = min_i(STREAM_VOCAB, end - v0), padded = round_up(n, NR);
    for (int64_t k0 = 0; k0 < s.hidden; k0 += step) {
      const int64_t kc = min_i(step, s.hidden - k0), words = P::count(kc);
      P::template transposed<F>(w, s.rowBytes, v0, n, k0, kc, x.panels);
      for (int64_t t = 0; t < strips; t++) {
        const int64_t a = strip_begin(rows, strips, t), count = strip_begin(rows, strips, t + 1) - a;
        P::strip(s.h + (r0 + a) * s.hidden, s.hidden, count, k0, kc, x.strip);
        for (int64_t c = 0; c < padded; c += NR) {
          Tiles<NR, P>::get(count, NR)(words, x.strip, x.panels + c * words, x.scores + a * SA + c, SA, NR, k0 > 0 ? TILE_ADD : 0, 1.0f, nullptr);
        }
      }
    }
    for (int64_t r = 0; r < rows; r++) stream_row(s, x.scores + r * SA, v0, n, padded, r0 + r, m + r, rest + r, weighted + r, x.factor + r);
    if (!s.gradient) continue;
    if (v0 > begin) {
      for (int64_t r = 0; r < rows; r++) {
        if (x.factor[r] == 1.0f) continue;
        const vf f = vset(x.factor[r]);
        float* p = o + r * s.hidden;
        int64_t c = 0;
        for (; c + VW <= s.hidden; c += VW) vstore(p + c, vmul(vload(p + c), f));
        for (; c < s.hidden; c++) p[c] *= x.factor[r];
      }
    }
    const int64_t words = P::count(n);
    for (int64_t c0 = 0; c0 < s.hidden; c0 += wide) {
      const int64_t cols = min_i(wide, s.hidden - c0);
      P::template straight<F>(w, s.rowBytes, c0, cols, v0, n, x.panels);
      for (int64_t t = 0; t < strips; t++) {
        const int64_t a = strip_begin(rows, strips, t), count = strip_begin(rows, strips, t + 1) - a;
        // Scores lie as a strip of f32 words does.
        if (P::DEEP > 1) P::strip(x.scores + a * SA, SA, count, 0, n, x.strip);
        const float* strip = P::DEEP > 1 ? x.strip : x.scores + a * SA;
        for (int64_t c = 0; c < cols; c += NR) {
          const int64_t left = min_i(NR, cols - c);
          Tiles<NR, P>::get(count, left)(words, strip, x.panels + c * words, o + a * s.hidden + c0 + c, s.hidden, left, v0 > begin ? TILE_ADD : 0, 1.0f, nullptr);
        }
      }
    }
  }
}

// Sums over the parts for one row. exp(z[target]) is added here.
struct StreamSum {
  float m;
  double rest, all;  // without and with the target, as sums of exp(z - m)
  double weighted;   // with the target, of exp(z - m) · (z - m)
};
static StreamSum stream_sum(const Stream& s, int64_t row) {
  StreamSum r = {};
  r.m = s.lse ? s.lse[row] : s.chosen[row];
  for (int64_t p = 0; p < s.parts && !s.lse; p++) {
    const float m = s.m[p * s.rows + row];
    if (m > r.m) r.m = m;
  }
  for (int64_t p = 0; p < s.parts; p++) {
    const int64_t at = p * s.rows + row;
    if (s.m[at] == -INFINITY && s.rest[at] == 0) continue;
    const double shift = static_cast<double>(s.m[at]) - static_cast<double>(r.m), f = shift == 0 ? 1.0 : exp(shift);
    r.rest += s.rest[at] * f;
    if (f > 0) r.weighted += (s.weighted[at] + s.rest[at] * shift) * f;
  }
  const double own = static_cast<double>(s.chosen[row]) - static_cast<double>(r.m), e = exp(own);
  r.all = s.lse ? 1.0 : r.rest + e;
  if (e > 0) r.weighted += e * own;
  return r;
}

// -log softmax at the target, exact also where it is nearly 0.
static float stream_nll(const Stream& s, const StreamSum& r, int64_t row) {
  const double own = static_cast<double>(s.chosen[row]) - static_cast<double>(r.m);
  return static_cast<float>(own > -20 ? log1p(r.rest * exp(-own)) : log(r.all) - own);
}

// dh[row] = factor · scale · (sum of p · slope · w - (1 - p[target]) · slope[target] · w[target]), the sum being over the others. With the gradient by the
// entropies the weights hold the factor already.
static void stream_gradient(const Stream& s, const StreamSum& r, int64_t row, float factor, float* dh) {
  double target = -(r.rest / r.all) * static_cast<double>(factor);
  if (s.sharp) {
    const double log = static_cast<double>(s.chosen[row]) - static_cast<double>(s.lse[row]), p = exp(log);
    if (p > 0) target -= static_cast<double>(s.sharp[row]) * p * (log + static_cast<double>(s.known[row]));
    factor = 1.0f;
  }
  const float own = static_cast<float>(target * static_cast<double>(s.slope[row]) * static_cast<double>(s.scale));
  const uint8_t* w = static_cast<const uint8_t*>(s.w) + static_cast<int64_t>(s.targets[row]) * s.rowBytes;
  SLOTH_WITH_FORMAT(s.format, F, decode_row<F>(w, 0, s.hidden, dh))
  for (int64_t c = 0; c < s.hidden; c++) dh[c] *= own;
  for (int64_t p = 0; p < s.parts; p++) {
    const int64_t at = p * s.rows + row;
    const double shift = static_cast<double>(s.m[at]) - static_cast<double>(r.m);
    const float f = static_cast<float>((shift == 0 ? 1.0 : exp(shift)) / r.all * static_cast<double>(factor) * static_cast<double>(s.scale));
    const float* o = s.o + at * s.hidden;
    const vf fv = vset(f);
    int64_t c = 0;
    for (; c + VW <= s.hidden; c += VW) vstore(dh + c, vfma(vload(o + c), fv, vload(dh + c)));
    for (; c < s.hidden; c++) dh[c] += o[c] * f;
  }
}

// Runs the pass over rows in blocks; finish(stream, first row of the block, row in the block) is called for every row, in parallel.
template <class Finish>
static void stream_run(Pool* pool, const float* h, const void* w, int64_t format, const int32_t* targets, const float* lse, int64_t rows, int64_t vocab,
                       int64_t hidden, double softcap, double logitScale, bool gradient, bool entropy, const float* dlogp, const float* sharp,
                       const float* known, Finish&& finish) {
  const int64_t blocks = ceil_div(rows, STREAM_ROWS), block = ceil_div(rows, blocks);
  Stream s = {};
  s.w = w;
  s.format = format;
  s.rowBytes = format_row_bytes(format, hidden);
  s.vocab = vocab;
  s.hidden = hidden;
  s.cap = static_cast<float>(softcap);
  s.scale = static_cast<float>(logitScale);
  s.gradient = gradient;
  s.entropy = entropy;
  // The same parts with and without a gradient: so are then the sums.
  s.parts = max_i(1, min_i(min_i(STREAM_PARTS, ceil_div(vocab, STREAM_VOCAB)), STREAM_BYTES / 4 / max_i(1, block * hidden)));
  if (gradient) s.o = static_cast<float*>(pool_shared(pool, SLOT_STREAM, static_cast<size_t>(s.parts * block * hidden) * 4));
  double* sums = static_cast<double*>(pool_shared(pool, SLOT_STREAM_ROWS, static_cast<size_t>(s.parts * block) * 20 + static_cast<size_t>(block) * 8 + 64));
  // More rows of tasks only where there are more threads than parts: it costs packing and changes no result.
  const int64_t down = max_i(1, min_i(ceil_div(pool_threads(pool), s.parts), block / (4 * MR)));
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    s.rows = min_i(block, rows - r0);
    s.h = h + r0 * hidden;
    s.targets = targets + r0;
    s.lse = lse ? lse + r0 : nullptr;
    if (sharp) {
      s.sharp = sharp + r0;
      s.known = known + r0;
      s.dlogp = dlogp + r0;
    }
    s.rest = sums;
    s.weighted = sums + s.parts * block;
    s.m = reinterpret_cast<float*>(s.weighted + s.parts * block);
    s.chosen = s.m + s.parts * block;
    s.slope = s.chosen + block;
    const int64_t tall = ceil_div(s.rows, down);
    pool_for(pool, static_cast<int>(s.parts * down), [&](int task, int worker) {
      const int64_t from = min_i(s.rows, task % down * tall), to = min_i(s.rows, from + tall);
      if (from >= to) return;
      StreamScratch x;
      const int64_t bytes = stream_layout(&x, nullptr, tall);
      stream_layout(&x, static_cast<char*>(pool_scratch(pool, worker, static_cast<size_t>(bytes))), tall);
      SLOTH_WITH_FORMAT(format, F, stream_task<F, Product>(s, task / down, from, to, x))
    });
    const int64_t grain = 16;
    pool_for(pool, static_cast<int>(ceil_div(s.rows, grain)), [&](int task, int) {
      const int64_t to = min_i(s.rows, (task + 1) * grain);
      for (int64_t r = task * grain; r < to; r++) finish(s, r0, r);
    });
  }
}

static void stream_cross_entropy(Pool* pool, float* nll, float* dh, const float* h, const void* w, int64_t format, const int32_t* targets, const float* coef,
                                 int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  stream_run(pool, h, w, format, targets, nullptr, rows, vocab, hidden, softcap, logitScale, dh != nullptr, false, nullptr, nullptr, nullptr, [=](const Stream& s, int64_t r0, int64_t r) {
    const StreamSum sum = stream_sum(s, r);
    nll[r0 + r] = stream_nll(s, sum, r);
    if (dh) stream_gradient(s, sum, r, coef[r0 + r], dh + (r0 + r) * hidden);
  });
}

static void stream_logprobs(Pool* pool, float* logp, float* lse, float* entropy, float* dh, const float* h, const void* w, int64_t format,
                            const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  stream_run(pool, h, w, format, targets, nullptr, rows, vocab, hidden, softcap, logitScale, dh != nullptr, entropy != nullptr, nullptr, nullptr, nullptr,
             [=](const Stream& s, int64_t r0, int64_t r) {
    const StreamSum sum = stream_sum(s, r);
    logp[r0 + r] = -stream_nll(s, sum, r);
    lse[r0 + r] = static_cast<float>(static_cast<double>(sum.m) + log(sum.all));
    if (entropy) entropy[r0 + r] = static_cast<float>(log(sum.all) - sum.weighted / sum.all);
    if (dh) stream_gradient(s, sum, r, -1.0f, dh + (r0 + r) * hidden);
  });
}

static void stream_logprobs_backward(Pool* pool, float* dh, const float* dlogp, const float* lse, const float* dentropy, const float* entropy, const float* h,
                                     const void* w, int64_t format, const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  stream_run(pool, h, w, format, targets, lse, rows, vocab, hidden, softcap, logitScale, true, false, dlogp, dentropy, entropy,
             [=](const Stream& s, int64_t r0, int64_t r) { stream_gradient(s, stream_sum(s, r), r, -dlogp[r0 + r], dh + (r0 + r) * hidden); });
}
