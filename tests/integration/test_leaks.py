# SPDX-License-Identifier: Apache-2.0
"""The watch over what a daemon holds sees what it is there to see."""

import os

import pytest

import fuse_client as fuse
import leaks
from frontend import Frontend


@pytest.fixture
def file(share):
    path = os.path.join(share, 'file')
    with open(path, 'wb') as made:
        made.write(b'content')
    return path


def test_client_gives_back_what_it_took(plain, file):
    """Nothing in this test forgets or releases: the client knows what it owes."""
    with Frontend(plain.socket_path) as frontend:
        client = frontend.start().client()
        client.init()
        node = client.lookup(fuse.ROOT, b'file').nodeid
        client.lookup(fuse.ROOT, b'file')
        client.open(node)
        client.opendir(fuse.ROOT)
        client.create(fuse.ROOT, b'other')
        client.read(fuse.ROOT, client.opendir(fuse.ROOT), 4096, 0, fuse.READDIRPLUS)
        assert leaks.of(plain.socket_path).difference() != ''
    assert leaks.of(plain.socket_path).is_checked
    assert plain.wait() == 0


@pytest.mark.unwatched('watched by hand, as the leak is the point')
@pytest.mark.parametrize('what', ['lookup', 'handle'])
def test_what_is_not_given_back_is_found(plain, file, what):
    watch = leaks.watch(plain.socket_path, plain)
    with Frontend(plain.socket_path) as frontend:
        client = frontend.start().client()
        client.init()
        node = client.lookup(fuse.ROOT, b'file').nodeid
        handle, _ = client.open(node)
        if what == 'lookup':
            client.release(node, handle)
        else:
            client.forget(node)
        with pytest.raises(AssertionError, match='come .*/file'):
            watch.check(timeout=0.3)
        assert not watch.is_checked
    assert watch.is_checked, 'the client had kept account'


def test_kernel_forgets_through_the_bridge(bridged, file):
    mount = bridged()
    watch = leaks.of(os.path.join(os.path.dirname(mount), 'socket'))
    with open(os.path.join(mount, 'file'), 'rb') as opened:
        assert opened.read() == b'content'
        with pytest.raises(AssertionError, match='come .*/file'):
            watch.check(leaks.drop_caches, timeout=0.3)
    watch.check(leaks.drop_caches)


@pytest.mark.unwatched('watched by hand')
def test_session_that_nobody_checked_is_found(plain):
    watch = leaks.watch(plain.socket_path, plain)
    frontend = Frontend(plain.socket_path)
    frontend.start().client().init()
    frontend.disconnect()
    assert plain.wait() == 0
    with pytest.raises(AssertionError, match='before its leaks'):
        watch.finish()
    frontend.close()
