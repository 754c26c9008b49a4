# SPDX-License-Identifier: Apache-2.0
"""What the command line changes: who may write, what is cached and for how long, which
flags of open(2) reach the host; with the legacy keys that say the same.
"""

import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import struct
import subprocess
import time

import pytest

from changes import LONG_AGO, modifying, populate
from files import read, write
import fuse_client as fuse
import twin

CREATE_FLAGS = os.O_RDWR | os.O_CREAT
# Everything that Linux may ever offer.
ALL_FLAGS = (1 << 64) - 1
READDIRPLUS, WRITEBACK = 0x6000, 1 << 16
AUTO_INVAL, SYMLINKS, ALLOW_MMAP = 1 << 12, 1 << 23, 1 << 36
DIRECT_IO, KEEP_CACHE, CACHE_DIR = 1, 2, 8
NOFLUSH, PARALLEL = 1 << 5, 1 << 6
libc = ctypes.CDLL(None, use_errno=True)


def mount(*words):
    subprocess.run(['mount', *words], check=True)


# ---- read-only ------------------------------------------------------------------------


def access_times(folder):
    return {name: os.lstat(os.path.join(folder, name)).st_atime_ns
            for name in ('file', 'folder', 'link', 'folder/inner')}


def read_all(client, node, handle):
    """What is no change works."""
    assert client.read(node, handle, 100) == b'content'
    assert len(client.listdir(fuse.ROOT)) == len(client.listdir(fuse.ROOT, plus=True))
    folder = client.lookup(fuse.ROOT, b'folder').nodeid
    assert [entry.name for entry in client.listdir(folder)].count(b'inner') == 1
    assert client.getxattr(node, b'user.name') == b'value'
    assert client.listxattr(node) == [b'user.name']
    assert client.lseek(node, handle, 0, os.SEEK_HOLE) == 7
    client.ioctl(node, handle, 0x80086601, out_size=8)
    client.fsync(node, handle)
    client.flush(node, handle)
    client.syncfs()
    client.statfs()
    entry, opened = client.create(fuse.ROOT, b'file', flags=os.O_CREAT)
    assert entry.nodeid == node and client.read(node, opened, 100) == b'content'
    client.release(node, opened)


SANDBOXES = [pytest.param((), id='none')] + [
    pytest.param((f'--sandbox={mode}',), id=mode, marks=pytest.mark.sandboxed)
    for mode in ('namespace', 'chroot')]
NO_SANDBOX = ('--sandbox=none', '--seccomp=none')


@pytest.mark.parametrize('sandbox', SANDBOXES)
def test_readonly(serve, share, sandbox):
    """Nothing is changed, and nothing that the peer leaves: no time of access, no lookup
    of a CREATE that failed (the daemon is watched for that).
    """
    populate(share)
    before = {name: os.lstat(os.path.join(share, name)) for name in os.listdir(share)}
    guest = serve('--readonly', '--xattr', *(sandbox or NO_SANDBOX))
    client = guest.client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle = client.open(node)[0]
    for what, function in modifying(client, node, handle).items():
        assert fuse.errno_of(function) == errno.EROFS, what
    assert fuse.errno_of(client.create, fuse.ROOT, b'file',
                   flags=os.O_CREAT | os.O_EXCL) == errno.EEXIST
    read_all(client, node, handle)
    client.release(node, handle)
    assert {name: os.lstat(os.path.join(share, name)) for name in before} == before
    assert sorted(os.listdir(share)) == sorted(before)
    assert set(access_times(share).values()) == {LONG_AGO}


