# SPDX-License-Identifier: Apache-2.0
"""What the peer, virtiofsd 1.14 in Rust, does wrong with files, and the tests that show
what is right. The table is in the order of its subjects; a test of its own sees that
every row names tests that exist.

A test is named as in catalogue.py.
"""

import pytest

import catalogue

FILES, READONLY = 'test_peer_files.py', 'test_peer_readonly.py'
IDENTITY, WHO = 'test_peer_identity.py', 'test_identity.py'

OPENING = (
    ('CREATE passes O_DIRECT and O_NOATIME on, which OPEN takes away',
     f'{FILES}::test_flags_that_pass_by_leave_only', '/file/flags'),
    ('with --writeback, a file that CREATE opens for writing only cannot be read: EBADF',
     f'{FILES}::test_what_is_written_only_is_read_for_the_cache',
     f'{FILES}::test_nameless_file_is_read_for_the_cache'),
    ('O_APPEND is taken from the request alone, and not from one of the cache',
     f'{FILES}::test_appended_to_the_end_that_the_host_knows', '/file/append'),
    ('CREATE looks its file up a second time, by name: another may have it by then',
     f'{FILES}::test_created_is_what_is_opened', '/name/create-on-others'),
    ('a read that meets the end of the file takes two system calls; FLUSH is dup, close',
     f'{FILES}::test_one_system_call_moves_the_data'),
    ('a lock of the handle is held while data moves: fsync, truncate and others wait',
     f'{FILES}::test_slow_read_keeps_nobody_waiting'),
    ('modes of FALLOCATE are not looked at',
     f'{FILES}::test_every_mode_of_fallocate', '/file/fallocate'),
    ('whences of LSEEK are not looked at', '/file/lseek'),
    ('the count of COPY_FILE_RANGE is cut to 32 bits',
     f'{FILES}::test_lengths_beyond_32_bits', '/file-copy/long-copies-end'),
    ('without submounts SYNCFS reaches only the file system of the root',
     'test_submount.py::test_sync_of_all_that_the_guest_was_not_told_apart'),
    ('SETATTR leaves out the change time', f'{FILES}::test_change_time'),
    ('SETATTR changes the mode first, and the new owner takes its set-id bits away',
     f'{FILES}::test_all_of_a_setattr_takes_effect', '/attr/mode-and-owner'),
    ('SETATTR of a symbolic link goes through a magic link of /proc',
     f'{FILES}::test_mode_of_a_symbolic_link', '/attr/symlink'),
    ('ACCESS is judged by mode bits, without the caller\'s groups',
     f'{FILES}::test_access_is_judged_with_all_groups',
     f'{FILES}::test_access_is_not_answered'),
)

CREDENTIALS = (
    ('groups stay on the thread where neither uid nor gid change: others inherit them',
     f'{WHO}::test_groups_are_given_back', '/cred/groups'),
    ('the gid stays if the uid cannot be taken',
     f'{IDENTITY}::test_gid_is_given_back_when_the_uid_is_refused', '/cred/refused'),
    ('a thread that cannot get back goes on serving',
     f'{WHO}::test_worker_that_cannot_get_back', '/cred/poisoned'),
    ('what root makes for another gid has the daemon\'s',
     f'{WHO}::test_what_is_made', '/cred/owner'),
    ('without the caller\'s groups a creating request takes 88 system calls more',
     f'{WHO}::test_system_calls'),
    ('without the caller\'s groups what exists is opened with CAP_DAC_OVERRIDE',
     f'{WHO}::test_existing_is_opened_as_the_caller', f'{WHO}::test_groups_not_told'),
    ('the umask counts only where lists are agreed, and must be given back',
     '/cred/umask', '/op-caller/umask'),
)

