#include "pool_impl.h"

#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sloth {

namespace {

// Long enough to catch the next kernel of a running step, short enough not to take the JavaScript thread's core.
constexpr int64_t SPIN_NANOSECONDS = 20000;

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Spins until ready() or the time is over; the clock is read only now and then.
template <class F>
inline bool spin_until(F&& ready) {
  if (ready()) return true;
  const int64_t end = now_ns() + SPIN_NANOSECONDS;
  for (;;) {
    for (int i = 0; i < 32; i++) {
      if (ready()) return true;
      cpu_relax();
    }
    if (now_ns() >= end) return ready();
  }
}

struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
  void* get(size_t want, std::atomic<int64_t>& total) {
    if (want <= bytes) return data;
    // Growing by at least a quarter keeps a slowly rising sequence of sizes from reallocating each time.
    size_t size = bytes + bytes / 4;
    if (size < want) size = want;
    size = (size + 4095) & ~static_cast<size_t>(4095);
    free(data);
    total -= static_cast<int64_t>(bytes);
    data = nullptr;
    bytes = 0;
    void* fresh = nullptr;
    if (posix_memalign(&fresh, 64, size) != 0) return nullptr;
    data = fresh;
    bytes = size;
    total += static_cast<int64_t>(size);
    return data;
  }
  void drop(std::atomic<int64_t>& total) {
    total -= static_cast<int64_t>(bytes);
    free(data);
    data = nullptr;
    bytes = 0;
  }
};

}  // namespace

struct Pool {
  int threads = 1;
  std::vector<int> cpus;
  std::vector<std::thread> workers;
  std::vector<Scratch> scratch;  // one a worker
  Scratch shared[8];
  std::atomic<int64_t> scratchBytes{0};

  // The job. Every worker has a range of neighbouring tasks, so that what it reads lies behind one another; who has finished takes from the ends of the others'
  // ranges. A range is (epoch << 40 | next << 20 | end) in claims of `unit` tasks, and a claim is a compare-and-swap on all of it. A finished job has empty
  // ranges, so a worker that comes late claims nothing while the next job is being written, and a successful claim keeps its job alive, so what it reads
  // afterwards belongs to that job.
  struct alignas(64) Range {
    std::atomic<uint64_t> word{0};
  };
  std::vector<Range> ranges;
  alignas(64) std::atomic<uint32_t> published{0};  // epoch of the newest job
  alignas(64) std::atomic<int> finished{0};        // tasks
  alignas(64) std::atomic<int> tasks{0};
  std::atomic<int> unit{1};
  std::atomic<PoolTask> fn{nullptr};
  std::atomic<void*> ctx{nullptr};
  uint32_t epoch = 0;

  std::atomic<int> sleepers{0};
  std::atomic<bool> callerSleeps{false};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;

  std::mutex errorMutex;
  PoolError error{};
};

