// The measurements of bench_hot.cpp: shapes of SmolLM2-135M.
static void print_rate(const char* name, Rate r, double bar) {
  printf("%-58s %5.2f of peak (median %5.2f)   bar %.2f\n", name, r.best, r.median, bar);
  fflush(stdout);
}

static void bench_gemm(Pool* pool) {
  const int64_t shapes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
  for (int64_t m : {512, 2048}) {
    for (auto& s : shapes) {
      for (int64_t format : {FORMAT_F32, FORMAT_Q4_1}) {
        const int64_t n = s[0], k = s[1], r = 16;
        const Weight w = make_weight(format, n, k);
        const Floats x = randoms(m * k), t = randoms(m * r), b = randoms(n * r), a = randoms(r * k), dy = randoms(m * n);
        Floats y(static_cast<size_t>(m * n)), dx(static_cast<size_t>(m * k));
        char name[96];
        snprintf(name, sizeof(name), "linear %s m%lld n%lld k%lld r16", format_name(format), (long long)m, (long long)n, (long long)k);
        print_rate(name, fraction_of_peak(pool, 2.0 * m * n * (k + r), [&] { linear(pool, y.data(), x.data(), w.data.data(), format, m, n, k, nullptr, t.data(), b.data(), r, 0); }), 0.85);
        snprintf(name, sizeof(name), "linearBackwardInput %s m%lld n%lld k%lld r16", format_name(format), (long long)m, (long long)n, (long long)k);
        print_rate(name, fraction_of_peak(pool, 2.0 * m * k * (n + r), [&] { linearBackwardInput(pool, dx.data(), dy.data(), w.data.data(), format, m, n, k, t.data(), a.data(), r, 0); }), 0.85);
      }
    }
  }
  {
    const int64_t m = 512, n = 1536, k = 576;
    const Floats dy = randoms(m * n), x = randoms(m * k);
    Floats dw(static_cast<size_t>(n * k));
    print_rate("matmul dW n1536 k576 over 512 rows", fraction_of_peak(pool, 2.0 * m * n * k, [&] { matmul(pool, dw.data(), dy.data(), x.data(), n, k, m, 1, 0, 1, 1); }), 0.85);
  }
}

// The products of full fine-tuning: micro-batches of 1024 rows over f32 weights, the gradient of a weight added to what is there.
static void bench_full(Pool* pool) {
  const int64_t shapes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
  const int64_t m = 1024;
  for (auto& s : shapes) {
    const int64_t n = s[0], k = s[1];
    const Floats w = randoms(n * k), x = randoms(m * k), dy = randoms(m * n);
    Floats y(static_cast<size_t>(m * n)), dx(static_cast<size_t>(m * k)), dw(static_cast<size_t>(n * k));
    const double flops = 2.0 * static_cast<double>(m * n * k);
    const struct {
      const char* name;
      std::function<void()> run;
    } cases[] = {
        {"y = x W'", [&] { linear(pool, y.data(), x.data(), w.data(), FORMAT_F32, m, n, k, nullptr, nullptr, nullptr, 0, 0); }},
        {"dx = dy W", [&] { linearBackwardInput(pool, dx.data(), dy.data(), w.data(), FORMAT_F32, m, n, k, nullptr, nullptr, 0, 0); }},
        {"dW += dy' x", [&] { matmul(pool, dw.data(), dy.data(), x.data(), n, k, m, 1, 0, 1, 1); }},
    };
    for (auto& c : cases) {
      char name[96];
      snprintf(name, sizeof(name), "full, %lld rows, W [%lld, %lld]: %s", (long long)m, (long long)n, (long long)k, c.name);
      print_rate(name, fraction_of_peak(pool, flops, c.run), 0.85);
    }
  }
}

// The products of a LoRA of rank 16, over the rows of a micro-batch.
static void bench_rank(Pool* pool) {
  for (int64_t m : {512, 2048}) {
    for (int64_t k : {192, 576, 1536}) {
      const int64_t r = 16;
      const Floats x = randoms(m * k), a = randoms(r * k), b = randoms(k * r), t = randoms(m * r);
      Floats out(static_cast<size_t>(m * r)), da(static_cast<size_t>(r * k));
      const double flops = 2.0 * static_cast<double>(m * r * k);
      const struct {
        const char* name;
        std::function<void()> run;
      } cases[] = {
          {"t = x A'", [&] { matmul(pool, out.data(), x.data(), a.data(), m, r, k, 0, 1, 2, 0); }},
          {"dt = dy B", [&] { matmul(pool, out.data(), x.data(), b.data(), m, r, k, 0, 0, 2, 0); }},
          {"dA = dt' x", [&] { matmul(pool, da.data(), t.data(), x.data(), r, k, m, 1, 0, 1, 1); }},
          {"dB = dy' t", [&] { matmul(pool, da.data(), x.data(), t.data(), k, r, m, 1, 0, 1, 1); }},
      };
      for (auto& c : cases) {
        char name[96];
        snprintf(name, sizeof(name), "rank 16, %lld rows, width %lld: %s", (long long)m, (long long)k, c.name);
        print_rate(name, fraction_of_peak(pool, flops, c.run), 0);
      }
    }
  }
}

