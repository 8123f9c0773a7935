#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the hash-locked requirement files from their .in files.
# Pins that still fit stay as they are; `scripts/lock.sh --upgrade` (or `--upgrade-package NAME`) takes newer ones.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The lock must not depend on the machine it was made on: only PyPI counts, no configured mirror or local folder.
for name in $(compgen -e UV_); do
    unset "$name"
done
# The operating system's trust store counts, not only the one built into uv (the name changed in uv 0.11).
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1

uv=.venv/bin/uv
if [[ ! -x $uv ]]; then
    uv=$(command -v uv) || {
        echo "lock.sh: no uv found in .venv or on the PATH: run 'make .venv/.ready' first." >&2
        exit 1
    }
fi

lock() {
    echo "lock.sh: $1 -> $2"
    "$uv" pip compile --no-config --quiet --default-index https://pypi.org/simple \
        --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --custom-compile-command 'make lock' "${@:3}" --output-file "$2" "$1" >/dev/null
}

# For the images that are built on a Spark: one platform (glibc of Ubuntu 24.04), and wheels only, so that no package's own script runs.
lock_recipe() {
    local folder=catalog/recipes/$1
    echo "lock.sh: $folder/$2.in -> $folder/$2.txt"
    "$uv" pip compile --no-config --quiet --default-index https://pypi.org/simple \
        --python-platform aarch64-manylinux_2_39 --python-version 3.12 --only-binary :all: \
        --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' "${@:3}" \
        --output-file "$folder/$2.txt" "$folder/$2.in" >/dev/null
}

lock requirements/uv.in requirements/uv.txt "$@"
lock requirements/dev.in requirements/dev.txt "$@"
lock roles/runtime/files/requirements.in roles/runtime/files/requirements.txt "$@"
lock requirements/engines.in requirements/engines.txt \
    --overrides requirements/engines.overrides.txt --excludes requirements/engines.excludes.txt "$@"
lock requirements/engines-nodeps.in requirements/engines-nodeps.txt --no-deps "$@"
lock_recipe vllm-sm121 requirements --no-emit-package vllm "$@"
lock_recipe vllm-sm121 build "$@"
then_was=2026-02-15
lock_recipe vllm-mxfp4 requirements --no-emit-package vllm --no-emit-package torch --no-emit-package torchvision \
    --no-emit-package torchaudio --excludes catalog/recipes/vllm-mxfp4/excludes.txt --exclude-newer $then_was \
    --exclude-newer-package fastsafetensors=2026-06-10 "$@"
lock_recipe vllm-mxfp4 build --exclude-newer $then_was "$@"

if grep -nE '^ *(-f|--find-links|--index-url|--extra-index-url)|file:| @ ' \
    requirements/*.txt roles/runtime/files/requirements.txt catalog/recipes/*/{requirements,build}.txt; then
    echo "lock.sh: a lock file names an index or a place of this machine (lines above): remove it and lock again." >&2
    exit 1
fi
