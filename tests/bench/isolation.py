# SPDX-License-Identifier: Apache-2.0
"""What it costs to be shut in: our daemon with everything beside itself with less."""

import contest
import report

NO_SECCOMP, NO_LANDLOCK = ('--seccomp=none',), ('--no-landlock',)

# What each goes without, the one with everything first.
WITHOUT = {
    contest.OURS: (),
    'seccomp': NO_SECCOMP,
    'landlock': NO_LANDLOCK,
    'both': (*NO_SECCOMP, *NO_LANDLOCK),
    'sandbox': ('--sandbox=none', *NO_SECCOMP, *NO_LANDLOCK),
}


def contenders(kata):
    """{name: command line}, as contest.contenders()."""
    full = contest.contenders(kata)[contest.OURS]
    return {name: [*full, *options] for name, options in WITHOUT.items()}


def table(results, chosen_rows, names, setting):
    """Ratios of the daemon with everything to each of the others."""
    full, *others = names
    figures = {'CPU': 'cpu_us', 'p50': 'p50_us'} if setting.pinned else {'CPU': 'cpu_us'}
    lines = report.Table(['', 'CPU us', *(f'{title} to no {name}' for title in figures
                                          for name in others)])
    for row in chosen_rows:
        found = {name: results.get((row.name, name), []) for name in names}
        if not found[full]:
            continue
        cells = [report.ratios(found[full], found[name], figure)
                 for figure in figures.values() for name in others]
        lines.add([row.title, report.span(report.series(found[full], 'cpu_us')),
                   *(report.span(cell) if cell else '-' for cell in cells)])
    return str(lines)
