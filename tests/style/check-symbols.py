#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Extern symbols carry the prefix of their room, or of their file's stem."""

import json
import os
import re
import shutil
import subprocess
import sys

import source

ROOM_PREFIX = (
    ('passthrough/', 'pt_'),
    ('sandbox/', 'sandbox_'),
    ('virtiofsd/vhost/', 'vu_'),
)
# libfuse3 and <linux/virtio_ring.h> own these.
FOREIGN = ('fuse_', 'vring_')


def prefixes(name):
    for room, prefix in ROOM_PREFIX:
        if name.startswith(room):
            return (prefix,)
    stem = os.path.splitext(os.path.basename(name))[0]
    # op-file.c defines op_read().
    return (stem.replace('-', '_') + '_', stem.split('-')[0] + '_')


def extern_symbols(path):
    done = subprocess.run(
        ['nm', '--defined-only', '--extern-only', '--format=posix', path],
        capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in done.stdout.splitlines() if line]
    # Sanitizers and the compiler add names of their own.
    return [n for n in names if not n.startswith('__') and not re.search(r'[.$]', n)]


def objects(root, build):
    """(source, object) of the daemon's files, as far as they are built."""
    with open(os.path.join(build, 'compile_commands.json'), encoding='utf-8') as file:
        for entry in json.load(file):
            path = os.path.join(entry['directory'], entry['file'])
            name = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
            made = os.path.join(entry['directory'], entry['output'])
            if name.split('/')[0] in source.DAEMON_ROOMS and os.path.exists(made):
                yield name, made


def symbol_faults(root, build):
    for name, made in objects(root, build):
        for symbol in extern_symbols(made):
            if symbol != 'main' and not symbol.startswith(prefixes(name)):
                yield f'{name}: {symbol} does not start with {prefixes(name)[0]}'


def definition_faults(root):
    for name in source.c_files(root, *source.DAEMON_ROOMS):
        for function in source.functions(source.read(root, name)):
            if function.name.startswith(FOREIGN):
                yield (f'{name}:{function.first_line}: {function.name} has a prefix '
                       'that belongs to a library')


def main():
    options = source.arguments(__doc__)
    faults = list(definition_faults(options.root))
    if options.build is None or shutil.which('nm') is None:
        if faults:
            source.finish(faults, 'symbols')
        print('extern symbols: no objects or no nm to look at them')
        sys.exit(source.SKIPPED)
    faults += symbol_faults(options.root, options.build)
    source.finish(faults, 'symbols')


if __name__ == '__main__':
    main()
