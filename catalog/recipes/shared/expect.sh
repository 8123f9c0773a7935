#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# expect.sh EXPECTED SRC: a line of the file EXPECTED is a file below SRC and, after the first space, words that it must
# have. Sources name each other's versions: whoever moves one and forgets another hears of it here, before anything compiles.
set -eu

expected=$1 src=$2
while read -r file words; do
  case ${file} in '' | '#'*) continue ;; esac
  if ! grep -qF -- "${words}" "${src}/${file}"; then
    echo "expect: ${file} does not say: ${words}" >&2
    echo "expect: it goes with another version of a source than sources.txt has" >&2
    exit 1
  fi
done <"${expected}"
echo "expect: the sources go together"
