# SPDX-License-Identifier: Apache-2.0
"""The same calls on two folders that are alike, one of them served by the daemon: what
a program sees must not tell which one it is in.
"""

import os
import stat

import callers


def outcome(function, *args):
    """('returned', value), or ('failed', errno)."""
    try:
        return 'returned', function(*args)
    except OSError as error:
        return 'failed', error.errno


def outcome_as(caller, function, *args):
    """The same for (uid, gid, groups), without a umask."""
    return callers.run_as(caller, outcome, function, *args)


def content(path):
    """What is in a file, or where a link leads."""
    if os.path.islink(path):
        return os.readlink(path)
    if os.path.isfile(path):
        with open(path, 'rb') as file:
            return file.read()
    return None


def looks(path):
    """What of a file must be equal on both sides; sizes of folders are the host's."""
    found = os.lstat(path)
    size = None if stat.S_ISDIR(found.st_mode) else found.st_size
    return (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev,
            size, content(path))


def tree(top):
    """{path: what it looks like} of everything beneath a folder."""
    found = {'.': looks(top)}
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = looks(path)
    return found


class Twins:
    """A mounted share and its twin."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs

    def make(self, function, *args):
        """Prepare both sides; this must work."""
        for folder in (self.ours, self.theirs):
            function(folder, *args)

    def check(self, function, *args, caller=None, what=None):
        """Both sides do the same; returns it. The first argument is the folder."""
        run = outcome if caller is None else lambda *rest: outcome_as(caller, *rest)
        expected = run(function, self.theirs, *args)
        seen = run(function, self.ours, *args)
        assert seen == expected, (what, function.__name__, args, caller)
        return expected

    def check_trees(self, what=None):
        """Both folders look the same by now."""
        assert tree(self.ours) == tree(self.theirs), what
