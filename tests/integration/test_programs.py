# SPDX-License-Identifier: Apache-2.0
"""Programs that use a file system to its edges, on the mounted share: make, rsync, tar,
dpkg and overlayfs. What they leave there is compared, as the host sees it, with what
they leave on the host's own file system.
"""

import os
import re
import shutil
import stat
import subprocess

import pytest

import filesystems
import packages
import portrait
from test_work import run

pytestmark = pytest.mark.sandboxed

# Everything that the host's file system keeps, trusted.* too, which takes the capability.
FULL = ('--xattr', '--posix-acl', '--modcaps=+sys_admin')


@pytest.fixture
def ornate(scratch):
    """A tree with one of everything, on the host's file system."""
    top = os.path.join(scratch, 'ornate')
    portrait.make_ornate(top)
    return top


def same(one, other, without=()):
    words = portrait.difference(portrait.of(one, without), portrait.of(other, without))
    assert not words, f'{one} and {other}:\n{words}'


def clear_acl(path):
    subprocess.run(['setfacl', '-b', path], check=True)


def unlink_twin(path):
    os.unlink(path)
    shutil.copy2(f'{os.path.dirname(path)}/file4', path)


def fill(path):
    with open(path, 'r+b') as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


CHANGES = (
    ('mode', 'plain/file2', lambda p: os.chmod(p, 0o751)),
    ('owner', 'symlink', lambda p: os.lchown(p, 4321, 4321)),
    ('mtime', 'plain/file1', lambda p: os.utime(p, ns=(1, os.stat(p).st_mtime_ns + 1))),
    ('folder mtime', 'empty', lambda p: os.utime(p, ns=(1, 2))),
    ('content', 'plain/file1', lambda p: os.truncate(p, 996)),
    ('size', 'plain/file1', lambda p: os.truncate(p, 995)),
    ('xattrs', 'symlink', lambda p: os.removexattr(p, 'trusted.on-a-link',
                                                   follow_symlinks=False)),
    ('xattrs', 'attributes', lambda p: os.setxattr(p, 'user.big', b'other')),
    ('xattrs', 'default acl/heir', clear_acl),
    ('same', 'plain/hard4', unlink_twin),
    ('links', 'plain/file4', lambda p: os.link(p, f'{p}.link')),
    ('device', 'block', lambda p: (os.unlink(p), os.mknod(p, stat.S_IFBLK, 1))),
    ('hole', 'sparse', fill),
    ('type', 'tmp', lambda p: (os.rmdir(p), os.mkfifo(p))),
)


def test_the_comparison_sees_all(ornate):
    """Each kind of difference that the tests below must not miss."""
    before = portrait.of(ornate)
    assert portrait.difference(before, portrait.of(ornate)) == ''
    for what, path, change in CHANGES:
        change(os.path.join(ornate, path))
        after = portrait.of(ornate)
        assert f'{path!r}: {what} ' in portrait.difference(before, after)
        before = after
    assert {what for what, _, _ in CHANGES} == set(portrait.ALL)


@pytest.mark.parametrize('options', [(), ('--cache=never',),
                                     ('--cache=always', '--writeback')],
                         ids=['auto', 'never', 'writeback'])
def test_rsync_round_trip(bridged, ornate, scratch, share, options):
    """Onto the share and back, and nothing changed; a second run has nothing to do."""
    mount = bridged(*FULL, *options)
    there, back = os.path.join(mount, 'there'), os.path.join(scratch, 'back')
    rsync = ('rsync', '-aAXHS', '--numeric-ids', '--itemize-changes')
    assert run(*rsync, f'{ornate}/', there)
    same(ornate, os.path.join(share, 'there'))
    same(ornate, there)
    assert run(*rsync, '--checksum', f'{ornate}/', there) == ''
    run(*rsync, f'{there}/', back)
    same(ornate, back)
    os.unlink(os.path.join(ornate, 'plain', 'file7'))
    os.utime(os.path.join(ornate, 'plain'), (10**9, 10**9))
    run(*rsync, '--delete', '--inplace', f'{ornate}/', there)
    same(ornate, os.path.join(share, 'there'))


