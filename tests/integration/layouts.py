# SPDX-License-Identifier: Apache-2.0
"""How Kata's two runtimes lay out a sandbox's folder, and mount volumes into it."""

import os
import subprocess

import launch
from files import write


def mount(*words):
    subprocess.run(['mount', *words], check=True)


def bind(source, target):
    mount('--bind', source, target)


class Layout:
    """A sandbox's folder on a file system with shared propagation, as systemd's /run is,
    and beside it the sources that containers bring.
    """

    def __init__(self, scratch):
        self.sources = os.path.join(scratch, 'sources')
        self.run = os.path.join(scratch, 'run')
        os.mkdir(self.sources)
        os.mkdir(self.run)
        mount('-t', 'tmpfs', 'run', self.run)
        mount('--make-shared', self.run)

    def close(self):
        subprocess.run(['umount', '-R', '-l', self.run], check=True)

    def folder(self, *names, mode=0o755):
        path = os.path.join(self.run, *names)
        os.makedirs(path, mode=mode, exist_ok=True)
        return path

    def share_slave(self, source, target):
        """The guest's view: a slave of the writable side, read-only at its root."""
        bind(source, target)
        mount('--make-slave', target)
        mount('-o', 'remount,bind,ro', target)

    def source(self, name):
        path = os.path.join(self.sources, name)
        os.makedirs(path)
        write(os.path.join(path, 'file'), f'{name}\n'.encode())
        return path

    def target_for(self, source, name):
        """A mount point of the source's kind on the writable side."""
        return self.point_for(source, *self.below, name)

    def point_for(self, source, *names):
        target = self.folder(*names)
        if os.path.isfile(source):
            os.rmdir(target)
            write(target, b'')
        return target

    def unmount(self, name):
        """As Kata does it: lazily; then the mount point itself can go."""
        target = os.path.join(self.run, *self.below, name)
        subprocess.run(['umount', '-l', target], check=True)
        (os.rmdir if os.path.isdir(target) else os.unlink)(target)


class GoLayout(Layout):
    """mounts/ is bound on shared/; volumes come into mounts/."""

    launch = staticmethod(launch.kata_go)
    below = ('mounts',)

    def __init__(self, scratch):
        super().__init__(scratch)
        mounts = self.folder('mounts', mode=0o750)
        self.share = self.folder('shared', mode=0o700)
        self.share_slave(mounts, self.share)

    def add_rootfs(self, source, name):
        target = self.target_for(source, os.path.join(name, 'rootfs'))
        bind(source, target)
        mount('--make-private', target)

    def add(self, source, name):
        target = self.target_for(source, name)
        bind(source, target)
        mount('--make-private', target)

    def add_readonly(self, source, name):
        """By way of a private read-only bind, whose flag is copied by the second."""
        private = self.point_for(source, 'private', name)
        bind(source, private)
        mount('--make-private', private)
        mount('-o', 'remount,bind,ro', private)
        self.add(private, name)


class RsLayout(Layout):
    """rw/ is bound on ro/; volumes come into rw/passthrough/. Read-only ones are
    remounted so, outside of the daemon's mount namespace.
    """

    launch = staticmethod(launch.kata_rs)
    below = ('rw', 'passthrough')

    def __init__(self, scratch):
        super().__init__(scratch)
        self.folder(*self.below)
        self.share = self.folder('ro')
        self.share_slave(self.folder('rw'), self.share)

    def add_rootfs(self, source, name):
        self.add(source, os.path.join(name, 'rootfs'))

    def add(self, source, name):
        target = self.target_for(source, name)
        bind(source, target)
        mount('--make-slave', target)

    def add_readonly(self, source, name):
        self.add(source, name)
        self.remount(name, 'ro')

    def remount(self, name, flag):
        for side in ('rw', 'ro'):
            mount('-o', f'remount,bind,{flag}',
                  f'{self.run}/{side}/passthrough/{name}')
