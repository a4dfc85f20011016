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

static void rows_fill(KernelTable& t) {
  t.gatherRows = gatherRows;
  t.scatterRows = scatterRows;
  t.embeddingBackward = embeddingBackward;
}
