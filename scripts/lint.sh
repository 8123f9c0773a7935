#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every linter over the working tree; one line a step, the output of what failed, a summary at the end.
# `scripts/lint.sh ruff mypy` runs only these steps.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
PATH=$root/.venv/bin:$PATH
cache=$root/.cache/lint
mkdir -p "$cache"
# What a step returns that cannot run on this machine.
skipped=77
# The caller's Ansible settings and Python paths must not decide what is an error.
for name in $(compgen -e ANSIBLE_) PYTHONPATH; do
    unset "$name"
done
export ANSIBLE_COLLECTIONS_PATH=$root/collections
# The output goes to a log first, never straight to a terminal.
export NO_COLOR=1
export ANSIBLE_HOME=$cache/ansible
export MYPY_CACHE_DIR=$cache/mypy
export RUFF_CACHE_DIR=$cache/ruff

# Every file that git would commit, one a line; the names here have no line breaks (the step "names" sees to it).
list_files() {
    if git -c safe.directory="$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git -c safe.directory="$root" ls-files --cached --others --exclude-standard
    else
        find . -type f -not -path './collections/*' -not -path './.[cdv]*/*' -not -path '*/__pycache__/*' -printf '%P\n'
    fi
}
files=$(list_files | while IFS= read -r path; do
    if [[ -f $path ]]; then echo "$path"; fi
done)

shell_files() {
    local path first
    while IFS= read -r path; do
        case $path in
        *.sh) echo "$path" ;;
        *.*/* | *.*) [[ $path == .ci/* ]] && echo "$path" ;;
        *)
            IFS= read -r first <"$path" || true
            [[ $first =~ ^#!.*[/\ ](ba|da)?sh ]] && echo "$path"
            ;;
        esac
    done <<<"$files" || true
}

step_ansible_lint() {
    ansible-lint --offline --profile production --strict --nocolor -q
}

step_ruff() {
    ruff check --quiet --output-format concise .
}

step_ruff_format() {
    ruff format --check --quiet --output-format concise .
}

step_mypy() {
    # Plugins are named through the link, so that their modules have the names under which Ansible imports them.
    local more
    mapfile -t more < <(
        grep -E '^lab/.*\.py$' <<<"$files" || true
        sed -nE 's#^plugins/.*\.py$#collections/ansible_collections/hearth/spark/&#p' <<<"$files"
    )
    mypy --no-error-summary src/hearth "${more[@]}"
}

step_yamllint() {
    yamllint --strict .
}

step_docs() {
    # antsibull-docs takes the collection's name from the path and does not follow links: it gets a copy.
    local tree=$cache/tree/ansible_collections/hearth/spark
    scripts/copy-tree.sh "$tree"
    (cd "$tree" && antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self .)
}

step_catalog() {
    # Checks every file first.
    python scripts/catalog.py stale
}

step_changelog() {
    antsibull-changelog lint
}

step_shellcheck() {
    local scripts
    if ! command -v shellcheck >/dev/null; then
        echo "no shellcheck here, and PyPI has none for $(uname -m): apt-get install shellcheck"
        return "$skipped"
    fi
    mapfile -t scripts < <(shell_files)
    if ((${#scripts[@]})); then
        shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
    fi
}

step_hadolint() {
    local files_of
    mapfile -t files_of < <(grep -E '(^|/)Dockerfile$' <<<"$files" | grep ^catalog/)
    hadolint --no-color "${files_of[@]}"
}

step_names() {
    # A path of the machine it was written on says nothing elsewhere. /home/spark is the user of a lab box.
    local here found=0
    here=$(printf '%s\n%s\n' "$root" "$HOME" | grep -vxE '/|/root|/home/spark' || true)
    if [[ -n $here ]] && tr '\n' '\0' <<<"$files" | xargs -0 grep -nIF -e "$here" --; then
        found=1
    fi
    # shellcheck disable=SC2016 # the dollar is part of the pattern
    if tr '\n' '\0' <<<"$files" | xargs -0 grep -nIE '(^|[^[:alnum:]_./-])/(home/[a-z]|Users/|root/|work/)' -- |
        grep -vE '/home/(spark|[$<{])' | grep -vE '^(LICENSE|scripts/lint\.sh):'; then
        found=1
    fi
    if ((found)); then
        echo "The lines above name a path of one machine: say it relative to the repository or with a variable." >&2
        return 1
    fi
}

steps=(catalog ansible_lint ruff ruff_format mypy yamllint docs changelog shellcheck hadolint names)
if (($#)); then
    steps=("$@")
fi
failed=()
for step in "${steps[@]}"; do
    if [[ $(type -t "step_$step") != function ]]; then
        echo "lint.sh: there is no step '$step'; the steps are: catalog ansible_lint ruff ruff_format mypy yamllint" \
            "docs changelog shellcheck hadolint names." >&2
        exit 2
    fi
    printf 'lint: %-13s ' "$step"
    start=$SECONDS
    log=$cache/$step.log
    # A subshell of its own with -e: inside an `if` the shell would not stop at the first error.
    set +e
    (
        set -euo pipefail
        "step_$step"
    ) >"$log" 2>&1
    status=$?
    set -e
    if ((status == 0)); then
        echo "ok      $((SECONDS - start)) s"
    elif ((status == skipped)); then
        echo "skipped: $(tail -n 1 "$log")"
    else
        echo "failed  $((SECONDS - start)) s"
        sed 's/^/    /' "$log"
        failed+=("$step")
    fi
done

if ((${#failed[@]})); then
    echo "lint: ${#failed[@]} of ${#steps[@]} steps failed: ${failed[*]}" >&2
    exit 1
fi
echo "lint: no step of ${#steps[@]} failed"
