# SPDX-License-Identifier: Apache-2.0
"""Databases whose files lie on the mounted share: what they acknowledged is there, and
whole, also after their processes were killed in the middle of it.
"""

import contextlib
import glob
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from launch import eventually
from test_work import run

ACCOUNTS, MONEY = 50, 1000

# Moves money between accounts, one transaction after the other, and says so after each.
MOVER = '''
import random, sqlite3, sys
path, seed, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute('PRAGMA synchronous=FULL')
for turn in range(turns):
    one, other = random.sample(range(50), 2)
    amount = random.randint(1, 9)
    db.execute('BEGIN IMMEDIATE')
    db.execute('UPDATE account SET money = money - ? WHERE id = ?', (amount, one))
    db.execute('INSERT INTO move(seed, turn, pad) VALUES (?, ?, ?)',
               (seed, turn, random.randbytes(random.randint(0, 6000))))
    db.execute('UPDATE account SET money = money + ? WHERE id = ?', (amount, other))
    db.execute('COMMIT')
    print(turn, flush=True)
'''


@contextlib.contextmanager
def opened(path):
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        yield database
    finally:
        database.close()


def make_database(path, journal):
    with opened(path) as database:
        assert database.execute(f'PRAGMA journal_mode={journal}').fetchone() == (journal,)
        database.execute('CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER)')
        database.execute('CREATE TABLE move(seed, turn, pad, PRIMARY KEY(seed, turn))')
        database.executemany('INSERT INTO account VALUES (?, ?)',
                             [(i, MONEY) for i in range(ACCOUNTS)])


def check_database(path):
    """Whole, and no money lost; {seed: number of moves}."""
    assert run('sqlite3', path, 'PRAGMA integrity_check') == 'ok\n'
    with opened(path) as database:
        assert database.execute('SELECT sum(money) FROM account').fetchone() == (
            ACCOUNTS * MONEY,)
        return dict(database.execute('SELECT seed, count(*) FROM move GROUP BY seed'))


