# SPDX-License-Identifier: Apache-2.0
"""The rows of real work: what is prepared on the host, and what is timed on the mount."""

import json
import os
import subprocess
import time

import fixtures
from contest import NotRun


class Place:
    """Where one turn works: `root` is the share as it is mounted, or as it is."""

    def __init__(self, folder, root, sizes, is_bare):
        self.folder = folder
        self.share = os.path.join(folder, 'share')
        self.root = root
        self.sizes = sizes
        self.is_bare = is_bare

    def host(self, *parts):
        return os.path.join(self.share, *parts)

    def path(self, *parts):
        return os.path.join(self.root, *parts)


FRESH = 'fresh'  # an empty directory at first, removed after each turn


def run(*command, accepted=(0,), text=None):
    """(seconds, output) of a program."""
    out = subprocess.DEVNULL if text is None else subprocess.PIPE
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=fixtures.ENVIRONMENT, check=False,
                              input=text or '', stdout=out, stderr=subprocess.PIPE,
                              encoding='utf-8')
    except OSError as why:
        raise NotRun(str(why)) from why
    seconds = time.monotonic() - start
    if done.returncode not in accepted:
        raise NotRun(f'{command[0]}: {done.returncode}: {done.stderr.strip()[-300:]}')
    return seconds, done.stdout


def timed(*words, accepted=(0,)):
    """A command; {root}, {fresh} and {folder} stand for their paths."""
    def act(place):
        command = [word.format(root=place.root, fresh=place.path(FRESH),
                               folder=place.folder) for word in words]
        return run(*command, accepted=accepted)[0]
    return act


def each_file(work, passes, directory, names):
    """bench-files on names(sizes) of a directory."""
    def act(place):
        program = os.path.join(os.environ['VIRTIOFSD_BUILD'], 'tests', 'bench',
                               'bench-files')
        _, said = run(program, work, str(passes), place.path(directory),
                      text='\n'.join(names(place.sizes)) + '\n')
        return int(said) / 1e9
    return act


def fio(pattern, size, direct, times=1, depth=1):
    """All of the file, `times` over. The host's pages are always used: what is direct is
    so for the guest, and the bare directory has nothing direct.
    """
    def act(place):
        engine = 'psync' if depth == 1 else 'libaio'
        _, said = run(
            'fio', '--name=work', f'--filename={place.path("data")}', f'--rw={pattern}',
            f'--bs={size}', f'--size={place.sizes.mib}m',
            f'--io_size={place.sizes.transferred(times)}', '--thread',
            f'--ioengine={engine}', f'--iodepth={depth}',
            f'--direct={int(direct and not place.is_bare)}',
            '--invalidate=0', '--fallocate=none', '--output-format=json', text='')
        job = json.loads(said[said.index('{'):])['jobs'][0]
        if job['error']:
            raise NotRun(f'fio: error {job["error"]}')
        return max(job[way]['runtime'] for way in ('read', 'write')) / 1e3
    return act


def copied(name):
    """Prepare a copy of what is in the share in the fresh directory."""
    def prepare(place):
        run('cp', '-a', place.host(name), place.host(FRESH))
    return prepare


class Row:
    """One kind of work. With again=True it is done a second time, when what the guest
    was told of files has expired.
    """

    def __init__(self, name, title, act, units, *, goal=None, again=False, prepare=None):
        self.name = name
        self.title = title
        self.act = act
        self.units = units  # of the sizes: how many files or transfers it is
        self.goal = goal
        self.again = again
        self.prepare = prepare

    def phases(self):
        return ('cold', 'warm') if self.again else ('cold',)


def in_tree(sizes):
    return sizes.tree


def in_big(sizes):
    return sizes.big


def _transfers(size, times=1):
    return lambda sizes: sizes.transferred(times) // size


def _tree_names(sizes):
    return fixtures.names(sizes.tree, fixtures.DIRECTORY_FILES)


def _flat_names(sizes):
    return fixtures.flat_names(sizes.flat)


def _few_names(_):
    return fixtures.flat_names(fixtures.FEW)


PASSES = 50
PART = 1 / 4  # of the data, at random
METADATA, CHANGES, OFTEN, DATA = 0.4, 0.7, 0.3, 0.9

ROWS = (
    Row('untar', 'untar {tree} files', timed('tar', '-xf', '{folder}/tree.tar', '-C',
                                             '{fresh}'), in_tree, goal=CHANGES),
    Row('stat', 'stat {tree} files', each_file('stat', 1, 'tree', _tree_names), in_tree,
        goal=METADATA, again=True),
    Row('git-status', 'git status, {tree} files', timed(
        'git', '--no-optional-locks', '-C', '{root}/repo', 'status', '--porcelain'),
        in_tree, goal=METADATA, again=True),
    Row('git-clone', 'git clone, {tree} files', timed(
        'git', 'clone', '-q', '--no-hardlinks', '{root}/repo', '{fresh}/clone'), in_tree),
    Row('find', 'find, {big} files', timed('find', '{root}/big'), in_big, goal=METADATA,
        again=True),
    Row('du', 'du, {big} files', timed('du', '-s', '{root}/big'), in_big, again=True),
    Row('grep', 'grep -r, {big} files', timed(
        'grep', '-r', 'no such words', '{root}/big', accepted=(1,)), in_big, again=True),
    Row('rm', 'rm -rf {tree} files', timed('rm', '-rf', '{fresh}/tree'), in_tree,
        goal=CHANGES, prepare=copied('tree')),
    Row('read-new', 'open-read-close, {flat} new files', each_file(
        'read', 1, 'flat', _flat_names), lambda sizes: sizes.flat),
    Row('read-often', f'open-read-close, {fixtures.FEW} files {PASSES} times', each_file(
        'read', PASSES, 'few', _few_names), lambda _: fixtures.FEW * PASSES, goal=OFTEN),
    Row('random-read', 'random 4K reads, direct', fio('randread', '4k', True, PART),
        _transfers(4096, PART), goal=DATA),
    Row('random-read-16', 'random 4K reads, direct, 16 in flight', fio(
        'randread', '4k', True, PART, depth=16), _transfers(4096, PART), goal=DATA),
    Row('random-write', 'random 4K writes, direct', fio('randwrite', '4k', True, PART),
        _transfers(4096, PART), goal=DATA),
    Row('random-write-cached', 'random 4K writes', fio('randwrite', '4k', False, PART),
        _transfers(4096, PART), goal=DATA),
    Row('read', '1M reads, direct', fio('read', '1m', True, times=8),
        _transfers(1 << 20, 8), goal=DATA),
    Row('read-cached', '1M reads', fio('read', '1m', False), _transfers(1 << 20),
        goal=DATA),
    Row('write', '1M writes, direct', fio('write', '1m', True, times=4),
        _transfers(1 << 20, 4), goal=DATA),
    Row('write-cached', '1M writes', fio('write', '1m', False, times=2),
        _transfers(1 << 20, 2), goal=DATA),
    Row('make', 'make of {sources} C files', timed(
        'make', '-s', '-C', '{fresh}/project'), lambda sizes: sizes.sources,
        prepare=copied('project')),
)


def select(names):
    """The rows of these names, in the table's order; all of them for none."""
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise ValueError(f'no such row: {", ".join(sorted(unknown))}')
    return [row for row in ROWS if not names or row.name in names]
