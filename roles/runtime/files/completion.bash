# SPDX-License-Identifier: Apache-2.0
# Completes the command hearth. What it knows comes from the command itself, so the two never differ.
# bash-completion reads this file when hearth is completed for the first time in a shell.
eval "$(hearth completion bash 2>/dev/null)"
