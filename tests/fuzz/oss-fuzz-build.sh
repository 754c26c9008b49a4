#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the fuzz targets as OSS-Fuzz wants it, from $CC, $CFLAGS and $LIB_FUZZING_ENGINE
# into $OUT: programs, NAME_seed_corpus.zip and NAME.dict. Tried by hand:
#
#   CC=clang CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address' \
#       LIB_FUZZING_ENGINE=-fsanitize=fuzzer OUT=/tmp/out tests/fuzz/oss-fuzz-build.sh
#
# With CC=afl-clang-fast it builds them for AFL++, persistent. Needs the build packages
# of tests/setup. fuzz-passthrough is left out: it needs root and a directory of its own.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${WORK:-${TMPDIR:-/tmp}}/vfs-oss-fuzz-XXXXXX")
trap 'rm -rf "$work"' EXIT
: "${CC:=clang}" "${CFLAGS:=}" "${LIB_FUZZING_ENGINE:=-fsanitize=fuzzer}"
: "${OUT:?is to say where to}"
export CC CFLAGS

meson setup "$work/build" "$top" -Dman=disabled -Db_lundef=false -Dbuildtype=plain \
    -Dfuzzing=true -Dfuzzing_engine="$LIB_FUZZING_ENGINE"

mkdir -p "$OUT"
for source in "$here"/fuzz-*.c; do
    name=$(basename "$source" .c)
    target=${name#fuzz-}
    [ "$target" != passthrough ] || continue
    ninja -C "$work/build" "tests/fuzz/$name"
    cp "$work/build/tests/fuzz/$name" "$OUT/"
    cp "$here/dict/$target.dict" "$OUT/$name.dict"
    seeds=$(mktemp -d "$work/seeds-XXXXXX")
    "$here/seeds.py" "$seeds"
    mkdir -p "$seeds/$target"
    [ ! -d "$here/corpus/$target" ] || cp "$here/corpus/$target"/* "$seeds/$target/"
    rm -f "$OUT/${name}_seed_corpus.zip"
    (cd "$seeds/$target" && python3 -m zipfile -c "$OUT/${name}_seed_corpus.zip" ./*)
    rm -rf "$seeds"
done
