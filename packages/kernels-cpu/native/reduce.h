// Reductions. Sums are made in double precision in sixteen interleaved lanes, in an order that depends on the length alone, so that they are the same for any
// number of threads and on every instruction set. Included inside an ISA namespace (isa.inc.h).

static const int LANES = 16;

template <bool SQUARE>
static inline double sum_piece(const float* x, int64_t n) {
  double acc[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (int l = 0; l < LANES; l++) {
      const double v = static_cast<double>(x[i + l]);
      acc[l] += SQUARE ? v * v : v;
    }
  }
  for (int l = 0; i + l < n; l++) {
    const double v = static_cast<double>(x[i + l]);
    acc[l] += SQUARE ? v * v : v;
  }
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; l++) acc[l] += acc[l + width];
  }
  return acc[0];
}

template <bool SQUARE>
static inline void sum_all(Pool* pool, double* out, int64_t slot, const float* x, int64_t n) {
  const int64_t pieces = ceil_div(n, GRAIN);
  double* partial = static_cast<double*>(pool_shared(pool, 0, static_cast<size_t>(pieces + 1) * sizeof(double)));
  par_pieces(pool, n, GRAIN, n <= SERIAL_LIMIT, [=](int64_t b, int64_t e, int task, int) { partial[task] = sum_piece<SQUARE>(x + b, e - b); });
  double total = 0;
  for (int64_t i = 0; i < pieces; i++) total += partial[i];
  out[slot] = total;
}

static void sumSquares(Pool* pool, double* out, int64_t slot, const float* x, int64_t n) { sum_all<true>(pool, out, slot, x, n); }
static void sum(Pool* pool, double* out, int64_t slot, const float* x, int64_t n) { sum_all<false>(pool, out, slot, x, n); }

// Columns of one task of a kernel that goes down the rows.
static const int64_t STRIP = 128;

static void sumRows(Pool* pool, float* out, const float* x, int64_t rows, int64_t cols, int64_t accumulate) {
  par_pieces(pool, cols, STRIP, rows * cols <= SERIAL_LIMIT, [=](int64_t from, int64_t to, int, int) {
    double acc[STRIP];
    const int64_t width = to - from;
    for (int64_t c = 0; c < width; c++) acc[c] = accumulate ? static_cast<double>(out[from + c]) : 0.0;
    for (int64_t r = 0; r < rows; r++) {
      const float* row = x + r * cols + from;
      for (int64_t c = 0; c < width; c++) acc[c] += static_cast<double>(row[c]);
    }
    for (int64_t c = 0; c < width; c++) out[from + c] = static_cast<float>(acc[c]);
  });
}

static void countNonFinite(Pool* pool, int32_t* out, int64_t slot, const float* x, int64_t n) {
  const int64_t pieces = ceil_div(n, GRAIN);
  int32_t* partial = static_cast<int32_t*>(pool_shared(pool, 0, static_cast<size_t>(pieces + 1) * sizeof(int32_t)));
  par_pieces(pool, n, GRAIN, n <= SERIAL_LIMIT, [=](int64_t b, int64_t e, int task, int) {
    int32_t count = 0;
    for (int64_t i = b; i < e; i++) {
      uint32_t u;
      memcpy(&u, x + i, 4);
      count += (u & 0x7f800000u) == 0x7f800000u;
    }
    partial[task] = count;
  });
  int64_t total = 0;
  for (int64_t i = 0; i < pieces; i++) total += partial[i];
  out[slot] = static_cast<int32_t>(min_i(total, INT32_MAX));
}

static void reduce_fill(KernelTable& t) {
  t.sumSquares = sumSquares;
  t.sum = sum;
  t.sumRows = sumRows;
  t.countNonFinite = countNonFinite;
}
