#include "queue.h"

#include <chrono>
#include <new>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sloth {

namespace {

constexpr int64_t SPIN_NANOSECONDS = 30000;

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

// Waits for command number `done` to be published; false when the queue stops.
bool wait_for_work(Queue* q, uint64_t done) {
  const auto ready = [&] { return q->published.load(std::memory_order_seq_cst) > done || q->stop.load(std::memory_order_relaxed); };
  if (!ready()) {
    const int64_t end = now_ns() + SPIN_NANOSECONDS;
    bool found = false;
    while (!found && now_ns() < end) {
      for (int i = 0; i < 32 && !found; i++) {
        found = q->published.load(std::memory_order_acquire) > done || q->stop.load(std::memory_order_relaxed);
        cpu_relax();
      }
    }
    if (!found) {
      std::unique_lock<std::mutex> lock(q->mutex);
      // Said anew after every wake: a call for a command that this thread had seen by itself comes late, and has taken `sleeping` back.
      for (;;) {
        q->sleeping.store(true, std::memory_order_seq_cst);
        if (ready()) break;
        q->wake.wait(lock);
      }
      q->sleeping.store(false, std::memory_order_relaxed);
    }
  }
  return !q->stop.load(std::memory_order_relaxed);
}

void queue_main(Queue* q) {
  pool_enter_thread();
  pool_place_thread(q->pool);
  uint64_t done = 0;
  while (wait_for_work(q, done)) {
    const uint64_t until = q->published.load(std::memory_order_acquire);
    while (done < until && !q->stop.load(std::memory_order_relaxed)) {
      if (q->headIndex == Queue::CHUNK) {
        Queue::Chunk* used = q->headChunk;
        q->headChunk = used->next.load(std::memory_order_acquire);
        q->headIndex = 0;
        used->next.store(nullptr, std::memory_order_relaxed);
        delete q->spare.exchange(used, std::memory_order_acq_rel);
      }
      Command* command = &q->headChunk->commands[q->headIndex];
      queue_run(q, command);
      q->headIndex++;
      done++;
      q->completed.store(done, std::memory_order_release);
    }
  }
}

}  // namespace

void queue_run(Queue* q, Command* command) {
  try {
    command->run(q, command);
  } catch (const ScratchExhausted& e) {
    pool_fail(q->pool, command->name, "not enough memory for the kernel's scratch space", 0, e.bytes);
  } catch (const std::bad_alloc&) {
    pool_fail(q->pool, command->name, "not enough memory", 0, 0);
  }
}

Queue* queue_create(int threads, const char* cpus) {
  Queue* q = new (std::nothrow) Queue();
  if (q == nullptr) return nullptr;
  q->pool = pool_create(threads, cpus);
  q->headChunk = q->tailChunk = new (std::nothrow) Queue::Chunk();
  if (q->pool == nullptr || q->headChunk == nullptr) {
    queue_destroy(q);
    return nullptr;
  }
  try {
    q->thread = std::thread(queue_main, q);
  } catch (const std::system_error&) {
    queue_destroy(q);
    return nullptr;
  }
  return q;
}

void queue_push(Queue* q) {
  q->issued++;
  q->tailIndex++;
  if (q->tailIndex == Queue::CHUNK) {
    Queue::Chunk* chunk = q->spare.exchange(nullptr, std::memory_order_acq_rel);
    if (chunk == nullptr) chunk = new Queue::Chunk();
    q->tailChunk->next.store(chunk, std::memory_order_release);
    q->tailChunk = chunk;
    q->tailIndex = 0;
  }
  q->published.store(q->issued, std::memory_order_seq_cst);
  // Taken back at once: until the queue's thread gets a core, further commands would each wake it again.
  if (q->sleeping.load(std::memory_order_seq_cst) && q->sleeping.exchange(false, std::memory_order_seq_cst)) {
    { std::lock_guard<std::mutex> lock(q->mutex); }
    q->wake.notify_one();
  }
}

void queue_stop(Queue* q) {
  {
    std::lock_guard<std::mutex> lock(q->mutex);
    q->stop.store(true, std::memory_order_seq_cst);
  }
  q->wake.notify_one();
  if (q->thread.joinable()) q->thread.join();
  pool_destroy(q->pool);
  q->pool = nullptr;
}

void queue_for_each_pending(Queue* q, void (*visit)(void*, Command*), void* ctx) {
  for (uint64_t at = q->completed.load(); at < q->issued; at++) {
    if (q->headIndex == Queue::CHUNK) {
      Queue::Chunk* used = q->headChunk;
      q->headChunk = used->next.load();
      q->headIndex = 0;
      delete used;
    }
    visit(ctx, &q->headChunk->commands[q->headIndex++]);
  }
}

void queue_destroy(Queue* q) {
  if (q == nullptr) return;
  if (q->pool != nullptr) pool_destroy(q->pool);
  for (Queue::Chunk* c = q->headChunk; c != nullptr;) {
    Queue::Chunk* next = c->next.load();
    delete c;
    c = next;
  }
  delete q->spare.load();
  delete q;
}

}  // namespace sloth
