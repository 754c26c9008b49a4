# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest under QEMU 11 maps files of the share: see docs/dax.md."""

import hashlib
import os
import random
from collections import namedtuple

import pytest

from files import read, write
import launch
from guest import dax, vm

pytestmark = pytest.mark.guest

MIB = 1 << 20

Scene = namedtuple('Scene', 'daemon guest share')


@pytest.fixture(scope='class')
def scene(class_start, class_scratch, extra_args):
    """A booted guest with a window that is smaller than the files; the tests of a class
    use it in turn.
    """
    why = dax.unavailable()
    if why:
        pytest.skip(f'no guest that maps files: {why}')
    share = os.path.join(class_scratch, 'share')
    os.mkdir(share)
    daemon = class_start(launch.plain, share, class_scratch, [
        f'--tag={vm.TAG}', '--dax-window=16M', '--thread-pool-size=2',
        '--log-level=debug', *extra_args])
    daemon.wait_ready()
    with dax.Guest(daemon.socket_path, server=daemon) as guest:
        assert guest.mount_status == 0
        yield Scene(daemon, guest, share)


def make_file(scene, name, mib):
    data = random.Random(name).randbytes(mib * MIB)
    write(os.path.join(scene.share, name), data)
    return data


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def count(scene, name):
    """How many requests of this name the daemon has answered well."""
    return sum(f' {name} (' in line and ': 0 in ' in line
               for line in scene.daemon.reader.lines)


class TestDax:
    """One guest, with 8 pages in its window."""

    def test_window(self, scene):
        assert 'Cache len: 0x1000000' in scene.guest.check('dmesg')

    def test_read(self, scene):
        """More than fits in the window: by mappings alone, which come and go."""
        data, before = make_file(scene, 'file', 64), count(scene, 'READ')
        assert sha256(data) in scene.guest.check('sha256sum /share/file')
        assert count(scene, 'READ') == before
        assert count(scene, 'SETUPMAPPING') >= 32
        assert count(scene, 'REMOVEMAPPING') > 0

    def test_other_files(self, scene):
        """What does not suit is read as ever."""
        data, before = make_file(scene, 'other', 1), count(scene, 'READ')
        assert sha256(data) in scene.guest.check('sha256sum /share/other')
        assert count(scene, 'READ') > before

    def test_write(self, scene):
        """In place, at random, in two files at once: both sides see the same at once."""
        chance = random.Random(5)
        files = {name: bytearray(make_file(scene, name, 32)) for name in ('one', 'two')}
        before = count(scene, 'WRITE')
        for step in range(60):
            name = chance.choice(list(files))
            data = f'step {step:08}'.encode()
            at = chance.randrange(32 * MIB - len(data))
            scene.guest.check(f'printf "{data.decode()}" | '
                              f'dd of=/share/{name} bs=1 seek={at} conv=notrunc')
            files[name][at:at + len(data)] = data
            assert read(os.path.join(scene.share, name))[at:at + len(data)] == data
        assert count(scene, 'WRITE') == before
        for name, data in files.items():
            assert read(os.path.join(scene.share, name)) == data
            assert sha256(data) in scene.guest.check(f'sha256sum /share/{name}')

    @pytest.mark.parametrize('option', ['dax=inode', 'dax=always'])
    def test_mount_option(self, scene, option):
        """Written through a mapping and flushed, then read ten times: no byte of it goes
        through the daemon.
        """
        name, words = f'{option}-file', 64 * MIB // 8
        make_file(scene, name, 64)
        scene.guest.check(
            f'umount /share; mount -t virtiofs -o {option} {vm.TAG} /share')
        before = count(scene, 'READ'), count(scene, 'WRITE')
        scene.guest.check(f'guest-tool fill /share/{name} 7')
        data = read(os.path.join(scene.share, name))
        for at in (0, words - 1, *random.Random(1).sample(range(words), 2000)):
            assert data[8 * at:8 * at + 8] == vm.pattern(7, at).to_bytes(8, 'little')
        assert sha256(data) in scene.guest.check(f'sha256sum /share/{name}')
        for _ in range(9):
            scene.guest.check(f'cat /share/{name} >/dev/null')
        after = count(scene, 'READ'), count(scene, 'WRITE')
        scene.guest.check(f'umount /share; mount -t virtiofs {vm.TAG} /share')
        print(f'{option}: filled once, read ten times: {after[0] - before[0]} READs and '
              f'{after[1] - before[1]} WRITEs')
        assert after == before

    def test_host_writes(self, scene):
        """What the host writes the guest sees, without asking."""
        data = bytearray(make_file(scene, 'shared', 4))
        scene.guest.check('sha256sum /share/shared')
        with open(os.path.join(scene.share, 'shared'), 'r+b') as file:
            file.seek(3 * MIB)
            file.write(b'from the host')
        data[3 * MIB:3 * MIB + 13] = b'from the host'
        assert sha256(data) in scene.guest.check('sha256sum /share/shared')

    def test_together(self, scene):
        """Four programs compete for the window."""
        files = {f'file{i}': make_file(scene, f'file{i}', 16) for i in range(4)}
        for name in files:
            scene.guest.spawn(name, f'for i in 1 2 3; do sha256sum /share/{name}; done')
        for name, data in files.items():
            assert scene.guest.join(name, 120).count(sha256(data)) == 3

    def test_stop_and_cont(self, scene):
        """Mappings outlive it."""
        data = make_file(scene, 'stopped', 4)
        scene.guest.check('sha256sum /share/stopped')
        for _ in range(3):
            scene.guest.qmp('stop')
            scene.guest.qmp('cont')
            assert sha256(data) in scene.guest.check('sha256sum /share/stopped')

    def test_truncate(self, scene):
        """The guest makes a mapped file shorter, and longer again."""
        data = make_file(scene, 'shorter', 8)
        scene.guest.check('sha256sum /share/shorter; truncate -s 4M /share/shorter')
        assert sha256(data[:4 * MIB]) in scene.guest.check('sha256sum /share/shorter')
        scene.guest.check('truncate -s 8M /share/shorter')
        assert sha256(data[:4 * MIB] + bytes(4 * MIB)) in scene.guest.check(
            'sha256sum /share/shorter')

    def test_grown(self, scene):
        """A file that is no multiple any more: its end is an error while anybody has it
        open, and nothing else is. Then the guest looks at it anew.
        """
        data = make_file(scene, 'grown', 4)
        failed = scene.guest.run("""exec 4</share/grown
            sha256sum <&4
            printf end >>/share/grown
            cat <&4
            head -c 4194304 /share/grown | sha256sum""")
        assert 'No such device or address' in failed.output
        assert failed.output.count(sha256(data)) == 2
        assert read(os.path.join(scene.share, 'grown')) == data + b'end'
        assert scene.guest.check('tail -c 3 /share/grown') == 'end'

    def test_remount(self, scene):
        """The end of a session empties the window, and the next begins with an empty one.
        """
        data = make_file(scene, 'again', 8)
        for _ in range(3):
            scene.guest.check(f'umount /share; mount -t virtiofs {vm.TAG} /share')
            assert sha256(data) in scene.guest.check('sha256sum /share/again')

    def test_reset(self, scene):
        """A guest that unmounts before, as an orderly reboot does: QEMU 11.1 is killed by
        a fault of its own when it is reset with files mapped.
        """
        data = make_file(scene, 'reset', 8)
        for _ in range(2):
            scene.guest.check('sha256sum /share/reset; umount /share')
            scene.guest.reset()
            assert sha256(data) in scene.guest.check('sha256sum /share/reset')
