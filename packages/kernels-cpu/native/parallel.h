// Cutting work into tasks. The cut depends on the shape alone, never on the number of threads.
// Included inside an ISA namespace (isa.inc.h).

// Elements of one task of a memory-bound kernel: 64 KiB of f32, about 5 µs.
static const int64_t GRAIN = 16384;
// Below this many elements waking another thread costs more than it saves.
static const int64_t SERIAL_LIMIT = 32768;

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t min_i(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i(int64_t a, int64_t b) { return a > b ? a : b; }

// body(begin, end, task, worker) over [0, n) in pieces of `grain`; `serial` true keeps it on this thread, with the same pieces.
template <class F>
static inline void par_pieces(Pool* pool, int64_t n, int64_t grain, bool serial, F&& body) {
  const int64_t tasks = ceil_div(n, grain);
  if (serial || tasks <= 1) {
    for (int64_t t = 0; t < tasks; t++) body(t * grain, min_i(n, (t + 1) * grain), static_cast<int>(t), 0);
    return;
  }
  pool_for(pool, static_cast<int>(tasks), [&](int task, int worker) { body(task * grain, min_i(n, (task + 1) * grain), task, worker); });
}

// Over elements of a memory-bound kernel.
template <class F>
static inline void par_elements(Pool* pool, int64_t n, F&& body) {
  par_pieces(pool, n, GRAIN, n <= SERIAL_LIMIT, [&](int64_t b, int64_t e, int, int) { body(b, e); });
}

// Over rows of `cols` elements: body(firstRow, endRow, task, worker); a task has about GRAIN elements.
static inline int64_t row_grain(int64_t cols) { return max_i(1, GRAIN / max_i(1, cols)); }
template <class F>
static inline void par_rows(Pool* pool, int64_t rows, int64_t cols, F&& body) {
  par_pieces(pool, rows, row_grain(cols), rows * max_i(1, cols) <= SERIAL_LIMIT, body);
}
