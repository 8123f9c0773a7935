# SPDX-License-Identifier: Apache-2.0
"""One address for every model: the HTTP face of the box, which wakes engines on demand."""
