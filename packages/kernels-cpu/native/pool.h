// The thread pool that every kernel runs on.
//
// One pool belongs to one backend queue. `pool_run` may be called only from the queue thread (which works too, as worker 0) and never from inside a task.
// Every worker begins with neighbouring tasks of its own and then takes from the ends of the others', one at a time: memory is read in stretches, and a worker
// that the system has put aside does not hold back the tasks it has not begun.
// Which worker runs which task is not fixed: for results that do not depend on the number of threads, a kernel cuts its work into tasks by shape alone
// and combines partial results in task order.
#ifndef SLOTH_POOL_H
#define SLOTH_POOL_H

#include <stddef.h>
#include <stdint.h>

namespace sloth {

struct Pool;

typedef void (*PoolTask)(void* ctx, int task, int worker);

// Number of workers, the queue thread included (at least 1).
int pool_threads(Pool* pool);

// Runs fn(ctx, 0 .. tasks-1, worker) and returns when all are done. worker is in [0, pool_threads). All memory written before the call is visible to the
// tasks, and all memory written by the tasks is visible after it. tasks <= 0 does nothing; one task runs on the caller at once.
void pool_run(Pool* pool, int tasks, PoolTask fn, void* ctx);

// Scratch memory of one worker: 64-byte aligned, at least `bytes`, contents undefined, kept until the pool ends (a larger request replaces it).
// Only the task running on that worker may ask for it. A kernel asks once a task; a second call may move it.
void* pool_scratch(Pool* pool, int worker, size_t bytes);

// Scratch shared by all tasks of a kernel: slots 0..7, same rules; ask on the queue thread before pool_run.
void* pool_shared(Pool* pool, int slot, size_t bytes);

// Records that a kernel met data it cannot use (an index out of range, ...). The first message is kept and rejects the next read or synchronize with code
// SLOTH_KERNEL_DATA. May be called from any task; the kernel goes on without touching memory out of bounds. `index` and `value` go into the error's fields.
void pool_fail(Pool* pool, const char* kernel, const char* message, int64_t index, int64_t value);

// C++ convenience: pool_for(pool, tasks, [&](int task, int worker) { ... }); the lambda stays on the caller's stack.
// Static, so that no copy compiled for one instruction set is merged with another's.
template <class F>
static inline void pool_for(Pool* pool, int tasks, F&& body) {
  struct Thunk {
    static void call(void* ctx, int task, int worker) { (*static_cast<F*>(ctx))(task, worker); }
  };
  pool_run(pool, tasks, &Thunk::call, const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace sloth

#endif
