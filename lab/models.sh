#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tiny models, made once: .cache/lab/models/tiny/tiny-{a,b}/tiny-{a,b}.gguf for llama.cpp, and one each for llama.cpp and
# vLLM in the place, though not of the size, of a model of the catalog.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PYTHON=${HEARTH_ROOT}/.venv/bin/python

make_model() { # name maker file-that-shows-it out words…
  local name=$1 maker=$2 file=$3 out=$4
  shift 4
  if [ -s "${file}" ] && [ "${file}" -nt "${maker}" ]; then return 0; fi
  say "  making the model ${name}"
  "${PYTHON}" "${maker}" "${out}" "$@" || die "could not make ${out}: run 'make .venv/.ready' and try again."
}

seed=0
for gguf in tiny/tiny-a/tiny-a.gguf tiny/tiny-b/tiny-b.gguf gemma2/gemma-2-2b/gemma-2-2b-it-Q4_K_M.gguf; do
  seed=$((seed + 1))
  out=${LAB_CACHE}/models/${gguf}
  make_model "$(basename "$(dirname "${gguf}")")" "${LAB_DIR}/tiny_gguf.py" "${out}" "${out}" --seed "${seed}"
done
name=qwen2.5-1.5b-instruct
folder=${LAB_CACHE}/models/qwen2.5/${name}
make_model "${name}" "${LAB_DIR}/tiny_hf.py" "${folder}/model.safetensors" "${folder}"
