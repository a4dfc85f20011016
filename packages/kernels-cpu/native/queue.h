// The in-order queue of one backend: commands pushed by the JavaScript thread, run by one thread of the queue's own with the pool.
#ifndef SLOTH_QUEUE_H
#define SLOTH_QUEUE_H

#include <stdint.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "pool_impl.h"

namespace sloth {

struct Queue;
struct Command;
typedef void (*CommandRun)(Queue* queue, Command* command);

// Fixed size: the longest kernel (linearGroup) has 30 arguments.
struct Command {
  CommandRun run;
  void (*kernel)();
  const char* name;
  uint64_t args[30];
};

struct Queue {
  // One chunk of commands; chunks form a list that grows when the consumer is behind, so that enqueueing never blocks the JavaScript thread.
  static constexpr uint32_t CHUNK = 256;
  struct Chunk {
    Command commands[CHUNK];
    std::atomic<Chunk*> next{nullptr};
  };

  Pool* pool = nullptr;
  std::thread thread;

  // Producer side.
  Chunk* tailChunk = nullptr;
  uint32_t tailIndex = 0;
  uint64_t issued = 0;

  // Shared. `published` counts commands ready to run, `completed` those that have run.
  alignas(64) std::atomic<uint64_t> published{0};
  alignas(64) std::atomic<uint64_t> completed{0};
  std::atomic<bool> sleeping{false};
  std::atomic<bool> stop{false};     // ends the thread; commands not begun are dropped
  std::atomic<Chunk*> spare{nullptr};  // a used chunk for the producer to take again
  std::mutex mutex;
  std::condition_variable wake;

  // Consumer side.
  Chunk* headChunk = nullptr;
  uint32_t headIndex = 0;

  // The next command to fill in; queue_push makes it visible.
  Command* slot() { return &tailChunk->commands[tailIndex]; }
  bool idle() const { return completed.load(std::memory_order_acquire) == issued; }
};

// nullptr when threads cannot be started. `cpus`: see pool_create.
Queue* queue_create(int threads, const char* cpus = "");
void queue_push(Queue* queue);
// Runs one command on the queue thread; what it throws becomes the queue's error.
void queue_run(Queue* queue, Command* command);
// Ends the running command, drops those after it and joins all threads. Commands not run stay readable by queue_for_each_pending.
void queue_stop(Queue* queue);
// Calls visit on each command that was pushed and never run. Only after queue_stop.
void queue_for_each_pending(Queue* queue, void (*visit)(void* ctx, Command* command), void* ctx);
void queue_destroy(Queue* queue);

}  // namespace sloth

#endif
