#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools.sh COMMAND=PACKAGE…: commands that tests want of this machine, installed where they are missing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for pair in "$@"; do
  if ! have "${pair%%=*}"; then apt_install "${pair#*=}"; fi
done
