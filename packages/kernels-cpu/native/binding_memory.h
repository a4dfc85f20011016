// Part of binding.cpp: commands that are not kernels, promises, and the memory functions.
#ifndef SLOTH_BINDING_MEMORY_H
#define SLOTH_BINDING_MEMORY_H

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "binding_kernels.h"

namespace sloth {
namespace {

void run_write(Queue*, Command* c) {
  char* staging = reinterpret_cast<char*>(c->args[1]);
  memcpy(reinterpret_cast<char*>(c->args[0]), staging, c->args[2]);
  ::free(staging);
}

// Up to 224 bytes travel inside the command.
void run_write_inline(Queue*, Command* c) { memcpy(reinterpret_cast<char*>(c->args[0]), &c->args[2], c->args[1]); }

void run_program_commands(Queue* q, Command* c) {
  for (Command& command : reinterpret_cast<Program*>(c->args[0])->commands) {
    if (q->stop.load(std::memory_order_relaxed)) return;
    queue_run(q, &command);
  }
}

void run_drop_program(Queue*, Command* c) { delete reinterpret_cast<Program*>(c->args[0]); }

void run_poison(Queue*, Command* c) { memset(reinterpret_cast<char*>(c->args[0]), 0xff, c->args[1]); }

void run_release(Queue*, Command* c) {
  void* base = reinterpret_cast<void*>(c->args[0]);
  if (c->args[2]) {
    munmap(base, c->args[1]);
    return;
  }
  // Whole pages inside the range.
  const uintptr_t page = 4096;
  const uintptr_t from = (c->args[0] + page - 1) / page * page;
  const uintptr_t to = (c->args[0] + c->args[1]) / page * page;
  if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

void run_trim(Queue* q, Command*) { pool_trim(q->pool); }

void run_request(Queue* q, Command* c) {
  Request* r = reinterpret_cast<Request*>(c->args[0]);
  if (r->bytes > 0) memcpy(r->target, r->source, static_cast<size_t>(r->bytes));
  r->error = pool_take_error(q->pool);
  r->posted = true;
  napi_call_threadsafe_function(r->backend->completed, r, napi_tsfn_nonblocking);
}

void push(Backend* b, CommandRun run, const char* name, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0) {
  Command* c = b->queue->slot();
  c->run = run;
  c->name = name;
  c->args[0] = a0;
  c->args[1] = a1;
  c->args[2] = a2;
  queue_push(b->queue);
}

// Fills freed memory with NaN when its turn comes; while recording, each time the recorded calls come to that point.
void poison(Backend* b, const Release& freed) {
  Command* c = next_command(b);
  c->run = run_poison;
  c->name = "poison";
  c->args[0] = reinterpret_cast<uint64_t>(freed.base);
  c->args[1] = freed.bytes;
  enqueue(b);
}

void unlink(Backend* b, Request* r) {
  if (r->previous != nullptr) r->previous->next = r->next;
  else b->pending = r->next;
  if (r->next != nullptr) r->next->previous = r->previous;
  b->pendingCount--;
}

void reject(Backend* b, napi_deferred deferred, const PoolError& e) {
  if (strcmp(e.kernel, "scratch") == 0) {
    napi_reject_deferred(b->env, deferred,
                         make_error(b, "SLOTH_SCRATCH_DISK", std::string("A scratch file failed: ") + e.message + ".",
                                    {field("offset", static_cast<double>(e.index)), field("bytes", static_cast<double>(e.value))}));
    return;
  }
  const std::string message = std::string("Kernel ") + e.kernel + ": " + e.message + " (index " + std::to_string(e.index) + ", value " + std::to_string(e.value) + ").";
  napi_value error = make_error(b, "SLOTH_KERNEL_DATA", message,
                                {field("kernel", e.kernel), field("index", static_cast<double>(e.index)), field("value", static_cast<double>(e.value))});
  napi_reject_deferred(b->env, deferred, error);
}

void resolve(Backend* b, napi_deferred deferred, napi_value arrayBuffer, int64_t bytes) {
  napi_value value;
  if (arrayBuffer == nullptr) napi_get_undefined(b->env, &value);
  else napi_create_typedarray(b->env, napi_uint8_array, static_cast<size_t>(bytes), arrayBuffer, 0, &value);
  napi_resolve_deferred(b->env, deferred, value);
}

// Runs on the JavaScript thread when the queue has finished a request.
void on_completed(napi_env env, napi_value, void*, void* data) {
  Request* r = static_cast<Request*>(data);
  Backend* b = r->backend;
  if (env == nullptr) return;  // the environment is going away
  if (b->queue == nullptr) {   // closed meanwhile: close has rejected it
    delete r;
    return;
  }
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  unlink(b, r);
  if (b->pendingCount == 0) napi_unref_threadsafe_function(env, b->completed);
  napi_value arrayBuffer = nullptr;
  if (r->buffer != nullptr) {
    napi_get_reference_value(env, r->buffer, &arrayBuffer);
    napi_delete_reference(env, r->buffer);
  }
  if (r->error.set) reject(b, r->deferred, r->error);
  else resolve(b, r->deferred, arrayBuffer, r->bytes);
  delete r;
  napi_close_handle_scope(env, scope);
}

// A promise for everything enqueued so far; with bytes >= 0 also a copy of a buffer's bytes.
napi_value request(Backend* b, const char* source, int64_t bytes) {
  napi_env env = b->env;
  napi_value promise, arrayBuffer = nullptr;
  napi_deferred deferred;
  void* target = nullptr;
  if (bytes >= 0 && napi_create_arraybuffer(env, static_cast<size_t>(bytes), &target, &arrayBuffer) != napi_ok) {
    bool pendingException = false;
    napi_is_exception_pending(env, &pendingException);
    napi_value ignored;
    if (pendingException) napi_get_and_clear_last_exception(env, &ignored);
    throw_error(b, "SLOTH_MEMORY_EXHAUSTED", "There is no host memory for the bytes to be read.", {field("bytes", static_cast<double>(bytes))});
    return nullptr;
  }
  napi_create_promise(env, &deferred, &promise);
  if (b->queue->idle()) {
    // Nothing is running, so the answer is already there.
    if (bytes > 0) memcpy(target, source, static_cast<size_t>(bytes));
    const PoolError e = pool_take_error(b->queue->pool);
    if (e.set) reject(b, deferred, e);
    else resolve(b, deferred, arrayBuffer, bytes);
    return promise;
  }
  Request* r = new Request{b, deferred, nullptr, source, static_cast<char*>(target), bytes < 0 ? 0 : bytes, PoolError{}, false, nullptr, b->pending};
  if (arrayBuffer != nullptr) napi_create_reference(env, arrayBuffer, 1, &r->buffer);
  if (b->pending != nullptr) b->pending->previous = r;
  b->pending = r;
  // Only a pending request keeps the process alive.
  if (b->pendingCount++ == 0) napi_ref_threadsafe_function(env, b->completed);
  push(b, run_request, bytes < 0 ? "synchronize" : "read", reinterpret_cast<uint64_t>(r));
  return promise;
}

struct Call {
  Backend* b;
  size_t argc = 4;
  napi_value values[4];
  Call(napi_env env, napi_callback_info info) {
    void* data;
    napi_get_cb_info(env, info, &argc, values, nullptr, &data);
    b = static_cast<Backend*>(data);
  }
  double number(size_t i, double otherwise = NAN) const {
    double d;
    return i < argc && napi_get_value_double(b->env, values[i], &d) == napi_ok ? d : otherwise;
  }
  // A non-negative integer argument, or -1 after throwing.
  int64_t count(size_t i, const char* where, const char* name, double otherwise = NAN) const {
    const double d = number(i, otherwise);
    if (d >= 0 && d <= 9007199254740991.0 && d == floor(d)) return static_cast<int64_t>(d);
    throw_error(b, "SLOTH_KERNEL_ARGUMENT", std::string(where) + ": " + name + " must be a non-negative integer.", {field("operation", where), field("argument", name)});
    return -1;
  }
};

napi_value throw_status(Backend* b, MemoryStatus status, const char* where, double handle, int64_t bytes) {
  switch (status) {
    case MemoryStatus::Budget:
      throw_error(b, "SLOTH_MEMORY_BUDGET", "A buffer of " + std::to_string(bytes) + " bytes would go over the memory budget.",
                  {field("bytes", static_cast<double>(bytes)), field("liveBytes", static_cast<double>(b->memory->liveBytes)),
                   field("budgetBytes", static_cast<double>(b->memory->budget))});
      break;
    case MemoryStatus::Exhausted:
      throw_error(b, "SLOTH_MEMORY_EXHAUSTED", "The system has no memory for a buffer of " + std::to_string(bytes) + " bytes.",
                  {field("bytes", static_cast<double>(bytes)), field("liveBytes", static_cast<double>(b->memory->liveBytes))});
      break;
    case MemoryStatus::TooMany:
      throw_error(b, "SLOTH_MEMORY_EXHAUSTED", "There are too many live buffers.", {field("liveBuffers", static_cast<double>(b->memory->liveBuffers))});
      break;
    case MemoryStatus::Freed:
      throw_freed(b, where, "the handle", handle);
      break;
    default:
      throw_error(b, "SLOTH_KERNEL_ARGUMENT", std::string(where) + ": the range lies outside the buffer.", {field("operation", where), field("bytes", static_cast<double>(bytes))});
  }
  return nullptr;
}

napi_value memory_alloc(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const int64_t bytes = call.count(0, "alloc", "bytes");
  if (bytes < 0) return nullptr;
  double handle;
  MemoryStatus status = call.b->memory->alloc(bytes, &handle);
  if (status == MemoryStatus::Exhausted) {
    // Cached storage that lies in pieces may be what is missing.
    std::vector<Release> ranges;
    call.b->memory->trim(ranges);
    for (const Release& r : ranges) push(call.b, run_release, "release", reinterpret_cast<uint64_t>(r.base), r.bytes, r.unmap);
    status = call.b->memory->alloc(bytes, &handle);
  }
  if (status != MemoryStatus::Ok) return throw_status(call.b, status, "alloc", 0, bytes);
  return make_number(env, handle);
}

napi_value memory_view(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const double parent = call.number(0);
  const int64_t offset = call.count(1, "view", "byteOffset");
  if (offset < 0) return nullptr;
  const int64_t bytes = call.count(2, "view", "bytes");
  if (bytes < 0) return nullptr;
  double handle;
  const MemoryStatus status = call.b->memory->view(parent, offset, bytes, &handle);
  if (status != MemoryStatus::Ok) return throw_status(call.b, status, "view", parent, bytes);
  return make_number(env, handle);
}

napi_value memory_free(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  Release freed, release;
  const double handle = call.number(0);
  const MemoryStatus status = call.b->memory->free(handle, &freed, &release);
  if (status != MemoryStatus::Ok) return throw_status(call.b, status, "free", handle, 0);
  if (call.b->poison && freed.bytes > 0) poison(call.b, freed);
  if (release.base != nullptr) push(call.b, run_release, "release", reinterpret_cast<uint64_t>(release.base), release.bytes, release.unmap);
  return nullptr;
}

napi_value memory_bytes(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const double handle = call.number(0);
  const Buffer* buffer = call.b->memory->find(handle);
  if (buffer == nullptr) return throw_status(call.b, MemoryStatus::Freed, "bytes", handle, 0);
  return make_number(env, static_cast<double>(buffer->bytes));
}

// write(handle, Uint8Array, byteOffset)
napi_value memory_write(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b)) return nullptr;
  if (refuse_capture(b, "write")) return nullptr;
  const double handle = call.number(0);
  const int64_t offset = call.count(2, "write", "byteOffset", 0);
  if (offset < 0) return nullptr;
  const Buffer* buffer = b->memory->find(handle);
  if (buffer == nullptr) return throw_status(b, MemoryStatus::Freed, "write", handle, 0);
  void* data = nullptr;
  size_t length = 0;
  napi_typedarray_type type;
  if (call.argc < 2 || napi_get_typedarray_info(env, call.values[1], &type, &length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array) {
    throw_error(b, "SLOTH_KERNEL_ARGUMENT", "write: data must be a view on an ArrayBuffer.", {field("operation", "write"), field("argument", "data")});
    return nullptr;
  }
  const int64_t bytes = static_cast<int64_t>(length);
  if (buffer->readOnly) {
    throw_error(b, "SLOTH_KERNEL_ARGUMENT", "write: the buffer is a file mapping, which is read-only.", {field("operation", "write"), field("argument", "handle")});
    return nullptr;
  }
  if (offset > buffer->bytes || bytes > buffer->bytes - offset) return throw_status(b, MemoryStatus::Range, "write", handle, bytes);
  if (bytes == 0) return nullptr;
  char* target = buffer->ptr + offset;
  if (b->queue->idle()) {
    memcpy(target, data, length);  // nothing is running, so this is its turn
  } else if (length <= sizeof(Command::args) - 16) {
    Command* c = b->queue->slot();
    c->run = run_write_inline;
    c->name = "write";
    c->args[0] = reinterpret_cast<uint64_t>(target);
    c->args[1] = length;
    memcpy(&c->args[2], data, length);
    queue_push(b->queue);
  } else {
    void* staging = malloc(length);
    if (staging == nullptr) return throw_status(b, MemoryStatus::Exhausted, "write", handle, bytes);
    memcpy(staging, data, length);
    push(b, run_write, "write", reinterpret_cast<uint64_t>(target), reinterpret_cast<uint64_t>(staging), length);
  }
  return nullptr;
}

// read(handle, byteOffset?, bytes?)
napi_value memory_read(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b)) return nullptr;
  if (refuse_capture(b, "read")) return nullptr;
  const double handle = call.number(0);
  const Buffer* buffer = b->memory->find(handle);
  if (buffer == nullptr) return throw_status(b, MemoryStatus::Freed, "read", handle, 0);
  const int64_t offset = call.count(1, "read", "byteOffset", 0);
  if (offset < 0) return nullptr;
  if (offset > buffer->bytes) return throw_status(b, MemoryStatus::Range, "read", handle, 0);
  const int64_t bytes = call.count(2, "read", "bytes", static_cast<double>(buffer->bytes - offset));
  if (bytes < 0) return nullptr;
  if (bytes > buffer->bytes - offset) return throw_status(b, MemoryStatus::Range, "read", handle, bytes);
  return request(b, buffer->ptr + offset, bytes);
}

