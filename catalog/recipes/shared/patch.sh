#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# patch.sh PATCHES SRC: applies PATCHES/<source>/*.patch to SRC/<source>, in the order of their names. One that does not fit
# exactly ends the build, with nothing of it applied.
set -eu

patches=$1 src=$2
for folder in "${patches}"/*/; do
  [ -d "${folder}" ] || continue
  source=$(basename "${folder}")
  if [ ! -d "${src}/${source}" ]; then
    echo "patch: there is no source ${source} for ${folder}" >&2
    exit 1
  fi
  for patch in "${folder}"*.patch; do
    [ -e "${patch}" ] || continue
    if ! git -C "${src}/${source}" apply --check --verbose "${patch}"; then
      echo "patch: ${source}/$(basename "${patch}") does not apply" >&2
      exit 1
    fi
    git -C "${src}/${source}" apply "${patch}"
    echo "patch: ${source}/$(basename "${patch}") applied"
  done
done
