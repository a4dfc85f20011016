// The checks of bench_hot.cpp. Every kernel runs on a pool of one and a pool of three threads: the bits must be equal.
typedef std::function<void(Pool*, Floats&)> Kernel;
static Floats on_both(const std::string& name, Pool* one, Pool* many, const Floats& start, const Kernel& run) {
  Floats a = start, b = start;
  run(one, a);
  run(many, b);
  check_same(name + " on 1 and 3 threads", a, b);
  return a;
}

static void test_matmul(Pool* one, Pool* many) {
  const int64_t shapes[][3] = {{1, 1, 1}, {5, 33, 7}, {33, 5, 123}, {123, 577, 33}, {16, 96, 577}, {1, 123, 64}, {64, 16, 577}, {577, 33, 0}, {47, 95, 400}};
  for (auto& s : shapes) {
    for (int flags = 0; flags < 8; flags++) {
      const int64_t m = s[0], n = s[1], k = s[2];
      const bool ta = flags & 1, tb = flags & 2, accumulate = flags & 4;
      const double alpha = flags % 3 == 0 ? 1.0 : -0.75;
      const Floats a = randoms(m * k), b = randoms(k * n), c0 = randoms(m * n);
      char name[96];
      snprintf(name, sizeof(name), "matmul %lldx%lldx%lld flags %d", (long long)m, (long long)n, (long long)k, flags);
      const Floats c = on_both(name, one, many, c0, [&](Pool* p, Floats& o) { matmul(p, o.data(), a.data(), b.data(), m, n, k, ta, tb, alpha, accumulate); });
      std::vector<double> want(c0.size(), 0.0);
      if (accumulate) want = to_double(c0);
      naive_product(want, a.data(), b.data(), m, n, k, ta, tb, alpha);
      check(name, c.data(), want, 6e-6);
    }
  }
}

static void test_linear(Pool* one, Pool* many) {
  const int64_t shapes[][3] = {{1, 5, 33},  {1, 123, 577}, {3, 577, 123}, {5, 65, 320},   {8, 64, 577}, {13, 33, 800}, {32, 37, 96},
                               {33, 1, 33}, {40, 123, 5},  {60, 577, 64}, {123, 96, 800}, {35, 200, 577}};
  for (int64_t format : formats) {
    for (auto& s : shapes) {
      for (int flags = 0; flags < 8; flags++) {
        const int64_t m = s[0], n = s[1];
        const int64_t k = format_layout(format).block == 32 ? (s[2] + 31) / 32 * 32 : s[2];
        const int64_t r = flags & 1 ? (flags & 2 ? 16 : 5) : 0;
        const bool bias = flags & 2, accumulate = flags & 4;
        const Weight w = make_weight(format, n, k);
        const Floats x = randoms(m * k), t = randoms(m * r), b = randoms(n * r), bs = randoms(n), y0 = randoms(m * n);
        char name[96];
        snprintf(name, sizeof(name), "linear %s %lldx%lldx%lld r%lld flags %d", format_name(format), (long long)m, (long long)n, (long long)k, (long long)r, flags);
        const Floats y = on_both(name, one, many, y0, [&](Pool* p, Floats& o) {
          linear(p, o.data(), x.data(), w.data.data(), format, m, n, k, bias ? bs.data() : nullptr, r ? t.data() : nullptr, r ? b.data() : nullptr, r, accumulate);
        });
        std::vector<double> want(y0.size(), 0.0);
        if (accumulate) want = to_double(y0);
        naive_product(want, x.data(), w.values.data(), m, n, k, false, true, 1);
        naive_product(want, t.data(), b.data(), m, n, r, false, true, 1);
        for (int64_t i = 0; bias && i < m * n; i++) want[static_cast<size_t>(i)] += bs[static_cast<size_t>(i % n)];
        check(name, y.data(), want, 6e-6);

        const Floats dy = randoms(m * n), dt = randoms(m * r), a = randoms(r * k), dx0 = randoms(m * k);
        snprintf(name, sizeof(name), "linearBackwardInput %s %lldx%lldx%lld r%lld flags %d", format_name(format), (long long)m, (long long)n, (long long)k, (long long)r, flags);
        const Floats dx = on_both(name, one, many, dx0, [&](Pool* p, Floats& o) {
          linearBackwardInput(p, o.data(), dy.data(), w.data.data(), format, m, n, k, r ? dt.data() : nullptr, r ? a.data() : nullptr, r, accumulate);
        });
        std::vector<double> back(dx0.size(), 0.0);
        if (accumulate) back = to_double(dx0);
        naive_product(back, dy.data(), w.values.data(), m, k, n, false, false, 1);
        naive_product(back, dt.data(), a.data(), m, k, r, false, false, 1);
        check(name, dx.data(), back, 6e-6);
      }
    }
  }
}

