#!/bin/sh
# Every check, in order of cost; goes on after a failure so that one run shows all of them.
# Prints one closing line `N passed, N failed` and fails when anything failed.
set -u
cd "$(dirname "$0")/.." || exit 1
target="${CARGO_TARGET_DIR:-target}"
log="$target/gate"
mkdir -p "$log"
passed=0
failed=0

# step NAME COMMAND...: one check that counts as one.
step() {
    name=$1
    shift
    printf '== %s\n' "$name"
    began=$(date +%s)
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$name"
    fi
    printf '== %s: %s s\n' "$name" "$(($(date +%s) - began))"
}

# tests NAME COMMAND...: a runner whose own `N passed; N failed` figures are added up.
tests() {
    name=$1
    shift
    printf '== %s\n' "$name"
    began=$(date +%s)
    status=0
    "$@" >"$log/$name.log" 2>&1 || status=$?
    cat "$log/$name.log"
    good=$(sed -nE 's/.*[ :]([0-9]+) passed[;,].*/\1/p' "$log/$name.log" | awk '{s+=$1} END {print s+0}')
    bad=$(sed -nE 's/.*[ ;,]([0-9]+) failed.*/\1/p' "$log/$name.log" | awk '{s+=$1} END {print s+0}')
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
        printf 'FAILED: %s ended with status %s\n' "$name" "$status"
    fi
    if [ "$status" -eq 0 ] && [ "$good" -eq 0 ]; then
        bad=$((bad + 1))
        printf 'FAILED: %s ran no test\n' "$name"
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '== %s: %s s\n' "$name" "$(($(date +%s) - began))"
}

step format cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets --locked -- -D warnings
step documentation env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
tests rust cargo test --workspace --locked --no-fail-fast
# The kernels once more as `sluice-v3` has them: the same bits.
if grep -qw avx2 /proc/cpuinfo; then
    tests kernels-v3 env RUSTFLAGS="-C target-cpu=x86-64-v3" cargo test -p sluice-calc --locked --target-dir "$target/v3" --tests
else
    printf '== kernels-v3: not run: this processor has no AVX2\n'
fi
tests deployment python3 tests/deploy.py
tests falco python3 tests/falco.py
step release cargo build --release --locked --bins --workspace --quiet
tests readme python3 tests/readme.py --sluice "$target/release/sluice"
tests metrics python3 tests/metrics.py --sluice "$target/release/sluice"
tests idle python3 tests/idle.py --sluice "$target/release/sluice"
tests stores python3 tests/stores.py --sluice "$target/release/sluice"
tests oauth python3 tests/oauth.py --sluice "$target/release/sluice"
tests vault python3 tests/vault.py --sluice "$target/release/sluice"
tests calc python3 tests/calc.py --sluice "$target/release/sluice"
tests acme python3 tests/acme.py --sluice "$target/release/sluice"
tests console python3 tests/console/run.py --sluice "$target/release/sluice"
# The generator itself, beside wrk and h2load.
tests crosscheck python3 bench/crosscheck.py --seconds 1 --bench "$target/release/sluice-bench"
step bench "$target/release/sluice-bench" run edge --quick --sluice "$target/release/sluice" --out "$log/bench"
step bench-h2 "$target/release/sluice-bench" run edge-h2 --quick --sluice "$target/release/sluice" --out "$log/bench"
# Instructions of the main operations under callgrind, held against bench/history.
step instructions "$target/release/sluice-bench" count --sluice "$target/release/sluice"
step bench-events "$target/release/sluice-bench" run events --quick --sluice "$target/release/sluice" --out "$log/bench"
# Without OpenBao, which is fetched for the whole run alone: that it answers alike is what `vault` above proves.
step bench-vault "$target/release/sluice-bench" run vault --quick --sluice "$target/release/sluice" --out "$log/bench"
# Without TA-Lib in C and Tulip, which are fetched for the whole run alone; the tests of calc hold figures of the former.
step bench-calc "$target/release/sluice-bench" run calc --quick --out "$log/bench"

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