def test_tar_out_and_in(bridged, ornate, scratch, share):
    """Unpacked on the share, packed from there, unpacked on the host: all the same."""
    mount = bridged(*FULL)
    there, back = os.path.join(mount, 'there'), os.path.join(scratch, 'back')
    first, second = (os.path.join(mount, name) for name in ('first.tar', 'second.tar'))
    os.mkdir(there)
    os.mkdir(back)
    keep = ('--xattrs', '--xattrs-include=*', '--acls', '--numeric-owner', '--sparse')
    pack = ('tar', '--format=posix', '--sort=name', *keep)
    os.unlink(os.path.join(ornate, 'socket'))  # which tar does not keep
    unpack = ('tar', '-p', *keep, '-xf')
    run(*pack, '-cf', first, '-C', ornate, '.')
    run(*unpack, first, '-C', there)
    # tar's second reader does not know of holes in the same places.
    same(ornate, os.path.join(share, 'there'), ('hole',))
    run('tar', *keep, '--compare', '-f', first, '-C', there)
    run(*pack, '-cf', second, '-C', there, '.')
    run(*unpack, second, '-C', back)
    same(ornate, back, ('hole',))


def make_project(folder, parts):
    """A C project of many files: headers that others include, a library, a program."""
    os.mkdir(folder)
    files = {
        'Makefile': 'objects := $(patsubst %.c,%.o,$(wildcard part*.c))\n'
                    'CFLAGS = -O0 -MMD\n'
                    'program: main.o libparts.a\n'
                    '\t$(CC) -o $@ main.o libparts.a\n'
                    'libparts.a: $(objects)\n'
                    '\trm -f $@; ar -crs $@ $^\n'
                    '-include *.d\n',
        'main.c': '#include <stdio.h>\n#include "all.h"\n'
                  'int main(void) { int sum = 0; for (int i = 0; i < PARTS; i++)'
                  ' { sum += parts[i](); } return printf("%d\\n", sum) < 0; }\n',
    }
    names = [f'part{number}' for number in range(parts)]
    for number, name in enumerate(names):
        files[f'{name}.h'] = f'#define WORTH_{number} {number}\nint {name}(void);\n'
        files[f'{name}.c'] = (f'#include "{name}.h"\n'
                              f'int {name}(void) {{ return WORTH_{number}; }}\n')
    files['all.h'] = ''.join(f'#include "{name}.h"\n' for name in names) + (
        f'#define PARTS {parts}\n'
        f'static int (*const parts[])(void) = {{{", ".join(names)}}};\n')
    for name, text in files.items():
        with open(os.path.join(folder, name), 'w', encoding='ascii') as file:
            file.write(text)


@pytest.mark.parametrize('options', [(), ('--cache=always', '--writeback')],
                         ids=['auto', 'writeback'])
def test_make(bridged, options):
    """make -j compiles all once, then nothing, then exactly what a changed header is
    part of: it goes by times.
    """
    folder = os.path.join(bridged(*options), 'project')
    make_project(folder, 60)
    program = os.path.join(folder, 'program')
    assert run('make', '-j4', cwd=folder).count(' -c ') == 61
    assert run(program) == f'{sum(range(60))}\n'
    assert 'up to date' in run('make', '-j4', cwd=folder)
    with open(os.path.join(folder, 'part7.h'), 'a', encoding='ascii') as file:
        file.write('#undef WORTH_7\n#define WORTH_7 1007\n')
    compiled = re.findall(r' -c .*?(\w+\.c)$', run('make', '-j4', cwd=folder),
                          re.MULTILINE)
    assert sorted(compiled) == ['main.c', 'part7.c']
    assert run(program) == f'{sum(range(60)) + 1000}\n'


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_hello(bridged):
    """GNU hello, as its users build it: configure, make -j, its own tests, install."""
    try:
        archive = packages.source_of('hello')
    except packages.Unavailable as why:
        pytest.skip(str(why))
    mount = bridged()
    run('tar', '-xf', archive, '-C', mount)
    folder = next(os.path.join(mount, n) for n in os.listdir(mount) if 'hello' in n)
    build = os.path.join(mount, 'build')
    os.mkdir(build)
    prefix = os.path.join(mount, 'installed')
    env = ('env', 'FORCE_UNSAFE_CONFIGURE=1')
    run(*env, os.path.join(folder, 'configure'), f'--prefix={prefix}', cwd=build,
        timeout=400)
    run('make', '-j4', cwd=build)
    assert '# FAIL:  0\n' in run('make', 'check', cwd=build)
    run('make', 'install', cwd=build)
    assert run(os.path.join(prefix, 'bin', 'hello')) == 'Hello, world!\n'


