# SPDX-License-Identifier: Apache-2.0
"""The images of the box's engines: brought by digest, tried out, kept for a way back, and carried without a network.

An image has a name of Hearth's own, ``localhost/hearth/<name>:<first 12 hex digits of its digest>``, whatever registry,
build or folder it came from: units run that name. What is known of each is in ``/var/lib/hearth/images.json``.
"""