@pytest.mark.sandboxed
def test_readonly_by_the_kernel(serve, share, scratch):
    """In the sandbox's mounts the kernel refuses changes also to a daemon gone wrong: of
    the share and of what was mounted in it; a symbolic link is read without a trace.
    """
    volume = os.path.join(scratch, 'volume')
    os.mkdir(volume)
    populate(share)
    mount('--bind', volume, os.path.join(share, 'folder'))
    try:
        guest = serve('--readonly')
        link = guest.client.lookup(fuse.ROOT, b'link').nodeid
        assert guest.client.readlink(link) == b'file'
        assert os.lstat(os.path.join(share, 'link')).st_atime_ns == LONG_AGO
        lines = guest.daemon.proc('mountinfo').splitlines()
        options = {line.split()[4]: line.split()[5].split(',') for line in lines}
        assert set(options) == {'/', '/folder'}
        assert all('ro' in words for words in options.values())
    finally:
        subprocess.run(['umount', '-l', os.path.join(share, 'folder')], check=True)


def opened(folder, name, flags):
    fd = os.open(os.path.join(folder, name), flags, 0o644)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def set_xattr(folder):
    os.setxattr(os.path.join(folder, 'file'), 'user.name', b'other')


def attempts():
    """Calls of programs on a folder that cannot be changed."""
    yield from ((opened, name, flags | more) for name, flags, more in itertools.product(
        ('file', 'folder', 'link', 'new', 'folder/new'),
        (os.O_RDONLY, os.O_WRONLY, os.O_RDWR),
        (0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC,
         os.O_NOFOLLOW, os.O_DIRECTORY)))
    yield opened, '.', os.O_TMPFILE | os.O_RDWR
    yield set_xattr,
    for name in ('file', 'folder', 'link', 'new'):
        yield lambda folder, name=name: os.mkdir(os.path.join(folder, name)),
        yield lambda folder, name=name: os.symlink('to', os.path.join(folder, name)),
        yield lambda folder, name=name: os.mkfifo(os.path.join(folder, name)),
        yield lambda folder, name=name: os.unlink(os.path.join(folder, name)),
        yield lambda folder, name=name: os.rmdir(os.path.join(folder, name)),
        yield lambda folder, name=name: os.chmod(os.path.join(folder, name), 0o600),
        yield lambda folder, name=name: os.lchown(os.path.join(folder, name), 1, 1),
        yield lambda folder, name=name: os.utime(os.path.join(folder, name)),
        yield lambda folder, name=name: os.truncate(os.path.join(folder, name), 3),
        yield lambda folder, name=name: os.rename(os.path.join(folder, name),
                                                  os.path.join(folder, 'other')),
    for name in ('file', 'link', 'new'):
        yield lambda folder, name=name: os.link(os.path.join(folder, name),
                                                os.path.join(folder, 'other')),


# What the guest's kernel sees in names, it says before it asks anybody; on a file system
# that it knows to be read-only it would not even look.
BY_NAME = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


@pytest.mark.sandboxed
def test_readonly_as_a_mount(bridged, share, scratch):
    """What programs get is what they get from a file system mounted read-only."""
    theirs = os.path.join(scratch, 'twin')
    os.mkdir(theirs)
    populate(share)
    populate(theirs)
    mount('--bind', theirs, theirs)
    mount('-o', 'remount,bind,ro', theirs)
    try:
        ours = bridged('--readonly', '--xattr')
        for number, (function, *args) in enumerate(attempts()):
            seen = twin.outcome(function, ours, *args)
            expected = twin.outcome(function, theirs, *args)
            if expected == ('failed', errno.EROFS):
                assert seen[0] == 'failed' and seen[1] in {errno.EROFS, *BY_NAME}
            else:
                assert seen == expected, (number, args)
        assert twin.tree(ours) == twin.tree(theirs)
    finally:
        subprocess.run(['umount', '-l', theirs], check=True)
    assert set(access_times(share).values()) == {LONG_AGO}


# ---- write-back -----------------------------------------------------------------------


def work_in_pieces(folder):
    """What the page cache needs to read, though the program only writes."""
    path = os.path.join(folder, 'file')
    seen = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(fd, b'a' * 10000, 0)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b'b' * 100, 5000)
    os.close(fd)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    seen += [os.write(fd, b'c' * 10), os.fstat(fd).st_size]
    os.close(fd)
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[8000:8010] = b'd' * 10
    os.truncate(path, 9000)
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    seen.append(os.write(fd, b'e'))
    seen.append(os.pread(fd, 20000, 0))
    os.fsync(fd)
    os.close(fd)
    return seen


