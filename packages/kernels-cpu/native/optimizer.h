// AdamW with states in 32 and 8 bits. Included inside an ISA namespace (isa.inc.h).

struct AdamW {
  float beta1, beta2, rest1, rest2, eps, decay, stepSize, rootCorrection, gradScale;
};

static inline AdamW adamw_constants(double lr, double beta1, double beta2, double eps, double weightDecay, int64_t step, double gradScale) {
  AdamW a;
  a.beta1 = static_cast<float>(beta1);
  a.beta2 = static_cast<float>(beta2);
  a.rest1 = static_cast<float>(1.0 - beta1);
  a.rest2 = static_cast<float>(1.0 - beta2);
  a.eps = static_cast<float>(eps);
  a.decay = static_cast<float>(lr * weightDecay);
  a.stepSize = static_cast<float>(lr / (1.0 - pow(beta1, static_cast<double>(step))));
  a.rootCorrection = static_cast<float>(1.0 / sqrt(1.0 - pow(beta2, static_cast<double>(step))));
  a.gradScale = static_cast<float>(gradScale);
  return a;
}

// New parameter from its moments.
SLOTH_INLINE vf adamw_move(vf p, vf m, vf v, const AdamW& a) {
  const vf decayed = vfnma(vset(a.decay), p, p);
  const vf denominator = vfma(vsqrt(v), vset(a.rootCorrection), vset(a.eps));
  return vfnma(vset(a.stepSize), vdiv(m, denominator), decayed);
}

static void adamw(Pool* pool, float* p, const float* g, float* m, float* v, int64_t n, double lr, double beta1, double beta2, double eps, double weightDecay,
                  int64_t step, double gradScale) {
  const AdamW a = adamw_constants(lr, beta1, beta2, eps, weightDecay, step, gradScale);
  par_elements(pool, n, [=](int64_t from, int64_t to) {
    by_vectors(from, to, [&](int64_t i, int64_t lanes) SLOTH_BODY {
      const vf grad = vmul(vload_part(g + i, lanes), vset(a.gradScale));
      const vf mean = vfma(vset(a.rest1), grad, vmul(vset(a.beta1), vload_part(m + i, lanes)));
      const vf square = vfma(vmul(vset(a.rest2), grad), grad, vmul(vset(a.beta2), vload_part(v + i, lanes)));
      vstore_part(m + i, lanes, mean);
      vstore_part(v + i, lanes, square);
      vstore_part(p + i, lanes, adamw_move(vload_part(p + i, lanes), mean, square, a));
    });
  });
}

// The dynamic 8-bit data type (Dettmers et al. 2022, section 2.1; bitsandbytes create_dynamic_map): for i in 0..6 the midpoints of linspace(0.1, 1, parts + 1)
// times 10^(i - 6), parts = 2^i and both signs for the signed map, 2^(i+1) for the unsigned one, with 0 and 1; ascending. All arithmetic in f32.
struct DynamicMap {
  float value[256];
  float middle[256];  // between value[c] and value[c + 1]; infinity at the end
  // Code of the least value of each cell of floats that share sign, exponent and seven bits of mantissa. A cell holds at most one boundary between codes.
  uint8_t cell[65536];
};

static inline float linspace_point(int index, int parts) {
  const float step = (1.0f - 0.1f) / static_cast<float>(parts);
  // The second half is counted from the end, so both ends are exact.
  return index * 2 < parts + 1 ? 0.1f + step * static_cast<float>(index) : 1.0f - step * static_cast<float>(parts - index);
}

