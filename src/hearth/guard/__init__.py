# SPDX-License-Identifier: Apache-2.0
"""The guard: watches the host's memory, and ends the newest engine before the host stands still."""
