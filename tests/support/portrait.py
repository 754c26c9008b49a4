# SPDX-License-Identifier: Apache-2.0
"""What can be seen of a tree of files, to compare two of them: names, contents and holes,
types, owners, modes, times, extended attributes (ACLs are among them) and which names are
one file.
"""

import contextlib
import hashlib
import os
import stat
import subprocess
import zlib
from collections import defaultdict

# Everything of a file that a portrait shows, in the order of words().
ALL = ('type', 'mode', 'owner', 'links', 'size', 'device', 'mtime', 'folder mtime',
       'xattrs', 'content', 'same', 'hole')


def _content(path, info):
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(info.st_mode):
        with open(path, 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    return None


def _xattrs(path):
    found = {}
    # Not every file system has them, nor any on what is no file or folder.
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            found[name] = os.getxattr(path, name, follow_symlinks=False)
    return found


def _has_hole(info):
    return stat.S_ISREG(info.st_mode) and info.st_blocks * 512 + 65536 < info.st_size


def _one(path):
    info = os.lstat(path)
    is_folder = stat.S_ISDIR(info.st_mode)
    return {
        'type': stat.S_IFMT(info.st_mode),
        'mode': stat.S_IMODE(info.st_mode),
        'owner': (info.st_uid, info.st_gid),
        'links': None if is_folder else info.st_nlink,
        'size': None if is_folder else info.st_size,
        'device': info.st_rdev,
        'mtime': None if is_folder else info.st_mtime_ns,
        'folder mtime': info.st_mtime_ns if is_folder else None,
        'xattrs': _xattrs(path),
        'content': _content(path, info),
        'hole': _has_hole(info),
    }, (info.st_dev, info.st_ino)


def make_ornate(top):
    """A tree with one of everything that a backup has to keep; needs root."""
    for folder in ('plain', 'odd names', 'default acl', 'empty', 'tmp'):
        os.makedirs(os.path.join(top, folder))
    os.chmod(os.path.join(top, 'tmp'), 0o1777)
    os.chmod(os.path.join(top, 'empty'), 0o2750)
    for number in range(40):
        path = os.path.join(top, 'plain', f'file{number}')
        with open(path, 'wb') as file:
            file.write(os.urandom(number * 997))
        os.chmod(path, (0o644, 0o600, 0o4755, 0o2711, 0o000)[number % 5])
        os.setxattr(path, 'user.number', b'%d' % number)
        if number % 4 == 0:
            os.link(path, os.path.join(top, 'plain', f'hard{number}'))
    for name in (b'new\nline', b'\xff\xfe not UTF-8', b'\\back$lash', b'-dash',
                 b'x' * 255):
        with open(os.path.join(os.fsencode(top), b'odd names', name), 'wb') as file:
            file.write(name)
    _make_special(top)
    _make_attributes(top)
    # All are old: rsync looks no closer than the second at what seems to be in time.
    for folder, folders, names in os.walk(os.fsencode(top), topdown=False):
        for name in folders + names:
            os.utime(os.path.join(folder, name), follow_symlinks=False,
                     ns=(10**18, 10**18 + zlib.crc32(name) % 10**9))
    os.utime(top, ns=(10**18, 10**18 + 1))


def _make_special(top):
    """What is neither a file nor a folder, and a file with holes."""
    os.symlink('plain/file1', os.path.join(top, 'symlink'))
    os.symlink('x' * 4000, os.path.join(top, 'long symlink'))
    os.lchown(os.path.join(top, 'symlink'), 4321, 1234)
    os.mkfifo(os.path.join(top, 'fifo'), 0o640)
    os.mknod(os.path.join(top, 'socket'), stat.S_IFSOCK | 0o700)
    os.mknod(os.path.join(top, 'character'), stat.S_IFCHR | 0o620, os.makedev(4, 300))
    os.mknod(os.path.join(top, 'block'), stat.S_IFBLK | 0o660, os.makedev(259, 77777))
    with open(os.path.join(top, 'sparse'), 'wb') as file:
        file.truncate(16 << 20)
        for at in (0, 8 << 20, (16 << 20) - 4096):
            os.pwrite(file.fileno(), os.urandom(4096), at)


# A capability set of one file, as the kernel keeps it: version 2, cap_net_raw permitted.
CAP_NET_RAW = bytes.fromhex('01000002002000000000000000000000') + bytes(4)


def _make_attributes(top):
    path = os.path.join(top, 'attributes')
    with open(path, 'wb') as file:
        file.write(b'much said about little')
    os.chown(path, 1234, 4321)
    for number in range(20):
        os.setxattr(path, f'user.many.{number}', bytes([number]) * number)
    os.setxattr(path, 'user.' + 'n' * 250, b'a long name')
    os.setxattr(path, 'user.big', bytes(range(256)) * 6)
    os.setxattr(path, 'trusted.of-root', b'\0\xff')
    os.setxattr(path, 'security.capability', CAP_NET_RAW)
    os.setxattr(os.path.join(top, 'fifo'), 'trusted.on-a-fifo', b'1')
    os.setxattr(os.path.join(top, 'symlink'), 'trusted.on-a-link', b'2',
                follow_symlinks=False)
    _setfacl('u:1234:rw,g:4321:r,m::rw', path)
    folder = os.path.join(top, 'default acl')
    _setfacl('u:1234:rwx,d:u:1234:rwx,d:g:77:rx,d:o::-', folder)
    with open(os.path.join(folder, 'heir'), 'wb'):
        os.mkdir(os.path.join(folder, 'heiress'))


def _setfacl(text, path):
    subprocess.run(['setfacl', '-m', text, path], check=True)


def of(top, without=()):
    """{path: what is seen of it} of a tree, the top itself included as "."."""
    found, names_of = {}, defaultdict(list)
    paths = ['.']
    for folder, folders, names in os.walk(top):
        paths += [os.path.relpath(os.path.join(folder, n), top) for n in folders + names]
    for path in sorted(paths):
        found[path], identity = _one(os.path.join(top, path))
        names_of[identity].append(path)
    for names in names_of.values():
        for name in names:
            found[name]['same'] = names
    for seen in found.values():
        for what in without:
            del seen[what]
    return found


def _apart(one, other):
    """Of two sets of attributes only what differs."""
    if not isinstance(one, dict):
        return one, other
    names = {name for name in one.keys() | other.keys()
             if one.get(name) != other.get(name)}
    return tuple({n: seen.get(n) for n in sorted(names)} for seen in (one, other))


def difference(one, other):
    """Words for what differs between two portraits, at most 20 lines; empty if nothing.
    """
    words = []
    for path in sorted(one.keys() | other.keys()):
        if path not in one or path not in other:
            words.append(f'{path!r} only in the {"first" if path in one else "second"}')
            continue
        for what in ALL:
            values = one[path].get(what), other[path].get(what)
            if values[0] != values[1]:
                values = _apart(*values)
                words.append(f'{path!r}: {what} {values[0]!r} against {values[1]!r}')
    return '\n'.join(words[:20])
