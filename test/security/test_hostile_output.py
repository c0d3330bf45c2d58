"""What a program or a tenant says, as the operator's terminal and disk get it from the command line."""

import os
import pathlib
import pty
import select
import subprocess
import tempfile
import time
import unittest

import daemons
import scenario
import stubs
from hostile import CHANNEL, PRELUDE
from scenario import MIB

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202eevil\x7f\r"
CODE = "'\\x1b]0;owned\\x07\\x1b[2J\\u009b31m\\u202eevil\\x7f\\r'"
HIDDEN = (b"\x1b]0", b"\x1b[2J", b"\xc2\x9b", b"\xe2\x80\xae", b"\x7f", b"\x07")


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def on_terminal(*arguments, seconds=60):
    """Runs the CLI with a terminal as all three streams; what it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HOTCELL_TARGET": running.target, "TERM": "xterm"}
    process = subprocess.Popen([daemons.build_folder() / "cli/hotcell", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
                               start_new_session=True)
    os.close(theirs)
    data, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and select.select([ours], [], [], 1)[0] or process.poll() is None:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    process.wait(30)
    return data


class Case(unittest.TestCase):
    def setUp(self):
        self.sandbox = scenario.create(client, memory=256 * MIB, labels={"l": ESCAPE}, limits={"disk_bytes": 64 * MIB}).sandbox_id
        self.addCleanup(scenario.delete, client, self.sandbox)

    def check(self, data, *more):
        for bad in (*HIDDEN, *more):
            self.assertNotIn(bad, data)


class Terminal(Case):
    def test_results_and_errors_move_no_cursor(self):
        for code in (f"class C:\n  def __repr__(self): return {CODE}\nC()", f"raise ValueError({CODE})", f"type({CODE}, (Exception,), {{}})()",
                     f"raise type({CODE}, (Exception,), {{}})('x')", f"exec(compile('1/0', {CODE}, 'exec'))"):
            self.check(on_terminal("exec", self.sandbox, "-c", code))

    def test_names_of_a_kernel_that_lies(self):
        code = PRELUDE + CHANNEL + """
def field(n, data): return bytes([n << 3 | 2]) + bytes([len(data)]) + data
for kind in range(64, 80): frame(kind, field(1, b"image/\\x1b[2Jx") + field(2, b"\\x1b[2J") + field(3, b"\\x1b[2J"))
"""
        self.check(on_terminal("exec", self.sandbox, "-c", code))

    def test_lists_and_details_move_no_cursor(self):
        for arguments in (("ps",), ("ps", "-a"), ("inspect", self.sandbox), ("ps", "-o", "json"), ("ps", "-o", "jsonl"), ("context", "ls", self.sandbox)):
            self.check(on_terminal(*arguments))

    def test_output_itself_is_the_programs(self):
        """As docker's: what a program writes reaches the terminal byte for byte."""
        self.assertIn(b"\x1b[31mred", on_terminal("exec", self.sandbox, "-c", "print('\\x1b[31mred\\x1b[0m')"))

    def test_json_of_events_moves_no_cursor(self):
        for form in ("json", "jsonl"):
            self.check(on_terminal("exec", self.sandbox, "-o", form, "-c", f"print({CODE}); {CODE}"))


class Saved(Case):
    CODE = """
class Rich:
    def _repr_mimebundle_(self, include=None, exclude=None): return {%r: "x" * 10, "image/png": b"png"}
Rich()"""

    def test_types_are_no_paths(self):
        for kind in ("../../etc/passwd", "image/../../x", "application/x.../../y+json", "text/html/../../z", "/etc/x", "a/b\0c", "-rf/x"):
            with tempfile.TemporaryDirectory() as folder:
                inner = pathlib.Path(folder, "a/b")
                inner.mkdir(parents=True)
                daemons.hotcell(running, "exec", self.sandbox, "--save", inner, "-c", self.CODE % kind)
                found = [str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file()]
                self.assertTrue(all(name.startswith("a/b/") and "/" not in name[4:] and name[4].isdigit() for name in found), found)

    def test_links_that_wait_are_not_followed(self):
        with tempfile.TemporaryDirectory() as folder:
            inner, victim = pathlib.Path(folder, "in"), pathlib.Path(folder, "victim")
            inner.mkdir()
            victim.write_text("safe")
            for extension in ("png", "bin", "html"):
                (inner / f"1-result.{extension}").symlink_to(victim)
            daemons.hotcell(running, "exec", self.sandbox, "--save", inner, "-c", self.CODE % "text/html")
            self.assertEqual(victim.read_text(), "safe")
            self.assertTrue([p for p in inner.iterdir() if not p.is_symlink()])


if __name__ == "__main__":
    unittest.main()