def work_on_a_new_file(folder):
    """Written only, made and filled in one go: the peer's daemon answers EBADF when the
    kernel reads the rest of the page.
    """
    path = os.path.join(folder, 'new')
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(fd, 6000)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    written = os.pwrite(fd, b'x', 5), os.pwrite(fd, b'y', 4099)
    os.fsync(fd)
    os.close(fd)
    return written, read(path)


@pytest.mark.parametrize('cache', ['auto', 'always', 'metadata', 'never'])
def test_writeback(bridged, share, scratch, cache):
    theirs = os.path.join(scratch, 'twin')
    os.mkdir(theirs)
    twins = twin.Twins(bridged('--writeback', '--allow-mmap', f'--cache={cache}'), theirs)
    for function in (work_in_pieces, work_on_a_new_file):
        twins.check(function)
    os.sync()
    twins.check_trees()
    assert twin.tree(share) == twin.tree(theirs)


@pytest.mark.parametrize('made', [False, True], ids=['open', 'create'])
def test_writeback_as_bytes(serve, share, made):
    """Files that are only written can be read, and the guest alone knows the end."""
    client = serve('--writeback').client
    for agreed in (True, False):
        answer = client.init(flags=ALL_FLAGS if agreed else ALL_FLAGS & ~WRITEBACK)
        assert bool(answer.flags & WRITEBACK) == agreed
        write(os.path.join(share, 'file'), b'content')
        node = client.lookup(fuse.ROOT, b'file').nodeid
        mode = os.O_WRONLY | os.O_APPEND
        handle = (client.create(fuse.ROOT, b'file', flags=mode | os.O_CREAT)[1] if made
                  else client.open(node, mode)[0])
        assert fuse.errno_of(client.read, node, handle,
                             10) == (0 if agreed else errno.EBADF)
        assert client.write(node, handle, b'C', flags=os.O_APPEND) == 1
        assert read(os.path.join(share, 'file')) == (b'Content' if agreed
                                                     else b'contentC')
        client.release(node, handle)


def test_appending(serve, share):
    """Without write-back each write is put at the end, wherever it was aimed at, unless
    it comes from the guest's cache.
    """
    client = serve().client
    entry, handle = client.create(fuse.ROOT, b'file',
                                  flags=CREATE_FLAGS | os.O_APPEND)
    node = entry.nodeid
    for data, write_flags, flags in ((b'one', 0, os.O_APPEND), (b'two', 0, os.O_APPEND),
                                     (b'O', 1, os.O_APPEND), (b'N', 0, 0)):
        client.write(node, handle, data, write_flags=write_flags, flags=flags)
    assert read(os.path.join(share, 'file')) == b'Nnetwo'
    client.release(node, handle)


# ---- flags of open --------------------------------------------------------------------


def flags_on_the_host(daemon, before):
    """The flags of the one file that the daemon has opened meanwhile."""
    found = []
    for number in set(daemon.descriptors()) - before:
        flags = int(daemon.proc(f'fdinfo/{number}').split('flags:')[1].split()[0], 8)
        if not flags & os.O_PATH:
            found.append(flags)
    assert len(found) == 1
    return found[0]


ODD = os.O_DIRECT | os.O_NOATIME | os.O_APPEND | os.O_NONBLOCK | os.O_ASYNC