napi_value memory_map_file(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b)) return nullptr;
  size_t length = 0;
  if (call.argc < 1 || napi_get_value_string_utf8(env, call.values[0], nullptr, 0, &length) != napi_ok) {
    throw_error(b, "SLOTH_KERNEL_ARGUMENT", "mapFile: path must be a string.", {field("operation", "mapFile"), field("argument", "path")});
    return nullptr;
  }
  std::string path(length, '\0');
  napi_get_value_string_utf8(env, call.values[0], &path[0], length + 1, &length);
  const int64_t offset = call.count(1, "mapFile", "offset");
  if (offset < 0) return nullptr;
  const int64_t bytes = call.count(2, "mapFile", "bytes");
  if (bytes < 0) return nullptr;
  double handle;
  int error = 0;
  const MemoryStatus status = b->memory->map_file(path, offset, bytes, &handle, &error);
  if (status == MemoryStatus::File) {
    throw_error(b, "SLOTH_MEMORY_MAP", "The file " + path + " cannot be mapped: " + strerror(error) + ".", {field("path", path), field("errno", error)});
    return nullptr;
  }
  if (status == MemoryStatus::Range) {
    throw_error(b, "SLOTH_MEMORY_MAP", "The file " + path + " is too short for the range to be mapped.",
                {field("path", path), field("offset", static_cast<double>(offset)), field("bytes", static_cast<double>(bytes))});
    return nullptr;
  }
  if (status != MemoryStatus::Ok) return throw_status(b, status, "mapFile", 0, bytes);
  return make_number(env, handle);
}

