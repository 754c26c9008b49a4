#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What every text file keeps to: a licence line, clean lines, no path of one machine."""

import re

import source

LICENCE = 'SPDX-License-Identifier: Apache-2.0'
CODE = ('.c', '.h', '.py', '.sh', '.S', 'meson.build', 'meson_options.txt')
WIDTH = 90

# A home or a work folder names somebody's machine. Parts of longer paths, such as
# /proc/1/root/, are something else.
MACHINE_PATH = re.compile(r'(?<![\w}.)>*-])/(?:home|root|work)/\w|\.\./shared\b')


def is_code(name, text):
    return name.endswith(CODE) or text.startswith('#!')


def has_licence(name, text):
    first = text.splitlines()[:2]
    if name.endswith(('.c', '.h')):
        return first[:1] == [f'/* {LICENCE} */']
    if text.startswith('#!'):
        first = first[1:]
    return first[:1] == [f'# {LICENCE}']


def line_faults(name, text):
    for number, line in enumerate(text.split('\n'), 1):
        where = f'{name}:{number}'
        if line.rstrip() != line:
            yield f'{where}: ends in white space'
        if MACHINE_PATH.search(line):
            yield f'{where}: a path of one machine'
        if '\t' in line and is_code(name, text):
            yield f'{where}: a tab'
        if len(line) > WIDTH and is_code(name, text) and not name.endswith('meson.build'):
            yield f'{where}: {len(line)} columns, not more than {WIDTH}'


def faults_of(root, name):
    if '/corpus/' in f'/{name}':
        return  # bytes, not text
    try:
        text = source.read(root, name)
    except UnicodeDecodeError:
        yield f'{name}: not UTF-8'
        return
    if not text:
        return
    if not text.endswith('\n') or text.endswith('\n\n'):
        yield f'{name}: does not end in one newline'
    if is_code(name, text) and not has_licence(name, text):
        yield f'{name}: no "{LICENCE}" where it belongs'
    yield from line_faults(name, text)


def main():
    root = source.arguments(__doc__).root
    faults = [f for name in source.listed(root) if name != 'LICENSE'
              for f in faults_of(root, name)]
    source.finish(faults, 'text')


if __name__ == '__main__':
    main()
