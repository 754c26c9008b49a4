# SPDX-License-Identifier: Apache-2.0
"""Volumes that the host mounts into the share while a guest runs, in the layouts of both
of Kata's runtimes: they appear, are as writable as they ought to be, and go away.
"""

import os
import subprocess
import time

import pytest

from files import read, write
from guest import vm
from layouts import GoLayout, RsLayout, mount

pytestmark = [pytest.mark.guest, pytest.mark.sandboxed]

# How long cache=auto lets a guest trust what it has seen.
TRUST = 1.2


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
        assert read(f'{source}/new') == b'guest\n'

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
        assert read(f'{source}/file') == b'volume\nmore\n'

    def test_read_only_volume(self, scene):
        layout, _, guest, top = scene
        layout.add_readonly(layout.source('secret'), 'c1-89ab-secret')
        time.sleep(TRUST)
        assert guest.check(f'cat {top}/c1-89ab-secret/file') == 'secret\n'
        result = guest.run(f'echo x >{top}/c1-89ab-secret/file')
        assert result.status != 0 and 'Read-only' in result.output
        assert read(f'{layout.sources}/secret/file') == b'secret\n'

    def test_unmounted_volumes_go_away(self, scene):
        """Also while the guest has a file of theirs in its caches; and nothing keeps the
        host's file system busy.
        """
        layout, _, guest, top = scene
        backing = os.path.join(layout.sources, 'tmpfs')
        os.mkdir(backing)
        mount('-t', 'tmpfs', 'volume', backing)
        write(f'{backing}/file', b'short-lived\n')
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
