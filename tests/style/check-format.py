#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""clang-format 14 (Debian 12's) leaves every C file as it is."""

import os
import re
import shutil
import subprocess
import sys

import source

VERSION = '14'


def formatter():
    """The program of the right version: others lay out a few things differently."""
    for name in (f'clang-format-{VERSION}', 'clang-format'):
        if shutil.which(name):
            said = subprocess.run([name, '--version'], capture_output=True, text=True,
                                  check=False).stdout
            if re.search(rf'version {VERSION}\.', said):
                return name
    return None


def main():
    root = source.arguments(__doc__).root
    program = formatter()
    if program is None:
        print(f'no clang-format {VERSION} here')
        sys.exit(source.SKIPPED)
    faults = []
    names = source.c_files(root)
    if names:
        done = subprocess.run([program, '--dry-run', '-Werror', *names], cwd=root,
                              capture_output=True, text=True, check=False)
        lines = re.findall(r'^(\S+?:\d+):\d+: error', done.stderr, re.M)
        faults = [f'{os.path.relpath(line)}: clang-format would change it'
                  for line in dict.fromkeys(lines)]
        if done.returncode != 0 and not faults:
            faults = [done.stderr]
    source.finish(faults, 'format')


if __name__ == '__main__':
    main()