static void test_weights(Pool* one, Pool* many) {
  for (int64_t format : formats) {
    const int64_t rows = 123, cols = format_layout(format).block == 32 ? 224 : 577;
    const Weight w = make_weight(format, rows, cols);
    const std::string name = format_name(format);
    const Floats out = on_both("dequantize " + name, one, many, Floats(static_cast<size_t>(rows * cols)),
                               [&](Pool* p, Floats& o) { dequantize(p, o.data(), w.data.data(), format, rows, cols); });
    check("dequantize " + name, out.data(), to_double(w.values), 0);
    std::vector<int32_t> ids = {0, 122, 5, 5, 77};
    const Floats rowsOut = on_both("embedding " + name, one, many, Floats(static_cast<size_t>(5 * cols)), [&](Pool* p, Floats& o) {
      embedding(p, o.data(), w.data.data(), format, ids.data(), 5, rows, cols, 2.5);
    });
    std::vector<double> want;
    for (int32_t id : ids) {
      for (int64_t c = 0; c < cols; c++) want.push_back(2.5 * w.values[static_cast<size_t>(id * cols + c)]);
    }
    check("embedding " + name, rowsOut.data(), want, 1e-6);
    // A second quantisation of decoded values must not change what is stored for the exact formats.
    std::vector<uint8_t> again(w.data.size(), 0);
    quantize(many, again.data(), w.values.data(), format, rows, cols);
    if (format_layout(format).block == 1) {
      checks++;
      if (again != w.data) {
        failures++;
        printf("FAIL quantize %s: decoded values are stored differently\n", name.c_str());
      }
    }
  }
  // Rounding of the block formats against the reference formulas in plain scalar steps, at awkward values too.
  for (int trial = 0; trial < 400; trial++) {
    float x[32];
    for (int i = 0; i < 32; i++) x[i] = trial == 0 ? 0.0f : trial == 1 ? -1.5f : trial == 2 ? static_cast<float>(i - 16) * 0.5f : randoms(1)[0];
    volatile float am = 0, mx = 0, lo = FLT_MAX, hi = -FLT_MAX;
    for (int i = 0; i < 32; i++) {
      if (fabsf(x[i]) > am) {
        am = fabsf(x[i]);
        mx = x[i];
      }
      if (x[i] < lo) lo = x[i];
      if (x[i] > hi) hi = x[i];
    }
    uint8_t want[34], got[34];
    uint16_t h;
    bool good = true;
    {
      const volatile float d = am / 127.0f, id = d != 0 ? 1.0f / d : 0.0f;
      h = float_to_half(d);
      memcpy(want, &h, 2);
      for (int i = 0; i < 32; i++) {
        const volatile float v = x[i] * id;
        want[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(roundf(v)));
      }
      FormatQ8_0::encode(x, 32, got);
      good = good && memcmp(want, got, 34) == 0;
    }
    {
      const volatile float d = mx / -8.0f, id = d != 0 ? 1.0f / d : 0.0f;
      h = float_to_half(d);
      memcpy(want, &h, 2);
      for (int i = 0; i < 16; i++) {
        const volatile float a = x[i] * id, b = x[i + 16] * id;
        const volatile float a8 = a + 8.5f, b8 = b + 8.5f;
        want[2 + i] = static_cast<uint8_t>(std::min<int>(15, static_cast<int8_t>(a8)) | (std::min<int>(15, static_cast<int8_t>(b8)) << 4));
      }
      FormatQ4_0::encode(x, 32, got);
      good = good && memcmp(want, got, 18) == 0;
    }
    {
      const volatile float span = hi - lo, d = span / 15.0f, id = d != 0 ? 1.0f / d : 0.0f;
      h = float_to_half(d);
      memcpy(want, &h, 2);
      h = float_to_half(lo);
      memcpy(want + 2, &h, 2);
      for (int i = 0; i < 16; i++) {
        const volatile float a = (x[i] - lo), b = (x[i + 16] - lo);
        const volatile float ad = a * id, bd = b * id;
        const volatile float a5 = ad + 0.5f, b5 = bd + 0.5f;
        want[4 + i] = static_cast<uint8_t>(std::min<int>(15, static_cast<int8_t>(a5)) | (std::min<int>(15, static_cast<int8_t>(b5)) << 4));
      }
      FormatQ4_1::encode(x, 32, got);
      good = good && memcmp(want, got, 20) == 0;
    }
    checks++;
    if (!good) {
      failures++;
      printf("FAIL block rounding, trial %d\n", trial);
    }
  }
}

