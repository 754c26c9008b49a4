# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest under QEMU: boots in a few seconds, runs shell scripts on the share
that a daemon serves, and lets the test pull the levers of a VMM.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

from guest import initramfs, kernel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import leaks  # noqa: E402
from process import is_readable  # noqa: E402

QEMU = 'qemu-system-x86_64'
TAG = 'kataShared'
BOOT_SECONDS = 150  # of which a machine with two idle cores needs three

Result = namedtuple('Result', 'status output')


class GuestError(Exception):
    """The guest did not do what it was told; the text carries its console's end."""


def unavailable(version='6.1'):
    """Why no guest can run here, or None."""
    if shutil.which(QEMU) is None:
        return f'no {QEMU} here'
    try:
        initramfs.path_of(kernel.folder_of(version))
    except kernel.Unavailable as why:
        return str(why)
    return None


class _Channel:
    """A listening socket that QEMU connects to, read by lines and counts with a time
    limit.
    """

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.stream = None
        self.pending = b''

    def close(self):
        for sock in (self.stream, self.listener):
            if sock is not None:
                sock.close()

    def _fill(self, deadline, alive):
        """Read once; raises GuestError through `alive` when nothing can come any more."""
        sock = self.stream or self.listener
        while not is_readable(sock, 0.2):
            alive()
            if time.monotonic() > deadline:
                raise TimeoutError
        if self.stream is None:
            self.stream = self.listener.accept()[0]
            return
        data = self.stream.recv(1 << 16)
        if not data:
            alive()
            raise GuestError('QEMU closed a channel')
        self.pending += data

    def send(self, data):
        self.stream.sendall(data)

    def connect(self, deadline, alive):
        while self.stream is None:
            self._fill(deadline, alive)

    def line(self, deadline, alive):
        while b'\n' not in self.pending:
            self._fill(deadline, alive)
        line, self.pending = self.pending.split(b'\n', 1)
        return line.decode(errors='replace')

    def exactly(self, count, deadline, alive):
        while len(self.pending) < count:
            self._fill(deadline, alive)
        data, self.pending = self.pending[:count], self.pending[count:]
        return data


def pattern(seed, at):
    """The 64-bit word that guest-tool stores in a file at this place."""
    x = (seed + at) * 0x9e3779b97f4a7c15 % (1 << 64)
    return x ^ (x >> 29)


def _after(seconds):
    return time.monotonic() + seconds


