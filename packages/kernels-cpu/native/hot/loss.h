// Loss and log-probs of a linear output layer without a logits tensor in memory. Included inside an ISA namespace, after loss_stream.h.
//
// Without a gradient of the weight, more than a few rows go through loss_stream.h. Otherwise rows are taken in blocks whose logits fit a bounded scratch. The logits of a block are computed once; the block becomes probabilities and then the
// gradient in place, which is multiplied back through the same stored weight at once. So the forward pass costs one product and the gradient one more.

// Bytes of logits of one block of rows, and the most rows of a block.
static const int64_t LOGITS_BYTES = 48 << 20;
static const int64_t LOGITS_ROWS = 512;
// Shared scratch slot of the block (slot 0 is the few-row path's).
static const int SLOT_LOGITS = 1;

// Rows of a block: equal parts, by the shape alone.
SLOTH_INLINE int64_t logits_block(int64_t rows, int64_t vocab) {
  const int64_t most = max_i(1, min_i(LOGITS_ROWS, LOGITS_BYTES / 4 / max_i(1, vocab)));
  const int64_t blocks = max_i(1, ceil_div(rows, most));
  return max_i(1, ceil_div(rows, blocks));
}

// What a row's pass over its logits needs and gives.
struct LogitsRow {
  float lse;     // log sum exp
  float chosen;  // logit of the target
  float mean;    // sum p · logit
};

// One row: soft cap and scale in place, then its log-sum-exp; sums go over the row in one order.
SLOTH_NOINLINE LogitsRow logits_row(float* z, int64_t vocab, int64_t target, float scale, float cap, bool entropy) {
  if (cap > 0 || scale != 1.0f) soft_cap_row(z, vocab, scale, cap);
  vf m4 = vset(-FLT_MAX);
  float highest = -FLT_MAX;
  int64_t i = 0;
  for (; i + VW <= vocab; i += VW) m4 = vmax(vload(z + i), m4);
  highest = vhmax(m4);
  for (; i < vocab; i++) highest = z[i] > highest ? z[i] : highest;
  const vf top = vset(highest);
  // A vocabulary is too long for one f32 sum (small terms would be lost one by one, always in the same direction): short stretches are added up in double.
  double sum = 0, weighted = 0;
  for (i = 0; i < vocab;) {
    const int64_t end = min_i(vocab, i + 64 * VW);
    vf s = vzero(), e = vzero();
    if (entropy) {
      for (; i + VW <= end; i += VW) {
        const vf d = vsub(vload(z + i), top);
        const vf p = vexp(d);
        s = vadd(s, p);
        e = vfma(p, d, e);
      }
    } else {
      for (; i + VW <= end; i += VW) s = vadd(s, vexp(vsub(vload(z + i), top)));
    }
    sum += static_cast<double>(vsum(s));
    weighted += static_cast<double>(vsum(e));
    for (; i < end; i++) {
      const double p = static_cast<double>(expf(z[i] - highest));
      sum += p;
      weighted += p * static_cast<double>(z[i] - highest);
    }
  }
  LogitsRow r;
  // A NaN among the logits is not seen by the maximum, but by the sum.
  r.lse = highest + static_cast<float>(log(sum));
  r.chosen = z[target];
  r.mean = highest + static_cast<float>(weighted / sum);
  return r;
}

// Turns a row of logits into the gradient of `factor · nll + sharp · entropy` with respect to the logits before soft cap and scale.
SLOTH_NOINLINE void logits_gradient(float* z, int64_t vocab, int64_t target, float lse, float factor, float sharp, float entropy, float scale, float cap) {
  const vf l = vset(lse), f = vset(factor * scale), one = vset(1.0f), inv = vset(cap > 0 ? 1.0f / cap : 0.0f);
  // d entropy / d logit = -p · (log p + entropy); the factor of p is f + e · log p.
  const vf e = vset(-sharp * scale), fe = vset((factor - sharp * entropy) * scale);
  const float chosen = z[target];
  for (int64_t i = 0; i < vocab; i += VW) {
    const int64_t n = vocab - i < VW ? vocab - i : VW;
    const vf v = n == VW ? vload(z + i) : vloadn(z + i, n);
    const vf d = vsub(v, l);
    vf g = vmul(vexp(d), sharp == 0 ? f : vfma(e, vmax(d, vset(-200.0f)), fe));  // 0 · -inf would be NaN
    if (cap > 0) {
      const vf u = vmul(v, inv);
      g = vmul(g, vfnma(u, u, one));
    }
    if (n == VW) vstore(z + i, g);
    else vstoren(z + i, n, g);
  }
  const float u = cap > 0 ? chosen / cap : 0.0f;
  // p - 1 is formed once for the target, so that a sure prediction keeps its small gradient.
  const float d = chosen - lse, p = expf(d);
  float g = (p - 1.0f) * factor;
  if (sharp != 0) g -= sharp * p * ((d > -200.0f ? d : -200.0f) + entropy);
  z[target] = g * scale * (1.0f - u * u);
}

// The logits of a block, before soft cap and scale.
static void block_logits(Pool* pool, float* z, const float* h, const void* w, int64_t format, int64_t rows, int64_t vocab, int64_t hidden) {
  linear(pool, z, h, w, format, rows, vocab, hidden, nullptr, nullptr, nullptr, 0, 0);
}