static void test_logits(Pool* one, Pool* many) {
  for (int64_t m : {1, 5, 40}) {
    const Weight w = make_weight(FORMAT_Q8_0, 123, 96, 0.2);
    const Floats h = randoms(m * 96);
    const Floats out = on_both("logits", one, many, Floats(static_cast<size_t>(m * 123)),
                               [&](Pool* p, Floats& o) { logits(p, o.data(), h.data(), w.data.data(), FORMAT_Q8_0, m, 123, 96, 3.0, 0.5); });
    std::vector<double> want(out.size(), 0.0);
    naive_product(want, h.data(), w.values.data(), m, 123, 96, false, true, 0.5);
    for (auto& v : want) v = 3.0 * tanh(v / 3.0);
    check("logits", out.data(), want, 6e-6);
  }
}

struct Forest {
  std::vector<int32_t> segments;
  int64_t tokens;
};
// For each row: the rows it sees along its path, oldest first, and its position.
static std::vector<int64_t> path_rows(const Forest& f, int64_t segment, int64_t row) {
  std::vector<int64_t> chain, rows;
  for (int64_t s = segment; s >= 0; s = f.segments[static_cast<size_t>(3 * s + 2)]) chain.insert(chain.begin(), s);
  for (int64_t s : chain) {
    const int64_t n = s == segment ? row + 1 : f.segments[static_cast<size_t>(3 * s + 1)];
    for (int64_t i = 0; i < n; i++) rows.push_back(f.segments[static_cast<size_t>(3 * s)] + i);
  }
  return rows;
}

struct AttentionCase {
  Forest forest;
  int64_t heads, kvHeads, headDim, window;
  double softcap;
  bool sinks;
};

