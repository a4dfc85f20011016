// Part of binding.cpp: recording kernel calls and enqueueing them again with one call.
#ifndef SLOTH_BINDING_CAPTURE_H
#define SLOTH_BINDING_CAPTURE_H

#include "binding_memory.h"

namespace sloth {
namespace {

// beginCapture(): until endCapture, kernel calls are recorded instead of enqueued.
napi_value begin_capture(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b) || refuse_capture(b, "capture")) return nullptr;
  b->capturing = new Program();
  b->memory->begin_capture();
  return nullptr;
}

void drop_program(Backend* b, Program* program) {
  std::vector<Release> freed, release;
  b->memory->release_capture(program->memory, freed, release);
  push(b, run_drop_program, "drop program", reinterpret_cast<uint64_t>(program));
  if (b->poison) {
    for (const Release& r : freed) poison(b, r);
  }
  for (const Release& r : release) push(b, run_release, "release", reinterpret_cast<uint64_t>(r.base), r.bytes, r.unmap);
}

// endCapture(keep: boolean) -> number of the program, or 0 when it is not kept
napi_value end_capture(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  bool keep = false;
  if (call.argc > 0) napi_get_value_bool(env, call.values[0], &keep);
  // Closed while recording: nothing is left to end.
  if (b->queue == nullptr || b->capturing == nullptr) return make_number(env, 0);
  Program* program = b->capturing;
  b->capturing = nullptr;
  program->memory = b->memory->end_capture();
  if (!keep) {
    drop_program(b, program);
    return make_number(env, 0);
  }
  b->programs.emplace(++b->lastProgram, program);
  return make_number(env, static_cast<double>(b->lastProgram));
}

std::map<int64_t, Program*>::iterator find_program(Backend* b, const Call& call) {
  const double id = call.number(0, 0);
  return id >= 1 && id < 9007199254740992.0 ? b->programs.find(static_cast<int64_t>(id)) : b->programs.end();
}

// runProgram(number)
napi_value run_program(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (closed(b) || refuse_capture(b, "A program's run")) return nullptr;
  const auto found = find_program(b, call);
  if (found == b->programs.end()) {
    throw_error(b, "SLOTH_PROGRAM_DISPOSED", "A program was run after it was disposed.", {});
    return nullptr;
  }
  push(b, run_program_commands, "program", reinterpret_cast<uint64_t>(found->second));
  return nullptr;
}

// dropProgram(number)
napi_value drop_program_number(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Backend* b = call.b;
  if (b->queue == nullptr) return nullptr;
  const auto found = find_program(b, call);
  if (found == b->programs.end()) return nullptr;
  Program* program = found->second;
  b->programs.erase(found);
  drop_program(b, program);
  return nullptr;
}

// programCalls(number) -> kernel calls it holds
napi_value program_calls(napi_env env, napi_callback_info info) {
  Call call(env, info);
  if (closed(call.b)) return nullptr;
  const auto found = find_program(call.b, call);
  int64_t calls = 0;
  if (found != call.b->programs.end()) {
    for (const Command& c : found->second->commands) calls += c.run != run_poison;
  }
  return make_number(env, static_cast<double>(calls));
}

}  // namespace
}  // namespace sloth

#endif