class Guest:
    """One virtual machine with one vhost-user-fs device, as Kata makes it. Use as a
    context manager: leaving it kills QEMU.

    The share is mounted on /share. `server`, with a method is_alive(), is the daemon:
    when it ends, what waits for the guest fails at once.
    """

    def __init__(self, socket_path, version='6.1', cpus=1, queues=1, server=None):
        self.socket_path = socket_path
        self.server = server
        self.shape = {'cpus': cpus, 'memory': 512, 'queues': queues}
        self.folder = tempfile.mkdtemp(prefix='vfs-vm-')
        self.process = None
        self.mount_status = None
        self.last_id = 0
        self.control = _Channel(f'{self.folder}/control')
        self.monitor = _Channel(f'{self.folder}/monitor')
        folder = kernel.folder_of(version)
        self.files = (f'{folder}/kernel', initramfs.path_of(folder))

    def __enter__(self):
        try:
            self._start()
            self.wait_boot()
        except BaseException:
            self.close()
            raise
        leaks.begin(self.socket_path)
        return self

    def __exit__(self, what_failed, *_):
        try:
            if what_failed is None:
                self.check_leaks()
        finally:
            self.close()

    def check_leaks(self):
        """Let the guest forget what nothing in it uses: a watched daemon must then hold
        what it held after booting. A guest that is gone cannot be asked.
        """
        if self.process is not None and self.process.poll() is None:
            # Submounts were mounted by themselves and stay until somebody unmounts them.
            self.run("""cd /; sync
                grep ' virtiofs ' /proc/mounts | tac | while read tag where rest; do
                    [ "$where" = /share ] || umount "$(printf %b "$where")"
                done""")
            leaks.check(self.socket_path,
                        lambda: self.run('echo 3 >/proc/sys/vm/drop_caches'))

    def _program(self):
        return [QEMU]

    def _device(self):
        queues = self.shape['queues']
        more = f',num-request-queues={queues}' if queues > 1 else ''
        if os.environ.get('VIRTIOFSD_TEST_RING') == 'packed':
            more += ',packed=on'
        return f'vhost-user-fs-pci,chardev=char-fs,tag={TAG},queue-size=1024{more}'

    def _command(self):
        shape, image = self.shape, self.files
        # Several vCPU threads can corrupt guests newer than 6.1 under QEMU 7.2's TCG.
        tcg = 'tcg,thread=single' if shape['cpus'] > 1 else 'tcg'
        # Its CMPXCHG16B spoils the flags now and then; Linux allocates memory with it.
        return [
            # The guest ends with the test that started it, however that ends.
            'setpriv', '--pdeathsig', 'KILL', *self._program(),
            '-accel', tcg, '-M', 'q35',
            '-nodefaults', '-no-user-config', '-display', 'none', '-cpu', 'qemu64,-cx16',
            '-smp', str(shape['cpus']), '-m', f'{shape["memory"]}M,slots=4,maxmem=4G',
            '-object', f'memory-backend-memfd,id=mem,size={shape["memory"]}M,share=on',
            '-numa', 'node,memdev=mem',
            '-chardev', f'socket,id=char-fs,path={self.socket_path}',
            '-device', self._device(), '-device', 'virtio-serial-pci',
            '-chardev', f'socket,id=control,path={self.folder}/control',
            '-device', 'virtserialport,chardev=control,name=guest.control',
            '-chardev', f'socket,id=monitor,path={self.folder}/monitor',
            '-mon', 'chardev=monitor,mode=control',
            '-serial', f'file:{self.folder}/console',
            '-kernel', image[0], '-initrd', image[1],
            # Plugged memory is the first choice for file data: movable.
            '-append', 'console=ttyS0 quiet panic=0 memhp_default_state=online_movable '
            f'share={TAG}',
        ]

    def _start(self):
        with open(f'{self.folder}/qemu.log', 'wb') as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = _after(BOOT_SECONDS)
        try:
            self.control.connect(deadline, self._alive)
            self.monitor.connect(deadline, self._alive)
            self.monitor.line(deadline, self._alive)
        except TimeoutError:
            raise self._error('QEMU did not start') from None
        self.qmp('qmp_capabilities')

    def _read(self, name, limit=4000):
        try:
            with open(f'{self.folder}/{name}', 'rb') as file:
                return file.read()[-limit:].decode(errors='replace')
        except OSError:
            return ''

    def console(self):
        """What the guest's kernel printed."""
        return self._read('console', 100000)

    def _error(self, what):
        return GuestError(f'{what}\n--- qemu\n{self._read("qemu.log")}'
                          f'--- console\n{self._read("console")}')

    def _alive(self):
        if self.process.poll() is not None:
            raise self._error(f'QEMU ended with status {self.process.returncode}')
        if self.server is not None and not self.server.is_alive():
            raise self._error('the daemon ended')
        if 'Kernel panic' in self._read('console'):
            raise self._error('the guest panicked')

    def wait_boot(self, timeout=BOOT_SECONDS):
        """Until the guest is up (again). What an earlier life of it was still sending is
        dropped.
        """
        deadline = _after(timeout)
        try:
            while True:
                words = self.control.line(deadline, self._alive).split()
                if len(words) == 2 and words[0].endswith('BOOT'):
                    self.mount_status = int(words[1])
                    return
        except TimeoutError:
            raise self._error('the guest did not boot') from None

    def run(self, script, timeout=60):
        """Run a shell script, in /tmp; Result(status, output as text)."""
        return self.wait(self.start(script), timeout)

    def check(self, script, timeout=60):
        """Run a script that must succeed, stopping at its first error; its output."""
        result = self.run('set -e\n' + script, timeout)
        if result.status != 0:
            raise self._error(f'status {result.status} from\n{script}\n--- output\n'
                              f'{result.output}')
        return result.output

    def start(self, script):
        """Hand over a script without waiting for it; its id, for wait()."""
        data = script.encode()
        self.last_id += 1
        self.control.send(f'RUN {self.last_id} {len(data)}\n'.encode() + data)
        return self.last_id

    def wait(self, script_id, timeout=60):
        deadline = _after(timeout)
        try:
            while True:
                words = self.control.line(deadline, self._alive).split()
                if words[:2] == ['DONE', str(script_id)]:
                    data = self.control.exactly(int(words[3]), deadline, self._alive)
                    return Result(int(words[2]), data.decode(errors='replace'))
                if words[:1] == ['BOOT']:
                    raise self._error('the guest rebooted instead')
        except TimeoutError:
            raise self._error(f'no answer from the guest in {timeout} s') from None

    def spawn(self, name, script):
        """Run a script in the background; join() waits for it."""
        self.check(f'rm -f /tmp/{name}.status\n'
                   f"cat >/tmp/{name}.sh <<'END-OF-SCRIPT'\nset -e\n{script}\n"
                   'END-OF-SCRIPT\n'
                   f'{{ sh /tmp/{name}.sh >/tmp/{name}.out 2>&1\n'
                   f'echo $? >/tmp/{name}.new\n'
                   f'mv /tmp/{name}.new /tmp/{name}.status; }} &')

    def join(self, name, timeout=60):
        """The output of a spawned script, which must have succeeded."""
        return self.check(f'until [ -e /tmp/{name}.status ]; do sleep 0.1; done\n'
                          f'cat /tmp/{name}.out; [ "$(cat /tmp/{name}.status)" = 0 ]',
                          timeout)

    def qmp(self, command, **arguments):
        """One QMP command; its result. Raises GuestError for an error."""
        request = {'execute': command, 'arguments': arguments}
        self.monitor.send(json.dumps(request).encode())
        deadline = _after(30)
        try:
            while True:
                answer = json.loads(self.monitor.line(deadline, self._alive))
                if 'return' in answer:
                    return answer['return']
                if 'error' in answer:
                    raise self._error(f'{command}: {answer["error"]}')
        except TimeoutError:
            raise self._error(f'{command}: no answer') from None

    def reset(self):
        """The reset button: the guest boots again, with no warning to its kernel."""
        self.qmp('system_reset')
        self.wait_boot()

    def add_memory(self, name, mib=128):
        """Plug in a DIMM that the VMM shares with the daemon like the rest."""
        self.qmp('object-add', **{'qom-type': 'memory-backend-memfd', 'id': f'mem-{name}',
                                  'size': mib << 20, 'share': True})
        self.qmp('device_add', driver='pc-dimm', id=name, memdev=f'mem-{name}')

    def kill(self):
        """End QEMU at once, as if the VMM had crashed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def close(self):
        self.kill()
        self.control.close()
        self.monitor.close()
        shutil.rmtree(self.folder, ignore_errors=True)