namespace {

constexpr int RANGE_BITS = 20;
constexpr uint64_t RANGE_MASK = (1u << RANGE_BITS) - 1;
constexpr uint32_t EPOCH_MASK = (1u << 24) - 1;

inline uint64_t range_word(uint32_t epoch, uint64_t next, uint64_t end) {
  return static_cast<uint64_t>(epoch & EPOCH_MASK) << (2 * RANGE_BITS) | next << RANGE_BITS | end;
}

// Claims from one range, in front when it is the worker's own and else behind; -1 when the epoch has nothing left there.
inline int64_t claim(std::atomic<uint64_t>& range, uint32_t epoch, bool own) {
  uint64_t seen = range.load(std::memory_order_acquire);
  for (;;) {
    const uint64_t next = seen >> RANGE_BITS & RANGE_MASK, end = seen & RANGE_MASK;
    if (seen >> (2 * RANGE_BITS) != (epoch & EPOCH_MASK) || next >= end) return -1;
    const uint64_t after = own ? seen + (uint64_t{1} << RANGE_BITS) : seen - 1;
    if (range.compare_exchange_weak(seen, after, std::memory_order_acq_rel, std::memory_order_acquire)) return static_cast<int64_t>(own ? next : end - 1);
  }
}

// Claims and runs tasks of one epoch until none is left. Returns when the epoch has no unclaimed task.
void work(Pool* pool, uint32_t epoch, int worker) {
  int done = 0, tasks = 0;
  for (int i = 0; i < pool->threads; i++) {
    const int victim = (worker + i) % pool->threads;
    for (;;) {
      const int64_t claimed = claim(pool->ranges[static_cast<size_t>(victim)].word, epoch, i == 0);
      if (claimed < 0) break;
      tasks = pool->tasks.load(std::memory_order_relaxed);
      const int unit = pool->unit.load(std::memory_order_relaxed);
      const PoolTask fn = pool->fn.load(std::memory_order_relaxed);
      void* const ctx = pool->ctx.load(std::memory_order_relaxed);
      const int64_t from = claimed * unit, to = from + unit < tasks ? from + unit : tasks;
      for (int64_t task = from; task < to; task++) {
        try {
          fn(ctx, static_cast<int>(task), worker);
        } catch (const ScratchExhausted& e) {
          pool_fail(pool, "scratch", "not enough memory for a kernel's scratch space", 0, e.bytes);
        }
        done++;
      }
    }
  }
  // Counted once: until now the job could not end, because these tasks were missing.
  if (done > 0 && pool->finished.fetch_add(done, std::memory_order_seq_cst) + done == tasks && worker != 0 &&
      pool->callerSleeps.load(std::memory_order_seq_cst)) {
    std::lock_guard<std::mutex> lock(pool->mutex);
    pool->done.notify_one();
  }
}

void worker_main(Pool* pool, int worker) {
  pool_enter_thread();
  pool_place_thread(pool);
  uint32_t last = 0;
  for (;;) {
    const auto fresh = [&] {
      return pool->published.load(std::memory_order_acquire) != last || pool->stop.load(std::memory_order_relaxed);
    };
    if (!spin_until(fresh)) {
      std::unique_lock<std::mutex> lock(pool->mutex);
      pool->sleepers.fetch_add(1, std::memory_order_seq_cst);
      pool->wake.wait(lock, [&] {
        return pool->published.load(std::memory_order_seq_cst) != last || pool->stop.load(std::memory_order_relaxed);
      });
      pool->sleepers.fetch_sub(1, std::memory_order_seq_cst);
    }
    if (pool->stop.load(std::memory_order_relaxed)) return;
    last = pool->published.load(std::memory_order_acquire);
    work(pool, last, worker);
  }
}

}  // namespace

void pool_enter_thread() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040u);  // FTZ (bit 15) and DAZ (bit 6)
#elif defined(__aarch64__)
  uint64_t fpcr;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(fpcr));
  fpcr |= (1ull << 24);  // FZ
  __asm__ __volatile__("msr fpcr, %0" ::"r"(fpcr));
#endif
}

void pool_place_thread(Pool* pool) {
#if defined(__linux__)
  if (pool->cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : pool->cpus) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  }
  sched_setaffinity(0, sizeof(set), &set);
#else
  (void)pool;
#endif
}

Pool* pool_create(int threads, const char* cpus) {
  Pool* pool = new (std::nothrow) Pool();
  if (pool == nullptr) return nullptr;
  for (const char* at = cpus; *at != 0;) {
    char* end;
    const long cpu = strtol(at, &end, 10);
    if (end == at) break;
    pool->cpus.push_back(static_cast<int>(cpu));
    at = *end == ',' ? end + 1 : end;
  }
  pool->threads = threads < 1 ? 1 : threads;
  pool->scratch.resize(static_cast<size_t>(pool->threads));
  pool->ranges = std::vector<Pool::Range>(static_cast<size_t>(pool->threads));
  for (int i = 1; i < pool->threads; i++) {
    try {
      pool->workers.emplace_back(worker_main, pool, i);
    } catch (const std::system_error&) {
      pool->threads = i;  // the system grants no more threads: go on with those there are
      break;
    }
  }
  return pool;
}

void pool_destroy(Pool* pool) {
  if (pool == nullptr) return;
  {
    std::lock_guard<std::mutex> lock(pool->mutex);
    pool->stop.store(true, std::memory_order_seq_cst);
  }
  pool->wake.notify_all();
  for (std::thread& t : pool->workers) t.join();
  pool_trim(pool);
  delete pool;
}