// --- scratch files: an unlinked file of the folder's disk that buffers are put into and taken from in queue order

// pread or pwrite of the whole range; what is missing afterwards (a file that was not filled, a full disk) is the queue's error.
template <bool PUT>
void run_scratch(Queue* q, Command* c) {
  const int fd = static_cast<int>(c->args[0]);
  char* at = reinterpret_cast<char*>(c->args[1]);
  int64_t left = static_cast<int64_t>(c->args[2]), offset = static_cast<int64_t>(c->args[3]);
#if defined(__linux__)
  // The next block is read by the system while this one is used.
  if (!PUT && c->args[5] > 0) posix_fadvise(fd, static_cast<off_t>(c->args[4]), static_cast<off_t>(c->args[5]), POSIX_FADV_WILLNEED);
#endif
  while (left > 0) {
    // Single calls stop at 2 GiB on Linux.
    const size_t piece = static_cast<size_t>(left < (int64_t{1} << 30) ? left : int64_t{1} << 30);
    const ssize_t done = PUT ? pwrite(fd, at, piece, static_cast<off_t>(offset)) : pread(fd, at, piece, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      pool_fail(q->pool, "scratch", done == 0 ? "the file is shorter than what was put into it" : strerror(errno), offset, left);
      return;
    }
    at += done;
    left -= done;
    offset += done;
  }
#if defined(__linux__)
  // Starts writing back now, so that these pages can be given away when memory is short.
  if (PUT) sync_file_range(fd, static_cast<off_t>(c->args[3]), static_cast<off_t>(c->args[2]), SYNC_FILE_RANGE_WRITE);
#endif
}

