#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The two tiny models, made once: .cache/lab/models/tiny/tiny-{a,b}/tiny-{a,b}.gguf
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PYTHON=${HEARTH_ROOT}/.venv/bin/python
MAKER=${LAB_DIR}/tiny_gguf.py

seed=0
for name in tiny-a tiny-b; do
  seed=$((seed + 1))
  out=${LAB_CACHE}/models/tiny/${name}/${name}.gguf
  if [ -s "${out}" ] && [ "${out}" -nt "${MAKER}" ]; then continue; fi
  say "  making the model ${name}"
  "${PYTHON}" "${MAKER}" "${out}" --seed "${seed}" || die "could not make ${out}: run 'make .venv/.ready' and try again."
done
