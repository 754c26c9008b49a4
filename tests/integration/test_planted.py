# SPDX-License-Identifier: Apache-2.0
"""Files that a guest puts where libraries look for configuration or code: once the root
directory is the share, nobody opens them, whatever the daemon does and however it ends.
strace(1) sees each of its calls from the first to the last.
"""

import contextlib
import os
import re
import signal

import pytest

import conftest
import fuse_client as fuse
import launch
import users
from frontend import Frontend
from strace import Traced

pytestmark = [pytest.mark.sandboxed, pytest.mark.unwatched('strace is in its way')]

LIBRARIES = ('lib', 'lib64', 'usr/lib', 'lib/x86_64-linux-gnu',
             'usr/lib/x86_64-linux-gnu')
PLANTED = [
    'etc/localtime', 'etc/nsswitch.conf', 'etc/passwd', 'etc/group', 'etc/ld.so.cache',
    'etc/ld.so.preload', 'etc/host.conf', 'etc/locale.alias', 'usr/share/zoneinfo/UTC',
    'usr/lib/locale/locale-archive', 'usr/lib/locale/C.utf8/LC_CTYPE',
    'usr/share/locale/locale.alias', 'usr/share/locale/en/LC_MESSAGES/libc.mo',
    'proc/meminfo', 'proc/self/status', 'sys/devices/system/cpu/online', 'dev/null',
    'dev/log', 'dev/tty']
PLANTED += [f'{folder}/{name}' for folder in LIBRARIES for name in (
    'libgcc_s.so.1', 'libnss_files.so.2', 'libnss_compat.so.2', 'libnss_systemd.so.2',
    'gconv/gconv-modules', 'gconv/gconv-modules.cache', 'gconv/ISO8859-1.so',
    'gconv/UTF-16.so', 'libc.so.6', 'libasan.so.8')]

# Calls that look at a path; which argument it is.
BY_PATH = {'open': 0, 'creat': 0, 'openat': 1, 'openat2': 1, 'stat': 0, 'lstat': 0,
           'newfstatat': 1, 'statx': 1, 'access': 0, 'faccessat': 1, 'faccessat2': 1,
           'readlink': 0, 'readlinkat': 1, 'execve': 0, 'execveat': 1, 'chdir': 0,
           'uselib': 0, 'statfs': 0, 'inotify_add_watch': 1, 'name_to_handle_at': 1}
# Names that the guest asks for, in what follows.
ASKED = {'file', 'new', 'none', '\\377\\376', '\\303\\251', ''}
ENTERED = re.compile(r'(pivot_root|chroot|landlock_restrict_self)\(')


def plant(share):
    for name in PLANTED:
        path = os.path.join(share, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as file:
            file.write(b'\x7fELF planted')
        os.chmod(path, 0o755)
    with open(os.path.join(share, 'file'), 'wb'):
        os.chmod(os.path.join(share, 'file'), 0o666)


def ask(client):
    """What succeeds, what fails, and what is logged."""
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, _ = client.open(node, os.O_RDWR)
    client.write(node, handle, b'text' * 5000)
    client.read(node, handle, 20000)
    client.release(node, handle)
    client.listdir(fuse.ROOT)
    for call, *arguments in ((client.lookup, fuse.ROOT, b'none'),
                             (client.lookup, fuse.ROOT, b'\xff\xfe'),
                             (client.lookup, fuse.ROOT, b'\xc3\xa9'),
                             (client.mkdir, fuse.ROOT, b'file'), (client.open, 99),
                             (client.lookup, fuse.ROOT, b'../x')):
        with contextlib.suppress(fuse.FuseError):
            call(*arguments)
    for opcode in (9999, fuse.WRITE):
        client.send(opcode, fuse.ROOT, b'nonsense')


def by_signal(frontend, client, daemon):
    ask(client)
    daemon.signal(signal.SIGUSR1)
    daemon.signal(signal.SIGTERM)


def by_leaving(frontend, client, daemon):
    ask(client)


def by_nonsense(frontend, client, daemon):
    """A message that is none ends the connection."""
    frontend.send_bytes(b'\xff' * 64)
    assert frontend.is_closed(5)


def strings_of(text):
    return re.findall(r'"((?:[^"\\]|\\.)*)"', text)


def looked_at(text):
    """The path that a call names; None if it names none that strace can read."""
    call = text.split('(', 1)[0]
    found = strings_of(text) if call in BY_PATH else []
    return found[0] if found else None


CASES = [(mode, how) for mode in ('namespace', 'chroot', 'none')
         for how in (launch.plain, launch.plain_as_user)
         if (mode, how) != ('chroot', launch.plain_as_user)]


@pytest.mark.hostile('cage-planted')
@pytest.mark.parametrize('end', [by_signal, by_leaving, by_nonsense])
@pytest.mark.parametrize('mode, how', CASES)
def test_nothing_is_opened(request, binary, scratch, mode, how, end):
    home = users.make_home(scratch)
    share = users.own_folder(home, 'share')
    plant(share)
    traced = Traced(binary, home)
    starter = conftest.Starter(request, traced.path)
    try:
        daemon = starter(how, share, home,
                         [f'--sandbox={mode}', '--log-level=debug'])
        daemon.wait_ready()
        with Frontend(daemon.socket_path) as frontend:
            frontend.start()
            client = frontend.client(timeout_ms=20000)
            client.init()
            end(frontend, client, daemon)
        daemon.wait()
        texts = [text for _, text in traced.lines(daemon.pid)]
    finally:
        starter.finish()
    assert not any(f'{share}/{name}' in text for text in texts for name in PLANTED)
    entered = max(i for i, text in enumerate(texts) if ENTERED.match(text))
    after = texts[entered + 1:]
    assert len(after) > 100
    if how is launch.plain and end is not by_nonsense:  # strace reads what is named
        assert 'file' in {looked_at(text) for text in after}
    wrong = [text for text in after if re.match(r'(open|openat|creat|execve)\(', text)]
    for text in after:
        path = looked_at(text)
        if path is not None and not (path in ASKED or path == '.' or path.isdigit()):
            # Of an ordinary user without namespaces: its own files, by their places.
            is_own = mode == 'none' and path.startswith(f'{home}/socket')
            wrong += [] if is_own or path in ('socket', 'socket.pid') else [text]
    assert wrong == []
