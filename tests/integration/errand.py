# SPDX-License-Identifier: Apache-2.0
"""An honest guest's errand, every step of which is looked at on the host: what it was
told was done has been done.
"""

import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import fuse_client as fuse  # noqa: E402

DATA = b'what was written' * 300
SET_MODE, SET_UID, SET_SIZE, SET_MTIME = 1, 2, 8, 32


class Errand:
    """It needs a share with nothing in it."""

    def __init__(self, client, share):
        self.client, self.share = client, share
        self.tried = self.failed = 0
        self.words = set()  # of what went wrong

    def path(self, name):
        return os.path.join(self.share, name.decode())

    def step(self, act, is_done=lambda _: True):
        """The value, or None if the request failed. A success is one."""
        self.tried += 1
        try:
            value = act()
        except fuse.FuseError as error:
            self.failed += 1
            self.words.add(errno.errorcode[error.errno])
            return None
        assert is_done(value), f'step {self.tried} was not done'
        return value

    def exists(self, name):
        return os.path.lexists(self.path(name))

    def content(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def run(self):
        made = self.step(lambda: self.client.create(fuse.ROOT, b'file'),
                         lambda _: self.exists(b'file'))
        if made:
            self.use_file(made[0].nodeid, made[1])
        self.use_names()
        self.list()
        self.step(self.client.statfs, lambda words: words[0] > 0)
        self.step(self.client.syncfs)

    def use_file(self, node, handle):
        client, step = self.client, self.step
        path = self.path(b'file')
        wrote = step(lambda: client.write(node, handle, DATA),
                     lambda n: self.content(b'file') == DATA[:n])
        step(lambda: client.read(node, handle, 8192),
             lambda data: data == DATA[:wrote or 0])
        step(lambda: client.fsync(node, handle))
        step(lambda: client.lseek(node, handle, 0, os.SEEK_DATA), lambda at: at == 0)
        step(lambda: client.getattr(node),
             lambda attr: attr.size == os.stat(path).st_size)
        step(lambda: client.setattr(node, SET_MODE, mode=0o640),
             lambda _: os.stat(path).st_mode & 0o777 == 0o640)
        step(lambda: client.setattr(node, SET_UID, uid=7),
             lambda _: os.stat(path).st_uid == 7)
        step(lambda: client.setattr(node, SET_MTIME, mtime=12345),
             lambda _: os.stat(path).st_mtime == 12345)
        step(lambda: client.setattr(node, SET_SIZE | 64, fh=handle, size=100),
             lambda _: os.stat(path).st_size == 100)
        step(lambda: client.fallocate(node, handle, 0, 0, 20000),
             lambda _: os.stat(path).st_size == 20000)
        self.use_attributes(node, path)
        other = step(lambda: client.create(fuse.ROOT, b'copy'))
        if other:
            target = other[0].nodeid, other[1], 0
            step(lambda: client.copy_file_range(node, handle, 0, target, 4096),
                 lambda n: self.content(b'copy') == self.content(b'file')[:n])
        again = step(lambda: client.open(node, os.O_RDWR))
        if again:
            client.release(node, again[0])

    def use_attributes(self, node, path):
        client, step = self.client, self.step
        step(lambda: client.setxattr(node, b'user.a', b'value'),
             lambda _: os.getxattr(path, 'user.a') == b'value')
        there = 'user.a' in os.listxattr(path)
        step(lambda: client.getxattr(node, b'user.a'), lambda value: value == b'value')
        step(lambda: client.listxattr(node), lambda names: (b'user.a' in names) == there)
        step(lambda: client.removexattr(node, b'user.a'),
             lambda _: 'user.a' not in os.listxattr(path))

    def use_names(self):
        client, step, root = self.client, self.step, fuse.ROOT
        step(lambda: client.mkdir(root, b'dir'),
             lambda _: os.path.isdir(self.path(b'dir')))
        step(lambda: client.mknod(root, b'node', 0o10600), lambda _: self.exists(b'node'))
        link = step(lambda: client.symlink(root, b'link', b'target'),
                    lambda _: os.readlink(self.path(b'link')) == 'target')
        if link:
            step(lambda: client.readlink(link.nodeid), lambda text: text == b'target')
        found = step(lambda: client.lookup(root, b'file'))
        if found:
            step(lambda: client.link(found.nodeid, root, b'hard'),
                 lambda _: os.stat(self.path(b'hard')).st_nlink == 2)
        step(lambda: client.rename(root, b'node', root, b'moved'),
             lambda _: self.exists(b'moved') and not self.exists(b'node'))
        step(lambda: client.unlink(root, b'moved'), lambda _: not self.exists(b'moved'))
        step(lambda: client.rmdir(root, b'dir'), lambda _: not self.exists(b'dir'))

    def list(self):
        there = set(os.listdir(os.fsencode(self.share)))
        for plus in (False, True):
            self.step(lambda plus=plus: self.client.listdir(fuse.ROOT, plus=plus),
                      lambda found: {entry.name for entry in found} - {b'.', b'..'}
                      == there)


def clean(share):
    for name in os.listdir(share):
        path = os.path.join(share, name)
        is_folder = os.path.isdir(path) and not os.path.islink(path)
        (os.rmdir if is_folder else os.unlink)(path)