void run_scratch_close(Queue*, Command* c) { ::close(static_cast<int>(c->args[0])); }

void throw_scratch(Backend* b, const std::string& folder, int error) {
  throw_error(b, "SLOTH_SCRATCH_DISK", "The scratch file in " + folder + " cannot be " + (error == ENOSPC || error == EDQUOT || error == EFBIG ? "made large enough: " : "made: ") + strerror(error) + ".",
              {field("path", folder), field("errno", error)});
}

std::string text_argument(const Call& call, size_t i) {
  size_t length = 0;
  if (i >= call.argc || napi_get_value_string_utf8(call.b->env, call.values[i], nullptr, 0, &length) != napi_ok) return "";
  std::string text(length, '\0');
  napi_get_value_string_utf8(call.b->env, call.values[i], &text[0], length + 1, &length);
  return text;
}

// scratchOpen(folder) -> descriptor. The file has no name any more when this returns: it goes with the process, however that ends.
napi_value scratch_open(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const std::string folder = text_argument(call, 0);
  std::string path = folder + "/.sloth-scratch-XXXXXX";
  const int fd = mkstemp(&path[0]);
  if (fd < 0) {
    throw_scratch(call.b, folder, errno);
    return nullptr;
  }
  ::unlink(path.c_str());
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return make_number(env, fd);
}

