"""Cases of tests that run cells in a kernel in its template."""

import os
import shutil
import signal
import struct
import time
import unittest

import peer
from peer import Peer

_shared = None


def setUpModule():
    if os.geteuid() != 0 or not shutil.which("bwrap"):
        raise unittest.SkipTest("the kernel's tests need root and bwrap")
    if not os.path.exists(peer.template_root() + "/usr/bin/python3"):
        raise unittest.SkipTest("the python template is not built")


def tearDownModule():
    if _shared:
        _shared.close()


class KernelTest(unittest.TestCase):
    """Runs in one kernel for all tests of a class, as a long-lived context does."""

    @classmethod
    def setUpClass(cls):
        # Tasks that were left with an exception say so when they are collected, which may be in a later cell.
        global _shared
        if _shared is not None:
            _shared.close()
            _shared = None

    def setUp(self):
        global _shared
        if _shared is None or _shared.process.poll() is not None:
            _shared = Peer()
            _shared.run("import asyncio, os, signal, subprocess, sys, time")
        self.peer = _shared

    def run(self, result=None):
        """A kernel in which a test failed may be in the middle of anything: the next test gets a new one."""
        global _shared
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if _shared and len(result.failures) + len(result.errors) > before:
            _shared.close()
            _shared = None

    def run_code(self, code, **options):
        return self.peer.run(code, **options)

    def run_ok(self, code, **options):
        run = self.run_code(code, **options)
        self.assertEqual(run.all("error"), [])
        self.assertTrue(run.done.ok)
        return run

    def run_bad(self, code, name, **options):
        run = self.run_code(code, **options)
        self.assertEqual(run.error.name, name)
        self.assertFalse(run.done.ok)
        return run

    def value_of(self, code):
        return self.run_ok(code).result.text


class OwnKernelTest(KernelTest):
    """For what ends a kernel, or looks at a fresh one."""

    def setUp(self):
        self.peer = Peer()
        self.addCleanup(self.peer.close)
