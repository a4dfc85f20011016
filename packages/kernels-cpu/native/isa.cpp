#include "isa.h"

namespace sloth {

#if defined(__x86_64__)
namespace base {
const KernelTable* table();
}
namespace avx2 {
const KernelTable* table();
void fill_int8(KernelTable&);
}
namespace avx512 {
const KernelTable* table();
void fill_int8(KernelTable&);
}
// Units that an old compiler cannot make are left out by scripts/build.mjs.
#if !defined(SLOTH_WITHOUT_AVX512BF16)
namespace avx512bf16 {
void fill_bf16(KernelTable&);
}
#endif
#if !defined(SLOTH_WITHOUT_AVX512VNNI)
namespace avx512vnni {
void fill_int8(KernelTable&);
}
#endif
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
    IsaEntry avx512 = {"avx512", avx512::table, nullptr, avx512::fill_int8};
#if !defined(SLOTH_WITHOUT_AVX512BF16)
    if (__builtin_cpu_supports("avx512bf16")) avx512.fillBf16 = avx512bf16::fill_bf16;
#endif
#if !defined(SLOTH_WITHOUT_AVX512VNNI)
    if (__builtin_cpu_supports("avx512vnni")) avx512.fillInt8 = avx512vnni::fill_int8;
#endif
    entries[n++] = avx512;
  }
  // Every processor with AVX2 and FMA has F16C.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) entries[n++] = {"avx2", avx2::table, nullptr, avx2::fill_int8};
  entries[n++] = {"x86-64", base::table, nullptr, nullptr};
#elif defined(__aarch64__)
  entries[n++] = {"neon", neon::table, nullptr, nullptr};
#else
  entries[n++] = {"generic", base::table, nullptr, nullptr};
#endif
  *count = n;
  return entries;
}

}  // namespace sloth
