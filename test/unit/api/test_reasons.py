"""Each reason that a client may be given has a test that names it, and is sent by the server."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
TABLE = "server/api/reasons.h"

# In the table before the feature that sends them. One that the server does send does not belong here.
NOT_YET_SENT = {}


def text_of(folder, *suffixes):
    """All sources of a folder by path, this file and the table left out."""
    left_out = {ROOT / TABLE, pathlib.Path(__file__).resolve()}
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace")
            for path in sorted((ROOT / folder).rglob("*"))
            if path.suffix in suffixes and path not in left_out and "node_modules" not in path.parts}


def names():
    found = re.findall(r"^ +X\(([A-Z0-9_]+), RPC_", (ROOT / TABLE).read_text(encoding="utf-8"), re.MULTILINE)
    return [name for name in found if name != "NAME"]


def places(sources, pattern):
    return [path for path, text in sources.items() if re.search(pattern, text)]


class Reasons(unittest.TestCase):
    def setUp(self):
        self.names = names()
        self.tests = text_of("test", ".c", ".py", ".mjs")
        self.server = text_of("server", ".c", ".h")

    def test_the_table_was_read(self):
        document = (ROOT / "docs/REASONS.md").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r"^\| `([A-Z0-9_]+)`", document, re.MULTILINE), self.names)
        self.assertLessEqual(set(NOT_YET_SENT), set(self.names))

    def test_each_reason_is_named_by_a_test(self):
        # As a text that is compared; code names of gRPC and words in comments are not in quotes with nothing else.
        missing = [name for name in self.names if name not in NOT_YET_SENT
                   and not places(self.tests, rf"[\"']{name}[\"']")]
        self.assertEqual(missing, [], "no test names them: cause each in a test, best of all through the API")

    def test_each_reason_is_sent(self):
        sent = {name for name in self.names if places(self.server, rf"\bREASON_{name}\b")}
        self.assertEqual(set(self.names) - sent - set(NOT_YET_SENT), set(), "the server sends them nowhere: they promise nothing")
        self.assertEqual(sent & set(NOT_YET_SENT), set(), "the server sends them: take them off NOT_YET_SENT and test them")


if __name__ == "__main__":
    unittest.main()
