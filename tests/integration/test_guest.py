# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest works on a share that the daemon serves as Kata starts it."""

import hashlib
import os
import re
import struct
import subprocess
import time
from collections import namedtuple

import pytest

from files import read, write
import launch
from guest import vm
from launch import eventually

pytestmark = pytest.mark.guest

MIB = 1 << 20

Scene = namedtuple('Scene', 'kind daemon guest share')

SANDBOXED = (pytest.mark.sandboxed,)
LAUNCHES = {'go': launch.kata_go, 'rs': launch.kata_rs, 'plain': launch.plain}
KINDS = [
    pytest.param('go', marks=SANDBOXED),
    pytest.param('rs', marks=SANDBOXED),
    # Kata's command lines enter the sandbox, where LeakSanitizer cannot run.
    pytest.param('plain', marks=pytest.mark.sanitizer),
]


@pytest.fixture(scope='class', params=KINDS)
def scene(request, class_start, class_scratch, extra_args):
    """A booted guest with the share on /share; the tests of a class use it in turn."""
    folder = os.path.join(class_scratch, request.param)
    share = os.path.join(folder, 'share')
    os.makedirs(share)
    extra = extra_args if request.param == 'plain' else []
    daemon = class_start(LAUNCHES[request.param], share, folder, extra)
    if daemon.reader:
        daemon.wait_ready()
    with vm.Guest(daemon.socket_path, server=daemon) as guest:
        yield Scene(request.param, daemon, guest, share)


def sha256(path):
    return hashlib.sha256(read(path)).hexdigest()


def make_tree(top):
    """2,000 files of many sizes in nested folders, with links, modes and old times."""
    for number in range(2000):
        folder = os.path.join(top, f'd{number % 20}', f'e{number % 7}')
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f'file {number}')
        write(path, os.urandom(number * 7 % 9000))
        os.chmod(path, (0o644, 0o600, 0o755, 0o444)[number % 4])
        os.utime(path, (1e9 + number, 1e9 + 2 * number))
        if number % 50 == 0:
            os.symlink(f'file {number}', os.path.join(folder, f'link {number}'))


def snapshot(top):
    """{path: what cp -a is to keep}, with contents."""
    found = {}
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if os.path.islink(path):
                what = os.readlink(path)
            else:
                what = read(path) if name in names else None
            seconds = int(info.st_mtime) if name in names and not isinstance(
                what, str) else None
            found[os.path.relpath(path, top)] = (info.st_mode, seconds, what)
    return found


def numbers_in(path):
    """The 64-bit numbers that `guest-tool numbers` appended."""
    data = read(path)
    return struct.unpack(f'={len(data) // 8}Q', data[:len(data) & ~7])


def check_mmap_file(path):
    """The words that `guest-tool mmap` left."""
    words = struct.unpack(f'={MIB // 8}Q', read(path))
    assert list(words) == [vm.pattern(2 if i % 4096 == 0 else 1, i)
                           for i in range(len(words))]