static void test_attention(Pool* one, Pool* many) {
  const std::vector<Forest> forests = {
      {{0, 1, -1}, 1},
      {{0, 5, -1, 5, 33, -1, 38, 1, -1}, 39},
      {{0, 123, -1}, 123},
      {{0, 577, -1}, 577},
      {{0, 300, -1, 300, 40, 0, 340, 270, 0, 610, 1, 1, 611, 33, 2, 644, 20, -1}, 664},
      {{2, 30, -1, 40, 25, 0}, 70},  // rows outside all segments
  };
  const AttentionCase settings[] = {
      {{}, 3, 1, 64, 0, 0, false}, {{}, 4, 4, 20, 0, 0, false}, {{}, 4, 2, 33, 0, 5.0, true}, {{}, 6, 2, 80, 37, 0, true}, {{}, 2, 1, 128, 300, 2.0, false},
      {{}, 8, 1, 96, 1, 0, true}, {{}, 2, 1, 256, 0, 0, false},
  };
  for (size_t fi = 0; fi < forests.size(); fi++) {
    for (size_t si = 0; si < sizeof(settings) / sizeof(settings[0]); si++) {
      AttentionCase c = settings[si];
      c.forest = forests[fi];
      if (c.forest.tokens > 400 && si > 3 && fi != 4) continue;
      const int64_t T = c.forest.tokens, H = c.heads, KV = c.kvHeads, D = c.headDim, group = H / KV;
      const int64_t ldq = H * D + 7, ldk = KV * D + 3, ldv = KV * D + 5;
      const Floats q = randoms(T * ldq), k = randoms(T * ldk), v = randoms(T * ldv), sinks = randoms(H), dout = randoms(T * H * D);
      const double scale = 1.0 / sqrt(static_cast<double>(D));
      const int64_t count = static_cast<int64_t>(c.forest.segments.size()) / 3;
      const float* sk = c.sinks ? sinks.data() : nullptr;
      char name[96];
      snprintf(name, sizeof(name), "attention forest %d settings %d", (int)fi, (int)si);
      const Floats both = on_both(name, one, many, Floats(static_cast<size_t>(T * H * D + T * H), 7.0f), [&](Pool* p, Floats& o) {
        attention(p, o.data(), o.data() + T * H * D, q.data(), ldq, k.data(), ldk, v.data(), ldv, c.forest.segments.data(), count, T, H, KV, D, scale, c.window, c.softcap, sk);
      });
      std::vector<double> out(static_cast<size_t>(T * H * D), 0.0), lse(static_cast<size_t>(T * H), 0.0), dq(out.size(), 0.0), dk(static_cast<size_t>(T * KV * D), 0.0),
          dv(dk.size(), 0.0), dsinks(static_cast<size_t>(H), 0.25);
      for (int64_t s = 0; s < count; s++) {
        for (int64_t i = 0; i < c.forest.segments[static_cast<size_t>(3 * s + 1)]; i++) {
          std::vector<int64_t> seen = path_rows(c.forest, s, i);
          if (c.window > 0 && static_cast<int64_t>(seen.size()) > c.window) seen.erase(seen.begin(), seen.end() - c.window);
          const int64_t row = c.forest.segments[static_cast<size_t>(3 * s)] + i;
          for (int64_t h = 0; h < H; h++) {
            const float* qr = q.data() + row * ldq + h * D;
            const int64_t kh = h / group;
            std::vector<double> z(seen.size()), slope(seen.size(), 1.0);
            double most = c.sinks ? sinks[static_cast<size_t>(h)] : -1e300;
            for (size_t j = 0; j < seen.size(); j++) {
              double x = 0;
              for (int64_t d = 0; d < D; d++) x += static_cast<double>(qr[d]) * static_cast<double>(k[static_cast<size_t>(seen[j] * ldk + kh * D + d)]);
              x *= scale;
              if (c.softcap > 0) {
                const double t = tanh(x / c.softcap);
                x = c.softcap * t;
                slope[j] = 1 - t * t;
              }
              z[j] = x;
              most = std::max(most, x);
            }
            double sum = c.sinks ? exp(sinks[static_cast<size_t>(h)] - most) : 0;
            for (double x : z) sum += exp(x - most);
            const double L = most + log(sum);
            lse[static_cast<size_t>(row * H + h)] = L;
            const int64_t at = (row * H + h) * D;
            for (size_t j = 0; j < seen.size(); j++) {
              const double p = exp(z[j] - L);
              for (int64_t d = 0; d < D; d++) out[static_cast<size_t>(at + d)] += p * v[static_cast<size_t>(seen[j] * ldv + kh * D + d)];
            }
            double delta = 0;
            for (int64_t d = 0; d < D; d++) delta += out[static_cast<size_t>(at + d)] * dout[static_cast<size_t>(at + d)];
            if (c.sinks) dsinks[static_cast<size_t>(h)] -= exp(sinks[static_cast<size_t>(h)] - L) * delta;
            for (size_t j = 0; j < seen.size(); j++) {
              const double p = exp(z[j] - L);
              double dp = 0;
              for (int64_t d = 0; d < D; d++) dp += static_cast<double>(dout[static_cast<size_t>(at + d)]) * static_cast<double>(v[static_cast<size_t>(seen[j] * ldv + kh * D + d)]);
              const double ds = p * (dp - delta) * slope[j] * scale;
              for (int64_t d = 0; d < D; d++) {
                dq[static_cast<size_t>(at + d)] += ds * k[static_cast<size_t>(seen[j] * ldk + kh * D + d)];
                dk[static_cast<size_t>((seen[j] * KV + kh) * D + d)] += ds * qr[d];
                dv[static_cast<size_t>((seen[j] * KV + kh) * D + d)] += p * dout[static_cast<size_t>(at + d)];
              }
            }
          }
        }
      }
      std::vector<double> want = out;
      check(std::string(name) + " out", both.data(), want, 1e-5);
      check(std::string(name) + " lse", both.data() + T * H * D, lse, 1e-5);
      const int64_t nq = T * H * D, nk = T * KV * D;
      snprintf(name, sizeof(name), "attentionBackward forest %d settings %d", (int)fi, (int)si);
      const Floats back = on_both(name, one, many, Floats(static_cast<size_t>(nq + 2 * nk + H), 0.25f), [&](Pool* p, Floats& o) {
        attentionBackward(p, o.data(), o.data() + nq, o.data() + nq + nk, c.sinks ? o.data() + nq + 2 * nk : nullptr, dout.data(), both.data(), both.data() + nq, q.data(), ldq,
                          k.data(), ldk, v.data(), ldv, c.forest.segments.data(), count, T, H, KV, D, scale, c.window, c.softcap, sk);
      });
      check(std::string(name) + " dq", back.data(), dq, 2e-5);
      check(std::string(name) + " dk", back.data() + nq, dk, 2e-5);
      check(std::string(name) + " dv", back.data() + nq + nk, dv, 2e-5);
      check(std::string(name) + " dsinks", back.data() + nq + 2 * nk, dsinks, 2e-5);
    }
  }
}

