# SPDX-License-Identifier: Apache-2.0
"""What an attacker can do who has taken over the daemon: his code is played by system
calls that the sealed process itself is made to make.
"""

import contextlib
import errno
import os
import signal
import socket
import struct
import time

import pytest

import inject
import launch
import users

pytestmark = [
    pytest.mark.sandboxed, pytest.mark.unwatched('it is not itself'),
    pytest.mark.skipif(not inject.IS_POSSIBLE, reason='not for this machine yet')]

HERE = -100
ROOT = (HERE, b'/\0')
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
PROGRAM = b'/bin/true\0'
SOCKADDR = struct.pack('=H', socket.AF_UNIX) + b'/run/x\0'
PAGE = 4096
PRIVATE = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS

# Everything but 'PARENT', which is the id of whoever started the daemon, as it is. None
# would do harm if it were not refused: signals are 0, clocks and names impossible.
ATTACKS = (
    ('execve', PROGRAM, 0, 0), ('execveat', HERE, PROGRAM, 0, 0, 0),
    ('fork',), ('vfork',), ('clone', signal.SIGCHLD, 0, 0, 0, 0),
    ('clone', 0x10000000, 0, 0, 0, 0), ('clone3', bytes(88), 88),
    ('kill', 'PARENT', 0), ('kill', -1, 0),
    ('tkill', 'PARENT', 0), ('tgkill', 'PARENT', 'PARENT', 0),
    ('rt_sigqueueinfo', 'PARENT', 0, bytes(128)),
    ('pidfd_open', 'PARENT', 0), ('pidfd_send_signal', 0, 0, 0, 0),
    ('pidfd_getfd', 0, 0, 0), ('ptrace', 16, 'PARENT', 0, 0),
    ('process_vm_readv', 'PARENT', 0, 0, 0, 0, 0),
    ('process_vm_writev', 'PARENT', 0, 0, 0, 0, 0), ('process_madvise', 0, 0, 0, 0, 0),
    ('kcmp', 'PARENT', 'PARENT', 0, 0, 0), ('perf_event_open', bytes(112), 0, -1, -1, 0),
    ('prlimit64', 'PARENT', 7, 0, 0), ('setrlimit', 7, bytes(16)),
    ('socket', socket.AF_UNIX, socket.SOCK_STREAM, 0), ('socketpair', 1, 1, 0, bytes(8)),
    ('connect', 0, SOCKADDR, len(SOCKADDR)), ('bind', 0, SOCKADDR, len(SOCKADDR)),
    ('listen', 0, 1), ('sendto', 0, b'x', 1, 0, SOCKADDR, len(SOCKADDR)),
    ('mount', b'x\0', b'/\0', b'tmpfs\0', 0, 0), ('umount2', b'/\0', 2),
    ('open_tree', *ROOT, 1), ('move_mount', *ROOT, *ROOT, 0), ('fsopen', b'tmpfs\0', 0),
    ('fsmount', 0, 0, 0), ('mount_setattr', *ROOT, 0, bytes(32), 32),
    ('pivot_root', b'.\0', b'.\0'), ('chroot', b'/\0'), ('chdir', b'/\0'), ('fchdir', 0),
    ('unshare', 0x10000000), ('setns', 0, 0), ('open_by_handle_at', HERE, bytes(16), 0),
    ('bpf', 0, bytes(64), 64), ('userfaultfd', 0), ('io_uring_setup', 8, bytes(120)),
    ('io_uring_enter', 0, 1, 0, 0, 0), ('io_setup', 1, bytes(8)),
    ('keyctl', 0, -3, 0), ('add_key', b'user\0', b'x\0', b'x', 1, -3),
    ('request_key', b'user\0', b'x\0', 0, -3), ('seccomp', 0, 0, 0), ('prctl', 4, 1),
    ('landlock_create_ruleset', 0, 0, 1), ('personality', 0xffffffff),
    ('init_module', 0, 0, b'\0'), ('finit_module', 0, b'\0', 0),
    ('kexec_load', 0, 0, 0, 0),
    ('reboot', 0, 0, 0, 0), ('swapon', b'/x\0', 0), ('acct', b'/x\0'),
    ('quotactl', 0, 0, 0, 0), ('syslog', 3, 0, 0), ('settimeofday', b'\xff' * 16, 0),
    ('clock_settime', 0, b'\xff' * 16), ('sethostname', b'x', -1), ('iopl', 3),
    ('ioperm', 0, 1, 1), ('modify_ldt', 0, 0, 0), ('memfd_create', b'x\0', 0),
    ('fanotify_init', 0, 0), ('inotify_init1', 0), ('shmget', 0, PAGE, 0o1600),
    ('msgget', 0, 0o1600), ('semget', 0, 1, 0o1600), ('mq_open', b'x\0', 0o102, 0o600, 0),
    ('mmap', 0, PAGE, 5, PRIVATE, -1, 0), ('mmap', 0, PAGE, 7, PRIVATE, -1, 0),
    ('mprotect', 0, PAGE, 4), ('pkey_mprotect', 0, PAGE, 4, 0),
    ('remap_file_pages', 0, PAGE, 0, 0, 0),
    ('fcntl', 0, 8, 'PARENT'), ('fcntl', 0, 1024, 0), ('ioctl', 0, 0x5412, b'x'),
    ('ioctl', 0, 0x40049409, 0), ('rt_sigaction', signal.SIGSYS, 0, 0, 8),
    ('setuid', 0), ('setgid', 0), ('setreuid', 0, 0), ('setfsuid', 0), ('setsid',),
    ('sched_setaffinity', 'PARENT', 8, bytes(8)), ('setpriority', 9, 'PARENT', 0),
    ('mlockall', 3), ('vmsplice', 0, 0, 0, 0), ('splice', 0, 0, 0, 0, 0, 0),
    ('sendfile', 0, 0, 0, 1), ('lookup_dcookie', 0, bytes(64), 64),
)

