# SPDX-License-Identifier: Apache-2.0
"""What the style checks share: which files there are, and where a C function begins and
ends. A check is a script that prints one line per fault and exits 1, 0, or 77 (skipped).
"""

import argparse
import os
import re
import subprocess
import sys

SKIPPED = 77

# Code that the daemon is made of, against code that only tests it.
DAEMON_ROOMS = ('virtiofsd', 'passthrough', 'sandbox')

_NOT_OURS = {'.git', '__pycache__', '.pytest_cache'}


def arguments(description):
    """The options of every check; --build only matters to those that read objects."""
    parser = argparse.ArgumentParser(description=description)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(here)))
    parser.add_argument('--build', help='the build directory')
    return parser.parse_args()


def listed(root):
    """Every file of the project, as paths relative to its top."""
    git = subprocess.run(
        ['git', '-C', root, 'ls-files', '-z', '--cached', '--others',
         '--exclude-standard'],
        capture_output=True, check=False)
    if git.returncode == 0:
        names = {os.fsdecode(n) for n in git.stdout.split(b'\0') if n}
        return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))
    found = []
    for folder, folders, names in os.walk(root):
        # Without git a build directory can only be told by what meson leaves in it.
        folders[:] = [f for f in folders if f not in _NOT_OURS
                      and not os.path.exists(os.path.join(folder, f, 'build.ninja'))]
        found += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return sorted(found)


def c_files(root, *rooms):
    """The .c and .h files, of all rooms or of the named ones."""
    return [n for n in listed(root) if n.endswith(('.c', '.h'))
            and (not rooms or n.split('/')[0] in rooms)]


def read(root, name):
    with open(os.path.join(root, name), encoding='utf-8', newline='') as file:
        return file.read()


def finish(faults, what):
    """Say the result and leave with it."""
    for fault in faults:
        print(fault)
    print(f'{what}: {len(faults)} faults' if faults else f'{what}: clean')
    sys.exit(1 if faults else 0)


_COMMENT_OR_TEXT = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def _blank(match):
    text = match.group()
    lines = '\n' * text.count('\n')
    if text[0] in '"\'':
        return text[0] + ' ' * (len(text) - 2) + text[0]
    return ' ' + lines


def code_only(text):
    """The text without comments and string contents; line numbers stay."""
    return _COMMENT_OR_TEXT.sub(_blank, text)


def without_directives(code):
    """Blank preprocessor lines with their continuations: macros are not functions."""
    return re.sub(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*',
                  lambda m: '\n' * m.group().count('\n'), code, flags=re.M)


class Function:
    """One definition: where it stands, its parameters and its body."""

    def __init__(self, name, lines, is_static, parameters, body):
        self.name = name
        self.first_line, self.last_line = lines
        self.is_static = is_static
        self.parameters = parameters  # list of texts; empty for (void)
        self.body = body              # between the outer braces

    @property
    def lines(self):
        return self.last_line - self.first_line + 1


_TOKEN = re.compile(
    r'[A-Za-z_]\w*|\d[\w.]*|"[^"\n]*"|\'[^\'\n]*\'|\n|[^\s\w]')


def tokens(code):
    """(text, line) pairs."""
    line = 1
    for match in _TOKEN.finditer(code):
        if match.group() == '\n':
            line += 1
        else:
            yield match.group(), line


def _matching(items, start, opening, closing):
    depth = 0
    for at in range(start, len(items)):
        if items[at][0] == opening:
            depth += 1
        elif items[at][0] == closing:
            depth -= 1
            if depth == 0:
                return at
    return len(items) - 1


def _split_parameters(items):
    parts, depth, now = [], 0, []
    for text, _ in items:
        if text == ',' and depth == 0:
            parts.append(' '.join(now))
            now = []
            continue
        depth += text in '([{'
        depth -= text in ')]}'
        now.append(text)
    if now:
        parts.append(' '.join(now))
    return [] if parts == ['void'] else parts


def functions(text):
    """Every function defined in a C file's text."""
    items = list(tokens(without_directives(code_only(text))))
    found, at, start = [], 0, 0
    while at < len(items):
        word = items[at][0]
        if word in ';}':
            start = at = at + 1
        elif word == '{':  # a struct, an enum or a table
            at = _matching(items, at, '{', '}') + 1
        elif word == '(':
            close = _matching(items, at, '(', ')')
            is_named = at > 0 and re.match(r'[A-Za-z_]', items[at - 1][0])
            if is_named and close + 1 < len(items) and items[close + 1][0] == '{':
                end = _matching(items, close + 1, '{', '}')
                found.append(Function(
                    items[at - 1][0], (items[start][1], items[end][1]),
                    'static' in (text for text, _ in items[start:at]),
                    _split_parameters(items[at + 1:close]), items[close + 2:end]))
                start = at = end + 1
            else:
                at = close + 1
        else:
            at += 1
    return found


class _Nesting:
    """Walks statements and remembers how deep conditions and loops are nested."""

    def __init__(self, items):
        self.words = [text for text, _ in items]
        self.at = 0
        self.deepest = 0

    def _peek(self):
        return self.words[self.at] if self.at < len(self.words) else ''

    def _skip_parens(self):
        if self._peek() == '(':
            depth = 0
            while self.at < len(self.words):
                depth += self._peek() == '('
                depth -= self._peek() == ')'
                self.at += 1
                if depth == 0:
                    return

    def block(self, depth):
        while self.at < len(self.words) and self._peek() != '}':
            self.statement(depth)
        self.at += 1

    def statement(self, depth):
        self.deepest = max(self.deepest, depth)
        word = self._peek()
        if word == '{':
            self.at += 1
            self.block(depth)
        elif word in ('if', 'for', 'while', 'switch'):
            self.at += 1
            self._skip_parens()
            self.statement(depth + 1)
            if word == 'if' and self._peek() == 'else':
                self._alternative(depth)
        elif word == 'do':
            self.at += 1
            self.statement(depth + 1)
            self._simple(depth)  # while (...);
        elif word in ('case', 'default'):
            while self._peek() not in (':', ''):
                self.at += 1
            self.at += 1
        else:
            self._simple(depth)

    def _alternative(self, depth):
        self.at += 1
        # "else if" is one more branch, not one more level.
        self.statement(depth if self._peek() == 'if' else depth + 1)

    def _simple(self, depth):
        """Up to the semicolon; a brace after ')' is the block of a for-each macro."""
        before = ''
        while self.at < len(self.words):
            word = self._peek()
            if word == ';':
                self.at += 1
                return
            if word == '{' and before == ')' and self._is_macro_block():
                self.at += 1
                self.block(depth + 1)
                return
            if word in '({[':
                self._skip_group()
                before = ')' if word == '(' else '}'
                continue
            if word == '}':
                return
            before = word
            self.at += 1

    def _is_macro_block(self):
        """After a compound literal its statement goes on, after a block not."""
        depth, at = 0, self.at
        while at < len(self.words):
            depth += self.words[at] == '{'
            depth -= self.words[at] == '}'
            at += 1
            if depth == 0:
                break
        return at >= len(self.words) or self.words[at] not in (';', ')', ',', '.')

    def _skip_group(self):
        depth = 0
        while self.at < len(self.words):
            word = self._peek()
            depth += word in '({['
            depth -= word in ')}]'
            self.at += 1
            if depth == 0:
                return


def nesting(function):
    """How many conditions and loops stand around the deepest statement."""
    walk = _Nesting(function.body)
    while walk.at < len(walk.words):
        walk.statement(0)
    return walk.deepest
