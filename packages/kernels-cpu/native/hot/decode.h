// Attention of a few rows over a paged cache. Included inside an ISA namespace, after linear.h.
//
// A task serves one row and one key head: every key and value it sees is read once for all query heads that share them.

// Query heads that one pass over the keys serves.
static const int DECODE_HEADS = 4;

// scores[g][j] = q[g] · k for the keys of one block, G heads at a time.
template <int G>
SLOTH_INLINE void decode_scores(const float* q, int64_t headDim, const float* k, float* out, int64_t ldo) {
  vf acc[G];
  SLOTH_UNROLL
  for (int g = 0; g < G; g++) acc[g] = vzero();
  int64_t c = 0;
  for (; c + VW <= headDim; c += VW) {
    const vf kv = vload(k + c);
    SLOTH_UNROLL
    for (int g = 0; g < G; g++) acc[g] = vfma(kv, vload(q + g * headDim + c), acc[g]);
  }
  if (c < headDim) {
    const vf kv = vloadn(k + c, headDim - c);
    SLOTH_UNROLL
    for (int g = 0; g < G; g++) acc[g] = vfma(kv, vloadn(q + g * headDim + c, headDim - c), acc[g]);
  }
  float sums[G];
  vsum_each<G>(acc, sums);
  for (int g = 0; g < G; g++) out[g * ldo] = sums[g];
}

// out[g] += p[g] · v for one value row, G heads at a time.
template <int G>
SLOTH_INLINE void decode_values(const float* p, int64_t ldp, const float* v, float* out, int64_t headDim) {
  vf w[G];
  SLOTH_UNROLL
  for (int g = 0; g < G; g++) w[g] = vset(p[g * ldp]);
  int64_t c = 0;
  for (; c + VW <= headDim; c += VW) {
    const vf vv = vload(v + c);
    SLOTH_UNROLL
    for (int g = 0; g < G; g++) vstore(out + g * headDim + c, vfma(w[g], vv, vload(out + g * headDim + c)));
  }
  if (c < headDim) {
    const int64_t n = headDim - c;
    const vf vv = vloadn(v + c, n);
    SLOTH_UNROLL
    for (int g = 0; g < G; g++) vstoren(out + g * headDim + c, n, vfma(w[g], vv, vloadn(out + g * headDim + c, n)));
  }
}

// Softmax of one row of scores in place, unnormalised; returns 1 / sum (the sink counts in the sum).
SLOTH_NOINLINE float decode_softmax(float* s, int64_t n, float scale, float cap, bool hasSink, float sink) {
  soft_cap_row(s, n, scale, cap);
  float highest = hasSink ? sink : -FLT_MAX;
  int64_t i = 0;
  vf top = vset(highest);
  for (; i + VW <= n; i += VW) top = vmax(vload(s + i), top);
  highest = vhmax(top);
  for (; i < n; i++) highest = s[i] > highest ? s[i] : highest;
  const vf m = vset(highest);
  vf sum = vzero();
  for (i = 0; i + VW <= n; i += VW) {
    const vf e = vexp(vsub(vload(s + i), m));
    vstore(s + i, e);
    sum = vadd(sum, e);
  }
  float total = vsum(sum) + (hasSink ? expf(sink - highest) : 0.0f);
  for (; i < n; i++) {
    s[i] = expf(s[i] - highest);
    total += s[i];
  }
  return 1.0f / total;
}

static void pagedAttention(Pool* pool, float* out, const float* q, int64_t ldq, const float* kCache, const float* vCache, const int32_t* blockTable,
                           int64_t maxBlocks, int64_t blockSize, const int32_t* rowSequence, const int32_t* rowPosition, int64_t rows, int64_t heads,
                           int64_t kvHeads, int64_t headDim, double scale, int64_t window, double softcap, const float* sinks, int64_t cacheBlocks,
                           int64_t sequences) {
  if (rows <= 0 || heads <= 0) return;
  const int64_t group = heads / kvHeads, width = kvHeads * headDim;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t s = rowSequence[i], p = rowPosition[i];
    if (s < 0 || s >= sequences || p < 0 || p >= maxBlocks * blockSize) {
      pool_fail(pool, "pagedAttention", "a row's sequence or position lies outside the block table", i, s < 0 || s >= sequences ? s : p);
      return;
    }
    const int64_t first = window > 0 && p >= window ? p - window + 1 : 0;
    for (int64_t b = first / blockSize; b <= p / blockSize; b++) {
      const int64_t block = blockTable[s * maxBlocks + b];
      if (block < 0 || block >= cacheBlocks) {
        pool_fail(pool, "pagedAttention", "the block table names a block that the cache does not have", s * maxBlocks + b, block);
        return;
      }
    }
  }
  const float cap = static_cast<float>(softcap), factor = static_cast<float>(scale);
  pool_for(pool, static_cast<int>(rows * kvHeads), [&](int task, int worker) {
    const int64_t row = task / kvHeads, head = task % kvHeads;
    const int64_t last = rowPosition[row];
    const int64_t first = window > 0 && last >= window ? last - window + 1 : 0;
    const int64_t n = last - first + 1, lds = (n + 15) / 16 * 16;
    const int32_t* table = blockTable + static_cast<int64_t>(rowSequence[row]) * maxBlocks;
    float* scores = static_cast<float*>(pool_scratch(pool, worker, static_cast<size_t>(DECODE_HEADS * lds) * 4));
    for (int64_t g0 = 0; g0 < group; g0 += DECODE_HEADS) {
      const int64_t g = min_i(DECODE_HEADS, group - g0);
      const int64_t h = head * group + g0;
      const float* qr = q + row * ldq + h * headDim;
      float* o = out + (row * heads + h) * headDim;
      for (int64_t j = 0; j < n; j++) {
        const int64_t at = first + j;
        const float* k = kCache + (table[at / blockSize] * blockSize + at % blockSize) * width + head * headDim;
        switch (g) {
          case 1: decode_scores<1>(qr, headDim, k, scores + j, lds); break;
          case 2: decode_scores<2>(qr, headDim, k, scores + j, lds); break;
          case 3: decode_scores<3>(qr, headDim, k, scores + j, lds); break;
          default: decode_scores<4>(qr, headDim, k, scores + j, lds); break;
        }
      }
      float inverse[DECODE_HEADS];
      for (int64_t i = 0; i < g; i++)
        inverse[i] = decode_softmax(scores + i * lds, n, factor, cap, sinks != nullptr, sinks ? sinks[h + i] : 0.0f);
      memset(o, 0, static_cast<size_t>(g * headDim) * 4);
      for (int64_t j = 0; j < n; j++) {
        const int64_t at = first + j;
        const float* v = vCache + (table[at / blockSize] * blockSize + at % blockSize) * width + head * headDim;
        switch (g) {
          case 1: decode_values<1>(scores + j, lds, v, o, headDim); break;
          case 2: decode_values<2>(scores + j, lds, v, o, headDim); break;
          case 3: decode_values<3>(scores + j, lds, v, o, headDim); break;
          default: decode_values<4>(scores + j, lds, v, o, headDim); break;
        }
      }
      for (int64_t i = 0; i < g; i++) {
        for (int64_t c = 0; c < headDim; c++) o[i * headDim + c] *= inverse[i];
      }
    }
  });
}