static void test_loss(Pool* one, Pool* many) {
  struct Case { int64_t rows, vocab, hidden; double softcap, scale; };
  const Case cases[] = {{1, 5, 32, 0, 1}, {5, 123, 96, 0, 1}, {33, 577, 64, 3.0, 0.5}, {123, 1000, 160, 0, 1}, {577, 331, 32, 30.0, 1}, {40, 5000, 576, 0, 1}};
  for (int64_t format : formats) {
    for (const Case& c : cases) {
      if (format != FORMAT_F32 && format != FORMAT_Q4_1 && c.rows > 100) continue;
      const int64_t N = c.rows, V = c.vocab, D = c.hidden;
      const Weight w = make_weight(format, V, D, 2.4 / sqrt(static_cast<double>(D)) * 0.5);
      const Floats h = randoms(N * D), coef = randoms(N), dw0 = randoms(V * D, 0.1);
      std::vector<int32_t> targets;
      for (int64_t i = 0; i < N; i++) targets.push_back(static_cast<int32_t>(i == 0 ? V - 1 : static_cast<int64_t>(uniform() * static_cast<double>(V))));
      std::vector<double> z(static_cast<size_t>(N * V), 0.0), nll(static_cast<size_t>(N)), lse(nll), entropy(nll), logp(nll), dh(static_cast<size_t>(N * D), 0.0);
      std::vector<double> dw = to_double(dw0);
      naive_product(z, h.data(), w.values.data(), N, V, D, false, true, c.scale);
      for (int64_t i = 0; i < N; i++) {
        double* zi = z.data() + i * V;
        std::vector<double> slope(static_cast<size_t>(V), 1.0);
        double most = -1e300, sum = 0, mean = 0;
        for (int64_t v = 0; v < V; v++) {
          if (c.softcap > 0) {
            const double t = tanh(zi[v] / c.softcap);
            zi[v] = c.softcap * t;
            slope[static_cast<size_t>(v)] = 1 - t * t;
          }
          most = std::max(most, zi[v]);
        }
        for (int64_t v = 0; v < V; v++) sum += exp(zi[v] - most);
        const double L = most + log(sum);
        for (int64_t v = 0; v < V; v++) mean += exp(zi[v] - L) * zi[v];
        const size_t s = static_cast<size_t>(i);
        lse[s] = L;
        nll[s] = L - zi[targets[s]];
        logp[s] = -nll[s];
        entropy[s] = L - mean;
        for (int64_t v = 0; v < V; v++) {
          const double g = coef[s] * (exp(zi[v] - L) - (v == targets[s] ? 1 : 0)) * slope[static_cast<size_t>(v)] * c.scale;
          for (int64_t d = 0; d < D; d++) {
            dh[static_cast<size_t>(i * D + d)] += g * w.values[static_cast<size_t>(v * D + d)];
            dw[static_cast<size_t>(v * D + d)] += g * h[static_cast<size_t>(i * D + d)];
          }
        }
      }
      const std::string name = std::string("loss ") + format_name(format) + " " + std::to_string(N) + "x" + std::to_string(V) + "x" + std::to_string(D);
      for (int want = 0; want < 3; want++) {  // loss alone, with dh, with dh and dw
        Floats start(static_cast<size_t>(N + N * D), 9.0f);
        start.insert(start.end(), dw0.begin(), dw0.end());
        const Floats got = on_both(name, one, many, start, [&](Pool* p, Floats& o) {
          linearCrossEntropy(p, o.data(), want >= 1 ? o.data() + N : nullptr, want >= 2 ? o.data() + N + N * D : nullptr, h.data(), w.data.data(), format, targets.data(),
                             want ? coef.data() : nullptr, N, V, D, c.softcap, c.scale);
        });
        check(name + " nll", got.data(), nll, 2e-5);
        if (want >= 1) check(name + " dh", got.data() + N, dh, 2e-5);
        if (want >= 2) check(name + " dw", got.data() + N + N * D, dw, 2e-5);
      }
      const Floats lp = on_both(name + " logprobs", one, many, Floats(static_cast<size_t>(3 * N), 9.0f), [&](Pool* p, Floats& o) {
        linearLogprobs(p, o.data(), o.data() + N, o.data() + 2 * N, nullptr, h.data(), w.data.data(), format, targets.data(), N, V, D, c.softcap, c.scale);
      });
      check(name + " logp", lp.data(), logp, 2e-5);
      check(name + " lse", lp.data() + N, lse, 2e-5);
      check(name + " entropy", lp.data() + 2 * N, entropy, 2e-5);
      Floats minus(coef);
      for (auto& x : minus) x = -x;
      for (int want = 0; want < 2; want++) {
        Floats start(static_cast<size_t>(N * D), 9.0f);
        start.insert(start.end(), dw0.begin(), dw0.end());
        const Floats back = on_both(name + " logprobs backward", one, many, start, [&](Pool* p, Floats& o) {
          linearLogprobsBackward(p, o.data(), want ? o.data() + N * D : nullptr, minus.data(), lp.data() + N, nullptr, nullptr, h.data(), w.data.data(), format, targets.data(), N, V, D, c.softcap,
                                 c.scale);
        });
        check(name + " logprobs dh", back.data(), dh, 2e-5);
        if (want) check(name + " logprobs dw", back.data() + N * D, dw, 2e-5);
      }
    }
  }
}

