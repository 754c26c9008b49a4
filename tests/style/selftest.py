#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every style check finds the faults that it is there for, and lets good code pass."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

import source

HERE = os.path.dirname(os.path.abspath(__file__))
SPDX = '/* SPDX-License-Identifier: Apache-2.0 */\n'


def header(guard, body=''):
    return f'{SPDX}#ifndef {guard}\n#define {guard}\n\n{body}\n#endif\n'


class Tree:
    """A scratch source tree and what a check says about it."""

    def __init__(self, files):
        self.folder = tempfile.TemporaryDirectory(prefix='vfs-style-')
        self.path = self.folder.name
        for name, text in files.items():
            path = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text)

    def check(self, name, *more):
        with self.folder:
            done = subprocess.run(
                [sys.executable, os.path.join(HERE, f'check-{name}.py'), '--root',
                 self.path, *more], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr


class StyleChecks(unittest.TestCase):
    def fails(self, check, files, *expected):
        status, said = Tree(files).check(check)
        self.assertEqual(status, 1, said)
        for text in expected:
            self.assertIn(text, said)

    def passes(self, check, files):
        status, said = Tree(files).check(check)
        self.assertEqual(status, 0, said)

    def test_includes(self):
        empty = {name: '' for name in (
            'virtiofsd/log.h', 'virtiofsd/server.h', 'virtiofsd/vhost/ring.h',
            'virtiofsd/fuse/abi.h', 'passthrough/passthrough.h', 'passthrough/internal.h',
            'sandbox/sandbox.h')}
        bad = (
            ('virtiofsd/vhost/a.c', '"virtiofsd/fuse/abi.h"'),
            ('virtiofsd/fuse/a.c', '"virtiofsd/vhost/ring.h"'),
            ('virtiofsd/fuse/a.c', '"virtiofsd/server.h"'),
            ('virtiofsd/a.c', '"passthrough/internal.h"'),
            ('passthrough/a.c', '"virtiofsd/fuse/abi.h"'),
            ('sandbox/a.c', '"passthrough/passthrough.h"'),
            ('sandbox/a.c', '"sandbox.h"'),
            ('passthrough/a.c', '<linux/fuse.h>'),
            ('virtiofsd/fuse/a.c', '<linux/virtio_ring.h>'),
            ('virtiofsd/a.c', '<seccomp.h>'),
            ('virtiofsd/log.h', '"virtiofsd/server.h"'),
        )
        for name, what in bad:
            with self.subTest(name=name, what=what):
                self.fails('includes', {**empty, name: f'#include {what}\n'}, name)
        self.passes('includes', {
            **empty,
            'virtiofsd/vhost/a.c':
                '#include "virtiofsd/log.h"\n#include <linux/vhost.h>\n',
            'virtiofsd/fuse/a.c': '#include "passthrough/passthrough.h"\n',
            'virtiofsd/a.c': '#include "sandbox/sandbox.h"\n',
            'tests/unit/a.c': '#include "passthrough/internal.h"\n'})

    def test_headers(self):
        self.fails('headers', {'sandbox/a.h': header('SANDBOX_A_H', 'size_t a(void);')},
                   'does not compile alone')
        self.fails('headers', {'sandbox/a.h': header('A_H')}, 'the guard is not')
        self.passes('headers', {
            'sandbox/a.h': header('SANDBOX_A_H', '#include <stddef.h>\nsize_t a(void);')})

    def test_sizes(self):
        long_body = '    f();\n' * 60
        for text, fault in (
                (f'int a(void)\n{{\n{long_body}}}\n', '63 lines'),
                ('int a(int b, int c, int d, int e, int f, int g, int h)\n{\n}\n',
                 '7 parameters'),
                ('int a(void)\n{\n if (1) for (;;) while (1) switch (b) { case 1:'
                 ' if (2) c(); }\n}\n', 'nests 5 deep'),
                ('int a(void)\n{\n if (1) { if (1) { if (1) { g_list_each (x) {'
                 ' do { c(); } while (1); } } } }\n}\n', 'nests 5 deep'),
                ('int a;\n' * 501, '501 lines')):
            with self.subTest(fault=fault):
                self.fails('sizes', {'sandbox/a.c': text}, fault)
        self.fails('sizes', {'sandbox/a.h': 'int a;\n' * 151}, '151 lines')
        self.fails('sizes', {'tests/a.py': 'def f():\n' + '    pass\n' * 100},
                   '101 lines')
        self.passes('sizes', {
            'sandbox/a.c':
                'const struct t table[] = {\n' + '    {"a", f},\n' * 400 + '};\n',
            'sandbox/b.c': 'int a(void)\n{\n' + '    if (b)\n        c = (struct d){1};\n'
                           '    else if (e)\n        f({1});\n' * 14 + '}\n',
            'sandbox/c.c': '#define LONG(x) f(x) { \\\n' + '    g(x); \\\n' * 80 + '}\n',
            'tests/unit/a.c': f'int a(void)\n{{\n{long_body}}}\n'})

    def test_format(self):
        status, said = Tree({'sandbox/a.c': 'int  a ;\n'}).check('format')
        if status == source.SKIPPED:
            self.skipTest(said)
        self.fails('format', {'sandbox/a.c': 'int  a ;\n'}, 'sandbox/a.c:1')
        self.passes('format', {'sandbox/a.c': 'int a;\n'})

    def test_text(self):
        machine = '/'.join(('', 'home', 'somebody', 'x'))
        for text, fault in (
                ('int a;\n', 'no "SPDX'),
                (f'{SPDX}int a; \n', 'white space'),
                (f'{SPDX}int a;', 'newline'),
                (f'{SPDX}\tint a;\n', 'a tab'),
                (f'{SPDX}/* {machine} */\n', 'one machine'),
                (f'{SPDX}/* {"a" * 90} */\n', 'columns')):
            with self.subTest(fault=fault):
                self.fails('text', {'sandbox/a.c': text}, fault)
        self.fails('text', {'tests/a': '#!/bin/sh\necho\n'}, 'no "SPDX')
        self.passes('text', {'sandbox/a.c': f'{SPDX}/* /proc/1{"/root"}/etc */\n'})

    def test_calls(self):
        for name, text in (
                ('passthrough/a.c', 'openat(1, "a", 2)'),
                ('virtiofsd/vhost/a.c', 'abort()'),
                ('virtiofsd/a.c', 'exit(1)'),
                ('virtiofsd/fuse/a.c', 'x = g_new0(int, 1)'),
                ('virtiofsd/fuse/a.c', 'g_assert(x)'),
                ('passthrough/a.c', 'strerror(1)'),
                ('virtiofsd/workers.c', 'pthread_exit(NULL)'),
                ('sandbox/a.c', 'g_mutex_lock(&a)')):
            with self.subTest(name=name, text=text):
                self.fails('calls', {name: f'void a(int b)\n{{\n    {text};\n}}\n'}, name)
        at_start = 'int a(GError **error)\n{\n    b();\n}\n'
        helper = 'static int *b(void)\n{\n    return g_new0(int, 1);\n}\n'
        self.passes('calls', {
            'virtiofsd/a.c': helper + at_start,
            'virtiofsd/main.c': 'int main(void)\n{\n    exit(1);\n}\n',
            'passthrough/a.c': 'void a(int b)\n{\n    x->open(1);\n    pt_open(2);\n}\n'})
        for user in ('void c(void)\n{\n b();\n}', 'int *c(void)\n{\n d(b);\n}'):
            self.fails('calls', {'virtiofsd/a.c': helper + at_start + user}, 'g_new0')

    def symbols(self, name, text):
        tree = Tree({name: text})
        subprocess.run(['cc', '-c', name, '-o', 'a.o'], cwd=tree.path, check=True)
        with open(f'{tree.path}/compile_commands.json', 'w', encoding='utf-8') as file:
            json.dump([{'directory': tree.path, 'file': name, 'output': 'a.o'}], file)
        return tree.check('symbols', '--build', tree.path)

    def test_symbols(self):
        for name, symbol, status in (
                ('passthrough/a.c', 'pt_a', 0), ('passthrough/a.c', 'a_b', 1),
                ('sandbox/a.c', 'sandbox_a', 0), ('sandbox/a.c', 'seccomp_a', 1),
                ('virtiofsd/vhost/a.c', 'vu_a', 0), ('virtiofsd/vhost/a.c', 'a_b', 1),
                ('virtiofsd/fuse/op-file.c', 'op_read', 0),
                ('virtiofsd/log.c', 'log_a', 0), ('virtiofsd/log.c', 'lag_a', 1),
                ('virtiofsd/main.c', 'main', 0)):
            with self.subTest(name=name, symbol=symbol):
                got, said = self.symbols(name, f'int {symbol}(void) {{ return 0; }}\n')
                self.assertEqual(got, status, said)
        got, said = self.symbols('virtiofsd/fuse/a.c', 'static int fuse_x(void)\n{\n}\n')
        self.assertEqual(got, 1, said)


if __name__ == '__main__':
    unittest.main()
