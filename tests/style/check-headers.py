#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each header compiles alone, can be included twice, and is guarded by its own path."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import source

PACKAGES = ('glib-2.0', 'fuse3', 'libseccomp', 'libcap-ng')


def compiler():
    return shlex.split(os.environ.get('CC', 'cc'))


def package_flags():
    done = subprocess.run(['pkg-config', '--cflags', *PACKAGES], capture_output=True,
                          text=True, check=False)
    return shlex.split(done.stdout) if done.returncode == 0 else []


def compile_alone(root, name, flags):
    """What the compiler says about a file that holds nothing but the header, twice."""
    done = subprocess.run(
        [*compiler(), '-fsyntax-only', '-std=c17', '-D_GNU_SOURCE', '-Wall', '-Wextra',
         '-Wno-unused-parameter', '-Werror', f'-I{root}', *flags, '-x', 'c', '-'],
        input=f'#include "{name}"\n#include "{name}"\nint unused_object;\n',
        capture_output=True, text=True, check=False)
    return '' if done.returncode == 0 else done.stderr.strip()


def faults_of(root, name, flags):
    text = source.read(root, name)
    guard = re.sub(r'\W', '_', name).upper()
    if not re.search(rf'^#ifndef {guard}\n#define {guard}$', text, re.M):
        yield f'{name}: the guard is not {guard}'
    errors = compile_alone(root, name, flags)
    if errors:
        yield f'{name}: does not compile alone\n{errors}'


def main():
    root = source.arguments(__doc__).root
    if shutil.which(compiler()[0]) is None:
        print(f'no {compiler()[0]} here')
        sys.exit(source.SKIPPED)
    flags = package_flags()
    faults = [f for name in source.c_files(root) if name.endswith('.h')
              for f in faults_of(root, name, flags)]
    source.finish(faults, 'headers')


if __name__ == '__main__':
    main()
