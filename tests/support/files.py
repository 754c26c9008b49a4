# SPDX-License-Identifier: Apache-2.0
"""Whole files on the host."""

import os


def write(path, data, mode=0o644):
    """Exactly these bytes and this mode, whatever the umask."""
    with open(path, 'wb') as file:
        file.write(data)
    os.chmod(path, mode)


def read(path):
    with open(path, 'rb') as file:
        return file.read()
