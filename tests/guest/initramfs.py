# SPDX-License-Identifier: Apache-2.0
"""The guest's root: busybox, the kernel's modules, an init and a few tools, as a cpio
archive. It is made once per set of contents and cached.
"""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time

from guest import kernel

HERE = os.path.dirname(os.path.abspath(__file__))
BUSYBOX = '/bin/busybox'
WEEK = 7 * 24 * 3600


def _entry(number, name, mode, data=b'', device=(0, 0)):
    """One file of a "newc" archive."""
    path = name.encode() + b'\0'
    head = ''.join(f'{v:08X}' for v in (
        number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0))
    packed = b'070701' + head.encode() + path
    packed += b'\0' * (-len(packed) % 4) + data
    return packed + b'\0' * (-len(data) % 4)


def _archive(files):
    """files: {path: (mode, bytes) or (mode, bytes, device)}."""
    packed = [_entry(n, name, *what) for n, (name, what) in enumerate(files.items(), 1)]
    return b''.join(packed) + _entry(0, 'TRAILER!!!', 0)


def _compiled(source):
    """A static program made from one C file: busybox lacks a few things."""
    with tempfile.TemporaryDirectory() as scratch:
        path = f'{scratch}/program'
        subprocess.run(['cc', '-std=c17', '-D_GNU_SOURCE', '-O1', '-static', '-pthread',
                        '-o', path, source], check=True)
        with open(path, 'rb') as file:
            return file.read()


def _read(path):
    with open(path, 'rb') as file:
        return file.read()


def _contents(kernel_folder):
    files = {name: (stat.S_IFDIR | 0o755,) for name in (
        'bin', 'dev', 'etc', 'lib', 'mnt', 'proc', 'run', 'sys', 'tmp')}
    files['dev/console'] = (stat.S_IFCHR | 0o600, b'', (5, 1))
    files['dev/null'] = (stat.S_IFCHR | 0o666, b'', (1, 3))
    files['init'] = (stat.S_IFREG | 0o755, _read(f'{HERE}/init.sh'))
    files['bin/busybox'] = (stat.S_IFREG | 0o755, _read(BUSYBOX))
    files['bin/sh'] = (stat.S_IFLNK | 0o777, b'busybox')
    files['bin/guest-tool'] = (stat.S_IFREG | 0o755, _compiled(f'{HERE}/guest-tool.c'))
    for name in sorted(os.listdir(f'{kernel_folder}/modules')):
        files[f'lib/{name}'] = (stat.S_IFREG | 0o644,
                                _read(f'{kernel_folder}/modules/{name}'))
    return files


def _mark(kernel_folder):
    """Changes whenever the archive would."""
    digest = hashlib.sha256()
    for path in (BUSYBOX, f'{HERE}/init.sh', f'{HERE}/guest-tool.c', __file__,
                 f'{kernel_folder}/release'):
        digest.update(_read(path))
    return digest.hexdigest()[:16]


def _remove_stale(folder):
    """Archives that no checkout has used for a week."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith('initramfs-') and time.time() - os.path.getmtime(path) > WEEK:
            os.unlink(path)


def path_of(kernel_folder):
    """The archive for a kernel's folder. Raises kernel.Unavailable."""
    if not os.path.exists(BUSYBOX) or shutil.which('cc') is None:
        raise kernel.Unavailable(f'{BUSYBOX} (busybox-static) and cc are needed')
    path = os.path.join(kernel_folder, f'initramfs-{_mark(kernel_folder)}.cpio')
    with kernel.locked(os.path.basename(kernel_folder)):
        if os.path.exists(path):
            os.utime(path)
        else:
            with open(f'{path}.new', 'wb') as file:
                file.write(_archive(_contents(kernel_folder)))
            os.rename(f'{path}.new', path)
        _remove_stale(kernel_folder)
    return path
