# SPDX-License-Identifier: Apache-2.0
"""Volumes that the host mounts into the share while a guest runs, in the layouts of both
of Kata's runtimes: they appear, are as writable as they ought to be, and go away.
"""

import os
import subprocess
import time

import pytest

import launch
from guest import vm

pytestmark = [pytest.mark.guest, pytest.mark.sandboxed]

# How long cache=auto lets a guest trust what it has seen.
TRUST = 1.2


def mount(*words):
    subprocess.run(['mount', *words], check=True)


def bind(source, target):
    mount('--bind', source, target)


def write(path, text):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


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
        write(os.path.join(path, 'file'), f'{name}\n')
        return path

    def target_for(self, source, name):
        """A mount point of the source's kind on the writable side."""
        target = self.folder(*self.below, name)
        if os.path.isfile(source):
            os.rmdir(target)
            write(target, '')
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
    readonly_holds = True

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
        private = self.folder('private', name)
        bind(source, private)
        mount('--make-private', private)
        mount('-o', 'remount,bind,ro', private)
        self.add(private, name)


class RsLayout(Layout):
    """rw/ is bound on ro/; volumes come into rw/passthrough/."""

    launch = staticmethod(launch.kata_rs)
    below = ('rw', 'passthrough')
    # Its remounts happen outside of the daemon's mount namespace.
    readonly_holds = False

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
        for side in ('rw', 'ro'):
            mount('-o', 'remount,bind,ro', f'{self.run}/{side}/passthrough/{name}')


@pytest.fixture(scope='class', params=[GoLayout, RsLayout], ids=['go', 'rs'])
def scene(request, class_start, class_scratch):
    """(layout, daemon, guest, the guest's folder that volumes appear in)."""
    folder = os.path.join(class_scratch, request.param.__name__)
    os.mkdir(folder)
    layout = request.param(folder)
    try:
        daemon = class_start(layout.launch, layout.share, folder)
        if daemon.reader:
            daemon.wait_ready()
        with vm.Guest(daemon.socket_path, server=daemon) as guest:
            yield layout, daemon, guest, os.path.join('/share', *layout.below[1:])
    finally:
        layout.close()


class TestVolumes:
    def test_rootfs_appears_writable(self, scene):
        layout, _, guest, top = scene
        assert guest.check(f'ls {top}') == ''
        source = layout.source('rootfs-source')
        layout.add_rootfs(source, 'c1')
        time.sleep(TRUST)
        assert guest.check(f'cat {top}/c1/rootfs/file') == 'rootfs-source\n'
        guest.check(f'echo guest >{top}/c1/rootfs/new; mkdir {top}/c1/rootfs/d; sync')
        assert read(f'{source}/new') == 'guest\n'

    def test_the_share_itself_is_read_only(self, scene):
        layout, _, guest, top = scene
        result = guest.run(f'touch {top}/no; mkdir {top}/no; mv {top}/c1 {top}/c2')
        assert result.status != 0
        assert result.output.count('Read-only file system') >= 3
        assert os.listdir(os.path.join(layout.run, *layout.below)) == ['c1']

    def test_volumes_of_both_kinds(self, scene):
        """A folder and a single file, such as a resolv.conf."""
        layout, _, guest, top = scene
        source = layout.source('volume')
        layout.add(source, 'c1-0123-volume')
        layout.add(f'{source}/file', 'c1-4567-resolv.conf')
        time.sleep(TRUST)
        assert guest.check(f'cat {top}/c1-0123-volume/file') == 'volume\n'
        assert guest.check(f'cat {top}/c1-4567-resolv.conf') == 'volume\n'
        guest.check(f'echo more >>{top}/c1-4567-resolv.conf; sync')
        assert read(f'{source}/file') == 'volume\nmore\n'

    def test_read_only_volume(self, scene):
        layout, _, guest, top = scene
        layout.add_readonly(layout.source('secret'), 'c1-89ab-secret')
        time.sleep(TRUST)
        assert guest.check(f'cat {top}/c1-89ab-secret/file') == 'secret\n'
        if layout.readonly_holds:
            result = guest.run(f'echo x >{top}/c1-89ab-secret/file')
            assert result.status != 0 and 'Read-only' in result.output
            assert read(f'{layout.sources}/secret/file') == 'secret\n'

    def test_unmounted_volumes_go_away(self, scene):
        """Also while the guest has a file of theirs in its caches; and nothing keeps the
        host's file system busy.
        """
        layout, _, guest, top = scene
        backing = os.path.join(layout.sources, 'tmpfs')
        os.mkdir(backing)
        mount('-t', 'tmpfs', 'volume', backing)
        write(f'{backing}/file', 'short-lived\n')
        layout.add(backing, 'c1-cdef-tmp')
        time.sleep(TRUST)
        assert guest.check(f'cat {top}/c1-cdef-tmp/file') == 'short-lived\n'
        layout.unmount('c1-cdef-tmp')
        time.sleep(TRUST)
        result = guest.run(f'cat {top}/c1-cdef-tmp/file')
        assert result.status != 0 and 'No such file' in result.output
        assert 'c1-cdef-tmp' not in guest.check(f'ls {top}')
        guest.check('echo 3 >/proc/sys/vm/drop_caches')
        subprocess.run(['umount', backing], check=True)

    def test_the_rest_goes_too(self, scene):
        layout, daemon, guest, top = scene
        for name in ('c1-0123-volume', 'c1-4567-resolv.conf', 'c1-89ab-secret'):
            layout.unmount(name)
        time.sleep(TRUST)
        assert guest.check(f'ls {top}') == 'c1\n'
        assert guest.check(f'ls {top}/c1/rootfs') == 'd\nfile\nnew\n'
        assert daemon.is_alive()

    def test_no_mount_leaks_to_the_host(self, scene):
        """Nothing that the daemon did in its namespace is seen in ours."""
        layout = scene[0]
        with open('/proc/self/mountinfo', encoding='utf-8') as file:
            targets = [line.split()[4] for line in file]
        mine = sorted(t for t in targets if t.startswith(layout.run))
        sides = {layout.share, os.path.join(layout.run, layout.below[0])}
        assert all(t == layout.run or t.startswith((*sides, f'{layout.run}/private'))
                   for t in mine)
        assert len(mine) == len(set(mine))