@pytest.mark.parametrize('options, passed', [
    ((), 0), (('--allow-direct-io',), os.O_DIRECT),
    (('--preserve-noatime',), os.O_NOATIME),
    (('-o', 'allow_direct_io'), os.O_DIRECT),
    (('-o', 'allow_direct_io,no_allow_direct_io'), 0),
])
def test_flags_passed_on(serve, options, passed):
    """O_DIRECT and O_NOATIME reach the host where they are allowed, from all that opens,
    which CREATE of the peer's daemon ignored; none of the others ever does.
    """
    guest = serve(*options)
    client = guest.client
    before = set(guest.daemon.descriptors())
    for flags, function in (
            (os.O_RDWR | os.O_EXCL, client.create), (os.O_WRONLY, client.create),
            (os.O_RDONLY, None), (os.O_RDWR, client.tmpfile)):
        if function is None:
            node = client.lookup(fuse.ROOT, b'file').nodeid
            handle = client.open(node, flags | ODD)[0]
        elif function == client.create:
            entry, handle = client.create(fuse.ROOT, b'file', flags=flags | os.O_CREAT
                                          | ODD)
            node = entry.nodeid
        else:
            entry, handle = client.tmpfile(fuse.ROOT, flags=flags | ODD)
            node = entry.nodeid
        seen = flags_on_the_host(guest.daemon, before)
        assert seen & (ODD | os.O_ACCMODE) == passed | flags & os.O_ACCMODE
        client.release(node, handle)


@pytest.mark.parametrize('preserve', [False, True])
def test_noatime(bridged, share, preserve):
    """Who reads without a trace leaves none where that is allowed; others do."""
    populate(share)
    ours = bridged('--cache=never', *(['--preserve-noatime'] if preserve else []))
    for name, flags in (('file', os.O_RDONLY), ('folder', os.O_DIRECTORY)):
        fd = os.open(os.path.join(ours, name), flags | os.O_NOATIME)
        (os.listdir if name == 'folder' else lambda f: os.read(f, 10))(fd)
        os.close(fd)
        kept = os.lstat(os.path.join(share, name)).st_atime_ns == LONG_AGO
        assert kept == preserve, name


@pytest.mark.parametrize('cache', ['never', 'auto'])
def test_flags_of_an_open_file(bridged, scratch, cache):
    """fcntl(2) F_SETFL sends nothing; what is transferred next has the new flags."""
    theirs = os.path.join(scratch, 'native')
    os.mkdir(theirs)
    ours = bridged(f'--cache={cache}', '--allow-direct-io')
    block = memoryview(mmap.mmap(-1, 4096))

    def answers(folder, flags):
        fd = os.open(os.path.join(folder, f'file{flags}'), CREATE_FLAGS | flags)
        for change in (0, os.O_DIRECT, 0):
            fcntl.fcntl(fd, fcntl.F_SETFL, change)
            for size in (1, 4096):
                yield twin.outcome(os.pwritev, fd, [block[:size]], 0)
                yield twin.outcome(os.preadv, fd, [block[:size]], 0)
        os.close(fd)

    for flags in (0, os.O_DIRECT):
        assert list(answers(ours, flags)) == list(answers(theirs, flags))


# ---- caches ---------------------------------------------------------------------------

DAY = 86400.0
# entry and attribute timeout, negative timeout, OPEN's flags, OPENDIR's
CACHES = {
    'never': (0, 0, DIRECT_IO | PARALLEL, 0),
    'metadata': (DAY, 1, DIRECT_IO | PARALLEL, CACHE_DIR | KEEP_CACHE),
    'auto': (1, 0, 0, 0),
    'always': (DAY, 1, KEEP_CACHE, CACHE_DIR | KEEP_CACHE),
}
LEGACY = {'auto': 'auto', 'always': 'always', 'never': 'none', 'metadata': 'metadata'}


def negative_timeout(client):
    """For how long a name may be known not to exist; 0 if that is an error."""
    reply = client.send(fuse.LOOKUP, fuse.ROOT, b'nowhere\0')
    if reply.errno == errno.ENOENT:
        return 0
    assert reply.error == 0
    entry = fuse.Entry(reply.payload)
    assert entry.nodeid == 0
    return entry.entry_valid