static void bench_head(Pool* pool) {
  for (int64_t format : {FORMAT_F32, FORMAT_Q4_1}) {
    const int64_t m = 512, n = 49152, k = 576;
    const Weight w = make_weight(format, n, k);
    const Floats x = randoms(m * k);
    Floats y(static_cast<size_t>(m * n));
    char name[96];
    snprintf(name, sizeof(name), "linear %s m512 n49152 k576", format_name(format));
    print_rate(name, fraction_of_peak(pool, 2.0 * m * n * k, [&] { linear(pool, y.data(), x.data(), w.data.data(), format, m, n, k, nullptr, nullptr, nullptr, 0, 0); }), 0.85);
  }
}

static void bench_skinny(Pool* pool) {
  const Floats big(32 << 20, 1.0f);
  printf("read bandwidth %.1f GB/s\n", measure_bandwidth(pool, big) / 1e9);
  for (int64_t format : {FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q8_0, FORMAT_BF16, FORMAT_F32}) {
    for (int64_t k : {576, 1536}) {
      const int64_t n = 32768;  // large enough not to stay in the cache
      const Weight w = make_weight(format, n, k);
      for (int64_t m : {1, 2, 4, 8, 16, 32}) {
        const Floats x = randoms(m * k);
        Floats y(static_cast<size_t>(m * n));
        std::vector<double> f;
        double bound = 0;
        double rate = 0;
        for (int i = 0; i < 7; i++) {
          const double peak = measure_peak(pool, 0.003);
          const double bandwidth = measure_bandwidth(pool, big);
          linear(pool, y.data(), x.data(), w.data.data(), format, m, n, k, nullptr, nullptr, nullptr, 0, 0);
          const double start = now();
          for (int j = 0; j < 3; j++) linear(pool, y.data(), x.data(), w.data.data(), format, m, n, k, nullptr, nullptr, nullptr, 0, 0);
          const double t = (now() - start) / 3;
          const double need = static_cast<double>(n * format_row_bytes(format, k)) / bandwidth;
          const double compute = 2.0 * m * n * k / peak;
          bound = compute > need ? 1 : 0;
          f.push_back(std::max(need, compute) / t);
          rate = std::max(rate, static_cast<double>(n * format_row_bytes(format, k)) / t);
        }
        std::sort(f.begin(), f.end());
        printf("few rows %-5s m%-2lld n%lld k%-5lld %5.2f of the %s limit (median %5.2f)   bar 0.75   %5.1f GB/s\n", format_name(format), (long long)m, (long long)n, (long long)k,
               f[f.size() - 1], bound ? "arithmetic" : "memory", f[f.size() / 2], rate / 1e9);
        fflush(stdout);
      }
    }
  }
}

// Operations of causal attention over `tokens` rows: two products forward, five backward, over the half square that is seen.
static void bench_attention(Pool* pool) {
  const struct { int64_t tokens, parts, heads, kvHeads, headDim; } cases[] = {{2048, 1, 9, 3, 64}, {2048, 4, 9, 3, 64}, {512, 1, 9, 3, 64}, {2048, 1, 32, 8, 64}, {2048, 1, 14, 2, 64}, {2048, 1, 8, 8, 128}};
  for (auto& c : cases) {
    const int64_t T = c.tokens, H = c.heads, KV = c.kvHeads, D = c.headDim, len = T / c.parts;
    const Floats q = randoms(T * H * D), k = randoms(T * KV * D), v = randoms(T * KV * D), dout = randoms(T * H * D);
    Floats out(q.size()), lse(static_cast<size_t>(T * H)), dq(q.size()), dk(k.size()), dv(k.size());
    std::vector<int32_t> segments;
    for (int64_t p = 0; p < c.parts; p++) {
      segments.push_back(static_cast<int32_t>(p * len));
      segments.push_back(static_cast<int32_t>(len));
      segments.push_back(-1);
    }
    const double pairs = 0.5 * static_cast<double>(len) * static_cast<double>(len + 1) * static_cast<double>(c.parts * H);
    char name[96];
    snprintf(name, sizeof(name), "attention %lldx%lld heads %lld/%lld dim %lld", (long long)c.parts, (long long)len, (long long)H, (long long)KV, (long long)D);
    print_rate(name, fraction_of_peak(pool, pairs * 4 * D, [&] {
      attention(pool, out.data(), lse.data(), q.data(), H * D, k.data(), KV * D, v.data(), KV * D, segments.data(), c.parts, T, H, KV, D, 0.125, 0, 0, nullptr);
    }), 0.50);
    snprintf(name, sizeof(name), "attentionBackward %lldx%lld heads %lld/%lld dim %lld", (long long)c.parts, (long long)len, (long long)H, (long long)KV, (long long)D);
    print_rate(name, fraction_of_peak(pool, pairs * 10 * D, [&] {
      attentionBackward(pool, dq.data(), dk.data(), dv.data(), nullptr, dout.data(), out.data(), lse.data(), q.data(), H * D, k.data(), KV * D, v.data(), KV * D, segments.data(), c.parts, T, H, KV, D, 0.125, 0, 0, nullptr);
    }), 0.45);
  }
}