class TestFiles:
    """Everything that users do, one guest per launch. The tests build on each other only
    in that they share the guest.
    """

    def test_mounted(self, scene):
        assert scene.guest.mount_status == 0
        assert f'{vm.TAG} on /share type virtiofs' in scene.guest.check('mount')

    def test_make_write_read_rename(self, scene):
        scene.guest.check('''
            mkdir -p /share/a/b
            echo first >/share/a/b/one
            echo second >>/share/a/b/one
            [ "$(cat /share/a/b/one)" = "first
second" ]
            mv /share/a/b/one /share/a/two
            [ ! -e /share/a/b/one ]
            ln /share/a/two /share/a/three
            ln -s two /share/a/four
            chmod 640 /share/a/two
            [ "$(stat -c %h,%a,%s /share/a/four)" = "1,777,3" ]
            [ "$(stat -L -c %h,%a,%s /share/a/four)" = "2,640,13" ]
            truncate -s 5 /share/a/two
            mkfifo /share/a/fifo
            rmdir /share/a/b
            [ "$(ls /share/a | tr '\\n' ' ')" = "fifo four three two " ]
        ''')
        top = os.path.join(scene.share, 'a')
        assert read(f'{top}/three') == b'first'
        assert sorted(os.listdir(top)) == ['fifo', 'four', 'three', 'two']
        scene.guest.check('rm -rf /share/a')
        assert not os.path.exists(top)

    def test_errors_are_the_hosts(self, scene):
        output = scene.guest.run('''
            mkdir /share/e; touch /share/e/f
            mkdir /share/e; rmdir /share/none; cat /share/e/f/g; rmdir /share/e
            ls /share/$(head -c 256 /dev/zero | tr '\\0' x)
        ''').output
        for text in ('File exists', 'No such file', 'Not a directory',
                     'Directory not empty', 'File name too long'):
            assert text in output

    def test_what_the_host_writes_is_seen(self, scene):
        write(os.path.join(scene.share, 'from-host'), b'one\n')
        assert scene.guest.check('cat /share/from-host') == 'one\n'
        write(os.path.join(scene.share, 'from-host'), b'two and more\n')
        time.sleep(1.1)  # cache=auto trusts what it has seen for a second
        assert scene.guest.check('cat /share/from-host') == 'two and more\n'

    def test_callers_identity(self, scene):
        """Files belong to who made them; the guest's kernel checks permissions."""
        scene.guest.check('''
            mkdir -m 777 /share/id
            echo 'u:x:1234:2345:u:/tmp:/bin/sh' >/etc/passwd
            echo 'u:x:2345:' >/etc/group
            su u -c 'echo mine >/share/id/file; mkdir /share/id/folder'
            chmod 700 /share/id/folder
            chown 0:0 /share/id/folder
            if su u -c 'touch /share/id/folder/no' 2>/dev/null; then exit 1; fi
        ''')
        info = os.stat(os.path.join(scene.share, 'id', 'file'))
        assert (info.st_uid, info.st_gid) == (1234, 2345)

    def test_fsync_mmap_and_direct(self, scene):
        scene.guest.check('''
            guest-tool mmap /share/mmap
            guest-tool direct /share/direct
            guest-tool numbers /share/numbers 300
            dd if=/dev/zero of=/share/synced bs=1000 count=10 conv=fsync 2>/dev/null
            guest-tool sync /share/synced
            guest-tool sync /share
            sync
        ''')
        check_mmap_file(os.path.join(scene.share, 'mmap'))
        assert numbers_in(os.path.join(scene.share, 'numbers')) == tuple(range(300))
        assert read(os.path.join(scene.share, 'synced')) == bytes(10000)

    def test_copy_and_remove_a_tree(self, scene):
        source = os.path.join(scene.share, 'tree')
        make_tree(source)
        scene.guest.check('cp -a /share/tree /share/copy', 120)
        assert snapshot(os.path.join(scene.share, 'copy')) == snapshot(source)
        assert scene.guest.check('find /share/copy -type f | wc -l').strip() == '2000'
        scene.guest.check('rm -rf /share/tree /share/copy', 120)
        assert not {'tree', 'copy'} & set(os.listdir(scene.share))

    def test_64_mib_each_way(self, scene):
        down, up = (os.path.join(scene.share, n) for n in ('down', 'up'))
        write(down, os.urandom(64 * MIB))
        output = scene.guest.check('''
            sha256sum /share/down
            cp /share/down /share/up
            sync
            echo 3 >/proc/sys/vm/drop_caches
            sha256sum /share/up
        ''', 150)
        seen = [line.split()[0] for line in output.splitlines()]
        assert seen == [sha256(down), sha256(down)]
        assert sha256(up) == sha256(down)

    def test_stop_and_cont(self, scene):
        path = os.path.join(scene.share, 'stopped')
        scene.guest.spawn('writer', 'guest-tool numbers /share/stopped 4000')
        for size in (800, 4000, 8000):
            eventually(lambda: os.path.exists(path) and os.path.getsize(path) >= size, 30)
            scene.guest.qmp('stop')
            time.sleep(0.2)
            size = os.path.getsize(path)
            time.sleep(0.5)
            assert os.path.getsize(path) == size
            scene.guest.qmp('cont')
        scene.guest.join('writer')
        assert numbers_in(path) == tuple(range(4000))

    def test_memory_hotplug(self, scene):
        """Plugged in while I/O runs; then file data lands in it."""
        source = os.path.join(scene.share, 'plug')
        write(source, os.urandom(48 * MIB))

        def free_pages():
            zone = scene.guest.check('cat /proc/zoneinfo').partition('Movable')[2]
            found = re.search(r'pages free +(\d+)', zone)
            return int(found.group(1)) if found else 0

        scene.guest.spawn('writer', 'guest-tool numbers /share/plugged 6000')
        maps = scene.daemon.proc('maps').count('memfd:')
        scene.guest.add_memory('dimm0', 128)
        eventually(lambda: free_pages() > 30000, 20)
        assert scene.daemon.proc('maps').count('memfd:') == maps + 1
        before = free_pages()
        seen = scene.guest.check('sha256sum /share/plug', 60).split()[0]
        assert seen == sha256(source)
        assert free_pages() < before - 8000, 'nothing was read into the new memory'
        scene.guest.join('writer')
        assert numbers_in(os.path.join(scene.share, 'plugged')) == tuple(range(6000))

    def test_names_that_a_log_must_not_repeat(self, scene):
        scene.guest.check(f'''
            cd /share
            echo x >'{launch.READY}'
            echo x >"$(printf 'a\\n{launch.READY}\\n')"
            echo x >"$(printf '\\377\\376')"
            ls >/dev/null
            cat ./*'{launch.READY}'* >/dev/null
            if cat './no {launch.READY}' 2>/dev/null; then exit 1; fi
        ''')
        assert b'\xff\xfe' in os.listdir(os.fsencode(scene.share))

    def test_reboot(self, scene):
        """The reset button, twice, with I/O in flight: what was flushed is there, and
        the daemon forgets the old guest's files and serves the new one.
        """
        scene.guest.check('echo kept >/share/kept; sync')
        counts = []
        for turn in range(2):
            scene.guest.check(f'sleep 1000 </share/kept 7</share/kept &'
                              f'echo {turn} >/share/turn; guest-tool sync /share/turn')
            scene.guest.spawn('writer', f'guest-tool numbers /share/cut{turn} 100000')
            path = os.path.join(scene.share, f'cut{turn}')
            eventually(lambda: os.path.exists(path) and os.path.getsize(path) > 4000, 20)
            scene.guest.reset()
            assert scene.guest.mount_status == 0
            assert scene.guest.check('cat /share/kept /share/turn') == f'kept\n{turn}\n'
            found = numbers_in(path)
            assert found == tuple(range(len(found))) and len(found) >= 500
            scene.guest.check('echo 3 >/proc/sys/vm/drop_caches')
            counts.append(len(scene.daemon.descriptors()))
        assert counts[1] <= counts[0]
        scene.guest.check('echo after >/share/after')
        assert read(os.path.join(scene.share, 'after')) == b'after\n'

    def test_daemon_ends_with_its_vmm(self, scene):
        assert scene.daemon.is_alive()
        scene.guest.check_leaks()
        scene.guest.kill()
        assert scene.daemon.wait(5) == 0
        if scene.daemon.reader:
            scene.daemon.said()
            assert scene.daemon.reader.error is None
            assert len(scene.daemon.reader.ready_lines()) == 1