// dh = z · W and dw += zᵀ · h for the gradient z [rows, vocab] of a block.
static void block_backward(Pool* pool, float* dh, float* dw, const float* z, const float* h, const void* w, int64_t format, int64_t rows, int64_t vocab,
                           int64_t hidden) {
  if (dh) linearBackwardInput(pool, dh, z, w, format, rows, vocab, hidden, nullptr, nullptr, 0, 0);
  if (dw) matmul(pool, dw, z, h, vocab, hidden, rows, 1, 0, 1.0, 1);
}

static bool targets_valid(Pool* pool, const int32_t* targets, int64_t rows, int64_t vocab, const char* kernel) {
  for (int64_t i = 0; i < rows; i++) {
    if (targets[i] < 0 || targets[i] >= vocab) {
      pool_fail(pool, kernel, "a target is not a token id", i, targets[i]);
      return false;
    }
  }
  return true;
}

static void linearCrossEntropy(Pool* pool, float* nll, float* dh, float* dw, const float* h, const void* w, int64_t format, const int32_t* targets,
                               const float* coef, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  if (rows <= 0 || vocab <= 0 || !targets_valid(pool, targets, rows, vocab, "linearCrossEntropy")) return;
  if (!dw && rows > SKINNY) {
    stream_cross_entropy(pool, nll, dh, h, w, format, targets, coef, rows, vocab, hidden, softcap, logitScale);
    return;
  }
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale);
  const int64_t block = logits_block(rows, vocab);
  float* z = static_cast<float*>(pool_shared(pool, SLOT_LOGITS, static_cast<size_t>(block * vocab) * 4));
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    const int64_t n = min_i(block, rows - r0);
    block_logits(pool, z, h + r0 * hidden, w, format, n, vocab, hidden);
    pool_for(pool, static_cast<int>(n), [&](int i, int) {
      const int64_t r = r0 + i;
      float* row = z + i * vocab;
      const LogitsRow v = logits_row(row, vocab, targets[r], scale, cap, false);
      nll[r] = v.lse - v.chosen;
      if (dh || dw) logits_gradient(row, vocab, targets[r], v.lse, coef[r], 0.0f, 0.0f, scale, cap);
    });
    if (dh || dw) block_backward(pool, dh ? dh + r0 * hidden : nullptr, dw, z, h + r0 * hidden, w, format, n, vocab, hidden);
  }
}

static void linearLogprobs(Pool* pool, float* logp, float* lse, float* entropy, float* dh, const float* h, const void* w, int64_t format,
                           const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  if (rows <= 0 || vocab <= 0 || !targets_valid(pool, targets, rows, vocab, "linearLogprobs")) return;
  if (rows > SKINNY) {
    stream_logprobs(pool, logp, lse, entropy, dh, h, w, format, targets, rows, vocab, hidden, softcap, logitScale);
    return;
  }
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale);
  const int64_t block = logits_block(rows, vocab);
  float* z = static_cast<float*>(pool_shared(pool, SLOT_LOGITS, static_cast<size_t>(block * vocab) * 4));
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    const int64_t n = min_i(block, rows - r0);
    block_logits(pool, z, h + r0 * hidden, w, format, n, vocab, hidden);
    pool_for(pool, static_cast<int>(n), [&](int i, int) {
      const int64_t r = r0 + i;
      float* row = z + i * vocab;
      const LogitsRow v = logits_row(row, vocab, targets[r], scale, cap, entropy != nullptr);
      lse[r] = v.lse;
      logp[r] = v.chosen - v.lse;
      if (entropy) entropy[r] = v.lse - v.mean;
      if (dh) logits_gradient(row, vocab, targets[r], v.lse, -1.0f, 0.0f, 0.0f, scale, cap);
    });
    if (dh) block_backward(pool, dh + r0 * hidden, nullptr, z, h + r0 * hidden, w, format, n, vocab, hidden);
  }
}

static void linearLogprobsBackward(Pool* pool, float* dh, float* dw, const float* dlogp, const float* lse, const float* dentropy, const float* entropy, const float* h,
                                   const void* w, int64_t format, const int32_t* targets, int64_t rows, int64_t vocab, int64_t hidden, double softcap, double logitScale) {
  if (rows <= 0 || vocab <= 0 || !targets_valid(pool, targets, rows, vocab, "linearLogprobsBackward")) return;
  if (!dw && rows > SKINNY) {
    stream_logprobs_backward(pool, dh, dlogp, lse, dentropy, entropy, h, w, format, targets, rows, vocab, hidden, softcap, logitScale);
    return;
  }
  const float cap = static_cast<float>(softcap), scale = static_cast<float>(logitScale);
  const int64_t block = logits_block(rows, vocab);
  float* z = static_cast<float*>(pool_shared(pool, SLOT_LOGITS, static_cast<size_t>(block * vocab) * 4));
  for (int64_t r0 = 0; r0 < rows; r0 += block) {
    const int64_t n = min_i(block, rows - r0);
    block_logits(pool, z, h + r0 * hidden, w, format, n, vocab, hidden);
    pool_for(pool, static_cast<int>(n), [&](int i, int) {
      const int64_t r = r0 + i;
      float* row = z + i * vocab;
      if (cap > 0 || scale != 1.0f) soft_cap_row(row, vocab, scale, cap);
      logits_gradient(row, vocab, targets[r], lse[r], -dlogp[r], dentropy ? dentropy[r] : 0.0f, dentropy ? entropy[r] : 0.0f, scale, cap);
    });
    block_backward(pool, dh ? dh + r0 * hidden : nullptr, dw, z, h + r0 * hidden, w, format, n, vocab, hidden);
  }
}
