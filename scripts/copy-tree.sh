#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# copy-tree.sh DEST: a clean copy of the working tree in DEST (made anew), as a clone of it would look once everything is
# committed: tracked and not yet tracked files, nothing that git ignores, and not the link under collections/.
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: copy-tree.sh DEST" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
mkdir -p "$1"
dest=$(cd "$1" && pwd -P)
case "$root/" in
"$dest"/*)
    echo "copy-tree.sh: $dest contains the working tree: name another folder." >&2
    exit 2
    ;;
esac
cd "$root"

# The checkout may belong to another user than the one who runs make (sudo): git would refuse to read it.
git() {
    command git -c safe.directory="$root" "$@"
}

find "$dest" -mindepth 1 -delete
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard -- . ':!collections' |
        while IFS= read -r -d '' path; do
            # A file deleted and not yet committed is still listed.
            if [[ -e $path || -L $path ]]; then
                printf '%s\0' "$path"
            fi
        done | tar --create --null --no-recursion --files-from=- | tar --extract --directory="$dest"
else
    tar --create --exclude=./.venv --exclude=./.cache --exclude=./.demo --exclude=./collections --exclude='__pycache__' . |
        tar --extract --directory="$dest"
fi