static void test_paged(Pool* one, Pool* many) {
  struct Case { int64_t heads, kvHeads, headDim, blockSize, window; double softcap; bool sinks; };
  const Case cases[] = {{9, 3, 64, 16, 0, 0, false}, {4, 4, 20, 5, 0, 3.0, true}, {6, 2, 33, 32, 37, 0, true}, {10, 1, 128, 16, 100, 0, false}, {2, 1, 256, 16, 0, 0, false}};
  for (const Case& c : cases) {
    const int64_t H = c.heads, KV = c.kvHeads, D = c.headDim, group = H / KV, S = 4, maxBlocks = 700 / c.blockSize + 1, blocks = S * maxBlocks;
    std::vector<int32_t> table(static_cast<size_t>(S * maxBlocks));
    for (size_t i = 0; i < table.size(); i++) table[i] = static_cast<int32_t>((i * 7 + 3) % static_cast<size_t>(blocks));
    // The first blocks are shared by sequences 0 and 1.
    for (int64_t b = 0; b < 3; b++) table[static_cast<size_t>(maxBlocks + b)] = table[static_cast<size_t>(b)];
    const Floats sinks = randoms(H);
    std::vector<int32_t> seq, pos;
    seq.push_back(2), pos.push_back(0);
    for (int64_t i = 0; i < 123; i++) seq.push_back(0), pos.push_back(static_cast<int32_t>(400 + i));  // a stretch of a prompt
    seq.push_back(1), pos.push_back(599);
    for (int64_t i = 0; i < 3; i++) seq.push_back(3), pos.push_back(static_cast<int32_t>(30 + i));
    const int64_t rows = static_cast<int64_t>(seq.size()), ldq = H * D + 9;
    const Floats q = randoms(rows * ldq);
    const double scale = 1.0 / sqrt(static_cast<double>(D));
    for (const int64_t format : {FORMAT_F32, FORMAT_F16, FORMAT_Q8_0}) {
      if (D % format_layout(format).block != 0) continue;
      // What is stored, and what that stands for.
      const int64_t slots = blocks * c.blockSize;
      std::vector<uint8_t> kBytes(static_cast<size_t>(slots * format_row_bytes(format, KV * D))), vBytes(kBytes);
      Floats kc = randoms(slots * KV * D), vc = randoms(slots * KV * D);
      quantize(one, kBytes.data(), kc.data(), format, slots, KV * D);
      quantize(one, vBytes.data(), vc.data(), format, slots, KV * D);
      dequantize(one, kc.data(), kBytes.data(), format, slots, KV * D);
      dequantize(one, vc.data(), vBytes.data(), format, slots, KV * D);
      const Floats got = on_both("pagedAttention", one, many, Floats(static_cast<size_t>(rows * H * D), 9.0f), [&](Pool* p, Floats& o) {
        pagedAttention(p, o.data(), q.data(), ldq, kBytes.data(), vBytes.data(), format, table.data(), maxBlocks, c.blockSize, seq.data(), pos.data(), rows, H, KV, D, scale, c.window, c.softcap,
                       c.sinks ? sinks.data() : nullptr, blocks, S);
      });
      std::vector<double> want(got.size(), 0.0);
      for (int64_t r = 0; r < rows; r++) {
        const int64_t at = pos[static_cast<size_t>(r)];
        const int64_t first = c.window > 0 ? std::max<int64_t>(0, at - c.window + 1) : 0;
        for (int64_t h = 0; h < H; h++) {
          std::vector<double> z;
          double most = c.sinks ? sinks[static_cast<size_t>(h)] : -1e300;
          auto row = [&](int64_t j) { return (static_cast<int64_t>(table[static_cast<size_t>(seq[static_cast<size_t>(r)] * maxBlocks + j / c.blockSize)]) * c.blockSize + j % c.blockSize) * KV * D + h / group * D; };
          for (int64_t j = first; j <= at; j++) {
            double x = 0;
            for (int64_t d = 0; d < D; d++) x += static_cast<double>(q[static_cast<size_t>(r * ldq + h * D + d)]) * static_cast<double>(kc[static_cast<size_t>(row(j) + d)]);
            x *= scale;
            if (c.softcap > 0) x = c.softcap * tanh(x / c.softcap);
            z.push_back(x);
            most = std::max(most, x);
          }
          double sum = c.sinks ? exp(sinks[static_cast<size_t>(h)] - most) : 0;
          for (double x : z) sum += exp(x - most);
          for (int64_t j = first; j <= at; j++) {
            const double p = exp(z[static_cast<size_t>(j - first)] - most) / sum;
            for (int64_t d = 0; d < D; d++) want[static_cast<size_t>((r * H + h) * D + d)] += p * vc[static_cast<size_t>(row(j) + d)];
          }
        }
      }
      check(std::string("pagedAttention ") + format_name(format), got.data(), want, 1e-5);
    }
  }
}