PRIVILEGES = (
    ('CAP_FSETID is dropped around a change, and must be had again',
     f'{IDENTITY}::test_privileges_are_given_back'),
    ('set-id bits go otherwise than on the host',
     'test_killpriv.py::test_as_on_the_host', '/file/set-id-bits'),
    ('names are hidden that a list\'s name begins with',
     f'{IDENTITY}::test_lists_hide_nothing_else', '/xattr/acl-hidden'),
    ('ACL_KILL_SGID clears the bit by a change of its own', '/xattr/acl-kill-sgid'),
    ('a descriptor is left by each labelled MKDIR, MKNOD and SYMLINK, and one by CREATE '
     'if the label is refused',
     f'{IDENTITY}::test_labels_keep_no_descriptor', '/secctx/nothing-left'),
    ('a guest that sends no label ends the daemon',
     f'{IDENTITY}::test_labels_keep_no_descriptor'),
    ('what cannot be labelled is removed by name, whoever has it by then',
     '/secctx/removed', '/secctx/existing'),
    ('submounts are told by device and mount, folders alone',
     f'{IDENTITY}::test_submounts_are_told_by_mount_and_device',
     'test_submount.py::test_fuse_mount_in_the_share'),
    ('each write takes one system call more if security.capability is renamed',
     f'{IDENTITY}::test_renamed_capabilities_go_with_the_content', '/xattr/capability',
     '/xattr/capability-kinds'),
)

NAMES = (
    ('rules that leave names without an answer end the daemon, at the start or at the '
     'guest\'s word', '/xattr-map/mistakes', '/xattr-map/cut', '/options/wrong'),
    ('a list\'s length is told as it was before names were renamed or hidden',
     '/xattr/map', '/xattr-map/hide', f'{IDENTITY}::test_lists_hide_nothing_else'),
    ('a list of which nothing is left is one NUL', '/xattr/map-kinds', '/xattr/map'),
    ('the first rule that matches counts, in each direction for itself',
     '/xattr-map/first-wins', '/xattr-map/scopes'),
    ('map rules stand for several', '/xattr-map/map-all', '/xattr-map/map-key'),
    ('what is refused or not supported is answered by its kind of request',
     '/xattr-map/types', '/xattr/map-unsupported'),
)

IDS = (
    ('maps of ids are taken with any text around them',
     '/idmap/wrong/format', '/idmap/wrong/numbers', 'test_userns.py::test_refused'),
    ('what is forbidden to the guest is EIO', 'test_translation.py::test_forbidden',
     '/translate/forbidden'),
    ('forbid-guest beyond the last id begins at 0 again',
     'test_translation.py::test_refused', '/translate/wrong'),
    ('each direction, overlaps and lists are for themselves', '/translate/one-way',
     '/translate/overlap', 'test_translation.py::test_as_on_the_host',
     'test_translation.py::test_refused'),
    ('capabilities are kept, all of them, in the namespace of an ordinary user',
     'test_audit.py::test_privileges'),
    ('id -1 is passed on', f'{WHO}::test_nobody', '/cred/no-id'),
)

READ_ONLY = (
    ('O_TRUNC and O_TMPFILE are EINVAL, O_EXCL is EROFS: not as of a read-only mount',
     f'{READONLY}::test_as_on_a_read_only_mount', '/name-create/readonly'),
    ('what changes the share is refused by a list of what is known',
     f'{READONLY}::test_every_change_is_refused',
     f'{READONLY}::test_the_mount_is_read_only_too'),
    ('access times move', f'{READONLY}::test_reading_leaves_no_trace'),
    ('CREATE of what cannot be opened keeps its node for ever',
     f'{FILES}::test_create_that_fails_keeps_nothing'),
)

DEFECTS = OPENING + CREDENTIALS + PRIVILEGES + NAMES + IDS + READ_ONLY


@pytest.fixture(scope='module')
def known():
    return catalogue.all_tests()


@pytest.mark.parametrize('row', DEFECTS, ids=[row[0] for row in DEFECTS])
def test_every_defect_has_a_test(known, row):
    catalogue.check_row(known, row)


def test_what_is_missing_is_found(known):
    """A row that names a test which is not there does not pass."""
    for test in ('/file/none', f'{FILES}::test_none', 'test_none.py::test_none'):
        with pytest.raises(AssertionError):
            test_every_defect_has_a_test(known, ('something', test))


def test_each_defect_once():
    assert len({row[0] for row in DEFECTS}) == len(DEFECTS)
