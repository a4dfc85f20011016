// Part of binding.cpp: the function behind every kernel, which checks its arguments and enqueues it.
#ifndef SLOTH_BINDING_KERNELS_H
#define SLOTH_BINDING_KERNELS_H

#include <math.h>

#include "binding_state.h"

namespace sloth {
namespace {

__attribute__((noinline)) void throw_argument(Backend* b, const KernelInfo& info, int index, const std::string& what) {
  const std::string name = arg_name(info, index);
  throw_error(b, "SLOTH_KERNEL_ARGUMENT", std::string("Kernel ") + info.name + ": " + name + " " + what + ".", {field("kernel", info.name), field("argument", name)});
}

__attribute__((noinline)) void throw_freed(Backend* b, const char* where, const std::string& argument, double handle) {
  throw_error(b, "SLOTH_MEMORY_FREED", std::string(where) + ": " + argument + " is not a live buffer of this backend.",
              {field("kernel", where), field("argument", argument), field("handle", handle)});
}

napi_value call_kernel(napi_env env, napi_callback_info callback) {
  napi_value values[30];
  size_t argc = 30;
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
  if (b->capturing != nullptr) {
    for (int i = 0; i < info.jsArgs; i++) {
      double d;
      const Kind kind = info.types[i].kind;
      if ((kind == Kind::Input || kind == Kind::Output) && check.args[i].ptr != nullptr && napi_get_value_double(env, values[i], &d) == napi_ok) b->memory->pin(d);
    }
  }
  Command* command = next_command(b);
  command->run = info.run;
  command->kernel = closure.kernel;
  command->name = info.name;
  for (int i = 0; i < info.allArgs; i++) {
    const Kind kind = info.types[i].kind;
    if (kind == Kind::Real) memcpy(&command->args[i], &check.args[i].real, 8);
    else if (kind == Kind::Integer) command->args[i] = static_cast<uint64_t>(check.args[i].integer);
    else command->args[i] = reinterpret_cast<uint64_t>(check.args[i].ptr);
  }
  enqueue(b);
  return nullptr;
}

}  // namespace
}  // namespace sloth

#endif
