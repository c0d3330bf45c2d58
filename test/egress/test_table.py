"""A table of what programs in a sandbox try to send out: what is allowed arrives, and what is not is refused at once by the wall that it names,
and never arrives. The hosts' own count says what arrived. What is refused is also tried outside, where it does arrive: else a row would prove
nothing. The table is printed as comments, and by test/run; HOTCELL_TEST_ROWS=TEXT runs the rows that have it in their line.
"""

import os
import unittest

import daemons
import rows
import scene as scenes
from rows import BPF, CAPABILITY, KERNEL, PING, RELAY, ROUTE, SECCOMP

scene = scenes.Scene()
sandboxes = {}
# hotcell-egress asks it, and so does the test outside.
ALWAYS_SEEN = {("udp", "9.9.9.9", 53), ("tcp", "9.9.9.9", 53)}


def setUpModule():
    scene.enter()
    scene.world.set_zones(rows.ZONES)
    for outside in (scene.world.outside, scene.world.nobody):
        outside.run(f"AUTHORITY = {scene.world.authority!r}\n{scenes.PRELUDE}\nSECONDS = 0.2")
    scene.world.outside.run(f"""
listeners = []
for address in {list(rows.HOME.values())!r}:
    s = socket.create_server((address, {rows.LISTENER}), family=family_of(address))
    s.setblocking(False)
    listeners.append(s)""")
    for name, policy in rows.POLICIES.items():
        sandboxes[name] = scene.create(*policy, default="ALLOW_PUBLIC" if name == "public" else "DENY")
    scene.run(sandboxes["public"], f"""
meeting = socket.socket(socket.AF_UNIX)
meeting.bind("\\0meeting")
meeting.listen()
server = socket.create_server(("127.0.0.1", {rows.LISTENER}))""")


class Table(unittest.TestCase):
    maxDiff = None

    def run_row(self, row):
        sandbox = sandboxes[row.policy]
        start = scene.fence(sandbox)
        mark = scene.world.mark()
        row.result = scene.inside(sandbox, row.code)
        expected = (row.expect,) if isinstance(row.expect, str) else row.expect
        self.assertIn(row.result, expected)
        self.check_event(row, sandbox, start)
        arrived = set(scene.world.arrived(mark)) - ALWAYS_SEEN
        asked = {event["name"] for event in scene.world.events(mark.n_events) if event["kind"] == "dns"}
        self.assertEqual(asked, set(row.names), "names that the name server was asked for")
        self.assertLessEqual(set(row.seen), arrived, "did not arrive")
        beyond = {(protocol, address) for protocol, address, _ in arrived} - {(protocol, address) for protocol, address, _ in row.seen}
        self.assertEqual(beyond, set(), "arrived, and must not")
        self.check_host()
        self.check_outside(row)
        row.wall = self.wall_of(row)
        self.assertIn(row.wall.split(", ")[0], row.walls)

    def check_event(self, row, sandbox, start):
        if row.event:
            scene.wait_log(sandbox, start, **row.event)
            return
        end = scene.fence(sandbox)
        between = [scenes.short(event) for event in scene.log(sandbox) if start < event.sequence < end]
        self.assertEqual([event for event in between if event["type"] != "FLOW_ENDED"], [])

    def check_host(self):
        """The listeners on the host's own addresses were not reached."""
        self.assertEqual(scene.world.outside.run("""
result = 0
for listener in listeners:
    try:
        listener.accept()
        result += 1
    except BlockingIOError:
        pass"""), 0, "the host itself was reached")

    def check_outside(self, row):
        """Tried outside it arrives."""
        if not row.aim:
            return
        mark = scene.world.mark()
        for outside in (scene.world.nobody, scene.world.outside):
            outside.run(f"result = {row.outside or row.code}")
        arrived = set(scene.world.arrived(mark)) | {("dns", event["name"]) for event in scene.world.events(mark.n_events) if event["kind"] == "dns"}
        self.assertLessEqual(set(row.aim), arrived, "the same outside does not arrive, so the row shows nothing")

    def wall_of(self, row):
        """Which one it was, by what can be seen. BPF refuses at once and tells. A seccomp filter tells nothing, and refuses before the kernel looks
        at anything else: the row's probe is refused in the same way, which outside fails in another one. A capability is missing if nobody lacks
        it outside, too, and root does not."""
        if row.result == "EPERM" and row.event:
            return BPF
        special = {"EACCES": PING, "ENETUNREACH": ROUTE, "timeout": "no answer"}.get(row.result)
        if special in row.walls:
            return special
        if not set(row.walls) & {SECCOMP, CAPABILITY, KERNEL}:
            return RELAY if row.result.startswith("then") and RELAY in row.walls else row.walls[0]
        root, nobody = (outside.run(f"result = {row.code}") for outside in (scene.world.outside, scene.world.nobody))
        found = []
        if row.probe and scene.inside(sandboxes[row.policy], row.probe) == row.result != scene.world.outside.run(f"result = {row.probe}"):
            found.append(SECCOMP)
        elif row.result not in (root, nobody):
            found.append(SECCOMP)
        if root in (row.result, "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"):
            found.append(KERNEL)
        elif row.result == nobody:
            found.append(CAPABILITY)
        return ", ".join(found)


def title(row):
    return f"{row.what}{f', IPv{row.version}' if row.version else ''}, policy {row.policy}"


def add_row(number, row):
    def test(self):
        try:
            self.run_row(row)
            row.verdict = "ok"
        finally:
            row.verdict = getattr(row, "verdict", "FAILED")
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


class Whole(unittest.TestCase):
    """Runs after Table."""

    def test_the_table_is_long_enough_and_printed(self):
        ran = [row for row in ROWS if hasattr(row, "verdict")]
        lines = [("what", "IP", "policy", "result", "refused by", "at the hosts", "")]
        for row in ran:
            seen = " ".join(f"{address} {port}" for _, address, port in row.seen) or "-"
            lines.append((row.what, str(row.version or "-"), row.policy, row.result.strip(), getattr(row, "wall", "?"), seen,
                          "" if row.verdict == "ok" else row.verdict))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        print("".join(f"# {line}\n" for line in table), end="")
        # For test/run, which shows it.
        logs = daemons.build_folder() / "meson-logs"
        if logs.is_dir():
            (logs / "egress-table.txt").write_text("\n".join(table) + "\n")
        if "HOTCELL_TEST_ROWS" not in os.environ:
            self.assertGreaterEqual(len(ran), 60)


if __name__ == "__main__":
    unittest.main()
