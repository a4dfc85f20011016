// RMS normalisation and rotary positions. Included inside an ISA namespace (isa.inc.h).

static inline float row_dot(const float* a, const float* b, int64_t n) {
  vf s0 = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero();
  int64_t i = 0;
  for (; i + 4 * VW <= n; i += 4 * VW) {
    s0 = vfma(vload(a + i), vload(b + i), s0);
    s1 = vfma(vload(a + i + VW), vload(b + i + VW), s1);
    s2 = vfma(vload(a + i + 2 * VW), vload(b + i + 2 * VW), s2);
    s3 = vfma(vload(a + i + 3 * VW), vload(b + i + 3 * VW), s3);
  }
  by_vectors(i, n, [&](int64_t at, int64_t lanes) SLOTH_BODY { s0 = vfma(vload_part(a + at, lanes), vload_part(b + at, lanes), s0); });
  return vsum(vadd(vadd(s0, s1), vadd(s2, s3)));
}

static void rmsNorm(Pool* pool, float* y, float* rstd, const float* x, const float* w, int64_t rows, int64_t cols, double eps, double offset) {
  const vf shift = vset(static_cast<float>(offset));
  const vf plain = vset(static_cast<float>(1.0 + offset));
  par_rows(pool, rows, cols, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) {
      const float* xr = x + r * cols;
      float* yr = y + r * cols;
      const double mean = static_cast<double>(row_dot(xr, xr, cols)) / static_cast<double>(cols);
      const float inverse = static_cast<float>(1.0 / sqrt(mean + eps));
      if (rstd != nullptr) rstd[r] = inverse;
      const vf s = vset(inverse);
      by_vectors(0, cols, [&](int64_t i, int64_t lanes) SLOTH_BODY {
        const vf weight = w != nullptr ? vadd(vload_part(w + i, lanes), shift) : plain;
        vstore_part(yr + i, lanes, vmul(vmul(vload_part(xr + i, lanes), s), weight));
      });
    }
  });
}

// With x̂ = x · rstd and g = dy · (w + offset): dx = rstd · (g - x̂ · mean(g · x̂)), dw = Σ_r dy · x̂ (derivative of Zhang and Sennrich 2019, equation 4).
static void rmsNormBackward(Pool* pool, float* dx, float* dw, const float* dy, const float* x, const float* w, const float* rstd, int64_t rows, int64_t cols,
                            double offset, int64_t accumulate) {
  if (rows == 0 || cols == 0) return;
  const vf shift = vset(static_cast<float>(offset));
  const vf plain = vset(static_cast<float>(1.0 + offset));
  // Every block of rows has its own partial dw; their number depends on the shape alone and is at most 32.
  const int64_t grain = max_i(row_grain(cols), ceil_div(rows, 32));
  const int64_t blocks = ceil_div(rows, grain);
  float* partial = dw != nullptr ? static_cast<float*>(pool_shared(pool, 0, static_cast<size_t>(blocks * cols) * sizeof(float))) : nullptr;
  par_pieces(pool, rows, grain, rows * cols <= SERIAL_LIMIT, [=](int64_t from, int64_t to, int task, int) {
    float* own = partial != nullptr ? partial + task * cols : nullptr;
    if (own != nullptr) memset(own, 0, static_cast<size_t>(cols) * sizeof(float));
    for (int64_t r = from; r < to; r++) {
      const float* xr = x + r * cols;
      const float* gr = dy + r * cols;
      const vf s = vset(rstd[r]);
      vf projection = vzero();
      by_vectors(0, cols, [&](int64_t i, int64_t lanes) SLOTH_BODY {
        const vf weight = w != nullptr ? vadd(vload_part(w + i, lanes), shift) : plain;
        const vf product = vmul(vload_part(gr + i, lanes), vload_part(xr + i, lanes));
        projection = vfma(product, weight, projection);
        if (own != nullptr) vstore_part(own + i, lanes, vfma(product, s, vload_part(own + i, lanes)));
      });
      if (dx == nullptr) continue;
      float* out = dx + r * cols;
      // mean(g · x̂) · rstd: what x̂ is multiplied by, with one rstd of x̂ moved here
      const double mean = static_cast<double>(vsum(projection)) * static_cast<double>(rstd[r]) / static_cast<double>(cols);
      const vf back = vset(static_cast<float>(mean * static_cast<double>(rstd[r])));
      by_vectors(0, cols, [&](int64_t i, int64_t lanes) SLOTH_BODY {
        const vf weight = w != nullptr ? vadd(vload_part(w + i, lanes), shift) : plain;
        const vf g = vmul(vload_part(gr + i, lanes), weight);
        vf value = vmul(s, vfnma(vload_part(xr + i, lanes), back, g));
        if (accumulate) value = vadd(value, vload_part(out + i, lanes));
        vstore_part(out + i, lanes, value);
      });
    }
  });
  if (dw == nullptr) return;
  par_pieces(pool, cols, STRIP, blocks * cols <= SERIAL_LIMIT, [=](int64_t from, int64_t to, int, int) {
    for (int64_t b = 1; b < blocks; b++) {
      for (int64_t c = from; c < to; c++) partial[c] += partial[b * cols + c];
    }
    for (int64_t c = from; c < to; c++) dw[c] += partial[c];
  });
}

static void rope(Pool* pool, float* x, int64_t ldx, const float* cos, const float* sin, const int32_t* positions, int64_t rows, int64_t heads, int64_t headDim,
                 int64_t rotary, int64_t inverse, int64_t tableRows) {
  const int64_t half = rotary / 2;
  if (half == 0) return;
  const vf sign = vset(inverse ? -1.0f : 1.0f);
  par_rows(pool, rows, heads * headDim, [=](int64_t from, int64_t to, int, int) {
    for (int64_t r = from; r < to; r++) {
      const int64_t at = positions[r];
      if (at < 0 || at >= tableRows) {
        pool_fail(pool, "rope", "a position lies outside the tables", r, at);
        continue;
      }
      const float* c = cos + at * half;
      const float* s = sin + at * half;
      for (int64_t h = 0; h < heads; h++) {
        float* first = x + r * ldx + h * headDim;
        float* second = first + half;
        by_vectors(0, half, [&](int64_t i, int64_t lanes) SLOTH_BODY {
          const vf cosine = vload_part(c + i, lanes);
          const vf sine = vmul(vload_part(s + i, lanes), sign);
          const vf a = vload_part(first + i, lanes);
          const vf b = vload_part(second + i, lanes);
          vstore_part(first + i, lanes, vfnma(b, sine, vmul(a, cosine)));
          vstore_part(second + i, lanes, vfma(a, sine, vmul(b, cosine)));
        });
      }
    }
  });
}

static void norm_rope_fill(KernelTable& t) {
  t.rmsNorm = rmsNorm;
  t.rmsNormBackward = rmsNormBackward;
  t.rope = rope;
}
