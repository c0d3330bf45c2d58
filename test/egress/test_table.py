"""A table of what programs in a sandbox try to send out: what is allowed arrives, and what is not is refused at once by the wall that it names,
and never arrives. The hosts' own count says what arrived. What is refused is also tried outside, where it does arrive: else a row would prove
nothing. How they are run: batches.py. The table is printed as comments, and by test/run; HOTCELL_TEST_ROWS=TEXT runs the rows that have it in
their line, HOTCELL_TEST_TABLE says which file the table is written to.
"""

import os
import pathlib
import platform
import threading
import unittest

import batches
import daemons
import rows
import scene as scenes
from rows import BPF, CAPABILITY, KERNEL, PING, RELAY, ROUTE, SECCOMP

scene = scenes.Scene()
TRY_SECONDS = 120 * daemons.PATIENCE  # a batch
starts = threading.Semaphore(2)  # at once: each has a time in which it must have succeeded


def create(policy):
    with starts:
        sandbox = scene.create(*rows.POLICIES[policy], default="ALLOW_PUBLIC" if policy == "public" else "DENY",
                               types=rows.RECORD_TYPES.get(policy, ()))
    if policy == "public":
        # What sandboxes with the other policies must not reach.
        scene.run(sandbox, f"""
meeting = socket.socket(socket.AF_UNIX)
meeting.bind("\\0meeting")
meeting.listen()
server = socket.create_server(("127.0.0.1", {rows.LISTENER}))""")
    return sandbox


def setUpModule():
    scene.enter(server_arguments=[f"--timeout-default={TRY_SECONDS}s"])
    scene.world.set_zones(rows.ZONES)
    for outside in (scene.world.outside, scene.world.nobody):
        outside.run(f"AUTHORITY = {scene.world.authority!r}\n{scenes.PRELUDE}")
    scene.world.outside.run(rows.LISTEN_HOME)
    batches.run_all(scene, create, ROWS)
    batches.try_outside(scene, ROWS)


def wall_of(row):
    """Which one it was, by what can be seen. BPF refuses at once and tells. A seccomp filter tells nothing, and refuses before the kernel looks
    at anything else: the row's probe is refused in the same way, which outside fails in another one. A capability is missing if nobody lacks
    it outside, too, and root does not."""
    if row.result == "EPERM" and row.event:
        return BPF
    special = {"EACCES": PING, "ENETUNREACH": ROUTE, "timeout": "no answer"}.get(row.result)
    if special in row.walls:
        return special
    if not row.needs_comparison():
        return RELAY if row.result.startswith("then") and RELAY in row.walls else row.walls[0]
    found = []
    if row.probe and row.probed == row.result != row.probed_outside:
        found.append(SECCOMP)
    elif row.result not in (row.root, row.nobody):
        found.append(SECCOMP)
    if row.root in (row.result, "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"):
        found.append(KERNEL)
    elif row.result == row.nobody:
        found.append(CAPABILITY)
    return ", ".join(found)


class Table(unittest.TestCase):
    maxDiff = None

    def check(self, row):
        self.assertFalse(row.problems, "\n".join(row.problems))
        row.wall = wall_of(row)
        self.assertIn(row.wall.split(", ")[0], row.walls)


def title(row):
    return f"{row.what}{f', IPv{row.version}' if row.version else ''}, policy {row.policy}"


def add_row(number, row):
    def test(self):
        row.verdict = "FAILED"
        self.check(row)
        row.verdict = "ok"
    setattr(Table, f"test_{number:03}_{title(row)}", test)


class Flood(unittest.TestCase):
    def test_random_labels_under_an_allowed_name_come_out_slowly(self):
        """What a tunnel through the allowed name would be."""
        sandbox = scene.create(*rows.POLICIES["names"])
        mark = scene.world.mark()
        start = scene.fence(sandbox)
        answers = scene.inside(sandbox, """(lambda start: [[ask(f"{os.urandom(8).hex()}.wild.test") for _ in range(400)],
                                                                        time.monotonic() - start])(time.monotonic())""")
        asked = sum(event["kind"] == "dns" for event in scene.world.events(mark.n_events))
        print(f"# of 400 questions {asked} came out in {answers[1]:.1f} s")
        self.assertEqual(asked, sum(answer.startswith("NOERROR") for answer in answers[0]))
        self.assertLess(asked, 210 + 20 * answers[1])
        self.assertIn("REFUSED", answers[0])
        scene.wait_log(sandbox, start, type="DENIED", reason="LIMIT")


ROWS = [row for row in rows.all_rows() if os.environ.get("HOTCELL_TEST_ROWS", "") in title(row)]
for index, each in enumerate(ROWS):
    add_row(index, each)


def table_file():
    """For test/run, which shows it."""
    chosen = os.environ.get("HOTCELL_TEST_TABLE")
    logs = daemons.build_folder() / "meson-logs"
    return pathlib.Path(chosen) if chosen else logs / "egress-table.txt" if logs.is_dir() else None


class Whole(unittest.TestCase):
    """Runs after Table."""

    def test_the_table_is_whole_and_printed(self):
        ran = [row for row in ROWS if hasattr(row, "verdict")]
        lines = [("what", "IP", "policy", "result", "refused by", "at the hosts", "")]
        for row in ran:
            seen = " ".join(f"{address} {port}" for _, address, port in row.seen) or "-"
            lines.append((row.what, str(row.version or "-"), row.policy, row.result.strip(), getattr(row, "wall", "?"), seen,
                          "" if row.verdict == "ok" else row.verdict))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        absent = [f"{row.what} {row.version or ''}".strip() for row in ran if KERNEL in getattr(row, "wall", "")]
        table = [f"Egress on Linux {platform.release()}, {len(ran)} rows of {len(ROWS)}:", *table,
                 f"Absent from this kernel, as root outside of all sandboxes is told: {', '.join(absent) or 'none of these'}"]
        print("".join(f"# {line}\n" for line in table), end="")
        file = table_file()
        if file:
            file.write_text("\n".join(table) + "\n")
        if "HOTCELL_TEST_ROWS" not in os.environ:
            self.assertEqual(len(ran), len(ROWS))
            self.assertGreaterEqual(len(ran), 60)


if __name__ == "__main__":
    unittest.main()
