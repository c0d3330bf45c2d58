"""./dev and demo/run with tools that only play their part: what is shown while they work, and two at once."""

import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 60

# Each tool finds the test's folder in $STATE.
TOOLS = {
    "id": "echo 0",
    "getent": "exit 0",
    # It notes whose sources it was for, as Meson does.
    "meson": """
        mkdir -p "$2/meson-info"; touch "$2/build.ninja"; echo "$*" >>"$STATE/meson-calls"
        printf '{"directories": {"source": "%s"}}' "$PWD" >"$2/meson-info/meson-info.json"
    """,
    "install": 'for last; do :; done; mkdir -p "$last"',
    # As long as one works no other may.
    "ninja": """
        mkdir "$STATE/ninja-works" || exit 1
        touch "$STATE/ninja-began"
        echo "ninja: Entering directory somewhere"; echo "[1/2] Compiling a.c"; echo "a.c: warning: odd"
        while [ -e "$STATE/ninja-waits" ]; do sleep 0.02; done
        rmdir "$STATE/ninja-works"
    """,
    "dpkg-query": """
        if [ "$4" = pkg-config ] && [ -e "$STATE/lacks" ]; then exit 1; fi
        echo installed
    """,
    "apt-get": """
        echo "$*" >>"$STATE/apt-calls"
        mkdir "$STATE/apt-works" || exit 1
        case "$*" in
        *" update") if [ -e "$STATE/lists-locked" ]; then
                rm "$STATE/lists-locked"; rmdir "$STATE/apt-works"
                echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"; exit 100
            fi
            echo "dlstatus:1:50.5:Retrieving file 1 of 2" >&3 ;;
        *) touch "$STATE/apt-began"
            echo "pmstatus:pkg-config:45.6789:Unpacking pkg-config (amd64)" >&3
            while [ -e "$STATE/apt-waits" ]; do sleep 0.02; done
            if [ -e "$STATE/apt-fails" ]; then
                rmdir "$STATE/apt-works"; echo "E: no room on the disk"; exit 100
            fi
            rm -f "$STATE/lacks" ;;
        esac
        rmdir "$STATE/apt-works"
    """,
    # The client, for demo/run.
    "hotcell": """
        case "$1 $2" in
        "exec sbx-one") [ "$3" != - ] || cat >/dev/null ;;
        esac
        case "$1 $2" in
        "sandbox create") echo sbx-one ;;
        exec*) while [ $# -gt 0 ] && [ "$1" != --save ]; do shift; done
            [ $# -gt 0 ] || exit 0
            echo "$$" >"$2/1-display.png"
            touch "$STATE/drawn"
            while [ -e "$STATE/demo-waits" ]; do sleep 0.02; done ;;
        esac
    """,
}

# What `up` starts: the template's builder, a daemon that owns its run folder as hotcell-runtime does, and the client.
BUILT = {
    "runtime/template/hotcell-template": "#!/bin/sh\n",
    "build/runtime/supervisor/hotcell-runtime": """#!/usr/bin/python3
import fcntl, os, pathlib, signal, sys
run, state = pathlib.Path(sys.argv[2]), pathlib.Path(os.environ["STATE"])
(run / "private").mkdir(exist_ok=True)
lock = open(run / "private/lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit("in use")
with open(state / "daemons", "a") as daemons:
    print(os.getpid(), file=daemons)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
(state / "daemon-began").touch()
while True:
    signal.pause()
""",
    "build/cli/hotcell": '#!/bin/sh\n[ -e "$STATE/daemon-began" ] && [ ! -e "$STATE/never-serves" ]\n',
}


