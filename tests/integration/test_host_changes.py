# SPDX-License-Identifier: Apache-2.0
"""The host changes files that a guest works on: the guest is told ESTALE or ENOENT as an
NFS client would be, or goes on with the file that it had; it never meets another's data.
"""

import contextlib
import errno
import os
import subprocess
import time

import pytest

import crowd

SETTLE = 0.05
GONE = (errno.ESTALE, errno.ENOENT)
ROOT = crowd.fuse.ROOT

pytestmark = pytest.mark.sandboxed


@pytest.fixture
def volume(share):
    """The share as a mount through which volumes mounted into it reach the daemon."""
    subprocess.run(['mount', '-t', 'tmpfs', 'run', share], check=True)
    subprocess.run(['mount', '--make-shared', share], check=True)
    yield share
    subprocess.run(['umount', '-R', '-l', share], check=True)


@pytest.fixture
def ext4(share):
    """The share on a file system that is quick to use a number again."""
    crowd.mount_ext4(share, 50_000)
    yield share
    subprocess.run(['umount', '-l', share], check=True)


class Known:
    """A file of the host's as the guest has come to know it."""

    def __init__(self, guest, path, how, folder=ROOT):
        self.client, self.path, self.how = guest.client, path, how
        self.size = os.stat(path).st_size
        self.name = os.fsencode(os.path.basename(path))
        self.handle = None
        self.ends = False
        if how == 'listed':
            self.node = next(entry.entry.nodeid for entry in guest.list(folder)
                             if entry.name == self.name)
        else:
            self.node = self.client.lookup(folder, self.name).nodeid
        if how in ('used', 'opened'):
            self.handle = self.client.open(self.node, os.O_RDWR)[0]
        if how == 'used':
            self.client.release(self.node, self.handle)
            self.handle = None

    def may_be_gone(self, is_unmounted=False):
        """What it is for the guest now: itself, or gone; never another. True if gone.
        What is not in the share any more is used by who has it open, not opened anew.
        """
        gone = False
        try:
            assert self.client.getattr(self.node).size == self.size
            handle = self.client.open(self.node)[0]
            assert self.client.getattr(self.node, handle).size == self.size
            self.client.release(self.node, handle)
        except crowd.fuse.FuseError as error:
            assert error.errno in GONE
            gone = True
        if self.handle is not None:
            # Who has it open keeps it.
            assert not gone or is_unmounted
            assert self.client.getattr(self.node, self.handle).size == self.size
        return gone


HOW = ('listed', 'looked up', 'used', 'opened')
BY_HANDLE = '--inode-file-handles=mandatory'


@pytest.fixture(params=[(how, ()) for how in HOW] + [(how, (BY_HANDLE,)) for how in HOW],
                ids=lambda param: '-'.join((param[0], *param[1])))
def known(request, share, serve_crowd):
    """A file of 5 bytes that the guest knows, beside one of 7 that it does not."""
    make(share, 'file', 5)
    make(share, 'other', 7)
    time.sleep(SETTLE)
    how, options = request.param
    guest = serve_crowd(*options)
    found = Known(guest, os.path.join(share, 'file'), how)
    # What was used has a descriptor, which outlives the name; a file handle does not
    # outlive the file.
    found.ends = how in ('listed', 'looked up') or how == 'used' and options
    return found


def make(folder, name, size):
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
        file.truncate(size)
    return path


def size_at(client, name, folder=ROOT):
    """What a guest finds that looks the name up anew; None for nothing."""
    try:
        entry = client.lookup(folder, name)
    except crowd.fuse.FuseError as error:
        assert error.errno == errno.ENOENT
        return None
    assert client.getattr(entry.nodeid).size == entry.attr.size
    return entry.attr.size


def test_renamed(known):
    os.rename(known.path, known.path + '.moved')
    known.may_be_gone()
    assert size_at(known.client, b'file') is None
    assert size_at(known.client, b'file.moved') == 5
    # Where it was seen last is where it is.
    assert not known.may_be_gone()


def test_replaced(known, share):
    os.rename(os.path.join(share, 'other'), known.path)
    assert known.may_be_gone() == bool(known.ends)
    assert size_at(known.client, b'file') == 7
    assert known.may_be_gone() == bool(known.ends)


def test_replaced_by_a_folder(known):
    os.unlink(known.path)
    os.mkdir(known.path)
    assert known.may_be_gone() == bool(known.ends)
    node = known.client.lookup(ROOT, b'file').nodeid
    assert node != known.node
    assert size_at(known.client, b'x', node) is None


def test_replaced_by_a_link_out_of_the_share(known, scratch):
    secret = make(scratch, 'secret', 1000)
    os.unlink(known.path)
    os.symlink(secret, known.path)
    assert known.may_be_gone() == bool(known.ends)
    entry = known.client.lookup(ROOT, b'file')
    assert entry.attr.mode & 0o170000 == 0o120000


def test_removed(known):
    os.unlink(known.path)
    assert known.may_be_gone() == bool(known.ends)
    assert size_at(known.client, b'file') is None


def test_removed_and_made_again(known):
    """Until its number is used again, where the file system does that at all."""
    ino = os.stat(known.path).st_ino
    for _ in range(200):
        os.unlink(known.path)
        make(os.path.dirname(known.path), 'file', 9)
        if os.stat(known.path).st_ino == ino:
            break
    assert known.may_be_gone() == bool(known.ends)
    assert size_at(known.client, b'file') == 9


def test_truncated(known):
    os.truncate(known.path, 3)
    assert known.client.getattr(known.node).size == 3
    assert size_at(known.client, b'file') == 3


