// Counter-based random numbers. Included inside an ISA namespace (isa.inc.h).
//
// Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, section 4.3). Definition shared by all backends:
//   key      = (low, high) 32-bit word of the integer seed (two's complement)
//   counter  = (block, step, stream, 0); element i of a kernel uses word i % 4 of block i / 4 (modulo 2^32)
//   uniform  = (word >> 8) · 2^-24, in [0, 1)
//   dropout    keeps element i when the uniform of element first + i is >= p and multiplies it by 1 / (1 - p)
//   normal     elements i (even) and i + 1 from u1 = ((word_i >> 8) + 1) · 2^-24 and angle = 2π · uniform(word_{i+1}):
//              mean + std · sqrt(-2 ln u1) · cos(angle), ... · sin(angle), in double, then rounded to f32
//   sample     uses word 0 of block 0

// Words made together.
static const int PHILOX_WORDS = 64;

static inline void philox_blocks(uint32_t first, uint32_t step, uint32_t stream, uint64_t seed, uint32_t* words) {
  for (int block = 0; block < PHILOX_WORDS / 4; block += PHILOX_GROUP) philox_group(first + static_cast<uint32_t>(block), step, stream, seed, words + 4 * block);
}

// body(first element, words, count) over [0, n), 64 elements at a time.
template <class F>
static inline void par_random(Pool* pool, int64_t n, int64_t seed, int64_t stream, int64_t step, F&& body) {
  static_assert(GRAIN % PHILOX_WORDS == 0, "tasks begin at whole groups of blocks");
  par_pieces(pool, n, GRAIN, n <= GRAIN / 2, [=](int64_t from, int64_t to, int, int) {
    alignas(64) uint32_t words[PHILOX_WORDS];
    for (int64_t i = from; i < to; i += PHILOX_WORDS) {
      philox_blocks(static_cast<uint32_t>(i / 4), static_cast<uint32_t>(step), static_cast<uint32_t>(stream), static_cast<uint64_t>(seed), words);
      body(i, words, static_cast<int>(min_i(PHILOX_WORDS, to - i)));
    }
  });
}

static void dropout(Pool* pool, float* out, const float* x, double p, int64_t n, int64_t seed, int64_t stream, int64_t step, int64_t first) {
  // uniform >= p exactly when its 24-bit integer is >= ceil(p · 2^24).
  const uint32_t limit = static_cast<uint32_t>(ceil(p * 16777216.0));
  const double factor = 1.0 / (1.0 - p);
  const uint32_t block = static_cast<uint32_t>(first / 4);
  const int shift = static_cast<int>(first % 4);
  par_pieces(pool, n, GRAIN, n <= GRAIN / 2, [=](int64_t from, int64_t to, int, int) {
    // Where `first` lies inside a block, the last words of a piece are those of one block more.
    alignas(64) uint32_t words[2 * PHILOX_WORDS];
    for (int64_t at = from; at < to; at += PHILOX_WORDS) {
      const uint32_t b = block + static_cast<uint32_t>(at / 4);
      philox_blocks(b, static_cast<uint32_t>(step), static_cast<uint32_t>(stream), static_cast<uint64_t>(seed), words);
      if (shift > 0)
        philox_blocks(b + PHILOX_WORDS / 4, static_cast<uint32_t>(step), static_cast<uint32_t>(stream), static_cast<uint64_t>(seed), words + PHILOX_WORDS);
      const uint32_t* w = words + shift;
      const float* xs = x + at;
      float* o = out + at;
      const int count = static_cast<int>(min_i(PHILOX_WORDS, to - at));
      for (int i = 0; i < count; i++) {
        const float kept = static_cast<float>(static_cast<double>(xs[i]) * factor);
        o[i] = (w[i] >> 8) >= limit ? kept : 0.0f;
      }
    }
  });
}

static void randomUniform(Pool* pool, float* out, double low, double high, int64_t n, int64_t seed, int64_t stream) {
  // The largest float below `high`: rounding must not reach the open end.
  float top = static_cast<float>(high);
  if (!(static_cast<double>(top) < high)) {
    uint32_t u;
    memcpy(&u, &top, 4);
    if (top == 0) u = 0x80000001u;
    else u = top > 0 ? u - 1 : u + 1;
    memcpy(&top, &u, 4);
  }
  const double range = high - low;
  const bool open = low < high;
  par_random(pool, n, seed, stream, 0, [=](int64_t at, const uint32_t* words, int count) {
    for (int i = 0; i < count; i++) {
      const float v = static_cast<float>(low + range * (static_cast<double>(words[i] >> 8) * 0x1p-24));
      out[at + i] = open && static_cast<double>(v) >= high ? top : v;
    }
  });
}

static void randomNormal(Pool* pool, float* out, double mean, double std, int64_t n, int64_t seed, int64_t stream) {
  par_random(pool, n, seed, stream, 0, [=](int64_t at, const uint32_t* words, int count) {
    for (int i = 0; i < count; i += 2) {
      const double u1 = static_cast<double>((words[i] >> 8) + 1) * 0x1p-24;
      const double angle = 2.0 * 3.14159265358979323846 * (static_cast<double>(words[i + 1] >> 8) * 0x1p-24);
      const double radius = sqrt(-2.0 * log(u1));
      out[at + i] = static_cast<float>(mean + std * radius * cos(angle));
      if (i + 1 < count) out[at + i + 1] = static_cast<float>(mean + std * radius * sin(angle));
    }
  });
}

static void random_fill(KernelTable& t) {
  t.dropout = dropout;
  t.randomUniform = randomUniform;
  t.randomNormal = randomNormal;
}
