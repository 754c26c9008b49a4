# SPDX-License-Identifier: Apache-2.0
"""A folder with a bit of everything, and every request that would change it."""

import os
import stat

import fuse_client as fuse
from files import write

LONG_AGO = 10**18 + 1


def populate(folder):
    write(os.path.join(folder, 'file'), b'content')
    write(os.path.join(folder, 'theirs'), b'content')
    os.mkdir(os.path.join(folder, 'folder'))
    write(os.path.join(folder, 'folder', 'inner'), b'inner')
    os.symlink('file', os.path.join(folder, 'link'))
    os.mkfifo(os.path.join(folder, 'fifo'))
    os.setxattr(os.path.join(folder, 'file'), 'user.name', b'value')
    os.chown(os.path.join(folder, 'theirs'), 1000, 1000)
    for name in ('file', 'folder', 'link', 'folder/inner'):
        os.utime(os.path.join(folder, name), ns=(LONG_AGO, LONG_AGO + 1),
                 follow_symlinks=False)


def modifying(client, node, handle, root=fuse.ROOT):
    """Every request that changes something: {words: function}. The node is of `file` in
    the populated folder `root`, the handle open to read and write if that is possible.
    """
    fsx = bytes(28)
    return {
        'chmod': lambda: client.setattr(node, 1, mode=0o600),
        'chown': lambda: client.setattr(node, 2, uid=5),
        'truncate': lambda: client.setattr(node, 8, size=0),
        'ftruncate': lambda: client.setattr(node, 8 | 64, size=0, fh=handle),
        'utimes': lambda: client.setattr(node, 16 | 32, atime=5, mtime=6),
        'utimes to now': lambda: client.setattr(node, 128 | 256),
        'ctime': lambda: client.setattr(node, 1 << 10),
        'symlink': lambda: client.symlink(root, b'new', b'to'),
        'mknod': lambda: client.mknod(root, b'new', stat.S_IFREG | 0o644),
        'whiteout': lambda: client.mknod(root, b'new', stat.S_IFCHR),
        'mkdir': lambda: client.mkdir(root, b'new'),
        'unlink': lambda: client.unlink(root, b'file'),
        'rmdir': lambda: client.rmdir(root, b'folder'),
        'rename': lambda: client.rename(root, b'file', root, b'new'),
        'exchange': lambda: client.rename(root, b'file', root, b'theirs', 2),
        'link': lambda: client.link(node, root, b'new'),
        'open to write': lambda: client.open(node, os.O_WRONLY),
        'open to read and write': lambda: client.open(node, os.O_RDWR),
        'open with both': lambda: client.open(node, os.O_ACCMODE),
        'open to truncate': lambda: client.open(node, os.O_RDONLY | os.O_TRUNC),
        'create': lambda: client.create(root, b'new'),
        'create to read': lambda: client.create(root, b'new', flags=os.O_CREAT),
        'create what is there': lambda: client.create(root, b'file'),
        'create to truncate': lambda: client.create(root, b'file',
                                                    flags=os.O_CREAT | os.O_TRUNC),
        'tmpfile': lambda: client.tmpfile(root),
        'write': lambda: client.write(node, handle, b'x'),
        'allocate': lambda: client.fallocate(node, handle, 0, 0, 100),
        'copy': lambda: client.copy_file_range(node, handle, 0, (node, handle, 3), 1),
        'copy much': lambda: client.copy_file_range(node, handle, 0, (node, handle, 3), 1,
                                                    wide=True),
        'setxattr': lambda: client.setxattr(node, b'user.name', b'other'),
        'removexattr': lambda: client.removexattr(node, b'user.name'),
        'set flags': lambda: client.ioctl(node, handle, 0x40086602, bytes(8)),
        'set flags, 32 bits': lambda: client.ioctl(node, handle, 0x40046602, bytes(4)),
        'set attributes': lambda: client.ioctl(node, handle, 0x401C5820, fsx),
    }
