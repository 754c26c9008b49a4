#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The manual page describes exactly the options that the program has, spelled as the
program spells them, each once; and the descriptor for management software claims exactly
the features that the program claims.

usage: check-man.py PROGRAM MAN_PAGE DESCRIPTOR
"""

import collections
import json
import re
import subprocess
import sys

# A line that begins a paragraph on options: ``--cache=MODE`` or ``-h``, ``--help``.
TERM = re.compile(r'``(-[^`]+)``')
TERMS = re.compile(r'^``-[^`]+``(, ``-[^`]+``)*$')


def output_of(program, option):
    done = subprocess.run([program, option], capture_output=True, text=True, check=True)
    return done.stdout


def described(text):
    """The options that begin a paragraph of the page, and those without a text."""
    lines = text.split('\n')
    for line, below in zip(lines, lines[1:]):
        if line.startswith('``-'):
            yield (TERM.findall(line) if TERMS.match(line) else [line],
                   below.startswith('    ') and below.strip() != '')


def page_faults(listed, text):
    counts = collections.Counter()
    for terms, has_text in described(text):
        counts.update(terms)
        if not has_text:
            yield f'the manual page says nothing about {", ".join(terms)}'
    for option in listed:
        if counts[option] == 0:
            yield f'the manual page lacks {option}'
    for option, count in counts.items():
        if option not in listed:
            yield f'the manual page describes {option}, which the program does not have'
        if count > 1:
            yield f'the manual page describes {option} {count} times'


def descriptor_faults(claimed, described_json):
    for key in ('type', 'features'):
        if claimed.get(key) != described_json.get(key):
            yield (f'the descriptor has {key} {described_json.get(key)}, '
                   f'the program {claimed.get(key)}')
    if not described_json.get('binary', '').endswith('/virtiofsd'):
        yield 'the descriptor names no binary'


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    program, page, descriptor = sys.argv[1:]
    with open(page, encoding='utf-8') as file:
        text = file.read()
    with open(descriptor, encoding='utf-8') as file:
        described_json = json.load(file)
    listed = output_of(program, '--list-options').splitlines()
    faults = []
    if len(listed) < 50 or len(set(listed)) != len(listed):
        faults.append(f'--list-options prints {len(listed)} lines, not one per option')
    faults += page_faults(listed, text)
    faults += descriptor_faults(json.loads(output_of(program, '--print-capabilities')),
                                described_json)
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == '__main__':
    main()
