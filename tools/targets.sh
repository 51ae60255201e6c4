#!/usr/bin/env bash
# What this machine is not: the receipts' crate is compiled for WebAssembly, and the promise of the same bits is checked for 64-bit
# Arm. There the standard library, the tests of the arithmetic and of the processor's executor and the program are built and run
# under emulation, and digests of all logits compared with those of the program built for this machine. With --quick no program
# and no executor.
#   tools/targets.sh [--quick | PROGRAM]
# Needs a compiler whose standard library's source is at hand, a linker for Arm and an emulator: of Debian's packages rustc-web,
# rust-web-src, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user. Installs them where it may and no other package has to go; where
# they cannot be had, or are older than this workspace, it says so and checks nothing; with LOCKSTEP_REQUIRE_TARGETS=1 it fails then.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1-target/release/lockstep}
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have() {
    command -v qemu-aarch64 && command -v aarch64-linux-gnu-gcc && [ -d /usr/lib/rustlib/src/rust/library ] &&
        found=$(/usr/bin/rustc --version | cut -d ' ' -f 2) && printf '%s\n' "$needed" "$found" | sort --check=quiet --version-sort
}
if ! have >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-remove --no-install-recommends rustc-web rust-web-src \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; } >/dev/null 2>&1 || true
fi
if ! have >/dev/null; then
    echo "not checked: no compiler of $needed or newer, linker or emulator for Arm here"
    exit "${LOCKSTEP_REQUIRE_TARGETS:-0}"
fi

# The only compiler with its library's source is a released one, which builds a library only if told that it may.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/targets
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
arm=aarch64-unknown-linux-gnu
on_arm() { cargo "$1" -Zbuild-std=std,panic_abort,test --target $arm --release "${@:2}"; }
emulator="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu"

echo "== receipts, for WebAssembly"
cargo build -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown --release -p lockstep-receipt

# All of it with dot products of bytes; without them only products differ.
run_as() { export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator $1"; }
echo "== arithmetic, on Arm with dot products of bytes"
run_as max
on_arm test -p lockstep-exact
echo "== products, on Arm without"
run_as cortex-a72
on_arm test -p lockstep-exact --test products --test attention
[ "$program" != --quick ] || exit 0

echo "== executor and program, on Arm"
on_arm test -p lockstep-cpu --test exactness
on_arm build -p lockstep --bin lockstep
ids=$(head -n 1 models/demo/examples/text.ids.txt | cut -d ' ' -f 1-100)
for activations in a8 a16; do
    score=(score --no-cache --model models/demo/base --adapter models/demo/adapters/sql --token-ids /dev/stdin --activations $activations)
    here=$("$program" "${score[@]}" <<<"$ids")
    for cpu in max cortex-a72; do
        there=$($emulator $cpu target/targets/$arm/release/lockstep "${score[@]}" <<<"$ids")
        [ "$here" = "$there" ] || { printf 'differs on %s, %s:\n%s\n%s\n' $cpu $activations "$here" "$there"; exit 1; }
        printf '%s, %s:\n%s\n' $cpu $activations "$there"
    done
done
