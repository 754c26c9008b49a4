# SPDX-License-Identifier: Apache-2.0
"""Guest kernels: Debian's cloud kernels, unpacked from their packages and cached.

Nothing is installed; see tests/support/packages.py.
"""

import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

from packages import (  # noqa: E402
    MIRROR, SECURITY, Apt, Unavailable, cache_folder, locked)

# Which suites a kernel comes from: {version: apt source lines}.
SOURCES = {
    '6.1': (f'{MIRROR} bookworm main', f'{SECURITY} bookworm-security main'),
    '6.12': (f'{MIRROR} bookworm-backports main',),
}

# What a guest needs, by file name; each brings what its "depends" names. Some kernels
# have some of them built in.
MODULES = ('virtio_pci', 'virtiofs', 'virtio_console', 'overlay')


def _download(version, folder):
    """Fetch the package of the newest kernel of a version; returns the file's path."""
    apt = Apt(folder, [f'deb {source}' for source in SOURCES[version]])
    apt.run('apt-get', '-q', 'update')
    text = apt.run('apt-cache', 'depends', 'linux-image-cloud-amd64')
    name = re.search(rf'Depends: (linux-image-{re.escape(version)}[.+\w-]*)', text)
    if name is None:
        raise Unavailable(f'no cloud kernel {version} in {", ".join(SOURCES[version])}')
    apt.run('apt-get', '-q', 'download', name.group(1))
    return next(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith('.deb'))


def _uncompressed(path):
    """The kernel's ELF image: QEMU boots it at once, where the guest would need seconds
    to unpack it. None if the packing is one we cannot read.
    """
    with open(path, 'rb') as file:
        data = file.read()
    for magic, unpack in ((b'\xfd7zXZ\0', _unxz), (b'\x02\x21\x4c\x18', _unlz4),
                          (b'\x28\xb5\x2f\xfd', _unzstd)):
        at = data.find(magic)
        while at >= 0:
            image = unpack(data[at:])
            if image and image.startswith(b'\x7fELF'):
                return image
            at = data.find(magic, at + 1)
    return None


def _unxz(data):
    try:
        return lzma.LZMADecompressor().decompress(data)
    except lzma.LZMAError:
        return None


def _unlz4(data):
    return _filter(['lz4', '-d', '-c'], data)


def _unzstd(data):
    return _filter(['zstd', '-d', '-c'], data)


def _filter(command, data):
    """Trailing bytes make the program fail after it wrote the image: that is enough."""
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, input=data, capture_output=True, check=False).stdout


def _find_modules(tree):
    found = {}
    for folder, _, names in os.walk(tree):
        for name in names:
            match = re.fullmatch(r'(.+)\.ko(\.xz)?', name)
            if match:
                found[match.group(1).replace('-', '_')] = os.path.join(folder, name)
    return found


def _module_bytes(path):
    with (lzma.open if path.endswith('.xz') else open)(path, 'rb') as file:
        return file.read()


def _add_module(name, files, result):
    """Append a module after those that it depends on."""
    if name in result or name not in files:
        return  # there already, or built in
    data = _module_bytes(files[name])
    depends = re.search(rb'\0depends=([^\0]*)\0', data)
    for other in (depends.group(1).decode() if depends else '').split(','):
        _add_module(other.replace('-', '_'), files, result)
    result[name] = data


def _unpack(package, target):
    """The parts of a kernel package that a guest needs, into the folder `target`."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as tree:
        subprocess.run(['dpkg-deb', '-x', package, tree], check=True)
        boot = next(f for f in os.listdir(f'{tree}/boot') if f.startswith('vmlinuz-'))
        image = _uncompressed(f'{tree}/boot/{boot}')
        modules = {}
        for name in MODULES:
            _add_module(name, _find_modules(f'{tree}/lib/modules'), modules)
        os.makedirs(f'{target}/modules')
        for number, (name, data) in enumerate(modules.items()):
            with open(f'{target}/modules/{number:02}-{name}.ko', 'wb') as file:
                file.write(data)
        if image:
            with open(f'{target}/kernel', 'wb') as file:
                file.write(image)
        else:
            shutil.copy(f'{tree}/boot/{boot}', f'{target}/kernel')
        with open(f'{target}/release', 'w', encoding='ascii') as file:
            file.write(boot.removeprefix('vmlinuz-') + '\n')


def folder_of(version='6.1'):
    """The folder with kernel, release and modules/ of a version, fetched if need be.

    Raises Unavailable.
    """
    name = f'linux-{version}-{zlib.crc32(" ".join(MODULES).encode()):08x}'
    folder = os.path.join(cache_folder(), name)
    with locked(name):
        if not os.path.isdir(folder):
            with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
                package = _download(version, os.path.join(scratch, 'apt'))
                _unpack(package, f'{scratch}/made')
                os.rename(f'{scratch}/made', folder)
    return folder