def opendir_flags(client):
    payload = client.call(fuse.OPENDIR, fuse.ROOT, struct.pack('=II', os.O_DIRECTORY, 0))
    handle, flags = struct.unpack('=QI4x', payload)
    client.releasedir(fuse.ROOT, handle)
    return flags


def check_cache(guest, cache):
    """Everything that the guest is told."""
    client, agreed = guest.client, guest.agreed
    timeout, negative, file_flags, folder_flags = CACHES[cache]
    entry, handle = client.create(fuse.ROOT, b'file')
    assert (entry.entry_valid, entry.attr_valid) == (timeout, timeout)
    client.release(entry.nodeid, handle)
    found = client.lookup(fuse.ROOT, b'file')
    assert (found.entry_valid, found.attr_valid) == (timeout, timeout)
    payload = client.call(fuse.GETATTR, found.nodeid, bytes(16))
    assert struct.unpack_from('=Q', payload)[0] == timeout
    assert negative_timeout(client) == negative
    handle, flags = client.open(found.nodeid)
    assert flags == file_flags | NOFLUSH
    client.release(found.nodeid, handle)
    assert opendir_flags(client) == folder_flags
    assert bool(agreed & READDIRPLUS) == (cache != 'never')
    assert bool(agreed & SYMLINKS) == (cache == 'always')
    assert bool(agreed & AUTO_INVAL) == (cache != 'always')


@pytest.mark.parametrize('cache', CACHES)
@pytest.mark.parametrize('legacy', [False, True], ids=['long', 'legacy'])
def test_cache(serve, cache, legacy):
    options = ('-o', f'cache={LEGACY[cache]}') if legacy else (f'--cache={cache}',)
    check_cache(serve(*options, flags=ALL_FLAGS), cache)


@pytest.mark.parametrize('options, expected', [
    (('--attr-timeout=2.5',), (1, 2.5, 0)),
    (('--entry-timeout=0.25',), (0.25, 1, 0)),
    (('--negative-timeout=3',), (1, 1, 3)),
    (('--cache=always', '--negative-timeout=0'), (DAY, DAY, 0)),
    (('--cache=never', '--entry-timeout=7', '--attr-timeout=8'), (7, 8, 0)),
    (('-o', 'timeout=4.5'), (4.5, 4.5, 0)),
    (('-o', 'timeout=4.5,cache=always'), (4.5, 4.5, 1)),
])
def test_timeouts(serve, options, expected):
    client = serve(*options).client
    entry, handle = client.create(fuse.ROOT, b'file')
    assert (entry.entry_valid, entry.attr_valid) == expected[:2]
    assert negative_timeout(client) == expected[2]
    client.release(entry.nodeid, handle)


@pytest.mark.parametrize('options, flag, expected', [
    ((), READDIRPLUS, True), (('--no-readdirplus',), READDIRPLUS, False),
    (('-o', 'no_readdirplus'), READDIRPLUS, False),
    (('--no-readdirplus', '-o', 'readdirplus'), READDIRPLUS, True),
    ((), ALLOW_MMAP, False), (('--allow-mmap',), ALLOW_MMAP, True),
    ((), WRITEBACK, False), (('--writeback',), WRITEBACK, True),
    (('-o', 'writeback'), WRITEBACK, True),
    (('-o', 'writeback,no_writeback'), WRITEBACK, False),
])
def test_agreed(serve, options, flag, expected):
    guest = serve(*options, flags=ALL_FLAGS)
    assert bool(guest.agreed & flag) == expected
    assert not guest.client.init(flags=1 << 30).flags & flag


# Does the guest see at once what the host does behind its back: in a file that is open,
# in one opened anew, a new name, that a name is gone?
SEES = {
    'never': (True, True, True, True),
    'metadata': (True, True, False, False),
    'auto': (False, True, True, False),
    'always': (False, False, False, False),
}
# Whoever else drops the caches of this machine makes the guest see more.
TRIES = 10


def attempt(function, *args):
    return twin.outcome(function, *args)[0] == 'returned'


