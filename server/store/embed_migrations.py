"""Writes the SQL files of migrations/ as a C table, in the order of their numbers."""

import pathlib
import re
import sys


def literal(line):
    return '        "' + line.replace("\\", "\\\\").replace('"', '\\"') + '\\n"'


def main():
    target, *sources = sys.argv[1:]
    out = ['#include "server/store/migrate.h"', ""]
    rows = []
    for number, source in enumerate(sorted(sources, key=lambda s: pathlib.Path(s).name), start=1):
        path = pathlib.Path(source)
        if not re.fullmatch(rf"{number:04}_[a-z_]+\.sql", path.name):
            sys.exit(f"{source}: the migrations must be numbered 0001, 0002, … without a gap")
        out.append(f"static const char sql_{number:04}[] =")
        out.extend(literal(line) for line in path.read_text(encoding="ascii").splitlines())
        out[-1] += ";"
        out.append("")
        rows.append(f'        {{ "{path.stem}", sql_{number:04} }},')
    out += ["const struct migration migrations[] = {", *rows, "};"]
    out += [f"const size_t n_migrations = {len(rows)};", ""]
    pathlib.Path(target).write_text("\n".join(out), encoding="ascii")


main()
