#!/bin/sh
# Builds and runs bench_hot.cpp for one instruction set: bench_hot.sh [avx512|avx512vnni|avx512bf16|avx2|base|neon] test|bench [threads] [filter]
# neon is cross-compiled and run under qemu-aarch64-static when the machine is not an aarch64 one.
set -e
here=$(cd "$(dirname "$0")" && pwd)
isa=$1
shift
out=${TMPDIR:-/tmp}/bench_hot_$isa
cxx=${CXX:-g++}
run=
case $isa in
  avx512) flags="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c" ;;
  avx512vnni) flags="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c -mavx512vnni" ;;
  # The products of precision "bf16": fractions are of the f32 peak, so that 2 is the limit. Only for bench: the tests' tolerances are those of f32.
  avx512bf16) flags="-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c -mavx512bf16 -DSLOTH_PRECISION_BF16" ;;
  avx2) flags="-mavx2 -mfma -mf16c" ;;
  base) flags="" ;;
  neon)
    flags=""
    if [ "$(uname -m)" != aarch64 ]; then
      cxx=aarch64-linux-gnu-g++
      flags="-static"
      run=qemu-aarch64-static
    fi
    ;;
  *) echo "unknown instruction set $isa" >&2; exit 2 ;;
esac
if [ -z "$SLOTH_BENCH_NO_BUILD" ]; then
  $cxx -O3 -std=c++17 -Wall -Wextra -Wno-unused-function -pthread $flags -DSLOTH_BENCH_NAME="\"$isa\"" "$here/bench_hot.cpp" "$here/../pool.cpp" -o "$out"
fi
$run "$out" "$@"
