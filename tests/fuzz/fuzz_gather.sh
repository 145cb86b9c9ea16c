#!/bin/sh
# Build and run fuzz_gather.c: clang's coverage, gcc's sanitizer runtimes, libFuzzer from the atheris wheel.
#   apt install clang gcc libstdc++-12-dev python3-dev; python -m pip install --target .fuzz atheris
set -eu
cd "$(dirname "$0")/../.."
out=${FUZZ_OUT:-.fuzz/gather}
mkdir -p "$out/corpus"
python=${PYTHON:-python3.11}
flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
# shellcheck disable=SC2086,SC2046
clang $flags -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp \
	$("$python"-config --includes) -c tests/fuzz/fuzz_gather.c -o "$out/fuzz_gather.o"
# shellcheck disable=SC2046
gcc -fsanitize=address,undefined "$out/fuzz_gather.o" .fuzz/libclang_rt.fuzzer_no_main.a \
	-o "$out/fuzz_gather" $("$python"-config --ldflags --embed) -lstdc++ -lm
PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	"$out/fuzz_gather" -max_len=4096 -max_total_time="${1:-60}" -print_final_stats=1 "$out/corpus"