def make_package(folder, version, files, links=(), **fields):
    """Build a Debian package from {path: (mode, bytes)}; the path of the .deb."""
    tree = os.path.join(folder, f'tree-{version}')
    for path, (mode, data) in files.items():
        whole = os.path.join(tree, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, 'wb') as file:
            file.write(data)
        os.chmod(whole, mode)
        os.utime(whole, (10**9, 10**9))
    for target, path in links:
        os.symlink(target, os.path.join(tree, path))
    os.makedirs(os.path.join(tree, 'DEBIAN'))
    control = {'Package': 'thing', 'Version': version, 'Architecture': 'all',
               'Maintainer': 'Nobody <nobody@example.org>', 'Description': 'a thing'}
    with open(os.path.join(tree, 'DEBIAN', 'control'), 'w', encoding='ascii') as file:
        file.writelines(f'{k}: {v}\n' for k, v in {**control, **fields}.items())
    if any(path.startswith('etc/') for path in files):
        with open(os.path.join(tree, 'DEBIAN/conffiles'), 'w', encoding='ascii') as file:
            file.writelines(f'/{path}\n' for path in files if path.startswith('etc/'))
    package = os.path.join(folder, f'thing-{version}.deb')
    run('dpkg-deb', '-Znone', '--build', '--root-owner-group', tree, package)
    return package


@pytest.fixture
def debs(scratch):
    """A package in two versions."""
    data = {n: (0o644, os.urandom(n * 100)) for n in range(90)}
    common = {f'usr/share/thing/d{n % 9}/file{n}': what for n, what in data.items()}
    one = {**common, 'usr/bin/thing': (0o4755, b'#!/bin/sh\necho one\n'),
           'etc/thing.conf': (0o640, b'one\n'), 'usr/share/gone/file': (0o600, b'one')}
    two = {**common, 'usr/bin/thing': (0o755, b'#!/bin/sh\necho two\n'),
           'etc/thing.conf': (0o640, b'two\n'), 'usr/share/come/file': (0o444, b'two')}
    links = [('../share/thing/d1/file1', 'usr/bin/link'), ('nowhere', 'usr/bin/dangling')]
    return (make_package(scratch, '1.0', one, links), make_package(scratch, '2.0', two))


class Root:
    """A system of its own for dpkg."""

    def __init__(self, top):
        self.top = top
        for folder in ('info', 'updates', 'triggers'):
            os.makedirs(os.path.join(top, 'var/lib/dpkg', folder))
        for name in ('status', 'available'):
            with open(os.path.join(top, 'var/lib/dpkg', name), 'wb'):
                pass

    def dpkg(self, *words):
        return run('dpkg', f'--root={self.top}', '--log=/dev/null', '--force-not-root',
                   '--force-depends', '--force-confold', *words)

    def verify(self, package):
        """Words for what is not as the package's checksums say."""
        return self.dpkg('--verify', package)


# dpkg's own books say when they were written.
NOT_TIME = ('mtime', 'folder mtime', 'hole')


def test_dpkg(bridged, scratch, share, debs):
    """Install, change a configuration file, upgrade, remove and purge: after each step
    the share holds what a root on the host's file system holds.
    """
    ours = Root(os.path.join(bridged(), 'root'))
    twin = Root(os.path.join(scratch, 'root'))
    seen = os.path.join(share, 'root')
    steps = [('--install', debs[0]), ('--install', debs[1]), ('--remove', 'thing'),
             ('--purge', 'thing')]
    for step in steps:
        for root in (ours, twin):
            root.dpkg(*step)
        same(twin.top, seen, NOT_TIME)
        if step[0] == '--install':
            same(os.path.join(twin.top, 'usr/share/thing/d3'),
                 os.path.join(seen, 'usr/share/thing/d3'), ('folder mtime', 'hole'))
            assert re.fullmatch(r'(.*/etc/thing.conf\n)?', ours.verify('thing'))
            for root in (ours, twin):
                with open(f'{root.top}/etc/thing.conf', 'a', encoding='ascii') as file:
                    file.write('mine\n')
    assert not os.path.exists(os.path.join(seen, 'usr/share/thing'))
    assert not os.path.exists(os.path.join(seen, 'etc/thing.conf'))


def test_dpkg_verifies(scratch, debs):
    """What the test above relies on."""
    root = Root(os.path.join(scratch, 'root'))
    root.dpkg('--install', debs[1])
    with open(f'{root.top}/usr/share/come/file', 'ab') as file:
        file.write(b'!')
    assert 'usr/share/come/file' in root.verify('thing')


REAL = ('hello', 'perl-modules-5.36', 'libjs-jquery', 'netbase')


