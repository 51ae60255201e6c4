#!/usr/bin/env bash
# Fuzzes every reader of foreign bytes with libFuzzer, on stable Rust: the compiler's own coverage pass, no cargo-fuzz.
#   tools/fuzz.sh [SECONDS [TARGET ...]]      seconds for each target, 5 by default; all targets by default
#   FUZZ_SEED=N                               the same start each time; random by default
# What is found stays in fuzz/corpus, what fails in fuzz/failures (run the target's binary on such a file to see it again).
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-5}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(receipt log check body schema template tokenizer safetensors adapter)
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, build scripts and macros are compiled without instrumentation.
cargo build --quiet --release --target x86_64-unknown-linux-gnu
trap 'rm -rf /dev/shm/lockstep-fuzz-*' EXIT
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "failures/$target"
    printf '%-12s' "$target"
    if ! "target/x86_64-unknown-linux-gnu/release/$target" -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -timeout=60 -rss_limit_mb=2048 \
        -max_len=8192 -print_final_stats=1 -artifact_prefix="failures/$target/" "corpus/$target" "seeds/$target" \
        >"failures/$target.log" 2>&1; then
        tail -n 30 "failures/$target.log"
        exit 1
    fi
    grep -oE 'stat::(number_of_executed_units|new_units_added|peak_rss_mb): *[0-9]+' "failures/$target.log" |
        sed 's/stat:://; s/: */ /' | tr '\n' ';'
    echo
done