// scratchReserve(descriptor, bytes, folder): a full disk is an error now instead of in the middle of a pass, where the file system can tell.
napi_value scratch_reserve(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const int64_t fd = call.count(0, "scratchReserve", "descriptor");
  if (fd < 0) return nullptr;
  const int64_t bytes = call.count(1, "scratchReserve", "bytes");
  if (bytes <= 0) return nullptr;
#if defined(__linux__)
  const int error = fallocate(static_cast<int>(fd), 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  // Only where the file system cannot reserve does a full disk show itself later.
  if (error != 0 && error != EOPNOTSUPP && error != ENOSYS) throw_scratch(call.b, text_argument(call, 2), error);
#endif
  return nullptr;
}

template <bool PUT>
napi_value scratch_move(napi_env env, napi_callback_info info) {
  const char* const where = PUT ? "put" : "take";
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b) || refuse_capture(b, where)) return nullptr;
  const int64_t fd = call.count(0, where, "descriptor");
  if (fd < 0) return nullptr;
  const double handle = call.number(1);
  const int64_t offset = call.count(2, where, "offset");
  if (offset < 0) return nullptr;
  const int64_t ahead = call.count(3, where, "ahead", 0);
  if (ahead < 0) return nullptr;
  const Buffer* buffer = b->memory->find(handle);
  if (buffer == nullptr) return throw_status(b, MemoryStatus::Freed, where, handle, 0);
  if (!PUT && buffer->readOnly) {
    throw_error(b, "SLOTH_KERNEL_ARGUMENT", "take: the buffer is a file mapping, which is read-only.", {field("operation", where), field("argument", "handle")});
    return nullptr;
  }
  Command* c = b->queue->slot();
  c->run = run_scratch<PUT>;
  c->name = where;
  c->args[0] = static_cast<uint64_t>(fd);
  c->args[1] = reinterpret_cast<uint64_t>(buffer->ptr);
  c->args[2] = static_cast<uint64_t>(buffer->bytes);
  c->args[3] = static_cast<uint64_t>(offset);
  // What lies before the block is taken next: backward passes go the other way.
  c->args[5] = static_cast<uint64_t>(ahead < offset ? ahead : offset);
  c->args[4] = static_cast<uint64_t>(offset) - c->args[5];
  queue_push(b->queue);
  return nullptr;
}

