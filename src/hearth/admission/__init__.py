# SPDX-License-Identifier: Apache-2.0
"""Whether an engine may start: what it needs, what is free, who holds the rest."""
