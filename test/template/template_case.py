"""What tests of hotcell-template share. Whoever imports this can import hotcell_template."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SOURCE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "runtime", "template")
SCRIPT = os.path.join(SOURCE, "hotcell-template")
sys.path.insert(0, SOURCE)

from hotcell_template.errors import TemplateError  # noqa: E402

EPOCH = 1735689600
IS_ROOT = os.geteuid() == 0


def copy_for_others(source, target):
    """The source tree may be closed to other users, folders and files."""
    shutil.copytree(source, target)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="hotcell-test-")
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, path, content="", mode=0o644):
        full = self.path(path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(full, mode)
        return full

    def assert_fails(self, reason, function, *arguments):
        with self.assertRaises(TemplateError) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.reason, reason)
        return str(caught.exception)
