// Included inside an ISA namespace.

// A bump allocator over one worker's scratch.
struct Carver {
  char* at;
  SLOTH_INLINE int64_t bytes(int64_t floats) { return (floats * 4 + 63) / 64 * 64 + 64; }
  SLOTH_INLINE float* take(Carver& c, int64_t floats) {
    float* p = reinterpret_cast<float*>(c.at);
    c.at += bytes(floats);
    return p;
  }
};
