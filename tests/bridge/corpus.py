#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Split what `bridge --record` wrote into one file for each request.

usage: corpus.py RECORDING DIRECTORY [--per-opcode N]

Files are named by opcode and a hash of the bytes, so equal requests become one file. With
--per-opcode only the first N different ones of each opcode and size class are kept.
"""

import argparse
import hashlib
import os
import struct

OPCODE = struct.Struct("=I")
LENGTH = struct.Struct("<I")


def requests(path):
    """The bytes of each recorded request; one that is cut off at the end is left out."""
    with open(path, "rb") as file:
        while True:
            head = file.read(LENGTH.size)
            if len(head) < LENGTH.size:
                return
            (size,) = LENGTH.unpack(head)
            data = file.read(size)
            if len(data) < size:
                return
            yield data


def opcode_of(data):
    """The opcode in a request's header."""
    return OPCODE.unpack_from(data, 4)[0] if len(data) >= 8 else 0


def split(path, directory, per_opcode=None):
    """Write the files; returns how many."""
    os.makedirs(directory, exist_ok=True)
    kept, n = {}, 0
    for data in requests(path):
        # What differs in each request says nothing about how it is parsed.
        plain = data[:8] + bytes(8) + data[16:]
        name = f"{opcode_of(data):02}-{hashlib.sha256(plain).hexdigest()[:16]}"
        target = os.path.join(directory, name)
        if os.path.exists(target):
            continue
        group = opcode_of(data), len(data).bit_length()
        kept[group] = kept.get(group, 0) + 1
        if per_opcode is not None and kept[group] > per_opcode:
            continue
        with open(target, "wb") as file:
            file.write(plain)
        n += 1
    return n


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recording")
    parser.add_argument("directory")
    parser.add_argument("--per-opcode", type=int)
    options = parser.parse_args()
    n = split(options.recording, options.directory, options.per_opcode)
    print(f"{n} files in {options.directory}")


if __name__ == "__main__":
    main()