#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_AVX2)
// Integer products against plain loops over activations that are rounded here. Of the two forms for AVX-512 this runs the one that the flags choose.
static void test_int8(Pool* one, Pool* many) {
  for (int64_t format : {FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q8_0}) {
    for (int64_t m : {1, 2, 3, 5, 8, 9, 23, 50}) {
      for (int64_t n : {1, 3, 70}) {
        for (int64_t k : {32, 224}) {
          const Weight w = make_weight(format, n, k);
          const Floats x = randoms(m * k);
          Floats r(x.size()), y(static_cast<size_t>(m * n)), z(y);
          for (int64_t b = 0; b < m * k; b += 32) {
            float most = 0;
            for (int64_t i = b; i < b + 32; i++) most = std::max(most, fabsf(x[static_cast<size_t>(i)]));
            for (int64_t i = b; i < b + 32; i++) r[static_cast<size_t>(i)] = nearbyintf(x[static_cast<size_t>(i)] * (127.0f / most)) * (most / 127.0f);
          }
          std::vector<double> want(y.size());
          naive_product(want, r.data(), w.values.data(), m, n, k, false, true, 1.0);
          linear_int8(one, y.data(), x.data(), w.data.data(), format, m, n, k, nullptr, nullptr, nullptr, 0, 0);
          linear_int8(many, z.data(), x.data(), w.data.data(), format, m, n, k, nullptr, nullptr, nullptr, 0, 0);
          char name[96];
          snprintf(name, sizeof(name), "linear_int8 %s m%lld n%lld k%lld", format_name(format), (long long)m, (long long)n, (long long)k);
          check(name, y.data(), want, 1e-5);  // f32 sums of up to 7 blocks
          check_same(name, y, z);
        }
      }
    }
  }
}
#endif

static void run_tests(Pool* one, Pool* many, const std::string& filter) {
  auto on = [&](const char* name) { return filter.empty() || std::string(name).find(filter) != std::string::npos; };
  if (on("matmul")) test_matmul(one, many);
  if (on("linear")) test_linear(one, many);
  if (on("weights")) test_weights(one, many);
  if (on("attention")) test_attention(one, many);
  if (on("loss")) test_loss(one, many);
  if (on("paged")) test_paged(one, many);
  if (on("logits")) test_logits(one, many);
#if defined(SLOTH_SIMD_AVX512) || defined(SLOTH_SIMD_AVX2)
  if (on("int8")) test_int8(one, many);
#endif
}
