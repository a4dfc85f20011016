// What the queue needs of the pool beyond pool.h.
#ifndef SLOTH_POOL_IMPL_H
#define SLOTH_POOL_IMPL_H

#include "pool.h"

namespace sloth {

// First error that kernels reported since it was last taken.
struct PoolError {
  bool set;
  char kernel[48];
  char message[160];
  int64_t index;
  int64_t value;
};

// Thrown by pool_scratch and pool_shared when the system gives no memory; caught around every task and around every queue command, where it becomes an error
// of the queue.
struct ScratchExhausted {
  int64_t bytes;
};

// `threads` counts the queue thread; threads - 1 are started. Returns nullptr if a thread cannot be started. `cpus` are the processors that they may run on, as numbers between
// commas; "" leaves that to the system, as does a system that knows of no such thing.
Pool* pool_create(int threads, const char* cpus = "");

// Restricts the calling thread to the pool's processors. A wish: where the system refuses, the thread runs anywhere.
void pool_place_thread(Pool* pool);
void pool_destroy(Pool* pool);

// Sets flush-to-zero and denormals-are-zero for the calling thread: a product of denormals is up to 40 times slower, and the values carry no meaning here.
void pool_enter_thread();

// Moves the recorded error out.
PoolError pool_take_error(Pool* pool);

// Gives scratch memory back. Queue thread only, between kernels.
void pool_trim(Pool* pool);

// Bytes of scratch memory held.
int64_t pool_scratch_bytes(Pool* pool);

}  // namespace sloth

#endif