// scratchClose(descriptor), after everything that was enqueued before.
napi_value scratch_close(napi_env env, napi_callback_info info) {
  Call call(env, info);
  const int64_t fd = call.count(0, "scratchClose", "descriptor");
  if (fd < 0) return nullptr;
  if (call.b->queue == nullptr) ::close(static_cast<int>(fd));
  else push(call.b, run_scratch_close, "close", static_cast<uint64_t>(fd));
  return nullptr;
}

napi_value memory_stats(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b)) return nullptr;
  napi_value o;
  napi_create_object(env, &o);
  napi_set_named_property(env, o, "liveBuffers", make_number(env, static_cast<double>(b->memory->liveBuffers)));
  napi_set_named_property(env, o, "liveBytes", make_number(env, static_cast<double>(b->memory->liveBytes)));
  napi_set_named_property(env, o, "peakBytes", make_number(env, static_cast<double>(b->memory->peakBytes)));
  napi_set_named_property(env, o, "cachedBytes", make_number(env, static_cast<double>(b->memory->cached() + pool_scratch_bytes(b->queue->pool))));
  napi_set_named_property(env, o, "mappedBytes", make_number(env, static_cast<double>(b->memory->mappedBytes)));
  return o;
}

napi_value memory_reset_peak(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  call.b->memory->peakBytes = call.b->memory->liveBytes;
  return nullptr;
}

napi_value memory_trim(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  std::vector<Release> ranges;
  call.b->memory->trim(ranges);
  for (const Release& r : ranges) push(call.b, run_release, "release", reinterpret_cast<uint64_t>(r.base), r.bytes, r.unmap);
  push(call.b, run_trim, "trim");
  return nullptr;
}

napi_value memory_set_budget(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const int64_t bytes = call.count(0, "setBudget", "bytes");
  if (bytes >= 0) call.b->memory->budget = bytes;
  return nullptr;
}

napi_value synchronize(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b) || refuse_capture(call.b, "synchronize")) return nullptr;
  return request(call.b, nullptr, -1);
}

}  // namespace
}  // namespace sloth

#endif