def start_mover(path, seed, turns):
    return subprocess.Popen([sys.executable, '-c', MOVER, path, str(seed), str(turns)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


SQLITE = [(journal, options) for options in ((), ('--cache=never', '--allow-mmap'),
                                             ('--cache=always', '--writeback'))
          for journal in ('delete', 'wal')]


@pytest.fixture(params=SQLITE, ids=lambda p: '-'.join((p[0], *p[1])))
def database(request, bridged):
    """The path of a database on the share, for each journal and way of caching."""
    journal, options = request.param
    path = os.path.join(bridged(*options), 'database')
    make_database(path, journal)
    return path


def test_sqlite_writers(database):
    """Four processes at once; each of their moves is there in the end."""
    movers = [start_mover(database, seed, 60) for seed in range(4)]
    for mover in movers:
        assert len(mover.communicate(timeout=120)[0].splitlines()) == 60
        assert mover.returncode == 0
    assert check_database(database) == {seed: 60 for seed in range(4)}


def test_sqlite_shared_with_the_host(bridged, share):
    """Two processes on the mount and two on the host's own folder, which keep out of each
    other's way by their locks.
    """
    path = os.path.join(bridged('--posix-lock', '--cache=never'), 'database')
    make_database(path, 'delete')
    paths = [path, os.path.join(share, 'database')] * 2
    movers = [start_mover(where, seed, 60) for seed, where in enumerate(paths)]
    for mover in movers:
        assert len(mover.communicate(timeout=120)[0].splitlines()) == 60
        assert mover.returncode == 0
    for where in set(paths):
        assert check_database(where) == {seed: 60 for seed in range(4)}


def test_sqlite_killed_writer(database, share):
    """kill -9, again and again: what was acknowledged is there, the rest is rolled back,
    also for a reader on the host.
    """
    for seed in range(4):
        mover = start_mover(database, seed, 100000)
        seen = 0
        while seen < 10 + 7 * seed:
            assert mover.stdout.readline() == b'%d\n' % seen
            seen += 1
        mover.kill()
        mover.wait()
        seen += len(mover.stdout.read().splitlines())
        mover.stdout.close()
        assert check_database(database)[seed] in (seen, seen + 1)
    copy = os.path.join(os.path.dirname(share), 'copy')
    os.mkdir(copy)
    for name in glob.glob(os.path.join(share, 'database*')):
        shutil.copy(name, copy)
    assert len(check_database(os.path.join(copy, 'database'))) == 4


class Postgres:
    """A cluster in a folder of its own, run by the user postgres."""

    def __init__(self, data, scratch):
        self.data = data
        self.home = os.path.join(scratch, 'postgres')
        self.server = None
        os.mkdir(self.home)
        shutil.chown(self.home, 'postgres', 'postgres')
        self.programs = sorted(glob.glob('/usr/lib/postgresql/*/bin'))[-1]

    def _as_postgres(self, program, *words):
        return {'args': [os.path.join(self.programs, program), *words], 'cwd': self.home,
                'user': 'postgres', 'group': 'postgres', 'extra_groups': [],
                'env': {'HOME': self.home, 'PGHOST': self.home, 'LC_ALL': 'C.UTF-8',
                        'PATH': f'{self.programs}:/usr/bin:/bin'},
                'stdin': subprocess.DEVNULL}

    def run(self, program, *words, timeout=150):
        done = subprocess.run(**self._as_postgres(program, *words), timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        assert done.returncode == 0, f'{program}: {done.stdout[-4000:]}\n{self.log()}'
        return done.stdout

    def spawn(self, program, *words, **more):
        return subprocess.Popen(**self._as_postgres(program, *words), **more)

    def sql(self, text):
        return self.run('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', text, 'postgres')

    def log(self):
        path = os.path.join(self.home, 'log')
        if not os.path.exists(path):
            return ''
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()[-4000:]

    def start(self):
        with open(os.path.join(self.home, 'log'), 'ab') as log:
            self.server = self.spawn(
                'postgres', '-D', self.data, '-k', self.home, '-c', 'listen_addresses=',
                '-c', 'fsync=on', '-c', 'full_page_writes=on',
                '-c', 'shared_buffers=16MB',
                '-c', 'max_wal_size=64MB', stdout=log, stderr=log)
        eventually(self._answers, 60, 0.1)

    def _answers(self):
        assert self.server.poll() is None, self.log()
        return subprocess.run(**self._as_postgres('pg_isready', '-q'),
                              check=False).returncode == 0

    def processes(self):
        """All that have the cluster open."""
        return [pid for pid in os.listdir('/proc')
                if pid.isdigit() and self._is_ours(pid)]

    def _is_ours(self, pid):
        try:
            return os.path.realpath(f'/proc/{pid}/cwd') == self.data
        except OSError:
            return False

    def stop(self, number=signal.SIGINT):
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(number)
            self.server.wait(60)
        # What a killed postmaster leaves behind notices and ends.
        eventually(lambda: not self.processes(), 60, 0.1)


@pytest.fixture
def postgres(request, bridged, scratch):
    if not glob.glob('/usr/lib/postgresql/*/bin/pgbench'):
        pytest.skip('no PostgreSQL here')
    mount = bridged(*request.param)
    for folder in (scratch, os.path.dirname(mount)):
        os.chmod(folder, 0o711)
    data = os.path.join(mount, 'data')
    os.mkdir(data, 0o700)
    shutil.chown(data, 'postgres', 'postgres')
    postgres = Postgres(data, scratch)
    yield postgres
    postgres.stop(signal.SIGKILL)


def check_cluster(postgres):
    """Sound as far as PostgreSQL can tell, and pgbench's books balance."""
    postgres.run('pg_amcheck', '--heapallindexed', '--parent-check', '--install-missing',
                 '-d', 'postgres')
    sums = postgres.sql('''
        SELECT sum(abalance) FROM pgbench_accounts UNION ALL
        SELECT sum(bbalance) FROM pgbench_branches UNION ALL
        SELECT sum(tbalance) FROM pgbench_tellers UNION ALL
        SELECT coalesce(sum(delta), 0) FROM pgbench_history''').split()
    assert len(sums) == 4 and len(set(sums)) == 1, sums


def killed_in_mid_run(postgres, seconds):
    """pgbench loses its server; what somebody else was told to be safe, by number."""
    postgres.sql('CREATE TABLE IF NOT EXISTS safe(n bigserial)')
    teller = postgres.spawn(
        '/bin/sh', '-c', 'while psql -XAtq postgres -c '
        '"INSERT INTO safe DEFAULT VALUES RETURNING n"; do :; done',
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    bench = postgres.spawn('pgbench', '-n', '-c', '4', '-j', '2', '-T', '60', 'postgres',
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    assert bench.poll() is None
    postgres.stop(signal.SIGKILL)
    assert bench.wait(60) != 0
    told = teller.communicate(timeout=60)[0].split()
    assert len(told) > 3
    return int(told[-1])


@pytest.mark.sandboxed
@pytest.mark.timeout(400)
@pytest.mark.parametrize('postgres', [
    pytest.param((), id='auto'),
    pytest.param(('--cache=always', '--writeback'), id='writeback',
                 marks=pytest.mark.soak),
], indirect=True)
def test_postgres_killed_and_recovered(postgres):
    postgres.run('initdb', '-D', postgres.data, '-k', '-A', 'trust', '-E', 'UTF8')
    postgres.start()
    postgres.run('pgbench', '-i', '-q', '-s', '2', 'postgres')
    postgres.run('pgbench', '-n', '-c', '4', '-j', '2', '-t', '50', 'postgres')
    check_cluster(postgres)
    for _ in range(2):
        last = killed_in_mid_run(postgres, 2)
        postgres.start()
        assert int(postgres.sql('SELECT max(n) FROM safe')) >= last
        check_cluster(postgres)
    postgres.stop()
    state = postgres.run('pg_controldata', postgres.data)
    assert re.search(r'^Database cluster state: +shut down$', state, re.MULTILINE)
    assert 'Bad checksums:  0' in postgres.run('pg_checksums', '--check', postgres.data)
