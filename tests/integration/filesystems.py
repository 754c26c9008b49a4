# SPDX-License-Identifier: Apache-2.0
"""File systems of a test's own: on an image in its folder, in memory, or of layers."""

import contextlib
import os
import subprocess

MAKE = {
    'ext4': ('mkfs.ext4', '-q', '-F'),
    'xfs': ('mkfs.xfs', '-q', '-f', '-K'),
    'btrfs': ('mkfs.btrfs', '-q', '-f', '-K'),
}
KINDS = (*MAKE, 'tmpfs', 'overlay')
SIZE = 1 << 30  # of an image, which is sparse; mkfs.xfs makes none below 300 MB


def _run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def mounted(target, *words):
    """What `mount WORD... target` mounts, until it is left."""
    os.makedirs(target, exist_ok=True)
    _run('mount', *words, target)
    try:
        yield target
    finally:
        _run('umount', '-l', target)


def overlay(lower, top, target, *options):
    """An overlay of `lower` and of what stands below `top`, mounted on `target`."""
    for folder in ('upper', 'work'):
        os.makedirs(os.path.join(top, folder), exist_ok=True)
    text = ','.join((f'lowerdir={lower}', f'upperdir={top}/upper',
                     f'workdir={top}/work', *options))
    return mounted(target, '-t', 'overlay', 'overlay', '-o', text)


def make_image(path, kind, *options, size=SIZE):
    """A sparse image of an empty file system."""
    with open(path, 'xb') as image:
        image.truncate(size)
    _run(*MAKE[kind], *options, path)


@contextlib.contextmanager
def made(kind, folder, lower=None, *options):
    """A new file system of that kind below `folder`, unmounted when it is left; on a
    disk, made with these options of mkfs. An
    overlay is mounted as container runtimes do, without index, over `lower`, or over an
    empty folder.
    """
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, kind)
    if kind == 'tmpfs':
        with mounted(target, '-t', 'tmpfs', 'tmpfs') as top:
            yield top
    elif kind == 'overlay':
        if lower is None:
            lower = os.path.join(folder, 'lower')
            os.mkdir(lower)
        with overlay(lower, folder, target, 'index=off') as top:
            yield top
    else:
        image = os.path.join(folder, f'{kind}.image')
        make_image(image, kind, *options)
        try:
            with mounted(target, '-o', 'loop', image) as top:
                yield top
        finally:
            os.unlink(image)
