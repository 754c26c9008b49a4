# SPDX-License-Identifier: Apache-2.0
"""Builds one variant of the project, runs all of its tests and adds up the results.

Started by tests/run. Nothing is written below the source tree.
"""

import argparse
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# LeakSanitizer needs clone() and /proc, which the sandbox takes away.
OPEN_DAEMON = '--sandbox=none --seccomp=none'

# How a variant is built, and what its runs need in the environment.
VARIANTS = {
    'plain': {'cc': 'gcc', 'options': []},
    'clang': {'cc': 'clang', 'options': []},
    'asan': {
        'cc': 'gcc',
        'options': ['-Db_sanitize=address,undefined', '-Db_lundef=false'],
        'env': {
            'ASAN_OPTIONS': 'detect_stack_use_after_return=1:log_path={log}/asan',
            'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1:log_path={log}/ubsan',
            'LSAN_OPTIONS': 'log_path={log}/lsan',
        },
        # Without the leak checker it can run in the sandbox too. ThreadSanitizer cannot:
        # it starts programs and opens files when it has something to say.
        'smoke': {'ASAN_OPTIONS': 'detect_leaks=0:log_path={log}/asan'},
    },
    'tsan': {
        'cc': 'clang',
        'options': ['-Db_sanitize=thread', '-Db_lundef=false'],
        'env': {'TSAN_OPTIONS': 'second_deadlock_stack=1:log_path={log}/tsan'},
    },
    'fuzz': {
        'cc': 'clang',
        'options': ['-Dfuzzing=true', '-Db_sanitize=address,undefined',
                    '-Db_lundef=false', '-Dman=disabled'],
        'fuzzes': True,
    },
}

# How long each fuzz target runs.
FUZZ_SECONDS = {'quick': 20, 'soak': 3600}

RESULTS = ('passed', 'failed', 'skipped')


class Tally:
    """How many tests passed, failed and were skipped, and the names of those that did
    not pass.
    """

    def __init__(self):
        self.count = dict.fromkeys(RESULTS, 0)
        self.notes = []

    def add(self, result, name, why=''):
        self.count[result] += 1
        if result != 'passed':
            why = why.strip().split('\n')[0]
            self.notes.append(f'{result}: {name}' + (f' ({why})' if why else ''))

    def closing_line(self):
        return ', '.join(f'{self.count[r]} {r}' for r in RESULTS)


def arguments():
    parser = argparse.ArgumentParser(prog='tests/run', description=__doc__)
    parser.add_argument('tier', nargs='?', choices=('quick', 'soak'), default='quick',
                        help='soak adds the long tests')
    for name in VARIANTS:
        if name != 'plain':
            parser.add_argument(f'--{name}', dest='variant', action='store_const',
                                const=name, default='plain')
    parser.add_argument('--build', help='build directory (default: one below TMPDIR, '
                        'kept for the next run)')
    parser.add_argument('--build-only', action='store_true')
    parser.add_argument('--no-setup', action='store_true',
                        help='do not look for missing packages')
    parser.add_argument('-k', dest='select', metavar='EXPRESSION',
                        help='only the integration tests that pytest -k selects')
    return parser.parse_args()


def fuzz_names():
    """All fuzz targets."""
    return sorted(os.path.basename(path)[len('fuzz-'):-len('.c')] for path in
                  glob.glob(os.path.join(TOP, 'tests', 'fuzz', 'fuzz-*.c')))


def default_build(variant):
    """The same directory for the same checkout, so that the next run builds little."""
    mark = hashlib.sha256(TOP.encode()).hexdigest()[:8]
    return os.path.join(tempfile.gettempdir(),
                        f'virtiofsd-build-{os.getuid()}-{mark}-{variant}')


def run(command, **more):
    print('+', ' '.join(command), flush=True)
    return subprocess.run(command, check=False, **more).returncode


