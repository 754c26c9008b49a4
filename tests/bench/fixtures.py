# SPDX-License-Identifier: Apache-2.0
"""What real work is done on: trees, a repository, a project and files of data, the same
in each run. All of it is in the host's page cache.
"""

import contextlib
import os
import random
import subprocess
import tempfile
import time

import share

# What is older has pages that --cache=auto may keep.
OLD_S = 3.5
LONG_AGO = 1700000000
SMALL = 4096
FEW = 64
FLAT = 1000
SOURCES = 13
DIRECTORY_FILES = 20    # of the tree
BIG_DIRECTORY_FILES = 100

# Programs that see no setting of whoever started us.
ENVIRONMENT = {
    'PATH': os.environ['PATH'], 'HOME': '/nonexistent', 'LC_ALL': 'C',
    'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1',
    'GIT_AUTHOR_NAME': 'a', 'GIT_AUTHOR_EMAIL': 'a',
    'GIT_AUTHOR_DATE': '1700000000 +0000',
    'GIT_COMMITTER_NAME': 'a', 'GIT_COMMITTER_EMAIL': 'a',
    'GIT_COMMITTER_DATE': '1700000000 +0000',
}

MAKEFILE = '''\
objects = $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects)
\t$(CC) -o $@ $(objects)
%.o: %.c all.h
\t$(CC) -c -o $@ $<
'''
SOURCE = '''\
#include <stdio.h>
#include <stdlib.h>
#include "all.h"
int f{i}(int x) {{ return printf("{i} %d", x); }}
'''


class Sizes:
    """How much there is of each."""

    def __init__(self, files, big, mib):
        self.tree = files
        self.big = big
        self.mib = mib
        self.flat = min(FLAT, files)
        self.sources = max(2, min(SOURCES, files // 20))

    def transferred(self, times):
        """Bytes of so many times the data."""
        return int(self.mib * times * (1 << 20))


def names(n, per_directory):
    """Relative paths of a tree two levels deep."""
    return [f'd{i // (20 * per_directory):02d}/e{i // per_directory % 20:02d}/f{i:06d}.c'
            for i in range(n)]


def flat_names(n):
    return [f'f{i:04d}' for i in range(n)]


def _text(chance, size):
    words = ('int', 'return', 'static', 'value', 'x = y;', '\n')
    return ' '.join(chance.choices(words, k=size // 5 + 2)).encode('ascii')[:size]


def _plant(folder, paths, size):
    """Files of text; size() bytes each."""
    chance = random.Random(1)
    text = _text(chance, 1 << 16)
    for directory in sorted({os.path.dirname(path) for path in paths}):
        os.makedirs(os.path.join(folder, directory), exist_ok=True)
    for path in paths:
        n = size(chance)
        start = chance.randrange(len(text) - n)
        with open(os.path.join(folder, path), 'wb') as file:
            file.write(text[start:start + n])


def _run(*command, cwd=None):
    subprocess.run(command, cwd=cwd, check=True, env=ENVIRONMENT,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _repository(tree, repo, paths):
    _run('cp', '-r', tree, repo)
    for path in paths:
        # git reads again what was modified at about the time of its index.
        os.utime(os.path.join(repo, path), (LONG_AGO, LONG_AGO))
    for command in (('init', '-q', '-b', 'main'), ('add', '.'),
                    ('commit', '-q', '-m', '.'), ('gc', '-q')):
        _run('git', *command, cwd=repo)


def _project(folder, n):
    os.mkdir(folder)
    files = {'Makefile': MAKEFILE,
             'main.c': '#include "all.h"\nint main(void) { return f0(1) < 0; }\n',
             'all.h': ''.join(f'int f{i}(int x);\n' for i in range(n)),
             **{f'f{i}.c': SOURCE.format(i=i) for i in range(n)}}
    for name, text in files.items():
        with open(os.path.join(folder, name), 'w', encoding='ascii') as file:
            file.write(text)


def _data(path, mib):
    with open(path, 'wb') as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))


@contextlib.contextmanager
def made(sizes, wait):
    """A folder with the share in it, and beside it what is no part of the share. Without
    waiting, it is too young for pages to be kept.
    """
    parent = os.environ.get('TMPDIR', '/var/tmp')
    with tempfile.TemporaryDirectory(prefix='virtiofsd-work-', dir=parent) as folder:
        here = os.path.join(folder, 'share')
        os.mkdir(here)
        share.spread(here)
        tree = os.path.join(here, 'tree')
        paths = names(sizes.tree, DIRECTORY_FILES)
        _plant(tree, paths, lambda chance: chance.randrange(1, 12288))
        _plant(os.path.join(here, 'big'), names(sizes.big, BIG_DIRECTORY_FILES),
               lambda chance: chance.randrange(1, 400))
        _plant(os.path.join(here, 'few'), flat_names(FEW), lambda chance: SMALL)
        _plant(os.path.join(here, 'flat'), flat_names(sizes.flat), lambda chance: SMALL)
        _repository(tree, os.path.join(here, 'repo'), paths)
        _project(os.path.join(here, 'project'), sizes.sources - 1)
        _data(os.path.join(here, 'data'), sizes.mib)
        _run('tar', '--sort=name', '-cf', os.path.join(folder, 'tree.tar'), '-C', tree,
             '.')
        os.sync()
        time.sleep(OLD_S if wait else 0)
        yield folder
