#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sizes: files, functions, parameters and nesting stay what a reader can hold."""

import ast

import source

FILE_LINES = 500
HEADER_LINES = 150
TEST_FILE_LINES = 800
FILE_LINES_OF = {'passthrough/passthrough.h': 300, 'passthrough/types.h': 300}

FUNCTION_LINES = 60
TEST_FUNCTION_LINES = 100
FUNCTION_LINES_OF = {'main': 80}

PARAMETERS = 6
NESTING = 4


def is_test(name):
    return name.startswith('tests/')


def file_limit(name):
    if is_test(name) or name.endswith('.py'):
        return TEST_FILE_LINES
    return FILE_LINES_OF.get(name, HEADER_LINES if name.endswith('.h') else FILE_LINES)


def function_limit(name, function):
    if is_test(name):
        return TEST_FUNCTION_LINES
    return FUNCTION_LINES_OF.get(function, FUNCTION_LINES)


def c_faults(name, text):
    for function in source.functions(text):
        where = f'{name}:{function.first_line}: {function.name}()'
        limit = function_limit(name, function.name)
        if function.lines > limit:
            yield f'{where} has {function.lines} lines, not more than {limit}'
        if len(function.parameters) > PARAMETERS:
            yield f'{where} takes {len(function.parameters)} parameters of {PARAMETERS}'
        depth = source.nesting(function)
        if depth > NESTING:
            yield f'{where} nests {depth} deep, not more than {NESTING}'


def python_faults(name, text):
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines > TEST_FUNCTION_LINES:
                yield (f'{name}:{node.lineno}: {node.name}() has {lines} lines, '
                       f'not more than {TEST_FUNCTION_LINES}')


def faults_of(root, name):
    text = source.read(root, name)
    lines = text.count('\n')
    if lines > file_limit(name):
        yield f'{name}: {lines} lines, not more than {file_limit(name)}'
    yield from (python_faults if name.endswith('.py') else c_faults)(name, text)


def main():
    root = source.arguments(__doc__).root
    faults = [f for name in source.listed(root) if name.endswith(('.c', '.h', '.py'))
              for f in faults_of(root, name)]
    source.finish(faults, 'sizes')


if __name__ == '__main__':
    main()
