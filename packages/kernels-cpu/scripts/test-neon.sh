#!/bin/sh
# Tests the NEON build on a machine of another kind: cross-compiles the addon for aarch64 Linux and runs this package's tests and the conformance kit in the aarch64 Bun from npm
# under qemu. Skips, saying why, where a tool is missing (Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static).
#
#   packages/kernels-cpu/scripts/test-neon.sh [test files]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${SLOTH_NEON_CACHE:-$here/build/neon}
triple=aarch64-linux-gnu
version=$(sed -n 's/.*"packageManager": "bun@\([0-9.]*\)".*/\1/p' "$here/../../package.json")

skip() {
  echo "neon: skipped: $1"
  exit 0
}
command -v $triple-g++ >/dev/null || skip "no $triple-g++"
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
[ -n "$qemu" ] || skip "no qemu-aarch64-static"
command -v npm >/dev/null || skip "no npm to fetch @oven/bun-linux-aarch64"

bun=$cache/bun-$version
if [ ! -x "$bun" ]; then
  mkdir -p "$cache"
  (cd "$cache" && npm pack --silent "@oven/bun-linux-aarch64@$version" >/dev/null) || skip "@oven/bun-linux-aarch64@$version cannot be fetched"
  tar -xzf "$cache/oven-bun-linux-aarch64-$version.tgz" -C "$cache"
  mv "$cache/package/bin/bun" "$bun"
  rm -rf "$cache/package" "$cache/oven-bun-linux-aarch64-$version.tgz"
  chmod +x "$bun"
fi

node "$here/scripts/build.mjs" --target $triple --require
addon=$(node "$here/scripts/build.mjs" --target $triple --require --print | tail -n 1)
sysroot=/usr/$triple
[ $# -gt 0 ] || set -- ./src ../testing/src/cpu.test.ts
cd "$here"
# Tests that start processes of their own cannot: the emulator is not this system's loader for aarch64.
SLOTH_TEST_EMULATED=1 SLOTH_NATIVE_PATH="$addon" "$qemu" -L "$sysroot" "$bun" test --timeout 240000 "$@"
