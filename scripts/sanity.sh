#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs `ansible-test sanity` over the working tree, without Galaxy and without the download of get-pip.py.
# `scripts/sanity.sh --test validate-modules` and other options go to ansible-test.
set -euo pipefail

# Set by git for its hooks; they would lead it to another repository.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
PATH=$root/.venv/bin:$PATH
python=$root/.venv/bin/python
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
core=$("$python" -c 'import ansible.release as r; print(r.__version__)')

# ansible-test keeps its virtual environments below the home directory: it gets one of its own, so that nothing is
# written outside the repository. pip's settings of the user still count, for networks with a mirror of PyPI.
home=$root/.cache/sanity/home-$core-py$version
mkdir -p "$home/.config" "$home/.ansible/test/cache"
for place in .config/pip .pip; do
    if [[ -e ${HOME:-/nonexistent}/$place && ! -e $home/$place ]]; then
        ln -s "$HOME/$place" "$home/$place"
    fi
done

# ansible-test would download a get-pip script, named after the pip it wants, into its cache. This one takes the pip from
# PyPI with uv, which trusts what the operating system trusts.
pip_version=$("$python" - <<'PYTHON'
import inspect
import re

from ansible_test import _internal

path = inspect.getfile(_internal).replace("__init__.py", "python_requirements.py")
found = re.search(r"\bpip=['\"]([0-9.]+)['\"]", open(path, encoding="utf-8").read())
print(found.group(1) if found else "")
PYTHON
)
if [[ -z $pip_version ]]; then
    echo "sanity.sh: ansible-test of ansible-core $core does not say which pip it wants: adapt scripts/sanity.sh." >&2
    exit 1
fi
cat >"$home/.ansible/test/cache/get_pip_${pip_version//./_}.py" <<PYTHON
import os
import subprocess
import sys

packages = [word for word in sys.argv[1:] if not word.startswith("-")]
env = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "UV_CACHE_DIR": "$root/.cache/uv"}
subprocess.run(["$root/.venv/bin/uv", "pip", "install", "--quiet", "--python", sys.executable, *packages], env=env, check=True)
PYTHON

# It wants a real path …/ansible_collections/hearth/spark. What is not Ansible content is not its business: its house
# style would rule the package and the lab (ruff and mypy look after these).
tree=$root/.cache/sanity/ansible_collections/hearth/spark
scripts/copy-tree.sh "$tree"
(
    cd "$tree"
    # Without a repository of its own it would find the one around it, where .cache is ignored, and test nothing.
    git -c init.defaultBranch=main init --quiet
    rm -rf bench lab molecule scripts src pyproject.toml requirements .ci .config
    find tests -mindepth 1 -maxdepth 1 ! -name sanity -exec rm -rf {} +
)

echo "sanity: ansible-test of ansible-core $core on Python $version (the first run makes its virtual environments: about a minute)"
start=$SECONDS
cd "$tree"
log=$root/.cache/sanity/last.log
status=0
# The names of the tests as they begin; all the rest, which is mostly pip's, is in the log.
HOME=$home ansible-test sanity --python "$version" --color no "$@" 2>&1 | tee "$log" |
    sed -nu 's/^Running sanity test "\(.*\)"$/  \1/p' || status=$?
if grep -q 'All targets skipped' "$log"; then
    echo "sanity.sh: ansible-test found no files in $tree: nothing was tested." >&2
    status=1
fi
if ((status)); then
    grep -E '^(ERROR|FATAL)' "$log" >&2 || tail -n 20 "$log" >&2
    echo "sanity: failed after $((SECONDS - start)) s; the whole log: .cache/sanity/last.log" >&2
    exit "$status"
fi
echo "sanity: passed in $((SECONDS - start)) s"
