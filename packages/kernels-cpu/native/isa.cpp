#include "isa.h"

namespace sloth {

#if defined(__x86_64__)
namespace base {
const KernelTable* table();
}
namespace avx2 {
const KernelTable* table();
}
namespace avx512 {
const KernelTable* table();
}
#elif defined(__aarch64__)
namespace neon {
const KernelTable* table();
}
#else
namespace base {
const KernelTable* table();
}
#endif

const IsaEntry* isa_supported(int* count) {
  static IsaEntry entries[4];
  int n = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    entries[n++] = {"avx512", avx512::table};
  }
  // Every processor with AVX2 and FMA has F16C.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) entries[n++] = {"avx2", avx2::table};
  entries[n++] = {"x86-64", base::table};
#elif defined(__aarch64__)
  entries[n++] = {"neon", neon::table};
#else
  entries[n++] = {"generic", base::table};
#endif
  *count = n;
  return entries;
}

}  // namespace sloth