PATHS = (b'/etc/shadow', b'/etc/passwd', b'../../../../etc/shadow', b'/proc/1/root',
         b'/proc/1/root/etc/shadow', b'/proc/self/root', b'/proc/self/mem',
         b'/proc/1/mem', b'/proc/self/exe', b'/proc/self/fd/0/../..', b'/dev/mem',
         b'/dev/kmsg', b'/dev/null',
         b'/sys/kernel/security', b'/run/x', b'/..', b'/../..')


def how(flags, resolve=0, mode=0):
    return struct.pack('=QQQ', flags, mode, resolve)


def fill(attack):
    name, *arguments = attack
    return name, [os.getpid() if a == 'PARENT' else a for a in arguments]


# ---- with everything in force


@pytest.mark.hostile('peer-seccomp', 'cage-calls-refused')
def test_attacks(start, share, scratch):
    """Each ends the process at once."""
    n_tried = 0
    for number, attack in enumerate(ATTACKS):
        if inject.number_of(attack[0]) is None:
            continue
        folder = os.path.join(scratch, str(number))
        os.mkdir(folder)
        daemon = start(launch.plain, share, folder, ['--log-level=off'])
        launch.eventually(lambda d=daemon: d.proc_field('Seccomp') == '2')
        name, arguments = fill(attack)
        with contextlib.suppress(inject.Died):  # or a moment later
            inject.run(daemon.pid, lambda call, n=name, a=arguments: call(n, *a))
        assert daemon.wait() == -signal.SIGSYS, attack
        n_tried += 1
    assert n_tried > 80


CASES = [(mode, how) for mode in ('namespace', 'chroot', 'none')
         for how in (launch.plain, launch.plain_as_user)
         if (mode, how) != ('chroot', launch.plain_as_user)]


@pytest.fixture(params=CASES, ids=lambda case: f'{case[0]}-{case[1].__name__}')
def begin(request, start, scratch):
    """begin('--option', ...): a daemon, ready."""
    mode, how_started = request.param
    home = users.make_home(scratch)
    share = users.own_folder(home, 'share')
    with open(os.path.join(share, 'file'), 'wb') as file:
        os.chown(file.fileno(), users.USER, users.USER)
    for name in ('secret', 'own'):
        with open(os.path.join(home, name), 'wb') as file:
            os.chown(file.fileno(), users.USER, users.USER)

    def make(*options):
        daemon = start(how_started, share, home, [f'--sandbox={mode}', *options])
        daemon.wait_ready()
        daemon.mode = mode
        return daemon

    return make


def folders_of(daemon):
    """Numbers of its descriptors of directories."""
    return [number for number in daemon.descriptors()
            if os.path.isdir(f'/proc/{daemon.pid}/fd/{number}')]


WRITING = (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_CREAT)


