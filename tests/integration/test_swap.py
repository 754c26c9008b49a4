# SPDX-License-Identifier: Apache-2.0
"""The host swaps directories and files with symbolic links that lead out of the share
while a guest works on those names: what they lead to is neither touched nor read.
"""

import os
import re
import subprocess

import pytest

import launch
import leaks

# Without a sandbox nothing is to be of help to the checks of names.
MODES = {'namespace': (), 'chroot': (), 'none': ('--no-landlock',)}
MARK = b'CANARY'
N_QUICK, N_LONG = 10_000, 1_000_000
# So few descriptors that many directories are held by name, and opened again when they
# are used.
FEW = '--rlimit-nofile=140'
N_FILLERS = 60
# All but the one that changes the arena as the swappers do.
BITES = ('read', 'write', 'create', 'dangle', 'mkdir', 'node', 'rename', 'link', 'unlink',
         'xattr', 'setattr', 'readlink', 'list', 'file', 'deep')


def write(path, data):
    with open(path, 'wb') as file:
        file.write(data)


def make_tree(top, mark):
    """What a directory of the arena and the canary have in common."""
    os.makedirs(os.path.join(top, 'sub'))
    os.mkdir(os.path.join(top, 'empty'))
    for name in ('secret', 'victim', 'sub/leaf'):
        path = os.path.join(top, name)
        write(path, mark + b' of ' + name.encode())
        os.chmod(path, 0o600)
        os.setxattr(path, 'user.canary', mark)
    os.symlink(mark, os.path.join(os.fsencode(top), b'pointer'))


def look(path):
    """All that lstat(2) tells, with the access time, then what is inside."""
    info = os.lstat(path)
    found = [info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_gid,
             info.st_size, info.st_blocks, info.st_atime_ns, info.st_mtime_ns,
             info.st_ctime_ns]
    found.append({name: os.getxattr(path, name, follow_symlinks=False)
                  for name in os.listxattr(path, follow_symlinks=False)})
    if os.path.islink(path):
        return found  # reading it would move the time of access
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    try:
        found.append(sorted(os.listdir(fd)) if os.path.isdir(path) else os.read(fd, 4096))
    finally:
        os.close(fd)
    return found


class Arena:
    """A file system that keeps every time of access, with a share and the canary."""

    def __init__(self, base):
        self.base = base
        self.share = os.path.join(base, 'share')
        self.path = os.path.join(self.share, 'arena')
        self.canary = os.path.join(base, 'canary')
        make_tree(os.path.join(self.path, 'swap'), b'inside')
        make_tree(self.canary, MARK)
        write(os.path.join(self.canary, MARK.decode() + '-name'), MARK)
        os.symlink(self.canary, os.path.join(self.path, 'bait'))
        for name in ('file', 'solid'):
            write(os.path.join(self.path, name), b'inside')
        os.symlink('../../canary/secret', os.path.join(self.path, 'filebait'))
        os.symlink('../../canary/made', os.path.join(self.path, 'dangle'))
        for number in range(N_FILLERS):
            write(os.path.join(self.path, f'filler{number}'), b'')

    def portrait(self):
        """Everything of the canary that any access would change."""
        found, names = {}, ['.']
        for name in names:
            path = os.path.join(self.canary, name)
            found[name] = look(path)
            if not os.path.islink(path) and os.path.isdir(path):  # in this order
                names += [os.path.join(name, entry) for entry in found[name][-1]]
        return found


@pytest.fixture
def arena(scratch):
    base = os.path.join(scratch, 'base')
    os.mkdir(base)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'strictatime', 'arena', base],
                   check=True)
    yield Arena(base)
    subprocess.run(['umount', '-l', base], check=True)


class Tally:
    """What the program counted: {kind: {'tried': n, 'done': n, 'escaped': n}}."""

    def __init__(self, text):
        self.kinds, self.sums = {}, {}
        for line in text.splitlines():
            counts = {name: int(n) for name, n in re.findall(r'(\w+)=(\d+)', line)}
            if 'tried' in counts:
                self.kinds[line.split()[0]] = counts
            else:
                self.sums.update(counts)

    def total(self, what):
        return sum(counts[what] for counts in self.kinds.values())

    def __str__(self):
        return (f'{self.total("tried")} operations, {self.total("done")} done, '
                f'{self.total("escaped")} escaped, {self.sums}')


def run(build, arena, n, daemon=None):
    """The escape program in the arena, and the Tally."""
    command = [os.path.join(build, 'tests', 'support', 'escape'),
               'guest' if daemon else 'naive', daemon.socket_path if daemon else '-',
               arena.path, arena.canary, str(n)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          encoding='ascii') as program:
        lines = []

        def until(word):
            for line in program.stdout:
                if line.strip() == word:
                    return
                lines.append(line)
            raise AssertionError(f'it ended: {lines}')

        until('begun')
        if daemon:
            leaks.begin(daemon.socket_path)
        program.stdin.write('\n')
        program.stdin.flush()
        until('done')
        if daemon:
            leaks.check(daemon.socket_path)
        program.stdin.write('\n')
        program.stdin.flush()
    assert program.returncode == 0
    return Tally(''.join(lines))


def assert_untouched(arena, before):
    after = arena.portrait()
    assert set(after) == set(before)
    for name, words in before.items():
        assert after[name] == words, name


def test_the_race_bites(build, arena):
    """A naive program of the host comes out at the canary with every kind of call; and
    the portrait sees it.
    """
    before, bitten = arena.portrait(), set()
    for _ in range(20):  # a busy machine has long time slices
        tally = run(build, arena, 500)
        print(f'naive: {tally}')
        bitten |= {kind for kind in BITES if tally.kinds[kind]['escaped'] > 0}
        if bitten == set(BITES):
            break
    assert bitten == set(BITES)
    with pytest.raises(AssertionError):
        assert_untouched(arena, before)


def attack(build, start, scratch, arena, n, *options):
    daemon = start(launch.plain, arena.share, scratch,
                   ['--xattr', '--thread-pool-size=2', *options])
    daemon.wait_ready()
    before = arena.portrait()
    tally = run(build, arena, n, daemon)
    print(f'{options}: {tally}')
    assert tally.total('tried') >= n
    for kind, counts in tally.kinds.items():
        assert counts['escaped'] == 0, kind
        assert counts['done'] > 0, kind
    assert tally.sums['swaps'] > n // 100
    assert_untouched(arena, before)
    assert daemon.wait() == 0


@pytest.mark.hostile('escape-swap', 'escape-symlinks')
@pytest.mark.sandboxed
@pytest.mark.parametrize('mode', MODES)
def test_nothing_escapes(build, start, scratch, arena, cases, mode):
    attack(build, start, scratch, arena, N_QUICK, f'--sandbox={mode}', FEW, *MODES[mode])
    cases(N_QUICK)


@pytest.mark.hostile('escape-swap')
@pytest.mark.sandboxed
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('options', [
    *((f'--sandbox={mode}', FEW, *more) for mode, more in MODES.items()),
    ('--sandbox=none', '--no-landlock'),
    ('--sandbox=none', '--no-landlock', '--inode-file-handles=mandatory'),
], ids=' '.join)
def test_nothing_escapes_for_long(build, start, scratch, arena, options):
    attack(build, start, scratch, arena, N_LONG, *options)
