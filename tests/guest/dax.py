# SPDX-License-Identifier: Apache-2.0
"""A real guest whose VMM has a DAX window: QEMU 11 from Debian unstable, unpacked with
its libraries into the cache, and a kernel that maps files.
"""

import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

from guest import initramfs, kernel, vm
from packages import Unavailable, tree_of  # noqa: E402

KERNEL = '6.12'
LIBRARIES = 'usr/lib/x86_64-linux-gnu'


@functools.cache
def unavailable():
    """Why no such guest can run here, or None."""
    try:
        initramfs.path_of(kernel.folder_of(KERNEL))
        tree = tree_of('qemu-system-x86', 'sid')
    except Unavailable as why:
        return str(why)
    if not os.path.exists(f'{tree}/{LIBRARIES}'):
        return 'QEMU is unpacked for another machine'
    return None


class Guest(vm.Guest):
    """As vm.Guest, with the device that has a window; the daemon needs --tag=TAG."""

    def __init__(self, socket_path, **more):
        super().__init__(socket_path, version=KERNEL, **more)

    def _program(self):
        tree = tree_of('qemu-system-x86', 'sid')
        return [f'{tree}/usr/lib64/ld-linux-x86-64.so.2', '--library-path',
                f'{tree}/{LIBRARIES}', f'{tree}/usr/bin/qemu-system-x86_64',
                '-L', f'{tree}/usr/share/seabios', '-L', f'{tree}/usr/share/qemu']

    def _device(self):
        return ('vhost-user-test-device-pci,chardev=char-fs,virtio-id=26,'
                f'num_vqs={1 + self.shape["queues"]},vq_size=128,config_size=40')