def try_paths(call, folders, ours):
    """What could be opened, of all that is not in the share: the machine's own files to
    read, and to write what is `ours`, which nobody misses.
    """
    opened = []
    tries = [(path, flags) for path in PATHS for flags in (os.O_RDONLY, DIRECTORY)
             # The root is the share; see test_root.
             if not path.startswith(b'/..')]
    for path, flags in tries + [(path, flags) for path in ours for flags in WRITING]:
        mode = 0o600 if flags & os.O_CREAT else 0
        if call('openat2', HERE, path + b'\0', how(flags, mode=mode), 24) >= 0:
            opened.append((path, flags))
    for folder in folders:
        for path in (b'../secret', b'../../secret', b'../../etc/passwd', b'../../1/root'):
            if call('openat2', folder, path + b'\0', how(os.O_RDONLY), 24) >= 0:
                opened.append((folder, path))
    return opened


@pytest.mark.parametrize('options', [(), ('--seccomp=none',)],
                         ids=['sealed', 'no filter'])
def test_paths(begin, options):
    """No path leads out: with the filter, and by Landlock alone."""
    daemon = begin(*options)
    folders = folders_of(daemon)
    assert len(folders) >= 2
    home = os.path.dirname(daemon.socket_path)
    ours = [os.fsencode(f'{home}/{name}') for name in ('secret', 'new')]
    assert inject.run(daemon.pid, lambda call: try_paths(call, folders, ours)) == []
    assert not os.path.exists(f'{home}/new')
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_open_and_openat(begin):
    """Whatever a library looks for does not exist."""
    daemon = begin()
    ours = os.fsencode(os.path.join(os.path.dirname(daemon.socket_path), 'secret'))

    def attempt(call):
        return {call(name, *at, path + b'\0', 0, 0) for path in (b'/', ours, b'.')
                for name, at in (('open', ()), ('openat', (HERE,)), ('creat', ()))}
    assert inject.run(daemon.pid, attempt) == {-errno.ENOENT}
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


# ---- without the filter


def lost_without_filter(call):
    """What Landlock, no capabilities and no new privileges refuse by themselves."""
    parent = os.getppid()
    tcp = call('socket', socket.AF_INET, socket.SOCK_STREAM, 0)
    address = struct.pack('=HH4s8x', socket.AF_INET, 0x3930, bytes((127, 0, 0, 1)))
    return {
        'kill': call('kill', parent, 0), 'tgkill': call('tgkill', parent, parent, 0),
        'ptrace': call('ptrace', 16, parent, 0, 0),
        'mount': call('mount', b'x\0', b'/\0', b'tmpfs\0', 0, 0),
        'umount': call('umount2', b'/\0', 2), 'execve': call('execve', b'/file\0', 0, 0),
        'program': call('execve', PROGRAM, 0, 0),
        'chroot': call('chroot', b'/\0'), 'setns': call('setns', 0, 0),
        'open_tree': call('open_tree', *ROOT, 1),
        'pivot_root': call('pivot_root', b'.\0', b'.\0'),
        'connect': call('connect', tcp, address, 16),
        'bind': call('bind', tcp, address, 16),
        'module': call('init_module', 0, 0, b'\0'),
        # This one changes nothing: Ctrl-Alt-Del stays with init.
        'reboot': call('reboot', 0xfee1dead, 672274793, 0, 0),
        'handle': call('open_by_handle_at', HERE, struct.pack('=Ii8x', 8, 1), 0),
        'clock': call('clock_settime', 0, struct.pack('=QQ', int(time.time()), 0)),
        'chown root': call('setuid', 4242),
    }


def test_without_filter(begin):
    daemon = begin('--seccomp=none')
    outcomes = inject.run(daemon.pid, lost_without_filter)
    # Its own processes' ids are what root may choose among; see virtiofsd(1).
    outcomes.pop('chown root')
    assert {name for name, result in outcomes.items() if result >= 0} == set()
    assert outcomes['kill'] == outcomes['tgkill'] == -errno.EPERM
    assert outcomes['execve'] == -errno.EACCES or daemon.mode == 'none'
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_control(start, share, scratch):
    """The calls do what they look like where nothing is in the way."""
    daemon = start(launch.plain, share, scratch,
                   ['--sandbox=none', '--seccomp=none', '--no-landlock'])
    daemon.wait_ready()

    def attempt(call):
        return (call('openat2', HERE, b'/etc/passwd\0', how(os.O_RDONLY), 24),
                call('kill', os.getppid(), 0))
    opened, killed = inject.run(daemon.pid, attempt)
    assert opened >= 0 and killed == 0
    daemon.signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        assert daemon.wait() == 0
