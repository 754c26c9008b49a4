# SPDX-License-Identifier: Apache-2.0
"""System calls of the daemon fail, one after the other: whatever it says was done has
been done, and nothing is left open for what was not.
"""

import os

import pytest

from errand import Errand, clean
from strace import Strace

CALLS = ('openat2', 'statx', 'preadv2', 'pwritev2', 'getdents64', 'readlinkat',
         'symlinkat', 'mknodat', 'mkdirat', 'unlinkat', 'renameat2', 'linkat', 'fchmodat',
         'fchownat', 'utimensat', 'ftruncate', 'fsync', 'fallocate', 'copy_file_range',
         'setxattr', 'getxattr', 'listxattr', 'removexattr', 'fstatfs', 'lseek')
ERRNOS = ('EIO', 'EINTR', 'ENOMEM', 'EAGAIN', 'ENOSPC')
# strace(1) lets a call fail by making it one that the filter does not know.
OPTIONS = ('--xattr', '--seccomp=none')

pytestmark = pytest.mark.sandboxed


def inject(guest, share, scratch, calls, word, when, rounds):
    """The errand with failing calls; what it found. Nothing is held afterwards."""
    client = guest.client
    client.destroy()
    client.init()
    before = sorted(guest.daemon.descriptors().values())
    rules = [part for call in calls
             for part in ('-e', f'inject={call}:error={word}:when={when}')]
    strace = Strace(guest.daemon, scratch, '-e', f'trace={",".join(calls)}', *rules)
    errand = Errand(client, share)
    for _ in range(rounds):
        clean(share)
        errand.run()
    strace.stop()
    client.destroy()
    client.init()
    assert sorted(guest.daemon.descriptors().values()) == before, (calls, word)
    clean(share)
    honest = Errand(client, share)
    honest.run()
    assert honest.failed == 0
    return errand


def injected(scratch):
    """How many calls were made to fail."""
    with open(os.path.join(scratch, 'trace'), encoding='utf-8', errors='replace') as file:
        return sum('(INJECTED)' in line for line in file)


def test_the_errand_sees_a_wrong_success(serve, share):
    errand = Errand(serve(*OPTIONS).client, share)
    with pytest.raises(AssertionError):
        errand.step(lambda: True, lambda _: errand.exists(b'nothing'))
    errand.run()
    assert errand.failed == 0 and errand.tried > 25


@pytest.mark.unwatched('looked at after each error')
@pytest.mark.parametrize('word', ERRNOS)
def test_each_error(serve, share, scratch, word):
    """All calls, now and then."""
    guest = serve(*OPTIONS)
    errand = inject(guest, share, scratch, CALLS, word, '3+5', 6)
    n = injected(scratch)
    print(f'{word}: {n} calls of {len(CALLS)} kinds failed, {errand.failed} of '
          f'{errand.tried} requests with {sorted(errand.words)}')
    assert n > 20 and errand.failed > 5


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.unwatched('looked at after each error')
def test_each_call_with_each_error(serve, share, scratch):
    guest = serve(*OPTIONS)
    cells = total = 0
    for call in CALLS:
        for word in ERRNOS:
            n = 0
            for when in ('1+2', '2+2', '3+7'):
                inject(guest, share, scratch, [call], word, when, 2)
                n += injected(scratch)
            assert n > 0, f'{call} was never made'
            cells, total = cells + 1, total + n
    print(f'{cells} cells, {total} calls failed')