def without_seconds(text):
    return re.sub(r" \(\d+ s\)", "", text)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-dev-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.state = self.folder / "state"
        for name in ("state", "bin", "demo"):
            (self.folder / name).mkdir()
        for name, text in TOOLS.items():
            path = self.folder / "bin" / name
            path.write_text("#!/bin/sh\n" + text)
            path.chmod(0o755)
        shutil.copy(ROOT / "dev", self.folder)
        shutil.copy(ROOT / "demo/run", self.folder / "demo")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOTCELL_") and name != "NO_COLOR"},
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "STATE": str(self.state), "TERM": "xterm",
            "HOTCELL_DEV_LOCK": str(self.folder / "machine.lock"), "HOTCELL_DEV_PROGRESS_SECONDS": "0"}

    def start(self, *command):
        process = subprocess.Popen(command or [self.folder / "dev", "build"], cwd=self.folder, env=self.environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def dev(self, *words, code=0):
        """What it says when it ends so."""
        process = self.start(self.folder / "dev", *words)
        output, errors = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, code, errors)
        return output + errors

    def run_dev(self, code=0):
        process = self.start()
        _, errors = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, code, errors)
        return without_seconds(errors).splitlines()

    def show_dev(self):
        """What a terminal would get."""
        main, sub = pty.openpty()
        with subprocess.Popen([self.folder / "dev", "build"], env=self.environment, stdin=sub, stdout=sub, stderr=sub) as process:
            os.close(sub)
            shown = b""
            try:
                while got := os.read(main, 65536):
                    shown += got
            except OSError:
                pass  # how a terminal ends
        os.close(main)
        self.assertEqual(process.returncode, 0, shown)
        return without_seconds(shown.decode())

    def mark(self, *names):
        for name in names:
            (self.state / name).touch()

    def wait_for(self, name):
        end = time.monotonic() + TIMEOUT
        while not (self.state / name).exists():
            self.assertLess(time.monotonic(), end, name)
            time.sleep(0.02)


class Shown(Case):
    def test_only_steps_are_named_where_nothing_is_missing(self):
        self.assertEqual(self.run_dev(), ["== configuring", "== building (the first time takes some minutes)",
                                          "[1/2] Compiling a.c", "a.c: warning: odd"])
        self.assertFalse((self.state / "apt-calls").exists())

    def test_an_installation_shows_how_far_it_is(self):
        self.mark("lacks")
        lines = self.run_dev()
        self.assertEqual(lines[0], "== installing 1 Debian packages: pkg-config")
        self.assertIn("apt-get update: 50 %, Retrieving file 1 of 2", lines)
        self.assertIn("apt-get install: 45 %, Unpacking pkg-config (amd64)", lines)
        calls = (self.state / "apt-calls").read_text().splitlines()
        self.assertTrue(all("DPkg::Lock::Timeout=" in call for call in calls), calls)
        self.assertTrue(calls[1].endswith("install --no-install-recommends pkg-config"), calls)

    def test_a_terminal_has_one_redrawn_line_and_colour_unless_told_not_to(self):
        self.mark("lacks")
        shown = self.show_dev()
        self.assertIn("\r\x1b[Kapt-get install: 45 %, Unpacking pkg-config (amd64)", shown)
        self.assertIn("\x1b[1m== building", shown)
        self.environment["NO_COLOR"] = "1"
        self.assertNotIn("\x1b[1m", self.show_dev())

    def test_a_failed_installation_shows_what_apt_said(self):
        self.mark("lacks", "apt-fails")
        lines = self.run_dev(code=1)
        self.assertEqual(lines[-2:], ["E: no room on the disk", "dev: apt-get install failed; what it said is above"])


class TwoAtOnce(Case):
    def second_waits(self, begun, waiting):
        """Starts two; the second must wait while the first has begun and waits itself."""
        self.mark(waiting)
        first = self.start()
        self.wait_for(begun)
        second = self.start()
        said = ""
        while "waiting for another ./dev" not in said:
            line = second.stderr.readline()
            self.assertTrue(line, "it ended: " + said)
            said += line
        (self.state / waiting).unlink()
        for process in (first, second):
            _, errors = process.communicate(timeout=TIMEOUT)
            self.assertEqual(process.returncode, 0, errors)

    def test_builds_take_turns(self):
        self.second_waits("ninja-began", "ninja-waits")

    def test_installations_take_turns_and_the_second_has_nothing_to_do(self):
        self.mark("lacks")
        self.second_waits("apt-began", "apt-waits")
        self.assertEqual(len((self.state / "apt-calls").read_text().splitlines()), 2)

    def test_an_apt_of_somebody_else_is_waited_for(self):
        self.mark("lacks", "lists-locked")
        self.assertIn("== waiting for another apt", self.run_dev())

    def test_demos_draw_into_folders_of_their_own(self):
        data = self.folder / "data.csv"
        data.write_text("a\n1\n")
        self.environment.update(HOTCELL_DEMO_OUTPUT=str(self.folder / "out"), HOTCELL_CLI=str(self.folder / "bin/hotcell"))
        (self.folder / "out").mkdir()
        for name in ("1-display.png", "2-result.html", "notes.txt"):
            (self.folder / "out" / name).write_text("of an earlier run")
        self.mark("demo-waits")
        command = [self.folder / "demo/run", data]
        first = self.start(*command)
        self.wait_for("drawn")
        (self.state / "drawn").unlink()
        second = self.start(*command)
        self.wait_for("drawn")
        (self.state / "demo-waits").unlink()
        shown = []
        for process in (first, second):
            output, errors = process.communicate(timeout=TIMEOUT)
            self.assertEqual(process.returncode, 0, errors)
            shown.append(output)
        self.assertIn(" --save out --usage", shown[0])
        self.assertIn(" --save out-2 --usage", shown[1])
        self.assertEqual(sorted(path.name for path in (self.folder / "out").iterdir()), ["1-display.png", "notes.txt"])
        self.assertEqual([path.name for path in (self.folder / "out-2").iterdir()], ["1-display.png"])