static inline void dynamic_map(DynamicMap& map, bool isSigned) {
  static const float scales[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  int count = 0;
  map.value[count++] = 0.0f;
  map.value[count++] = 1.0f;
  for (int i = 0; i < 7; i++) {
    const int parts = isSigned ? 1 << i : 2 << i;
    for (int part = 0; part < parts; part++) {
      const float v = scales[i] * ((linspace_point(part, parts) + linspace_point(part + 1, parts)) / 2.0f);
      map.value[count++] = v;
      if (isSigned) map.value[count++] = -v;
    }
  }
  for (int i = 1; i < count; i++) {
    const float v = map.value[i];
    int j = i;
    for (; j > 0 && map.value[j - 1] > v; j--) map.value[j] = map.value[j - 1];
    map.value[j] = v;
  }
  for (int c = 0; c < 255; c++) map.middle[c] = static_cast<float>((static_cast<double>(map.value[c]) + static_cast<double>(map.value[c + 1])) / 2);
  map.middle[255] = INFINITY;
  for (uint32_t key = 0; key < 65536; key++) {
    const bool negative = key >= 0x8000;
    // The least value of the cell: the smallest magnitude of a positive cell, the largest of a negative one.
    const uint32_t bits = negative ? (key << 16) | 0xffffu : key << 16;
    float least;
    memcpy(&least, &bits, 4);
    int code = 0;
    while (code < 255 && least > map.middle[code]) code++;
    map.cell[key] = static_cast<uint8_t>(code);
  }
}

static DynamicMap signedMap, unsignedMap;

// Nearest code of x in [-1, 1]; a tie takes the lower one.
SLOTH_INLINE uint8_t nearest_code(const DynamicMap& map, float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  const uint8_t code = map.cell[u >> 16];
  return static_cast<uint8_t>(code + (x > map.middle[code]));
}

static const int64_t STATE_BLOCK = 256;

// The step uses the moments before they are rounded to 8 bits (Dettmers et al. 2022, section 2.2).
static void adamw8bit(Pool* pool, float* p, const float* g, uint8_t* m8, uint8_t* v8, float* mAbs, float* vAbs, int64_t n, double lr, double beta1, double beta2,
                      double eps, double weightDecay, int64_t step, double gradScale) {
  const AdamW a = adamw_constants(lr, beta1, beta2, eps, weightDecay, step, gradScale);
  par_pieces(pool, n, GRAIN / 4, n <= GRAIN / 4, [=](int64_t from, int64_t to, int, int) {
    alignas(64) float mean[STATE_BLOCK];
    alignas(64) float square[STATE_BLOCK];
    for (int64_t start = from; start < to; start += STATE_BLOCK) {
      const int64_t block = start / STATE_BLOCK;
      const int64_t count = min_i(STATE_BLOCK, to - start);
      const float oldMean = mAbs[block];
      const float oldSquare = vAbs[block];
      for (int64_t i = 0; i < count; i++) {
        mean[i] = signedMap.value[m8[start + i]] * oldMean;
        square[i] = unsignedMap.value[v8[start + i]] * oldSquare;
      }
      vf most = vzero();
      vf mostSquare = vzero();
      by_vectors(0, count, [&](int64_t i, int64_t lanes) SLOTH_BODY {
        const vf grad = vmul(vload_part(g + start + i, lanes), vset(a.gradScale));
        const vf newMean = vfma(vset(a.rest1), grad, vmul(vset(a.beta1), vload_part(mean + i, lanes)));
        const vf newSquare = vfma(vmul(vset(a.rest2), grad), grad, vmul(vset(a.beta2), vload_part(square + i, lanes)));
        vstore_part(mean + i, lanes, newMean);
        vstore_part(square + i, lanes, newSquare);
        // Lanes beyond the end read as zero and change no maximum.
        most = vmax(most, vabs(newMean));
        mostSquare = vmax(mostSquare, newSquare);
        vstore_part(p + start + i, lanes, adamw_move(vload_part(p + start + i, lanes), newMean, newSquare, a));
      });
      const float scaleMean = vhmax(most);
      const float scaleSquare = vhmax(mostSquare);
      mAbs[block] = scaleMean;
      vAbs[block] = scaleSquare;
      const vf divideMean = vset(scaleMean > 0 ? scaleMean : 1.0f);
      const vf divideSquare = vset(scaleSquare > 0 ? scaleSquare : 1.0f);
      by_vectors(0, count, [&](int64_t i, int64_t lanes) SLOTH_BODY {
        vstore_part(mean + i, lanes, vdiv(vload_part(mean + i, lanes), divideMean));
        vstore_part(square + i, lanes, vdiv(vload_part(square + i, lanes), divideSquare));
      });
      for (int64_t i = 0; i < count; i++) {
        m8[start + i] = nearest_code(signedMap, mean[i]);
        v8[start + i] = nearest_code(unsignedMap, square[i]);
      }
    }
  });
}

static void optimizer_fill(KernelTable& t) {
  dynamic_map(signedMap, true);
  dynamic_map(unsignedMap, false);
  t.adamw = adamw;
  t.adamw8bit = adamw8bit;
}
