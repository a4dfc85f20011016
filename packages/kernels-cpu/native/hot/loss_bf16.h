// The pass over the vocabulary of loss_stream.h with both of its products in bf16: hidden states, weights and exp(z - m) are rounded, sums and everything
// between the products are f32. Included by loss_stream.h inside an ISA namespace.

template <class F>
SLOTH_NOINLINE void stream_task_bf16(const Stream& s, int64_t part, int64_t r0, int64_t r1, const StreamScratch& x) {
  static_assert(BF_SA <= SA && BF_KC <= KC && STREAM_VOCAB <= 2 * BF_KC, "words fit where floats do");
  const int64_t stretches = ceil_div(s.vocab, STREAM_VOCAB);
  const int64_t begin = stretches * part / s.parts * STREAM_VOCAB, end = min_i(s.vocab, stretches * (part + 1) / s.parts * STREAM_VOCAB);
  const int64_t rows = r1 - r0, strips = strip_count(rows), step = bf_stretch(s.hidden);
  const uint8_t* w = static_cast<const uint8_t*>(s.w);
  uint32_t* strip = reinterpret_cast<uint32_t*>(x.strip);
  uint32_t* panels = reinterpret_cast<uint32_t*>(x.panels);
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
      const int64_t kc = min_i(step, s.hidden - k0), words = bf_count(kc);
      bf_pack_transposed<F>(w, s.rowBytes, v0, n, k0, kc, panels);
      for (int64_t t = 0; t < strips; t++) {
        const int64_t a = strip_begin(rows, strips, t), count = strip_begin(rows, strips, t + 1) - a;
        bf_pack_rows(s.h + (r0 + a) * s.hidden, s.hidden, count, k0, kc, strip);
        for (int64_t c = 0; c < padded; c += NR) {
          bf_tile_for(count, NR)(words, strip, panels + c * words, x.scores + a * SA + c, SA, NR, k0 > 0 ? TILE_ADD : 0, 1.0f, nullptr);
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
    const int64_t words = bf_count(n);
    for (int64_t c0 = 0; c0 < s.hidden; c0 += wide) {
      const int64_t cols = min_i(wide, s.hidden - c0);
      bf_pack_straight<F>(w, s.rowBytes, c0, cols, v0, n, panels);
      for (int64_t t = 0; t < strips; t++) {
        const int64_t a = strip_begin(rows, strips, t), count = strip_begin(rows, strips, t + 1) - a;
        bf_pack_rows(x.scores + a * SA, SA, count, 0, n, strip);
        for (int64_t c = 0; c < cols; c += NR) {
          const int64_t left = min_i(NR, cols - c);
          bf_tile_for(count, left)(words, strip, panels + c * words, o + a * s.hidden + c0 + c, s.hidden, left, v0 > begin ? TILE_ADD : 0, 1.0f, nullptr);
        }
      }
    }
  }
}
