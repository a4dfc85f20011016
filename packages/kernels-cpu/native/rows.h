// Moving rows by index. Kernels that add to rows go down all rows in strips of columns, so that rows with the same index are added in row order.
// Included inside an ISA namespace (isa.inc.h).

static void gatherRows(Pool* pool, float* out, const float* x, const int32_t* index, int64_t rows, int64_t cols, int64_t xRows) {
  if (cols == 0) return;
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t i = from; i < to; i++) {
      const int64_t at = index[i];
      if (at < 0 || at >= xRows) {
        pool_fail(pool, "gatherRows", "an index lies outside x", i, at);
        memset(out + i * cols, 0, static_cast<size_t>(cols) * sizeof(float));
      } else {
        memcpy(out + i * cols, x + at * cols, static_cast<size_t>(cols) * sizeof(float));
      }
    }
  });
}

// target[index[i], :] += s · x[i, :] in row order.
static inline void add_rows(Pool* pool, const char* kernel, float* target, const float* x, const int32_t* index, int64_t rows, int64_t cols, int64_t limit, float s,
                            bool zero) {
  const int64_t work = (rows + (zero ? limit : 0)) * cols;
  par_pieces(pool, cols, STRIP, work <= SERIAL_LIMIT, [=](int64_t from, int64_t to, int task, int) {
    const int64_t width = to - from;
    if (zero) {
      for (int64_t r = 0; r < limit; r++) memset(target + r * cols + from, 0, static_cast<size_t>(width) * sizeof(float));
    }
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = index[i];
      if (at < 0 || at >= limit) {
        if (task == 0) pool_fail(pool, kernel, "an index lies outside the rows of the output", i, at);
        continue;
      }
      float* t = target + at * cols + from;
      const float* row = x + i * cols + from;
      for (int64_t c = 0; c < width; c++) t[c] += s * row[c];
    }
  });
}

static void scatterRows(Pool* pool, float* out, const float* x, const int32_t* index, int64_t rows, int64_t cols, int64_t outRows, int64_t accumulate) {
  add_rows(pool, "scatterRows", out, x, index, rows, cols, outRows, 1.0f, accumulate == 0);
}

static void embeddingBackward(Pool* pool, float* dw, const float* dy, const int32_t* ids, int64_t rows, int64_t vocab, int64_t cols, double scale) {
  add_rows(pool, "embeddingBackward", dw, dy, ids, rows, cols, vocab, static_cast<float>(scale), false);
}

static void cacheWrite(Pool* pool, float* kCache, float* vCache, const float* k, int64_t ldk, const float* v, int64_t ldv, const int32_t* slots, int64_t rows,
                       int64_t width, int64_t cacheSlots) {
  // Two caches times strips of columns; within a strip the rows go in order, so that the last row of a slot wins.
  const int64_t strips = ceil_div(width, STRIP);
  par_pieces(pool, strips * 2, 1, rows * width <= SERIAL_LIMIT, [=](int64_t piece, int64_t, int, int) {
    const bool second = piece >= strips;
    const int64_t from = (second ? piece - strips : piece) * STRIP;
    const int64_t to = min_i(width, from + STRIP);
    float* cache = second ? vCache : kCache;
    const float* source = second ? v : k;
    const int64_t ld = second ? ldv : ldk;
    for (int64_t i = 0; i < rows; i++) {
      const int64_t slot = slots[i];
      if (slot == -1) continue;
      if (slot < 0 || slot >= cacheSlots) {
        if (piece == 0) pool_fail(pool, "cacheWrite", "a slot lies outside the caches", i, slot);
        continue;
      }
      memcpy(cache + slot * width + from, source + i * ld + from, static_cast<size_t>(to - from) * sizeof(float));
    }
  });
}

static void rows_fill(KernelTable& t) {
  t.gatherRows = gatherRows;
  t.scatterRows = scatterRows;
  t.embeddingBackward = embeddingBackward;
  t.cacheWrite = cacheWrite;
}