int pool_threads(Pool* pool) { return pool->threads; }

void pool_run(Pool* pool, int tasks, PoolTask fn, void* ctx) {
  if (tasks <= 0) return;
  if (tasks == 1 || pool->threads == 1) {
    for (int i = 0; i < tasks; i++) fn(ctx, i, 0);
    return;
  }
  pool->fn.store(fn, std::memory_order_relaxed);
  pool->ctx.store(ctx, std::memory_order_relaxed);
  pool->tasks.store(tasks, std::memory_order_relaxed);
  pool->finished.store(0, std::memory_order_relaxed);
  const int unit = static_cast<int>(static_cast<int64_t>(tasks) >> RANGE_BITS) + 1;
  pool->unit.store(unit, std::memory_order_relaxed);
  const int64_t claims = (static_cast<int64_t>(tasks) + unit - 1) / unit;
  const uint32_t epoch = ++pool->epoch;
  for (int i = 0; i < pool->threads; i++) {
    const uint64_t next = static_cast<uint64_t>(claims * i / pool->threads), end = static_cast<uint64_t>(claims * (i + 1) / pool->threads);
    pool->ranges[static_cast<size_t>(i)].word.store(range_word(epoch, next, end), std::memory_order_release);
  }
  pool->published.store(epoch, std::memory_order_seq_cst);
  if (pool->sleepers.load(std::memory_order_seq_cst) > 0) {
    // Taking the lock orders this with a worker between its last look at the epoch and its wait.
    { std::lock_guard<std::mutex> lock(pool->mutex); }
    if (tasks > 2) pool->wake.notify_all();
    else pool->wake.notify_one();
  }
  work(pool, epoch, 0);
  const auto complete = [&] { return pool->finished.load(std::memory_order_acquire) >= tasks; };
  if (!spin_until(complete)) {
    std::unique_lock<std::mutex> lock(pool->mutex);
    pool->callerSleeps.store(true, std::memory_order_seq_cst);
    pool->done.wait(lock, [&] { return pool->finished.load(std::memory_order_seq_cst) >= tasks; });
    pool->callerSleeps.store(false, std::memory_order_relaxed);
  }
}

void* pool_scratch(Pool* pool, int worker, size_t bytes) {
  void* data = pool->scratch[static_cast<size_t>(worker)].get(bytes, pool->scratchBytes);
  if (data == nullptr) throw ScratchExhausted{static_cast<int64_t>(bytes)};
  return data;
}

void* pool_shared(Pool* pool, int slot, size_t bytes) {
  void* data = pool->shared[slot & 7].get(bytes, pool->scratchBytes);
  if (data == nullptr) throw ScratchExhausted{static_cast<int64_t>(bytes)};
  return data;
}

void pool_fail(Pool* pool, const char* kernel, const char* message, int64_t index, int64_t value) {
  std::lock_guard<std::mutex> lock(pool->errorMutex);
  // The error with the smallest index is kept among those of one kernel, so that the message does not depend on which task came first.
  if (pool->error.set && (strncmp(pool->error.kernel, kernel, sizeof(pool->error.kernel) - 1) != 0 || pool->error.index <= index)) return;
  pool->error.set = true;
  strncpy(pool->error.kernel, kernel, sizeof(pool->error.kernel) - 1);
  strncpy(pool->error.message, message, sizeof(pool->error.message) - 1);
  pool->error.index = index;
  pool->error.value = value;
}

PoolError pool_take_error(Pool* pool) {
  std::lock_guard<std::mutex> lock(pool->errorMutex);
  PoolError e = pool->error;
  pool->error = PoolError{};
  return e;
}

void pool_trim(Pool* pool) {
  for (Scratch& s : pool->scratch) s.drop(pool->scratchBytes);
  for (Scratch& s : pool->shared) s.drop(pool->scratchBytes);
}

int64_t pool_scratch_bytes(Pool* pool) { return pool->scratchBytes.load(); }

}  // namespace sloth