@pytest.mark.soak
def test_real_packages(bridged, scratch, share):
    """Thousands of files of packages that people do install."""
    try:
        debs = packages.debs_of(*REAL)
    except packages.Unavailable as why:
        pytest.skip(str(why))
    ours = Root(os.path.join(bridged(), 'root'))
    twin = Root(os.path.join(scratch, 'root'))
    for root in (ours, twin):
        root.dpkg('--force-all', '--unpack', *debs)
    same(twin.top, os.path.join(share, 'root'), NOT_TIME)
    for package in REAL:
        assert ours.verify(package) == twin.verify(package)


def work_on_layers(top):
    """Everything for which overlayfs has to write something special into the upper one.
    """
    os.unlink(f'{top}/plain/file1')                   # a whiteout
    shutil.rmtree(f'{top}/odd names')                 # the same for a folder
    os.mkdir(f'{top}/odd names')                      # an opaque folder
    with open(f'{top}/odd names/new', 'wb') as file:
        file.write(b'new')
    with open(f'{top}/plain/file3', 'ab') as file:    # copied up
        file.write(b'more')
    os.chmod(f'{top}/plain/file5', 0o4711)            # copied up for the inode alone
    os.lchown(f'{top}/symlink', 7, 8)
    os.rename(f'{top}/plain/file6', f'{top}/empty/moved')     # RENAME_WHITEOUT
    os.rename(f'{top}/default acl', f'{top}/renamed folder')  # a redirect
    os.rename(f'{top}/plain/file7', f'{top}/plain/file9')     # over another
    os.link(f'{top}/plain/file11', f'{top}/plain/one more')
    os.setxattr(f'{top}/attributes', 'user.many.3', b'changed')
    os.removexattr(f'{top}/attributes', 'user.many.4')
    subprocess.run(['setfacl', '-m', 'u:99:r', f'{top}/attributes'], check=True)
    os.truncate(f'{top}/sparse', 12 << 20)
    os.mknod(f'{top}/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.unlink(f'{top}/fifo')
    os.mkfifo(f'{top}/fifo')


def simplify(top):
    """Without what overlayfs does not keep (hard links, its index being off) and what an
    attribute by another name cannot be put on.
    """
    for name in os.listdir(f'{top}/plain'):
        if name.startswith('hard'):
            os.unlink(f'{top}/plain/{name}')
    os.removexattr(f'{top}/symlink', 'trusted.on-a-link', follow_symlinks=False)
    os.removexattr(f'{top}/fifo', 'trusted.on-a-fifo')
    os.utime(f'{top}/plain', (10**9, 10**9))


def check_upper(upper, prefix):
    """What overlayfs wrote there is what it writes on any file system."""
    whiteout = os.lstat(f'{upper}/plain/file1')
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert os.getxattr(f'{upper}/odd names', f'{prefix}overlay.opaque') == b'y'
    assert b'default acl' in os.getxattr(f'{upper}/renamed folder',
                                         f'{prefix}overlay.redirect')


LAYERS = [
    pytest.param(FULL, 'trusted.', id='sys_admin'),
    # Without the capability: trusted attributes by another name.
    pytest.param(('--xattr', '--posix-acl', '--xattrmap='
                  ':prefix:all:trusted.:user.virtiofs.::ok:all:::'),
                 'user.virtiofs.trusted.', id='xattrmap'),
]


@pytest.mark.parametrize(('options', 'prefix'), LAYERS)
def test_overlay_on_the_share(bridged, scratch, share, options, prefix):
    """The upper layer lies on the share: what is seen through the overlay is what the
    same work leaves on a plain folder, also when it is mounted again.
    """
    mount = bridged(*options)
    lower, twin = os.path.join(scratch, 'lower'), os.path.join(scratch, 'twin')
    portrait.make_ornate(lower)
    simplify(lower)
    run('cp', '-a', lower, twin)
    work_on_layers(twin)
    layers = (lower, mount, os.path.join(scratch, 'merged'), 'redirect_dir=on')
    with filesystems.overlay(*layers) as merged:
        same(lower, merged, ('folder mtime', 'hole'))
        work_on_layers(merged)
        same(twin, merged, NOT_TIME)
    check_upper(os.path.join(share, 'upper'), prefix)
    with filesystems.overlay(*layers) as merged:
        same(twin, merged, NOT_TIME)
        # Not "plain": of a file with two links overlayfs asks an upper layer that can
        # change by itself, as all of FUSE can, for the link that is no more: ESTALE.
        for top in (merged, twin):
            shutil.rmtree(f'{top}/renamed folder')
            shutil.rmtree(f'{top}/empty')
        same(twin, merged, NOT_TIME)
    assert 'overlay' not in run('findmnt', '-n', '-o', 'FSTYPE', mount)