class UpAndDown(Case):
    def setUp(self):
        super().setUp()
        for name, text in BUILT.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.run_folder = self.folder / "run/hotcell"
        self.run_folder.parent.mkdir()
        self.environment.update(HOTCELL_DEV_RUN=str(self.run_folder), HOTCELL_DEV_STATE=str(self.folder / "database"))
        self.addCleanup(self.end_daemons)

    def daemons(self):
        """Those that live."""
        path = self.state / "daemons"
        pids = [int(line) for line in path.read_text().split()] if path.exists() else []
        return [pid for pid in pids if "hotcell-runtime" in self.command_line(pid)]

    @staticmethod
    def command_line(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return ""

    def end_daemons(self):
        for pid in self.daemons():
            os.kill(pid, signal.SIGKILL)

    def test_what_up_starts_down_stops(self):
        self.dev("up")
        self.assertEqual([f"{pid}\n" for pid in self.daemons()], [(self.run_folder / "pid").read_text()])
        self.dev("down")
        self.assertEqual(self.daemons(), [])
        self.assertFalse(self.run_folder.exists())
        self.assertIn("not up", self.dev("down", code=1))

    def test_options_of_the_runtime_are_passed_on(self):
        self.dev("up", "--egress-open=10.1.0.0/16", "--egress-nameserver=8.8.8.8", "--no-meter-programs")
        pid = (self.run_folder / "pid").read_text().strip()
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        self.assertIn("--egress-open=10.1.0.0/16", words[:words.index("--")])
        self.assertIn("--egress-nameserver=8.8.8.8", words[:words.index("--")])
        self.assertIn("--no-meter-programs", words[:words.index("--")])
        self.dev("down")
        for word in ("--egress-open", "--egress-open="):
            self.assertIn("up takes options with their values: write --egress-open=VALUE\n", self.dev("up", word, "10.0.0.0/8", code=1))
        for word in ("x", "--", "--=1", "-x=1"):
            self.assertIn(f"up takes no more words: {word}", self.dev("up", word, code=1))

    def test_of_two_at_once_one_serves_and_can_be_stopped(self):
        self.mark("ninja-waits")
        first = self.start(self.folder / "dev", "up")
        self.wait_for("ninja-began")
        second = self.start(self.folder / "dev", "up")
        self.assertIn("waiting for another ./dev", second.stderr.readline())
        (self.state / "ninja-waits").unlink()
        _, errors = first.communicate(timeout=TIMEOUT)
        self.assertEqual(first.returncode, 0, errors)
        _, errors = second.communicate(timeout=TIMEOUT)
        self.assertEqual(second.returncode, 1, errors)
        self.assertIn("already up", errors)
        self.assertEqual(len(self.daemons()), 1)
        self.dev("down")
        self.assertEqual(self.daemons(), [])

    def test_daemons_that_nobody_recorded_keep_their_folder(self):
        self.dev("up")
        pid = self.daemons()[0]
        (self.run_folder / "pid").write_text("1\n")
        (self.run_folder / "log").write_text("of the first")
        said = self.dev("down", code=1)
        self.assertIn(f"process {pid} serves on {self.run_folder}", said)
        self.assertIn(f"already up (process {pid})", self.dev("up", code=1))
        self.assertEqual(self.daemons(), [pid])
        self.assertEqual((self.run_folder / "log").read_text(), "of the first")

    def test_what_is_left_of_dead_daemons_is_no_hindrance(self):
        self.dev("up")
        os.kill(self.daemons()[0], signal.SIGKILL)
        (self.state / "daemon-began").unlink()
        self.dev("up")
        self.assertEqual(len(self.daemons()), 1)
        os.kill(self.daemons()[0], signal.SIGKILL)
        self.dev("down")
        self.assertFalse(self.run_folder.exists())

    def test_already_up_is_said_before_anything_is_built(self):
        self.dev("up")
        self.assertNotIn("building", self.dev("up", code=1))

    def test_an_interrupted_start_leaves_nothing(self):
        self.mark("never-serves")
        for words in (("up",), ("demo",)):
            with self.subTest(words=words):
                process = self.start(self.folder / "dev", *words)
                self.wait_for("daemon-began")
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=TIMEOUT)
                self.assertEqual(process.returncode, 143)
                self.assertEqual(self.daemons(), [])
                self.assertEqual(list((self.folder / "run").iterdir()), [])
                (self.state / "daemon-began").unlink()

    def test_daemons_that_are_not_recorded_yet_end_with_the_script(self):
        # As if it were interrupted between the start and the writing of the pid.
        script = self.folder / "dev"
        interrupted = 'while [ ! -e "$STATE/daemon-began" ]; do sleep 0.02; done; kill -TERM $$'
        script.write_text(script.read_text().replace('echo $! >"$run/pid"', interrupted))
        process = self.start(script, "demo")
        process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 143)
        self.assertEqual(self.daemons(), [])
        self.assertEqual(list((self.folder / "run").iterdir()), [])


