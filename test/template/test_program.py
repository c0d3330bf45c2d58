"""hotcell-template as a program: what it shows, and what an interrupted build leaves. No network."""

import base64
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
import unittest
import zipfile
from unittest import mock

from template_case import Case, IS_ROOT, SCRIPT, SOURCE, copy_for_others
from hotcell_template import build, child, recipe, spec, tree
from hotcell_template.errors import Interrupted
from hotcell_template.progress import Progress
from hotcell_template.store import Store


class Explanations(Case):
    def test_of_tools_that_failed(self):
        def failed(log):
            return child.Failed(["tool"], 1, log)

        for explain, log, reason in (
            (recipe.explain_mmdebstrap, "E: Could not connect to m.example:80, connection refused", "MIRROR_UNREACHABLE"),
            (recipe.explain_mmdebstrap, "Temporary failure resolving 'm.example'", "MIRROR_UNREACHABLE"),
            (recipe.explain_mmdebstrap, "GPG error: x: NO_PUBKEY 0123", "MIRROR_UNTRUSTED"),
            (recipe.explain_mmdebstrap, "E: Unable to locate package nosuch", "NO_PACKAGE"),
            (recipe.explain_mmdebstrap, "write failed: No space left on device", "NO_SPACE"),
            (recipe.explain_mmdebstrap, "anything else", "BUILD_FAILED"),
            (recipe.explain_pip, "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "HASH_MISMATCH"),
            (recipe.explain_pip, "NewConnectionError: refused", "INDEX_UNREACHABLE"),
            (recipe.explain_pip, "No matching distribution found for numpy", "NO_WHEEL"),
            (recipe.explain_pip, "No module named pip", "NO_TOOL"),
            (recipe.explain_pip, "[Errno 28] No space left on device", "NO_SPACE"),
        ):
            self.assertEqual(explain(failed(log)).reason, reason, log)

    def test_hide_passwords(self):
        error = recipe.explain_mmdebstrap(child.Failed(["x"], 1, "Failed to fetch http://u:secret@m.example/"))
        self.assertNotIn("secret", str(error))


class Lines(Case):
    class Terminal:
        def __init__(self, is_terminal):
            self.is_terminal = is_terminal
            self.text = ""

        def isatty(self):
            return self.is_terminal

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    def run_stage(self, mode, is_terminal):
        stream = self.Terminal(is_terminal)
        times = iter((10.0, 10.05, 11.0, 12.5) if mode == "auto" and is_terminal else (10.0, 12.0))
        progress = Progress(mode, "template python", stream, lambda: next(times))
        progress.begin("working")
        progress.tick()
        progress.tick()
        progress.end()
        return stream.text

    def test_plain_lines_elsewhere(self):
        self.assertEqual(self.run_stage("auto", False), "template python: working ...\ntemplate python: working: 2.0 s\n")

    def test_one_redrawn_line_on_a_terminal(self):
        text = self.run_stage("auto", True)
        self.assertEqual(text.count("\n"), 1)
        self.assertEqual(text.count("\r"), 3, "a tick that comes too early draws nothing")
        self.assertTrue(text.endswith("\r\x1b[Ktemplate python: working: 2.5 s\n"))

    def test_nothing_when_asked(self):
        self.assertEqual(self.run_stage("none", True), "")


@unittest.skipUnless(IS_ROOT, "needs root: makes namespaces")
class Children(Case):
    def test_take_all_their_children_with_them(self):
        deadline = time.monotonic() + 60

        def tick():
            # All three are what they are to be; before, they are the shell's copies or `setsid`.
            if list(processes_with("98765").values()).count(["sleep", "98765"]) == 3:
                raise Interrupted(signal.SIGTERM)
            self.assertLess(time.monotonic(), deadline)

        script = "setsid sleep 98765 & setsid sleep 98765 & sleep 98765"
        with self.assertRaises(Interrupted):
            child.run(["/bin/sh", "-c", script], env={"PATH": os.environ["PATH"]}, log=self.path("log"), tick=tick)
        self.assertEqual(processes_with("98765"), {})

    def test_keep_their_temporary_files_where_the_build_removes_them(self):
        os.mkdir(self.path("scratch"))
        child.run(["mktemp", "-d"], env={"PATH": "/usr/bin", "TMPDIR": "/tmp"}, log=self.path("scratch", "log"), tick=lambda: None)
        self.assertEqual(len(os.listdir(self.path("scratch"))), 2)

    def test_failures_carry_what_was_said(self):
        with self.assertRaises(child.Failed) as caught:
            child.run(["/bin/sh", "-c", "echo why; exit 3"], env={"PATH": "/usr/bin"}, log=self.path("log"), tick=lambda: None)
        self.assertEqual(caught.exception.log, "why\n")


def processes_with(word):
    """The command lines of others by process id."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                line = file.read()
        except OSError:
            continue
        if word in line and int(pid) != os.getpid():
            found[int(pid)] = line.split("\0")[:-1]
    return found


def make_wheel(directory):
    """A wheel that pip accepts, and its hash."""
    os.makedirs(directory)
    path = os.path.join(directory, "tiny-1.0-py3-none-any.whl")
    metadata = "tiny-1.0.dist-info/"
    files = {
        "tiny.py": "",
        metadata + "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        metadata + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        archive.writestr(metadata + "RECORD", record + metadata + "RECORD,,\n")
    return tree.hash_file(path)


@unittest.skipUnless(IS_ROOT, "needs root: builds")
@unittest.skipUnless(shutil.which("mmdebstrap"), "needs mmdebstrap")
class Commands(Case):
    """The real program with the real tools, and a mirror on the loopback that never answers or is not there."""

    def setUp(self):
        super().setUp()
        digest = make_wheel(self.path("wheels"))
        with open(os.path.join(SOURCE, "python", "template.toml"), encoding="utf-8") as file:
            self.write("template/template.toml", file.read())
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{digest}\n")
        self.write("kernel/main.py", "")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        self.environment.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=self.path("wheels"), PIP_CONFIG_FILE="/dev/null")

    def start(self, mirror, *arguments):
        command = [SCRIPT, "build", "python", "--store", self.path("store"), "--template-dir", self.path("template")]
        command += ["--kernel-dir", self.path("kernel"), "--mirror", mirror, "--progress", "plain", *arguments]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def mirror(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/debian"

    def assert_nothing_left(self):
        self.assertEqual(sorted(os.listdir(self.path("store"))), ["by-base", "by-input", "by-name"])
        for kind in ("by-base", "by-input", "by-name"):
            self.assertEqual(os.listdir(self.path("store", kind)), [])
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            self.assertNotIn(self.path("store"), file.read())
        self.assertEqual(processes_with(self.path("store")), {})

    def wait_for_mirror_use(self):
        self.listener.settimeout(60)
        connection, _ = self.listener.accept()
        self.addCleanup(connection.close)

    def test_a_signal_ends_the_build_and_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                process = self.start(self.mirror())
                self.wait_for_mirror_use()
                started = time.monotonic()
                process.send_signal(number)
                _, errors = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 128 + number, errors)
                self.assertLess(time.monotonic() - started, 5)
                self.assertIn("interrupted", errors)
                self.assert_nothing_left()

    def test_a_signal_at_any_moment_of_the_start_is_one_line(self):
        # To the whole group, as Ctrl-C does, from the first instruction on and while it imports.
        for n in range(30):
            process = self.start(self.mirror())
            time.sleep(n * 0.004)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            # Ended before it could be asked to wait with that, it has made nothing and says nothing.
            said = [line for line in errors.splitlines() if not line.startswith("template python: ")]
            wanted = [] if process.returncode == -signal.SIGINT else ["hotcell-template: interrupted, nothing is left behind"]
            self.assertEqual(said, wanted)
            self.assertIn(process.returncode, (-signal.SIGINT, 128 + signal.SIGINT))
            self.assertFalse(processes_with(self.path("store")))

    def test_a_tool_that_the_signal_ended_is_no_failure(self):
        def tick():
            raise Interrupted(signal.SIGINT)

        with self.assertRaises(Interrupted):
            child.run(["/bin/sh", "-c", "kill -INT $$"], env={"PATH": "/usr/bin"}, log=self.path("log"), tick=tick)

    def test_a_killed_builder_takes_its_tools_along_and_the_next_build_cleans_up(self):
        process = self.start(self.mirror())
        self.wait_for_mirror_use()
        process.kill()
        process.communicate(timeout=30)
        deadline = time.monotonic() + 10
        while processes_with(self.path("store")) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(processes_with(self.path("store")), {})
        self.assertEqual(len(os.listdir(self.path("store"))), 4)
        # Any next build does; this one ends early.
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
        self.start(self.mirror()).communicate(timeout=60)
        self.assert_nothing_left()

    def mirror_that_is_gone(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            return f"http://127.0.0.1:{closed.getsockname()[1]}/debian"

    def test_an_unreachable_mirror_is_said_to_be_so(self):
        process = self.start(self.mirror_that_is_gone())
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("MIRROR_UNREACHABLE", errors)
        self.assertIn("--mirror", errors)
        self.assert_nothing_left()

    def test_a_wheel_that_is_not_the_locked_one_is_refused(self):
        self.write("template/requirements.lock", f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
        _, errors = self.start(self.mirror()).communicate(timeout=60)
        self.assertIn("HASH_MISMATCH", errors)
        self.assert_nothing_left()

    def test_root_without_the_right_to_make_namespaces_is_told_so(self):
        command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", SCRIPT, "build", "python"]
        command += ["--store", self.path("store"), "--kernel-dir", self.path("kernel")]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("NO_NAMESPACES", run.stderr)
        self.assert_nothing_left()

    def test_a_full_disk_is_said_before_anything_is_done(self):
        template = spec.read_template(os.path.join(SOURCE, "python"))
        store = Store(self.path("store"))
        job = build.Build(template, self.path("kernel"), store, Progress("none", ""), lambda: None)
        with mock.patch.object(store, "free_bytes", lambda: 1 << 30):
            self.assertIn("1024 MiB", self.assert_fails("NO_SPACE", job.run))
        self.assert_nothing_left()

    def test_other_users_are_told_to_become_root(self):
        os.chmod(self.directory, 0o755)
        copy = os.path.join(self.directory, "runtime", "template")
        copy_for_others(SOURCE, copy)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                   os.path.join(copy, os.path.basename(SCRIPT)), "build", "python"]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("NO_ROOT", run.stderr)


class CommandLine(Case):
    def setUp(self):
        super().setUp()
        loader = importlib.machinery.SourceFileLoader("hotcell_template_command", SCRIPT)
        self.command = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(self.command)

    def test_finds_its_data_in_the_source_tree_and_installed(self):
        found = self.command.data_directory("kernels", "python")
        self.assertEqual(found, os.path.normpath(os.path.join(SOURCE, "..", "kernels", "python")))
        with mock.patch.object(self.command, "HERE", "/usr/libexec/hotcell"):
            self.assertEqual(self.command.data_directory("kernels", "python"), "/usr/share/hotcell/kernels/python")
            self.assertEqual(self.command.data_directory("templates", "python"), "/usr/share/hotcell/templates/python")

    def test_differences_of_packages_are_named(self):
        def manifest(**versions):
            return {"packages": [{"name": n, "version": v} for n, v in versions.items()], "wheels": []}

        self.assertEqual(
            self.command.manifest_differences(manifest(a="1", b="1"), manifest(b="2", c="1")),
            [("-", "package a 1"), ("~", "package b 1 -> 2"), ("+", "package c 1")],
        )


if __name__ == "__main__":
    unittest.main()
