# SPDX-License-Identifier: Apache-2.0
"""The rows of sandbox/seccomp-list.h, as a test reads them."""

import dataclasses
import os
import re

import inject

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))), 'sandbox', 'seccomp-list.h')
ROW = re.compile(r'^ *(ALLOW|ALLOW_IS|ALLOW_LACKS|ALLOW_SELF|ABSENT)\((.*?)"\)',
                 re.MULTILINE | re.DOTALL)
# Who may need a call that no run of ours sees: a C library that is not this one, or that
# calls it only when all is lost; a kernel; a machine.
ELSEWHERE = ('glibc: ', 'musl: ', 'kernel: ', 'machine: ')


@dataclasses.dataclass(frozen=True)
class Row:
    kind: str
    call: str
    words: tuple  # constants by which strace shows that it is this row
    who: str

    @property
    def is_elsewhere(self):
        return self.who.startswith(ELSEWHERE)

    def __str__(self):
        return ' '.join((self.call, *self.words))


def _row(kind, text):
    text, who = text.rsplit('"', 1) if text.endswith('"') else text.split('"', 1)
    fields = [field.strip() for field in text.split(',')]
    value = fields[2] if kind in ('ALLOW_IS', 'ALLOW_SELF') else ''
    return Row(kind, fields[0], tuple(re.findall(r'[A-Z][A-Z0-9_]+', value)), who)


def _choose(match):
    call, mine, other = match.groups()
    return other if inject.number_of(call) is None else mine


def rows():
    """Those of a daemon without a sanitizer in it, on this machine."""
    with open(SOURCE, encoding='utf-8') as file:
        text = file.read()
    text = re.sub(r'#if SANDBOX_.*?#endif', '', text, flags=re.DOTALL)
    text = re.sub(r'#ifdef __NR_(\w+)\n(.*?)#else\n(.*?)#endif', _choose, text,
                  flags=re.DOTALL)
    found = [_row(*match.groups()) for match in ROW.finditer(text)]
    return [row for row in found if inject.number_of(row.call) is not None]


def allowed():
    return [row for row in rows() if row.kind != 'ABSENT']
