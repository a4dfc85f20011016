// The Node-API face of the CPU backend. Plain Node-API instead of node-addon-api's classes: one of these functions is called thousands of times a step, and
// they take numbers and return nothing. Nothing here throws a C++ exception or aborts: errors become JavaScript errors made by the factory that the
// TypeScript side passes in.
#include <node_api.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "isa.h"
#include "kernel_specs.h"
#include "memory.h"
#include "queue.h"

namespace sloth {
namespace {

// --- kernels as data

enum class Kind : uint8_t { Integer, Real, Input, Output };

struct ArgType {
  Kind kind;
  uint8_t align;
};

template <class T>
struct ArgOf;
template <>
struct ArgOf<int64_t> {
  static constexpr ArgType type{Kind::Integer, 1};
  static int64_t get(uint64_t bits) { return static_cast<int64_t>(bits); }
};
template <>
struct ArgOf<double> {
  static constexpr ArgType type{Kind::Real, 1};
  static double get(uint64_t bits) {
    double d;
    memcpy(&d, &bits, 8);
    return d;
  }
};
template <class T>
constexpr uint8_t align_of() {
  if constexpr (std::is_void_v<T>) return 1;
  else return alignof(T);
}
template <class T>
struct ArgOf<T*> {
  static constexpr ArgType type{std::is_const_v<T> ? Kind::Input : Kind::Output, align_of<T>()};
  static T* get(uint64_t bits) { return reinterpret_cast<T*>(bits); }
};

template <class... A>
struct Signature {
  static constexpr int count = sizeof...(A);
  static constexpr ArgType types[sizeof...(A)] = {ArgOf<A>::type...};
  template <size_t... I>
  static void call(Queue* q, Command* c, std::index_sequence<I...>) {
    reinterpret_cast<void (*)(Pool*, A...)>(c->kernel)(q->pool, ArgOf<A>::get(c->args[I])...);
  }
  static void run(Queue* q, Command* c) { call(q, c, std::index_sequence_for<A...>{}); }
};
template <class... A>
Signature<A...> signature_of(void (*)(Pool*, A...));

struct KernelInfo {
  const char* name;
  const char* argNames;
  int jsArgs;
  int allArgs;
  int seedArg;  // the one integer that may be negative, or -1
  const ArgType* types;
  CommandRun run;
  void (*check)(Check&);
  void (*(*lookup)(const KernelTable&))();
};

constexpr int count_names(const char* s) {
  int n = 1;
  for (; *s; s++) n += *s == ',';
  return n;
}

constexpr int name_index(const char* s, const char* wanted) {
  int index = 0;
  while (*s) {
    int i = 0;
    while (wanted[i] && s[i] == wanted[i]) i++;
    if (!wanted[i] && (s[i] == ',' || s[i] == 0)) return index;
    while (*s && *s != ',') s++;
    if (*s) s++;
    index++;
  }
  return -1;
}

#define SLOTH_DEFINE_CHECK(NAME, NAMES, ...) \
  void check_##NAME(Check& c) __VA_ARGS__     \
  void (*lookup_##NAME(const KernelTable& t))() { return reinterpret_cast<void (*)()>(t.NAME); }
SLOTH_KERNEL_LIST(SLOTH_DEFINE_CHECK)

template <class S>
constexpr KernelInfo make_info(const char* name, const char* names, void (*check)(Check&), void (*(*lookup)(const KernelTable&))()) {
  static_assert(S::count <= 25, "Command::args is too small");
  return KernelInfo{name, names, count_names(names), S::count, name_index(names, "seed"), S::types, &S::run, check, lookup};
}

#define SLOTH_DEFINE_INFO(NAME, NAMES, ...) make_info<decltype(signature_of(KernelTable::NAME))>(#NAME, NAMES, check_##NAME, lookup_##NAME),
const KernelInfo KERNELS[] = {SLOTH_KERNEL_LIST(SLOTH_DEFINE_INFO)};
constexpr int KERNEL_COUNT = sizeof(KERNELS) / sizeof(KERNELS[0]);

std::string arg_name(const KernelInfo& info, int index) {
  const char* s = info.argNames;
  for (int i = 0; i < index && s != nullptr; i++) {
    s = strchr(s, ',');
    if (s != nullptr) s++;
  }
  if (s == nullptr) return "?";
  const char* end = strchr(s, ',');
  return end == nullptr ? std::string(s) : std::string(s, end);
}

// --- the backend

struct Backend;

// A pending read or synchronize.
struct Request {
  Backend* backend;
  napi_deferred deferred;
  napi_ref buffer;  // nullptr for synchronize
  const char* source;
  char* target;
  int64_t bytes;
  PoolError error;
  bool posted;  // handed to the thread-safe function
  Request* previous;
  Request* next;
};

struct KernelClosure {
  Backend* backend;
  const KernelInfo* info;
  void (*kernel)();
};

// Never deleted: functions that hold it may outlive the object they were made for. After close it is a few kilobytes.
struct Backend {
  napi_env env;
  Queue* queue = nullptr;
  Memory* memory = nullptr;
  const KernelTable* table = nullptr;
  napi_threadsafe_function completed = nullptr;
  napi_ref errorFactory = nullptr;
  Request* pending = nullptr;
  int64_t pendingCount = 0;
  bool poison = false;
  KernelClosure closures[KERNEL_COUNT];
};

napi_value make_string(napi_env env, const std::string& s) {
  napi_value v;
  napi_create_string_utf8(env, s.c_str(), s.size(), &v);
  return v;
}

napi_value make_number(napi_env env, double d) {
  napi_value v;
  napi_create_double(env, d, &v);
  return v;
}

struct Field {
  const char* name;
  std::string text;
  double number;
  bool isText;
};
Field field(const char* name, const std::string& text) { return {name, text, 0, true}; }
Field field(const char* name, double number) { return {name, "", number, false}; }

// factory(code, message, fields) on the TypeScript side makes the SlothError.
napi_value make_error(Backend* b, const char* code, const std::string& message, const std::vector<Field>& fields) {
  napi_env env = b->env;
  napi_value object, factory, receiver, result = nullptr;
  napi_create_object(env, &object);
  for (const Field& f : fields) napi_set_named_property(env, object, f.name, f.isText ? make_string(env, f.text) : make_number(env, f.number));
  napi_get_reference_value(env, b->errorFactory, &factory);
  napi_get_undefined(env, &receiver);
  napi_value args[3] = {make_string(env, code), make_string(env, message), object};
  if (napi_call_function(env, receiver, factory, 3, args, &result) != napi_ok) return nullptr;
  return result;
}

void throw_error(Backend* b, const char* code, const std::string& message, const std::vector<Field>& fields) {
  napi_value error = make_error(b, code, message, fields);
  if (error != nullptr) napi_throw(b->env, error);
}

bool closed(Backend* b) {
  if (b->queue != nullptr) return false;
  throw_error(b, "SLOTH_BACKEND_CLOSED", "The CPU backend was used after it was closed.", {});
  return true;
}

napi_value undefined(napi_env env) {
  napi_value v;
  napi_get_undefined(env, &v);
  return v;
}

// --- enqueueing kernels

__attribute__((noinline)) void throw_argument(Backend* b, const KernelInfo& info, int index, const std::string& what) {
  const std::string name = arg_name(info, index);
  throw_error(b, "SLOTH_KERNEL_ARGUMENT", std::string("Kernel ") + info.name + ": " + name + " " + what + ".", {field("kernel", info.name), field("argument", name)});
}

__attribute__((noinline)) void throw_freed(Backend* b, const char* where, const std::string& argument, double handle) {
  throw_error(b, "SLOTH_MEMORY_FREED", std::string(where) + ": " + argument + " is not a live buffer of this backend.",
              {field("kernel", where), field("argument", argument), field("handle", handle)});
}

napi_value call_kernel(napi_env env, napi_callback_info callback) {
  napi_value values[25];
  size_t argc = 25;
  void* data;
  napi_get_cb_info(env, callback, &argc, values, nullptr, &data);
  const KernelClosure& closure = *static_cast<KernelClosure*>(data);
  Backend* b = closure.backend;
  const KernelInfo& info = *closure.info;
  if (closed(b)) return nullptr;
  if (static_cast<int>(argc) != info.jsArgs) {
    throw_error(b, "SLOTH_KERNEL_ARGUMENT",
                std::string("Kernel ") + info.name + " takes " + std::to_string(info.jsArgs) + " arguments (" + info.argNames + ") and got " + std::to_string(argc) + ".",
                {field("kernel", info.name)});
    return nullptr;
  }
  if (closure.kernel == nullptr) {
    throw_error(b, "SLOTH_KERNEL_MISSING", std::string("Kernel ") + info.name + " is not in this build of the CPU backend.", {field("kernel", info.name)});
    return nullptr;
  }
  Check check;
  for (int i = 0; i < info.jsArgs; i++) {
    double d;
    if (napi_get_value_double(env, values[i], &d) != napi_ok) {
      throw_argument(b, info, i, "must be a number");
      return nullptr;
    }
    Check::Arg& a = check.args[i];
    const ArgType type = info.types[i];
    if (type.kind == Kind::Real) {
      a.real = d;
    } else if (type.kind == Kind::Integer) {
      if (!(fabs(d) <= 9007199254740991.0) || d != static_cast<double>(static_cast<int64_t>(d))) {
        throw_argument(b, info, i, "must be an integer");
        return nullptr;
      }
      a.integer = static_cast<int64_t>(d);
      if (a.integer < 0 && i != info.seedArg) {
        throw_argument(b, info, i, "must not be negative");
        return nullptr;
      }
    } else if (d == 0) {
      a.ptr = nullptr;
      a.bytes = 0;
    } else {
      const Buffer* buffer = b->memory->find(d);
      if (buffer == nullptr) {
        throw_freed(b, info.name, arg_name(info, i), d);
        return nullptr;
      }
      if (type.kind == Kind::Output && buffer->readOnly) {
        throw_argument(b, info, i, "is a file mapping, which is read-only");
        return nullptr;
      }
      if (reinterpret_cast<uintptr_t>(buffer->ptr) % type.align != 0) {
        throw_argument(b, info, i, "is a view that does not begin at a multiple of its element size");
        return nullptr;
      }
      a.ptr = buffer->ptr;
      a.bytes = buffer->bytes;
    }
  }
  for (int i = info.jsArgs; i < info.allArgs; i++) check.args[i].integer = 0;
  info.check(check);
  if (check.failed >= 0) {
    throw_argument(b, info, check.failed, check.message);
    return nullptr;
  }
  Command* command = b->queue->slot();
  command->run = info.run;
  command->kernel = closure.kernel;
  command->name = info.name;
  for (int i = 0; i < info.allArgs; i++) {
    const Kind kind = info.types[i].kind;
    if (kind == Kind::Real) memcpy(&command->args[i], &check.args[i].real, 8);
    else if (kind == Kind::Integer) command->args[i] = static_cast<uint64_t>(check.args[i].integer);
    else command->args[i] = reinterpret_cast<uint64_t>(check.args[i].ptr);
  }
  queue_push(b->queue);
  return nullptr;
}

// --- commands that are not kernels

void run_write(Queue*, Command* c) {
  char* staging = reinterpret_cast<char*>(c->args[1]);
  memcpy(reinterpret_cast<char*>(c->args[0]), staging, c->args[2]);
  ::free(staging);
}

// Up to 184 bytes travel inside the command.
void run_write_inline(Queue*, Command* c) { memcpy(reinterpret_cast<char*>(c->args[0]), &c->args[2], c->args[1]); }

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

// --- promises

void unlink(Backend* b, Request* r) {
  if (r->previous != nullptr) r->previous->next = r->next;
  else b->pending = r->next;
  if (r->next != nullptr) r->next->previous = r->previous;
  b->pendingCount--;
}

void reject(Backend* b, napi_deferred deferred, const PoolError& e) {
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

// --- memory

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
  if (call.b->poison && freed.bytes > 0) push(call.b, run_poison, "poison", reinterpret_cast<uint64_t>(freed.base), freed.bytes);
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
  if (closed(call.b)) return nullptr;
  return request(call.b, nullptr, -1);
}

// --- closing

void drop_pending(void*, Command* c) {
  // Staged data of writes and mappings to be released belong to the command.
  if (c->run == run_write) ::free(reinterpret_cast<void*>(c->args[1]));
  else if (c->run == run_release && c->args[2]) munmap(reinterpret_cast<void*>(c->args[0]), c->args[1]);
}

void on_environment_end(void* data) {
  // The process or worker ends: finish the running kernel and join, so that no thread touches memory that goes away. Promises are not settled any more.
  Backend* b = static_cast<Backend*>(data);
  if (b->queue == nullptr) return;
  queue_stop(b->queue);
  b->queue = nullptr;
}

napi_value close_backend(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (b->queue == nullptr) return nullptr;
  napi_remove_env_cleanup_hook(env, on_environment_end, b);
  Queue* queue = b->queue;
  queue_stop(queue);
  queue_for_each_pending(queue, drop_pending, nullptr);
  b->queue = nullptr;
  Request* r = b->pending;
  b->pending = nullptr;
  while (r != nullptr) {
    Request* next = r->next;
    if (r->buffer != nullptr) napi_delete_reference(env, r->buffer);
    napi_value error = make_error(b, "SLOTH_BACKEND_CLOSED", "The CPU backend was closed while a read was pending.", {});
    napi_reject_deferred(env, r->deferred, error);
    if (!r->posted) delete r;  // a posted one is deleted when it is delivered
    r = next;
  }
  queue_destroy(queue);
  delete b->memory;
  b->memory = nullptr;
  if (b->pendingCount > 0) napi_unref_threadsafe_function(env, b->completed);
  b->pendingCount = 0;
  napi_release_threadsafe_function(b->completed, napi_tsfn_release);
  return nullptr;
}

// --- creation

void set_function(napi_env env, napi_value object, const char* name, napi_callback fn, void* data) {
  napi_value f;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, fn, data, &f);
  napi_set_named_property(env, object, name, f);
}

// create(isa: string, threads: number, budget: number, poison: boolean, errorFactory) -> object of functions, or undefined when threads cannot be started
napi_value create(napi_env env, napi_callback_info info) {
  napi_value values[5];
  size_t argc = 5;
  napi_get_cb_info(env, info, &argc, values, nullptr, nullptr);
  char isa[32] = "";
  size_t length;
  double threads = 1, budget = 0;
  bool poison = false;
  napi_valuetype factoryType = napi_undefined;
  if (argc == 5) napi_typeof(env, values[4], &factoryType);
  if (argc != 5 || napi_get_value_string_utf8(env, values[0], isa, sizeof(isa), &length) != napi_ok || napi_get_value_double(env, values[1], &threads) != napi_ok ||
      napi_get_value_double(env, values[2], &budget) != napi_ok || napi_get_value_bool(env, values[3], &poison) != napi_ok || factoryType != napi_function) {
    napi_throw_type_error(env, nullptr, "create(isa, threads, budget, poison, errorFactory)");
    return nullptr;
  }
  int count;
  const IsaEntry* entries = isa_supported(&count);
  const IsaEntry* chosen = nullptr;
  for (int i = 0; i < count; i++) {
    if (strcmp(entries[i].name, isa) == 0) chosen = &entries[i];
  }
  if (chosen == nullptr) {
    napi_throw_type_error(env, nullptr, "unknown instruction set");
    return nullptr;
  }
  Backend* b = new Backend();
  b->env = env;
  b->table = chosen->table();
  b->poison = poison;
  b->queue = queue_create(static_cast<int>(threads));
  if (b->queue == nullptr) {
    delete b;
    return undefined(env);
  }
  b->memory = new Memory();
  b->memory->budget = static_cast<int64_t>(budget);
  napi_create_reference(env, values[4], 1, &b->errorFactory);
  napi_value resource;
  napi_create_string_utf8(env, "sloth cpu queue", NAPI_AUTO_LENGTH, &resource);
  napi_create_threadsafe_function(env, nullptr, nullptr, resource, 0, 1, nullptr, nullptr, nullptr, on_completed, &b->completed);
  napi_unref_threadsafe_function(env, b->completed);
  napi_add_env_cleanup_hook(env, on_environment_end, b);

  napi_value result, kernels, memory;
  napi_create_object(env, &result);
  napi_create_object(env, &kernels);
  napi_create_object(env, &memory);
  for (int i = 0; i < KERNEL_COUNT; i++) {
    b->closures[i] = KernelClosure{b, &KERNELS[i], KERNELS[i].lookup(*b->table)};
    set_function(env, kernels, KERNELS[i].name, call_kernel, &b->closures[i]);
  }
  set_function(env, memory, "alloc", memory_alloc, b);
  set_function(env, memory, "view", memory_view, b);
  set_function(env, memory, "free", memory_free, b);
  set_function(env, memory, "bytes", memory_bytes, b);
  set_function(env, memory, "write", memory_write, b);
  set_function(env, memory, "read", memory_read, b);
  set_function(env, memory, "mapFile", memory_map_file, b);
  set_function(env, memory, "stats", memory_stats, b);
  set_function(env, memory, "resetPeak", memory_reset_peak, b);
  set_function(env, memory, "trim", memory_trim, b);
  set_function(env, memory, "setBudget", memory_set_budget, b);
  set_function(env, result, "synchronize", synchronize, b);
  set_function(env, result, "close", close_backend, b);
  napi_set_named_property(env, result, "kernels", kernels);
  napi_set_named_property(env, result, "memory", memory);
  napi_set_named_property(env, result, "threads", make_number(env, pool_threads(b->queue->pool)));
  return result;
}

// isas() -> names, best first
napi_value isas(napi_env env, napi_callback_info) {
  int count;
  const IsaEntry* entries = isa_supported(&count);
  napi_value list;
  napi_create_array_with_length(env, static_cast<size_t>(count), &list);
  for (int i = 0; i < count; i++) napi_set_element(env, list, static_cast<uint32_t>(i), make_string(env, entries[i].name));
  return list;
}

}  // namespace
}  // namespace sloth

extern "C" __attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1() { return 8; }

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  sloth::set_function(env, exports, "create", sloth::create, nullptr);
  sloth::set_function(env, exports, "isas", sloth::isas, nullptr);
  return exports;
}