class Words(Case):
    def test_a_moved_clone_configures_anew(self):
        self.dev("build")
        (self.folder / "build/old").touch()
        self.dev("build")
        self.assertTrue((self.folder / "build/old").exists())
        info = self.folder / "build/meson-info/meson-info.json"
        info.write_text(info.read_text().replace(str(self.folder), "/where/it/was"))
        self.assertIn("configuring anew: the build folder is of /where/it/was", self.dev("build"))
        self.assertFalse((self.folder / "build/old").exists())
        self.assertEqual(len((self.state / "meson-calls").read_text().splitlines()), 2)

    def test_help_is_no_error(self):
        for word in ("--help", "-h", "help"):
            self.assertIn("usage: ./dev COMMAND", self.dev(word))

    def test_unknown_words_are_refused_before_anything_is_built(self):
        (self.folder / "empty.csv").touch()
        (self.folder / "test/fuzz").mkdir(parents=True)
        (self.folder / "test/fuzz/fuzz_one.c").touch()
        with (self.folder / "large.csv").open("w") as file:
            file.truncate(64 * 1024 * 1024 + 1)
        for words, said in (
                (("up", "extra"), "up takes no more words: extra"),
                (("down", "extra"), "down takes no more words: extra"),
                (("demo", "--halp"), "demo has no option --halp"),
                (("demo", "a.csv", "b.csv"), "demo takes one file"),
                (("demo", "empty.csv"), "empty.csv is empty"),
                (("demo", "large.csv"), "large.csv is larger than 64 MiB"),
                (("demo", "no.csv"), "cannot read no.csv"),
                (("fuzz", "abc"), "fuzz takes whole seconds of at least 1, not 'abc'"),
                (("fuzz", "0"), "fuzz takes whole seconds of at least 1, not '0'"),
                (("fuzz", "1", "fuzz_two"), "there is no fuzzer 'fuzz_two'; there are: fuzz_one"),
                (("test", "units"), "there is no part 'units' of the tests; there are: unit integration kernels security egress meter faults vm")):
            with self.subTest(words=words):
                self.assertIn(said, self.dev(*words, code=1))
        self.assertFalse((self.folder / "build/build.ninja").exists())

    def test_the_parts_of_the_tests_are_those_that_there_are(self):
        script = (ROOT / "dev").read_text()
        named = set(re.search(r"^test_parts=\((.*)\)$", script, re.M).group(1).split())
        found = set()
        for path in ROOT.glob("test/**/meson.build"):
            found |= set(re.findall(r"suite: '(\w+)'", path.read_text()))
        self.assertEqual(named, found)
        self.assertIn(f"only these parts: {re.search(r'^test_parts=.(.*).$', script, re.M).group(1).replace(' ', ', ')}.", script)


if __name__ == "__main__":
    unittest.main()
