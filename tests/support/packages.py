# SPDX-License-Identifier: Apache-2.0
"""Files from Debian's packages, fetched once and cached. Nothing is installed and the
machine's apt configuration stays as it is.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
MIRROR = 'http://deb.debian.org/debian'
SECURITY = 'http://deb.debian.org/debian-security'


class Unavailable(Exception):
    """This machine cannot get the package; the text says why."""


def cache_folder():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    folder = os.environ.get('VIRTIOFSD_TEST_CACHE') or f'{base}/virtiofsd-tests'
    os.makedirs(folder, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name):
    """Several test runs may want the same file at once: one makes it."""
    with open(os.path.join(cache_folder(), f'{name}.lock'), 'wb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Apt:
    """apt with a private list of sources ("deb URL SUITE PART"), in a folder of its own.
    """

    def __init__(self, folder, sources):
        self.folder = folder
        for sub in ('lists/partial', 'cache/archives/partial'):
            os.makedirs(f'{folder}/{sub}')
        with open(f'{folder}/sources.list', 'w', encoding='ascii') as file:
            for source in sources:
                kind, rest = source.split(' ', 1)
                file.write(f'{kind} [signed-by={KEYRING}] {rest}\n')
        self.options = []
        for option in (f'Dir::Etc::sourcelist={folder}/sources.list',
                       'Dir::Etc::sourceparts=-', f'Dir::State::lists={folder}/lists',
                       f'Dir::Cache={folder}/cache', 'APT::Sandbox::User=root',
                       'Acquire::Retries=2', 'Acquire::http::Timeout=20'):
            self.options += ['-o', option]

    def run(self, program, *words, cwd=None):
        if shutil.which(program) is None:
            raise Unavailable(f'no {program} here')
        done = subprocess.run([program, *self.options, *words], cwd=cwd or self.folder,
                              capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Unavailable(f'{program} {words[0]}: {done.stderr.strip()[-300:]}')
        return done.stdout


def _fetched(name, kind, words):
    """The folder with what apt-get downloads for these words."""
    folder = os.path.join(cache_folder(), name)
    with locked(name):
        if not os.path.isdir(folder):
            with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
                apt = Apt(os.path.join(scratch, 'apt'),
                          [f'{kind} {MIRROR} bookworm main'])
                apt.run('apt-get', '-q', 'update')
                os.mkdir(f'{scratch}/made')
                apt.run('apt-get', '-q', *words, cwd=f'{scratch}/made')
                os.rename(f'{scratch}/made', folder)
    return folder


def source_of(package):
    """The path of a package's upstream archive. Raises Unavailable."""
    folder = _fetched(f'source-{package}', 'deb-src', ['source', '--download-only',
                                                       package])
    return next(os.path.join(folder, name) for name in os.listdir(folder)
                if '.orig.tar.' in name and not name.endswith('.asc'))


def tree_of(package, suite):
    """A folder with the files of a package and of all that it depends on, of another
    suite than this machine's. None of it is installed. Raises Unavailable.
    """
    name = f'tree-{suite}-{package}'
    folder = os.path.join(cache_folder(), name)
    with locked(name):
        if not os.path.isdir(folder):
            with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
                _unpack_all(scratch, package, suite)
                os.rename(f'{scratch}/made', folder)
    return folder


def _unpack_all(scratch, package, suite):
    apt = Apt(os.path.join(scratch, 'apt'), [f'deb {MIRROR} {suite} main'])
    nothing = f'{scratch}/status'  # is installed: all that it needs is fetched
    with open(nothing, 'wb'):
        pass
    apt.options += ['-o', f'Dir::State::status={nothing}',
                    '-o', 'APT::Install-Recommends=false', '-o', 'Debug::NoLocking=1']
    apt.run('apt-get', '-q', 'update')
    apt.run('apt-get', '-q', '-y', '--download-only', 'install', package)
    archives = f'{scratch}/apt/cache/archives'
    for deb in sorted(os.listdir(archives)):
        if deb.endswith('.deb'):
            subprocess.run(['dpkg-deb', '-x', f'{archives}/{deb}', f'{scratch}/made'],
                           check=True)


def debs_of(*packages):
    """The paths of binary packages. Raises Unavailable."""
    folder = _fetched('debs-' + '-'.join(packages), 'deb', ['download', *packages])
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))