class TestQueues:
    """Several request queues, which Linux uses from 6.11 on, one per CPU."""

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize('kind, layout', [
        pytest.param('go', 'split', marks=SANDBOXED),
        pytest.param('plain', 'packed', marks=pytest.mark.sanitizer)])
    def test_four_writers_on_two_queues(self, kind, layout, start, share, scratch,
                                        extra_args, monkeypatch):
        monkeypatch.setenv('VIRTIOFSD_TEST_RING', layout)
        why = vm.unavailable('6.12')
        if why:
            pytest.skip(why)
        extra = extra_args if kind == 'plain' else []
        daemon = start(LAUNCHES[kind], share, scratch, extra)
        if daemon.reader:
            daemon.wait_ready()
        with vm.Guest(daemon.socket_path, '6.12', cpus=2, queues=2,
                      server=daemon) as guest:
            sums = guest.check('''
                for n in 1 2 3 4; do
                    head -c 4000000 /dev/urandom >/tmp/data$n
                    { for turn in 1 2 3; do
                        cp /tmp/data$n /share/data$n
                        guest-tool sync /share/data$n
                        guest-tool numbers /share/numbers$n.$turn 200
                    done; touch /tmp/done$n; } &
                done
                wait
                for n in 1 2 3 4; do [ -e /tmp/done$n ]; done
                sha256sum /tmp/data?
            ''', 400).splitlines()
            interrupts = guest.check('cat /proc/interrupts')
            agreed = guest.check('cat /sys/bus/virtio/drivers/virtiofs/virtio*/features')
        assert agreed[34] == '01'[layout == 'packed']
        assert len(sums) == 4
        for line in sums:
            seen, name = line.split()
            assert sha256(os.path.join(share, os.path.basename(name))) == seen
        for name in os.listdir(share):
            if name.startswith('numbers'):
                assert numbers_in(os.path.join(share, name)) == tuple(range(200))
        for queue in ('requests.0', 'requests.1'):
            line = next(ln for ln in interrupts.splitlines() if ln.endswith(queue))
            assert sum(int(w) for w in line.split()[1:3]) > 20, line


