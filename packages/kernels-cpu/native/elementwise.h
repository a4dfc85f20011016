// Elementwise kernels and copies. Plain loops: at -O3 the compiler makes full-width vectors of them, and they are bound by memory.
// Included inside an ISA namespace (isa.inc.h).

static void fill(Pool* pool, float* out, double value, int64_t n) {
  const float v = static_cast<float>(value);
  par_elements(pool, n, [=](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; i++) out[i] = v;
  });
}

static void copy(Pool* pool, void* out, const void* src, int64_t bytes) {
  char* o = static_cast<char*>(out);
  const char* s = static_cast<const char*>(src);
  // Pieces would overwrite each other's source when the ranges overlap.
  const bool overlap = o < s + bytes && s < o + bytes;
  if (overlap) {
    memmove(o, s, static_cast<size_t>(bytes));
    return;
  }
  par_pieces(pool, bytes, GRAIN * 16, bytes <= SERIAL_LIMIT * 4, [=](int64_t b, int64_t e, int, int) { memcpy(o + b, s + b, static_cast<size_t>(e - b)); });
}

static void add(Pool* pool, float* out, const float* a, const float* b, int64_t n) {
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) out[i] = a[i] + b[i];
  });
}

static void mul(Pool* pool, float* out, const float* a, const float* b, int64_t n) {
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) out[i] = a[i] * b[i];
  });
}

static void scale(Pool* pool, float* out, const float* x, double alpha, int64_t n, int64_t accumulate) {
  const float s = static_cast<float>(alpha);
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    if (accumulate) {
      for (int64_t i = from; i < to; i++) out[i] += s * x[i];
    } else {
      for (int64_t i = from; i < to; i++) out[i] = s * x[i];
    }
  });
}

static void scaleRows(Pool* pool, float* out, const float* x, const float* rowScale, int64_t rows, int64_t cols, int64_t accumulate) {
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) {
      const float s = rowScale[r];
      float* o = out + r * cols;
      const float* xr = x + r * cols;
      if (accumulate) {
        for (int64_t c = 0; c < cols; c++) o[c] += s * xr[c];
      } else {
        for (int64_t c = 0; c < cols; c++) o[c] = s * xr[c];
      }
    }
  });
}

static void elementwise_fill(KernelTable& t) {
  t.fill = fill;
  t.copy = copy;
  t.add = add;
  t.mul = mul;
  t.scale = scale;
  t.scaleRows = scaleRows;
}
