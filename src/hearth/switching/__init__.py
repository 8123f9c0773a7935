# SPDX-License-Identifier: Apache-2.0
"""From one engine to another: the plan, its steps, and the way back."""
