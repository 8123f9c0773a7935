# SPDX-License-Identifier: Apache-2.0
"""Who gets through to which engine, and what starts and stops for it: pure, events in and effects out."""
