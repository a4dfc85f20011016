// Part of binding.cpp: kernels as data, the state of an open backend, and its errors.
#ifndef SLOTH_BINDING_STATE_H
#define SLOTH_BINDING_STATE_H

#include <node_api.h>

#include <string.h>

#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "kernel_specs.h"
#include "memory.h"
#include "queue.h"

namespace sloth {
namespace {

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
  static_assert(S::count <= 30, "Command::args is too small");
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

// Recorded calls. The queue deletes them, so that runs enqueued before still find them.
struct Program {
  std::vector<Command> commands;
  Capture* memory = nullptr;
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
  KernelTable table = {};
  napi_threadsafe_function completed = nullptr;
  napi_ref errorFactory = nullptr;
  Request* pending = nullptr;
  int64_t pendingCount = 0;
  bool poison = false;
  Program* capturing = nullptr;
  std::map<int64_t, Program*> programs;
  int64_t lastProgram = 0;
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

// Where the next command goes: the recording, or the queue, which `enqueue` then wakes.
Command* next_command(Backend* b) {
  if (b->capturing == nullptr) return b->queue->slot();
  b->capturing->commands.emplace_back();
  return &b->capturing->commands.back();
}
void enqueue(Backend* b) {
  if (b->capturing == nullptr) queue_push(b->queue);
}

// True after throwing, for what cannot be recorded.
bool refuse_capture(Backend* b, const char* what) {
  if (b->capturing == nullptr) return false;
  throw_error(b, "SLOTH_BACKEND_CAPTURE", std::string(what) + " cannot be recorded: only kernel calls can.", {field("operation", what)});
  return true;
}

napi_value undefined(napi_env env) {
  napi_value v;
  napi_get_undefined(env, &v);
  return v;
}

}  // namespace
}  // namespace sloth

#endif