def test_folder_moved_away(share, serve_crowd):
    """All that is in it goes along, and what stands there then is not taken for it."""
    os.mkdir(os.path.join(share, 'folder'))
    os.mkdir(os.path.join(share, 'folder2'))
    make(share, 'folder/file', 5)
    make(share, 'folder2/file', 7)
    time.sleep(SETTLE)
    guest = serve_crowd()
    folder = guest.client.lookup(ROOT, b'folder').nodeid
    known = Known(guest, os.path.join(share, 'folder/file'), 'listed', folder)
    os.rename(os.path.join(share, 'folder'), os.path.join(share, 'moved'))
    os.rename(os.path.join(share, 'folder2'), os.path.join(share, 'folder'))
    assert not known.may_be_gone()  # the guest's folder is the one that moved
    new = guest.client.lookup(ROOT, b'folder').nodeid
    assert new != folder
    assert size_at(guest.client, b'file', new) == 7


# ---- mounts ---------------------------------------------------------------------------

def mount_volume(share, name, size):
    path = os.path.join(share, name)
    os.makedirs(path, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', f'volume{size}', path], check=True)
    make(path, 'file', size)
    return path


def shows_mount(daemon, words):
    return words in daemon.proc('mountinfo')


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('options', [(), (BY_HANDLE,)])
@pytest.mark.parametrize('name', ['volume', 'a volume\twith \\040'])
def test_mount_vanishes(volume, serve_crowd, how, name, options):
    """A volume that the host unmounts while the guest knows its files: nothing is found
    there any more, and nothing of it is held once the guest has given it back.
    """
    path = mount_volume(volume, name, 5)
    time.sleep(SETTLE)
    guest = serve_crowd(*options)
    client = guest.client
    root = client.lookup(ROOT, os.fsencode(name)).nodeid
    known = Known(guest, os.path.join(path, 'file'), how, root)
    assert client.getattr(known.node).size == 5
    assert shows_mount(guest.daemon, 'volume5')
    subprocess.run(['umount', '-l', path], check=True)
    known.may_be_gone(is_unmounted=True)
    beneath = client.lookup(ROOT, os.fsencode(name)).nodeid
    assert beneath != root
    assert size_at(client, b'file', beneath) is None
    if known.handle is not None:
        client.release(known.node, known.handle)
    client.forget(known.node, 100)
    client.forget(root, 100)
    assert not [what for what in guest.daemon.descriptors().values() if 'file' in what]
    assert not shows_mount(guest.daemon, 'volume5')


@pytest.mark.parametrize('how', HOW)
@pytest.mark.parametrize('options', [(), (BY_HANDLE,)])
def test_remounted(volume, serve_crowd, how, options):
    """Another volume at the same place, with the same numbers."""
    path = mount_volume(volume, 'volume', 5)
    time.sleep(SETTLE)
    guest = serve_crowd(*options)
    root = guest.client.lookup(ROOT, b'volume').nodeid
    known = Known(guest, os.path.join(path, 'file'), how, root)
    subprocess.run(['umount', '-l', path], check=True)
    mount_volume(volume, 'volume', 7)
    assert os.stat(os.path.join(path, 'file')).st_size == 7
    known.may_be_gone(is_unmounted=True)
    again = guest.client.lookup(ROOT, b'volume').nodeid
    assert again != root
    assert size_at(guest.client, b'file', again) == 7
    known.may_be_gone(is_unmounted=True)


# ---- the race -------------------------------------------------------------------------

class Race:
    """Files that are replaced between being listed and being opened."""

    def __init__(self, guest, share, n):
        self.guest, self.client, self.n = guest, guest.client, n
        self.folder = os.open(share, os.O_RDONLY)
        self.seen = {'itself': 0, 'stale': 0}

    def replace(self, number, generation):
        """By another that is moved there, or by one made after it was removed, which may
        well be given its number.
        """
        name, size = crowd.name_of(number), crowd.size_of(number, generation)
        if number % 2:
            crowd.make_file(self.folder, b'new', size)
            os.rename(b'new', name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        else:
            os.unlink(name, dir_fd=self.folder)
            crowd.make_file(self.folder, name, size)

    def open(self, node, size):
        """It is what was listed, or nothing."""
        try:
            handle = self.client.open(node)[0]
        except crowd.fuse.FuseError as error:
            assert error.errno == errno.ESTALE
            self.seen['stale'] += 1
            return
        assert self.client.getattr(node, handle).size == size
        self.client.release(node, handle)
        self.seen['itself'] += 1

    def round(self, generation):
        entries = self.guest.list()
        assert len(entries) == self.n
        for number in range(self.n):
            self.replace(number, generation)
        for found in entries:
            if found.entry.nodeid:
                assert found.entry.attr.size < crowd.size_of(0, generation)
                self.open(found.entry.nodeid, found.entry.attr.size)
        self.guest.forget_all(found.entry.nodeid for found in entries
                              if found.entry.nodeid)

    def close(self):
        os.close(self.folder)


def race(serve_crowd, share, n, rounds):
    crowd.make_files(share, n)
    time.sleep(SETTLE)
    guest = serve_crowd('--rlimit-nofile=1000')
    with contextlib.closing(Race(guest, share, n)) as the_race:
        for generation in range(1, rounds + 1):
            the_race.round(generation)
        print(f'{n * rounds} replaced: {the_race.seen}')
        # Only those that were so young that they had to be opened are themselves.
        assert the_race.seen['stale'] > n * rounds * 0.8
        assert sum(the_race.seen.values()) > n * rounds * 0.95


def test_replaced_between_listing_and_opening(ext4, serve_crowd):
    race(serve_crowd, ext4, 5_000, 4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.unwatched('its tables keep the size that a crowd needs')
def test_a_million_replaced_between_listing_and_opening(ext4, serve_crowd):
    race(serve_crowd, ext4, 20_000, 50)