def build(directory, variant, tally):
    """Configure and compile with warnings as errors."""
    env = dict(os.environ, CC=variant['cc'])
    if not os.path.exists(os.path.join(directory, 'build.ninja')):
        command = ['meson', 'setup', directory, TOP, '-Dwerror=true', *variant['options']]
        if run(command, env=env) != 0:
            tally.add('failed', 'meson setup')
            return False
    programs = [f'tests/fuzz/fuzz-{name}' for name in fuzz_names()]
    if run(['ninja', '-C', directory, *(programs if variant.get('fuzzes') else ())]) != 0:
        tally.add('failed', 'build')
        return False
    tally.add('passed', 'build')
    return True


def junit_cases(path):
    """(suite, name, result, why) of every case in a JUnit file."""
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return
    for suite in root.iter('testsuite'):
        for case in suite.iter('testcase'):
            name = f'{case.get("classname", "")}::{case.get("name", "")}'
            bad = [c for c in case if c.tag in ('failure', 'error')]
            skipped = case.find('skipped')
            if bad:
                result, why = 'failed', bad[0].get('message') or ''
            elif skipped is not None:
                result, why = 'skipped', skipped.get('message') or ''
            else:
                result, why = 'passed', ''
            yield suite.get('name', ''), name, result, why


def meson_tests(directory, env, tally, more=()):
    """Unit and style tests. Each assertion point of a TAP program is one test."""
    logs = os.path.join(directory, 'meson-logs')
    for old in glob.glob(os.path.join(logs, 'testlog.*')):
        os.unlink(old)
    run(['meson', 'test', '-C', directory, '--no-rebuild', '--print-errorlogs', *more],
        env=env)
    points = {}
    for _, name, result, why in junit_cases(os.path.join(logs, 'testlog.junit.xml')):
        program = name.split('::')[0].split(' / ')[-1].split('.')[-1]
        points.setdefault(program, []).append((name, result, why))
    try:
        with open(os.path.join(logs, 'testlog.json'), encoding='utf-8') as file:
            tests = [json.loads(line) for line in file]
    except OSError as error:
        tally.add('failed', 'meson test', str(error))
        return
    for test in tests:
        add_meson_test(test, points, tally)


def add_meson_test(test, points, tally):
    program = test['name'].split(' / ')[-1]
    good = test['result'] in ('OK', 'EXPECTEDFAIL')
    mine = points.get(program, [])
    for name, result, why in mine:
        tally.add(result, name, why)
    if test['result'] == 'SKIP':
        if not mine:
            tally.add('skipped', program, test.get('stdout', '').strip())
    elif not good and not any(result == 'failed' for _, result, _ in mine):
        tally.add('failed', program, test['result'])
    elif good and not mine:
        tally.add('passed', program)


def pytest_run(directory, marks, env, tally, more=()):
    report = os.path.join(directory, 'pytest.xml')
    if os.path.exists(report):
        os.unlink(report)
    status = run(['/usr/bin/python3', '-B', '-m', 'pytest', '-p', 'no:cacheprovider',
                  '-ra', '--durations=8', '-m', marks, f'--junitxml={report}', *more,
                  os.path.join(TOP, 'tests', 'integration')],
                 env=dict(env, VIRTIOFSD_BUILD=directory))
    failed = False
    for _, name, result, why in junit_cases(report):
        tally.add(result, name, why)
        failed = failed or result == 'failed'
    # 0: all passed, 1: some failed, 5: none selected, which only -k may lead to.
    if status not in (0, 1, 5 if more else 0) or (status == 1 and not failed):
        tally.add('failed', 'pytest', f'exit status {status}')


def sanitizer_reports(log, tally):
    """A report may come from a process whose end nobody saw: each is a failure."""
    for path in sorted(glob.glob(os.path.join(log, '*'))):
        with open(path, encoding='utf-8', errors='replace') as file:
            text = file.read()
        if text.strip():
            print(f'--- {path}\n{text[:20000]}')
            found = re.search(r'(ERROR|WARNING|runtime error)\S*:.*', text)
            tally.add('failed', os.path.basename(path), found.group() if found else '')


# The words that belong into a target's inputs, where they are another's.
DICTIONARIES = {'passthrough': 'request'}


