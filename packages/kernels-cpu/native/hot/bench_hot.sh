#!/bin/sh
# Builds and runs bench_hot.cpp for one instruction set: bench_hot.sh [avx512|avx2|base|neon] test|bench [threads] [filter]
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