static void bench_loss(Pool* pool) {
  for (int64_t format : {FORMAT_F32, FORMAT_Q4_1}) {
    for (int64_t m : {512, 2048}) {
      const int64_t n = 49152, k = 576;
      const Weight w = make_weight(format, n, k, 0.05);
      const Floats h = randoms(m * k), coef = randoms(m);
      std::vector<int32_t> targets;
      for (int64_t i = 0; i < m; i++) targets.push_back(static_cast<int32_t>(i * 17));
      Floats nll(static_cast<size_t>(m)), lse(nll), dh(h.size()), dw(format == FORMAT_F32 && m == 512 ? w.values.size() : 0);
      char name[96];
      snprintf(name, sizeof(name), "linearCrossEntropy with dh %s m%lld v49152 h576", format_name(format), (long long)m);
      print_rate(name, fraction_of_peak(pool, 4.0 * m * n * k, [&] { linearCrossEntropy(pool, nll.data(), dh.data(), nullptr, h.data(), w.data.data(), format, targets.data(), coef.data(), m, n, k, 0, 1); }), 0.75);
      if (m > 512) continue;
      snprintf(name, sizeof(name), "linearLogprobs %s m%lld v49152 h576", format_name(format), (long long)m);
      print_rate(name, fraction_of_peak(pool, 2.0 * m * n * k, [&] { linearLogprobs(pool, nll.data(), lse.data(), nullptr, nullptr, h.data(), w.data.data(), format, targets.data(), m, n, k, 0, 1); }), 0.75);
      snprintf(name, sizeof(name), "linearLogprobsBackward dh %s m%lld v49152 h576", format_name(format), (long long)m);
      print_rate(name, fraction_of_peak(pool, 4.0 * m * n * k, [&] { linearLogprobsBackward(pool, dh.data(), nullptr, coef.data(), lse.data(), nullptr, nullptr, h.data(), w.data.data(), format, targets.data(), m, n, k, 0, 1); }), 0.75);
      if (dw.empty()) continue;
      snprintf(name, sizeof(name), "linearCrossEntropy with dh, dw %s m%lld v49152 h576", format_name(format), (long long)m);
      print_rate(name, fraction_of_peak(pool, 6.0 * m * n * k, [&] { linearCrossEntropy(pool, nll.data(), dh.data(), dw.data(), h.data(), w.data.data(), format, targets.data(), coef.data(), m, n, k, 0, 1); }), 0.75);
    }
  }
}

// A prompt of 512 rows, and one row of each of 8 sequences at position 2000, over a cache of blocks of 16.
static void bench_paged(Pool* pool) {
  const int64_t H = 9, KV = 3, D = 64, block = 16, maxBlocks = 128, S = 8, blocks = S * maxBlocks;
  const Floats kc = randoms(blocks * block * KV * D), vc = randoms(blocks * block * KV * D), q = randoms(512 * H * D);
  Floats out(q.size());
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  for (size_t i = 0; i < table.size(); i++) table[i] = static_cast<int32_t>(i * 37 % table.size());
  for (int kind = 0; kind < 3; kind++) {
    const int64_t rows = kind == 0 ? 512 : kind == 1 ? 8 : 1;
    std::vector<int32_t> seq, pos;
    double pairs = 0;
    for (int64_t i = 0; i < rows; i++) {
      seq.push_back(static_cast<int32_t>(kind == 0 ? 0 : i));
      pos.push_back(static_cast<int32_t>(kind == 0 ? i : 2000));
      pairs += static_cast<double>(pos.back() + 1) * H;
    }
    const Rate r = fraction_of_peak(pool, pairs * 4 * D, [&] {
      pagedAttention(pool, out.data(), q.data(), H * D, kc.data(), vc.data(), FORMAT_F32, table.data(), maxBlocks, block, seq.data(), pos.data(), rows, H, KV, D, 0.125, 0, 0, nullptr, blocks, S);
    });
    print_rate(kind == 0 ? "pagedAttention prompt of 512" : kind == 1 ? "pagedAttention 8 rows at 2000" : "pagedAttention 1 row at 2000", r, kind == 0 ? 0.5 : 0);
  }
}

static void run_cases(Pool* pool, const std::string& filter) {
  auto on = [&](const char* name) { return filter.empty() || std::string(name).find(filter) != std::string::npos; };
  printf("%s, %d threads: peak %.1f GFLOPS\n", SLOTH_BENCH_NAME, pool_threads(pool), measure_peak(pool, 0.3) / 1e9);
  if (on("gemm")) bench_gemm(pool);
  if (on("full")) bench_full(pool);
  if (on("rank")) bench_rank(pool);
  if (on("attention")) bench_attention(pool);
  if (on("loss")) bench_loss(pool);
  if (on("paged")) bench_paged(pool);
  if (on("head")) bench_head(pool);
  if (on("skinny")) bench_skinny(pool);
}