def fuzz_command(directory, target, work, seconds):
    folder = os.path.join(TOP, 'tests', 'fuzz')
    corpus = os.path.join(folder, 'corpus', target)
    words = os.path.join(folder, 'dict', DICTIONARIES.get(target, target) + '.dict')
    fresh = os.path.join(work, target)
    os.mkdir(fresh)
    seeds = [path for path in (corpus, os.path.join(work, 'seeds', target))
             if os.path.isdir(path)]
    return [os.path.join(directory, 'tests', 'fuzz', f'fuzz-{target}'),
            f'-dict={words}', '-max_len=16384', f'-max_total_time={seconds}',
            '-timeout=20', '-print_final_stats=1',
            f'-artifact_prefix={work}/found-{target}-', fresh, *seeds]


def memory_folder():
    """Where files are fastest: fuzz-passthrough makes many."""
    return '/dev/shm' if os.path.isdir('/dev/shm') else None


def fuzz(options, directory, tally):
    """A run of each target, two at a time; what was learnt is forgotten, what was found
    is shown.
    """
    names = fuzz_names()
    with tempfile.TemporaryDirectory(prefix='vfs-fuzz-', dir=memory_folder()) as work:
        run([os.path.join(TOP, 'tests', 'fuzz', 'seeds.py'), os.path.join(work, 'seeds')])

        def one(target):
            command = fuzz_command(directory, target, work, FUZZ_SECONDS[options.tier])
            return subprocess.run(command, check=False, env=dict(os.environ, TMPDIR=work),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  encoding='utf-8', errors='replace')

        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            for target, done in zip(names, pool.map(one, names)):
                lines = done.stdout.splitlines()
                print('\n'.join([f'--- fuzz-{target}', *lines[-12:]]))
                tally.add('failed' if done.returncode else 'passed', f'fuzz-{target}')
                for path in glob.glob(os.path.join(work, f'found-{target}-*')):
                    with open(path, 'rb') as file:
                        print(f'{os.path.basename(path)}: {file.read(4096).hex()}')


def in_folder(env, log):
    return {name: value.format(log=log) for name, value in env.items()}


def integration(options, directory, log, env, tally):
    tier = '' if options.tier == 'soak' else ' and not soak'
    more = ['-k', options.select] if options.select else []
    if 'env' not in VARIANTS[options.variant]:
        pytest_run(directory, f'not sanitizer{tier}', env, tally, more)
        return
    opened = dict(env, VIRTIOFSD_TEST_ARGS=OPEN_DAEMON)
    pytest_run(directory, f'not sandboxed{tier}', opened, tally, more)
    smoke = VARIANTS[options.variant].get('smoke')
    if smoke and not options.select:
        pytest_run(directory, 'smoke', dict(env, **in_folder(smoke, log)), tally)


def main():
    options = arguments()
    variant = VARIANTS[options.variant]
    directory = options.build or default_build(options.variant)
    os.environ['PYTHONDONTWRITEBYTECODE'] = '1'
    started = time.monotonic()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix='vfs-log-') as log:
        env = dict(os.environ, CC=variant['cc'])
        if 'env' in variant:
            env.update(in_folder(variant['env'], log))
            # A sanitizer's own memory hides what the daemon needs.
            env['VIRTIOFSD_SANITIZER'] = options.variant
            # GLib's own allocator hands memory on behind a sanitizer's back.
            env['G_SLICE'] = 'always-malloc'
        if not build(directory, variant, tally) or options.build_only:
            pass
        elif options.variant == 'fuzz':
            fuzz(options, directory, tally)
        else:
            # The source does not change with the sanitizer.
            more = ['--no-suite', 'style'] if 'env' in variant else []
            meson_tests(directory, env, tally, more)
            integration(options, directory, log, env, tally)
            sanitizer_reports(log, tally)
    for note in tally.notes:
        print(note)
    print(f'{options.variant} {options.tier}: {time.monotonic() - started:.0f} s')
    print(tally.closing_line())
    sys.exit(1 if tally.count['failed'] else 0)


if __name__ == '__main__':
    main()
