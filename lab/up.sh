#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# up.sh [vllm]: everything that boxes are made from: engine, images, registry, models. Quick when it is all there.
# The word vllm adds the image that the scenario of that name needs (2.3 GB).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"${here}/engine.sh" up
"${here}/images.sh" "$@"
"${here}/registry.sh" up "$@"
"${here}/models.sh"
