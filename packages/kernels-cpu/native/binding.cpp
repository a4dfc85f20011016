// The Node-API face of the CPU backend. Plain Node-API instead of node-addon-api's classes: one of these functions is called thousands of times a step, and
// they take numbers and return nothing. Nothing here throws a C++ exception or aborts: errors become JavaScript errors made by the factory that the
// TypeScript side passes in.
#include <node_api.h>

#include <new>

#include "binding_capture.h"
#include "binding_kernels.h"
#include "binding_memory.h"
#include "binding_state.h"
#include "isa.h"

namespace sloth {
namespace {

// --- closing

void drop_pending(void*, Command* c) {
  // Staged data of writes and mappings to be released belong to the command.
  if (c->run == run_write) ::free(reinterpret_cast<void*>(c->args[1]));
  else if (c->run == run_release && c->args[2]) munmap(reinterpret_cast<void*>(c->args[0]), c->args[1]);
  else if (c->run == run_scratch_close) ::close(static_cast<int>(c->args[0]));
  else if (c->run == run_drop_program) delete reinterpret_cast<Program*>(c->args[0]);
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
  for (const auto& program : b->programs) delete program.second;
  b->programs.clear();
  delete b->capturing;
  b->capturing = nullptr;
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

// create(isa: string, precision: string, threads: number, budget: number, poison: boolean, errorFactory, cpus: string) -> object of functions, or undefined when threads cannot be
// started. `cpus` are the processors that the threads may run on, "0,2,4"; "" leaves that to the system.
napi_value create(napi_env env, napi_callback_info info) {
  napi_value values[7];
  size_t argc = 7;
  napi_get_cb_info(env, info, &argc, values, nullptr, nullptr);
  char isa[32] = "", precision[32] = "", cpus[8192] = "";
  size_t length;
  double threads = 1, budget = 0;
  bool poison = false;
  napi_valuetype factoryType = napi_undefined;
  if (argc == 7) napi_typeof(env, values[5], &factoryType);
  if (argc != 7 || napi_get_value_string_utf8(env, values[0], isa, sizeof(isa), &length) != napi_ok ||
      napi_get_value_string_utf8(env, values[1], precision, sizeof(precision), &length) != napi_ok || napi_get_value_double(env, values[2], &threads) != napi_ok ||
      napi_get_value_double(env, values[3], &budget) != napi_ok || napi_get_value_bool(env, values[4], &poison) != napi_ok || napi_get_value_string_utf8(env, values[6], cpus, sizeof(cpus), &length) != napi_ok || factoryType != napi_function) {
    napi_throw_type_error(env, nullptr, "create(isa, precision, threads, budget, poison, errorFactory, cpus)");
    return nullptr;
  }
  int count;
  const IsaEntry* entries = isa_supported(&count);
  const IsaEntry* chosen = nullptr;
  for (int i = 0; i < count; i++) {
    if (strcmp(entries[i].name, isa) == 0) chosen = &entries[i];
  }
  const bool bf16 = strcmp(precision, "bf16") == 0, int8 = strcmp(precision, "int8") == 0;
  if (chosen == nullptr || (bf16 && chosen->fillBf16 == nullptr) || (int8 && chosen->fillInt8 == nullptr) || (!bf16 && !int8 && strcmp(precision, "f32") != 0)) {
    napi_throw_type_error(env, nullptr, "unknown instruction set or precision");
    return nullptr;
  }
  Backend* b = new Backend();
  b->env = env;
  b->table = *chosen->table();
  if (bf16) chosen->fillBf16(b->table);
  if (int8) chosen->fillInt8(b->table);
  b->poison = poison;
  b->queue = queue_create(static_cast<int>(threads), cpus);
  if (b->queue == nullptr) {
    delete b;
    return undefined(env);
  }
  b->memory = new Memory();
  b->memory->budget = static_cast<int64_t>(budget);
  napi_create_reference(env, values[5], 1, &b->errorFactory);
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
    b->closures[i] = KernelClosure{b, &KERNELS[i], KERNELS[i].lookup(b->table)};
    set_function(env, kernels, KERNELS[i].name, call_kernel, &b->closures[i]);
  }
  set_function(env, memory, "alloc", memory_alloc, b);
  set_function(env, memory, "view", memory_view, b);
  set_function(env, memory, "free", memory_free, b);
  set_function(env, memory, "bytes", memory_bytes, b);
  set_function(env, memory, "write", memory_write, b);
  set_function(env, memory, "read", memory_read, b);
  set_function(env, memory, "mapFile", memory_map_file, b);
  set_function(env, memory, "scratchOpen", scratch_open, b);
  set_function(env, memory, "scratchReserve", scratch_reserve, b);
  set_function(env, memory, "scratchPut", scratch_move<true>, b);
  set_function(env, memory, "scratchTake", scratch_move<false>, b);
  set_function(env, memory, "scratchClose", scratch_close, b);
  set_function(env, memory, "stats", memory_stats, b);
  set_function(env, memory, "resetPeak", memory_reset_peak, b);
  set_function(env, memory, "trim", memory_trim, b);
  set_function(env, memory, "setBudget", memory_set_budget, b);
  set_function(env, result, "synchronize", synchronize, b);
  set_function(env, result, "close", close_backend, b);
  set_function(env, result, "beginCapture", begin_capture, b);
  set_function(env, result, "endCapture", end_capture, b);
  set_function(env, result, "runProgram", run_program, b);
  set_function(env, result, "dropProgram", drop_program_number, b);
  set_function(env, result, "programCalls", program_calls, b);
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

// precisions(isa) -> those offered with an instruction set of this machine
napi_value precisions(napi_env env, napi_callback_info info) {
  napi_value value, list;
  size_t argc = 1, length;
  char isa[32] = "";
  napi_get_cb_info(env, info, &argc, &value, nullptr, nullptr);
  if (argc != 1 || napi_get_value_string_utf8(env, value, isa, sizeof(isa), &length) != napi_ok) {
    napi_throw_type_error(env, nullptr, "precisions(isa)");
    return nullptr;
  }
  int count;
  const IsaEntry* entries = isa_supported(&count);
  napi_create_array(env, &list);
  uint32_t at = 0;
  for (int i = 0; i < count; i++) {
    if (strcmp(entries[i].name, isa) != 0) continue;
    napi_set_element(env, list, at++, make_string(env, "f32"));
    if (entries[i].fillBf16 != nullptr) napi_set_element(env, list, at++, make_string(env, "bf16"));
    if (entries[i].fillInt8 != nullptr) napi_set_element(env, list, at++, make_string(env, "int8"));
  }
  return list;
}

}  // namespace
}  // namespace sloth

extern "C" __attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1() { return 8; }

extern "C" __attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  sloth::set_function(env, exports, "create", sloth::create, nullptr);
  sloth::set_function(env, exports, "isas", sloth::isas, nullptr);
  sloth::set_function(env, exports, "precisions", sloth::precisions, nullptr);
  return exports;
}
