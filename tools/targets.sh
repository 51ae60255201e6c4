#!/usr/bin/env bash
# The promise of the same bits, checked for 64-bit Arm on a machine that is not: builds the standard library, the tests of the
# arithmetic and of the processor's executor, and the program for Arm, runs them under emulation, and compares digests of all
# logits with those of the program built for this machine. With --arithmetic, the arithmetic's tests alone.
#   tools/aarch64.sh [--arithmetic | PROGRAM]
# Needs a compiler whose standard library's source is at hand, a linker for Arm and an emulator: of Debian's packages rustc-web,
# rust-web-src, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user. Installs them where it may; where they cannot be had, or are
# older than this workspace, it says so and checks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1-target/release/lockstep}
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have() {
    command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc && [ -d /usr/lib/rustlib/src/rust/library ] &&
        found=$(/usr/bin/rustc --version | cut -d ' ' -f 2) && printf '%s\n' "$needed" "$found" | sort --check=quiet --version-sort
}
if ! have >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends rustc-web rust-web-src gcc-aarch64-linux-gnu \
        libc6-dev-arm64-cross qemu-user; } >/dev/null 2>&1 || true
fi
have >/dev/null || { echo "not checked: no compiler of $needed or newer, linker or emulator for Arm here"; exit 0; }

target=aarch64-unknown-linux-gnu
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO_TARGET_DIR=target/arm
# The only compiler with its library's source is a released one, which builds a library only if told that it may.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu"
arm() { cargo "$1" -Zbuild-std=std,panic_abort,test --target $target --release "${@:2}"; }

# One with dot products of bytes and one without.
for cpu in max cortex-a72; do
    echo "== $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -cpu $cpu"
    arm test -p lockstep-exact
done
[ "$program" != --arithmetic ] || exit 0
arm test -p lockstep-cpu --test exactness
arm build -p lockstep --bin lockstep
for activations in a8 a16; do
    for cpu in max cortex-a72; do
        score="score --no-cache --model models/demo/base --adapter models/demo/adapters/sql --token-ids /dev/stdin --activations $activations"
        ids=$(head -n 1 models/demo/examples/text.ids.txt | cut -d ' ' -f 1-100)
        here=$($program $score <<<"$ids")
        there=$($emulator -cpu $cpu target/arm/$target/release/lockstep $score <<<"$ids")
        [ "$here" = "$there" ] || { printf 'differs on %s:\n%s\n%s\n' "$cpu" "$here" "$there"; exit 1; }
        echo "$cpu, $activations: $there"
    done
done