def are_traced(daemon, tracer):
    """All of its threads."""
    return all(f'TracerPid:\t{tracer.pid}\n' in daemon.proc(f'task/{thread}/status')
               for thread in daemon.threads())


def wait_for_quiet(log, seconds, most):
    """Until nothing has been written there for so long."""
    deadline = time.monotonic() + most
    while True:
        size = os.path.getsize(log)
        time.sleep(seconds)
        if os.path.getsize(log) == size:
            return
        assert time.monotonic() < deadline, read(log)[-2000:].decode()


class TestIdle:
    @pytest.mark.sandboxed
    def test_no_system_call_in_ten_seconds(self, start, share, scratch):
        """An idle guest costs nothing: no timer, no polling. Not at once: strace makes
        waits return when it comes, and the guest may still be at something.
        """
        daemon = start(launch.kata_go, share, scratch)
        log = os.path.join(scratch, 'strace')
        with vm.Guest(daemon.socket_path, server=daemon) as guest:
            guest.check('echo x >/share/file; cat /share/file; sync')
            tracer = subprocess.Popen(['strace', '-f', '-o', log, '-p', str(daemon.pid)],
                                      stderr=subprocess.DEVNULL)
            eventually(lambda: are_traced(daemon, tracer), 30)
            wait_for_quiet(log, 10, 60)
            assert are_traced(daemon, tracer)
            # It does see what there is to see: one lookup.
            size = os.path.getsize(log)
            guest.check('[ ! -e /share/none ]')
            tracer.terminate()
            tracer.wait()
        assert b'stat' in read(log)[size:]


@pytest.mark.smoke
@pytest.mark.sandboxed
@pytest.mark.sanitizer
def test_sanitized_daemon_in_its_sandbox(start, share, scratch):
    """Sanitizers see the sandboxed daemon too, only leaks cannot be looked for."""
    daemon = start(launch.kata_rs, share, scratch)
    daemon.wait_ready()
    with vm.Guest(daemon.socket_path, server=daemon) as guest:
        guest.check('''
            mkdir /share/a
            echo text >/share/a/b
            cp -a /share/a /share/c
            cat /share/c/b
            guest-tool mmap /share/mmap
            ls -lR /share >/dev/null
            rm -rf /share/a /share/c
        ''')
        assert daemon.proc_field('Seccomp') == '2'
    assert daemon.wait() == 0
    assert os.listdir(share) == ['mmap']