def change_and_look(share, ours, number):
    """What the guest sees of a change, as in SEES."""
    share, ours = (os.path.join(folder, f'{number}') for folder in (share, ours))
    os.mkdir(share)
    for name in ('file', 'gone'):
        write(os.path.join(share, name), b'before')
    # A file that changed just now would be taken for one that may change again.
    os.utime(os.path.join(share, 'file'), ns=(LONG_AGO, LONG_AGO))
    path, gone, new = (os.path.join(ours, name) for name in ('file', 'gone', 'new'))
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 10, 0) == b'before' and read(path) == b'before'
    assert attempt(os.stat, gone) and not attempt(os.stat, new)
    # The host: another content of the same length, a name less, a name more.
    with open(os.path.join(share, 'file'), 'r+b') as file:
        file.write(b'after!')
    os.unlink(os.path.join(share, 'gone'))
    write(os.path.join(share, 'new'), b'')
    is_open = os.pread(fd, 10, 0) == b'after!'
    os.close(fd)
    return (is_open, read(path) == b'after!', attempt(os.stat, new),
            not attempt(os.stat, gone))


@pytest.mark.parametrize('cache', CACHES)
def test_changes_by_the_host(bridged, share, cache):
    """What each mode promises, and no more than it promises."""
    kept = '60' if cache in ('metadata', 'always') else '0'
    ours = bridged(f'--cache={cache}', f'--negative-timeout={kept}')
    for number in range(TRIES):
        seen = change_and_look(share, ours, number)
        assert all(is_seen >= must for is_seen, must in zip(seen, SEES[cache]))
        if seen == SEES[cache]:
            break
    assert seen == SEES[cache]


def test_names_after_a_while(bridged, share):
    """With cache=auto, what the host did shows after the timeout."""
    write(os.path.join(share, 'gone'), b'')
    ours = bridged('--cache=auto', '--entry-timeout=0.3', '--negative-timeout=0.3')
    gone, new = os.path.join(ours, 'gone'), os.path.join(ours, 'new')
    assert attempt(os.stat, gone) and not attempt(os.stat, new)
    os.rename(os.path.join(share, 'gone'), os.path.join(share, 'new'))
    time.sleep(0.4)
    assert attempt(os.stat, new) and not attempt(os.stat, gone)
    # What the guest itself makes is there at once.
    write(gone, b'')
    assert attempt(os.stat, gone)


def map_shared(path):
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b'C'
        memory.flush()


@pytest.mark.parametrize('cache', ['never', 'metadata', 'auto', 'always'])
@pytest.mark.parametrize('allowed', [False, True], ids=['', 'allow-mmap'])
def test_shared_mappings(bridged, share, cache, allowed):
    """Files that are not cached can be mapped where that is allowed."""
    path = os.path.join(share, 'file')
    write(path, b'content')
    ours = bridged(f'--cache={cache}', *(['--allow-mmap'] if allowed else []))
    done = twin.outcome(map_shared, os.path.join(ours, 'file'))
    if allowed or cache in ('auto', 'always'):
        assert done == ('returned', None) and read(path) == b'Content'
    else:
        assert done == ('failed', errno.ENODEV) and read(path) == b'content'


@pytest.mark.parametrize('cache', ['auto', 'always'])
def test_links_are_kept(bridged, share, cache):
    """With cache=always alone, where a symbolic link leads is asked for once: the host
    does not see it read again.
    """
    link = os.path.join(share, 'link')
    os.symlink('nowhere', link)
    ours = os.path.join(bridged(f'--cache={cache}'), 'link')
    asked = []
    for _ in range(TRIES):
        assert os.readlink(ours) == 'nowhere'
        os.utime(link, ns=(LONG_AGO, LONG_AGO + 1), follow_symlinks=False)
        assert os.readlink(ours) == 'nowhere'
        asked.append(os.lstat(link).st_atime_ns != LONG_AGO)
    assert all(asked) if cache == 'auto' else not all(asked)
