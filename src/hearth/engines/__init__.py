# SPDX-License-Identifier: Apache-2.0
"""One engine seen from the box: its unit, its image, its answers."""
