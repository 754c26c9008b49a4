#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: the rooms have one door each, and nothing calls upward."""

import os
import re

import source

LEAVES = {'virtiofsd/autofd.h', 'virtiofsd/log.h'}

# The first entry that starts a file's path says which of ours it may include, beside
# the leaves. A name that ends in "/" is a room, another is one header.
MAY_INCLUDE = (
    ('virtiofsd/vhost/', ('virtiofsd/vhost/',)),
    ('virtiofsd/fuse/', ('virtiofsd/fuse/', 'passthrough/passthrough.h')),
    ('virtiofsd/', ('virtiofsd/', 'passthrough/passthrough.h', 'sandbox/sandbox.h')),
    ('passthrough/', ('passthrough/',)),
    ('sandbox/', ('sandbox/',)),
    ('tests/', ('virtiofsd/', 'passthrough/', 'sandbox/', 'tests/')),
)

# System headers that belong to one room of the daemon: {pattern: rooms}.
SYSTEM = (
    (re.compile(r'linux/(vhost\w*|virtio_\w+)\.h'), ('virtiofsd/vhost/',)),
    (re.compile(r'linux/fuse\.h'), ('virtiofsd/fuse/abi.h',)),
    (re.compile(r'(seccomp|cap-ng|linux/landlock|linux/seccomp)\.h'), ('sandbox/',)),
    (re.compile(r'fuse(3/|_|\.h).*'), ('virtiofsd/options',)),
)

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def allowed(name, included):
    if included in LEAVES:
        return True
    if name in LEAVES:
        return False
    for room, doors in MAY_INCLUDE:
        if name.startswith(room):
            return any(included == d or (d.endswith('/') and included.startswith(d))
                       for d in doors)
    return False


def faults_of(root, name):
    for kind, included in INCLUDE.findall(source.read(root, name)):
        if kind == '"':
            if not os.path.isfile(os.path.join(root, included)) or '..' in included:
                yield f'{name}: "{included}" is not spelled from the top of the tree'
            elif not allowed(name, included):
                yield f'{name}: may not include "{included}"'
            continue
        for pattern, rooms in SYSTEM:
            if (pattern.fullmatch(included) and not name.startswith('tests/')
                    and not name.startswith(rooms)):
                yield f'{name}: <{included}> belongs to {" ".join(rooms)}'


def main():
    root = source.arguments(__doc__).root
    faults = [f for name in source.c_files(root) for f in faults_of(root, name)]
    source.finish(faults, 'include direction')


if __name__ == '__main__':
    main()
