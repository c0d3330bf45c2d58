"""`hotcell top` against a server that plays measurements: its screen under tmux, and its text in pipes."""

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from cli_case import CliTest, HOTCELL, TIMEOUT
from fake_server import Disconnect, Refuse, SANDBOX_ID, execution, grpc, sandbox, usage

MIB = 1 << 20


def amounts(cpu=0.0, wait=0.0, wall=0.0, sent=0, received=0, missing=()):
    result = execution.Usage(sent_bytes=sent, received_bytes=received, missing=missing)
    result.cpu_time.FromMicroseconds(round(cpu * 1e6))
    result.run_queue_wait.FromMicroseconds(round(wait * 1e6))
    result.wall_time.FromMicroseconds(round(wall * 1e6))
    return result


def box(number, name, executions=(), memory=64 * MIB, state=sandbox.SANDBOX_STATE_RUNNING, pressures=(), **fields):
    total = amounts(**fields)
    now = usage.SandboxUsageNow(sandbox_id="sbx-" + f"{number:02}" * 13, name=name, state=state)
    now.usage.CopyFrom(sandbox.SandboxUsage(memory_bytes=memory, disk_bytes=3 * MIB, processes=7, total=total))
    now.limits.CopyFrom(sandbox.SandboxLimits(memory_bytes=128 * MIB, cpu_millis=2000))
    for index, (used, held) in enumerate(executions):
        now.executions.add(execution_id="exe-" + f"{number}{index}" * 13, usage=used, memory_bytes=held)
    for kind in pressures:
        now.pressures.add(kind=kind)
    return now


def measurement(seconds, *boxes, more=False):
    message = usage.WatchUsageResponse(sandboxes=boxes, more=more)
    message.time.FromSeconds(1700000000 + seconds)
    return message


def busy(seconds):
    """Three sandboxes after so many seconds: alpha uses 1.5 CPUs, beta most memory, gamma nothing."""
    alpha = box(1, "alpha", cpu=1.5 * seconds, wait=0.25 * seconds, wall=600 + seconds, sent=2048 * seconds,
                received=5 * MIB * seconds, executions=[(amounts(cpu=1.25 * seconds, wall=12), 20 * MIB)],
                pressures=[execution.PRESSURE_KIND_CPU_THROTTLED])
    beta = box(2, "beta", memory=120 * MIB, wall=7200, cpu=0.5 * seconds, missing=["run_queue_wait"],
               pressures=[execution.PRESSURE_KIND_INODES])
    gamma = box(3, "gamma", memory=MIB, state=sandbox.SANDBOX_STATE_ENDING)
    return [alpha, beta, gamma]


class Played:
    """A WatchUsage that says what the test puts in."""

    def __init__(self, *messages):
        self.messages = queue.Queue()
        for message in messages:
            self.messages.put(message)

    def __call__(self, _request):
        while (message := self.messages.get()) is not None:
            if isinstance(message, Exception):
                raise message
            yield message


class Terminal:
    """A shell in a terminal of its own, with a tmux that has no configuration and is nobody else's."""

    def __init__(self, environment):
        self.folder = tempfile.mkdtemp(prefix="hotcell-tmux-")
        self.environment = {**environment, "TERM": "xterm-256color", "ENV": ""}

    def open(self, width, height):
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), "/bin/sh")
        self.wait(str.strip)

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", f"{self.folder}/socket", "-f", "/dev/null", *arguments],
                              env=self.environment, check=True, capture_output=True, timeout=TIMEOUT, text=True).stdout

    def close(self):
        self.tmux("kill-server")
        shutil.rmtree(self.folder)

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def keys(self, *names):
        self.tmux("send-keys", *names)

    def show(self, *options):
        return self.tmux("capture-pane", "-p", *options)

    def flag(self, name):
        return self.tmux("display-message", "-p", f"#{{{name}}}").strip()

    def wait(self, is_there, *options):
        deadline = time.monotonic() + TIMEOUT
        while not is_there(screen := self.show(*options)):
            if time.monotonic() > deadline:
                raise AssertionError(f"never came:\n{screen}")
            time.sleep(0.02)
        return screen


class Screen(CliTest):
    def open(self, *arguments, width=160, height=24, played=None, prefix="", **environment):
        self.played = played or Played(measurement(0, *busy(0)), measurement(2, *busy(2)))
        self.addCleanup(self.played.messages.put, None)
        self.server = self.serve(WatchUsage=self.played)
        terminal = Terminal(self.environment(self.server, **environment))
        self.addCleanup(terminal.close)
        terminal.open(width, height)
        terminal.type(prefix + shlex.join([HOTCELL, "top", *arguments]) + '; echo "code $?"')
        return terminal

    def lines(self, terminal, there="150%"):
        screen = terminal.wait(lambda screen: there in screen)
        return [line.rstrip() for line in screen.splitlines()]

    def left(self, terminal, code):
        screen = terminal.wait(lambda screen: f"code {code}" in screen)
        self.assertEqual(terminal.flag("alternate_on"), "0")
        self.assertEqual(terminal.flag("cursor_flag"), "1")
        terminal.type("stty -a")
        modes = terminal.wait(lambda screen: "iexten" in screen)
        self.assertRegex(modes, r"\bicanon\b")
        self.assertNotRegex(modes, r"-icanon|-echo\b|-ixon\b")
        self.assertRegex(modes, r"susp = \^Z")
        return screen

    def test_a_row_says_what_a_sandbox_uses(self):
        lines = self.lines(self.open())
        self.assertRegex(lines[0], r"^3 sandboxes +CPU 200% +memory 185\.0 MiB +every 1s +by CPU$")
        self.assertRegex(lines[1], r"^SANDBOX +NAME +AGE +CPU +MEMORY +PROCS .*PRESSURE$")
        self.assertRegex(lines[2], r"^sbx-01010101010101010101010101 +alpha +10m +\[\|{8} {2}\] +150% +\[\|{5} {5}\] +"
                                   r"64M +7 +3\.0M +2\.0K +5\.0M +25% +CPU limit used up$")
        self.assertRegex(lines[3], r"^ {2}exe-10101010\w+ +12s +125% +20M .*0%$")
        self.assertRegex(lines[4], r"^sbx-0202\w+ +beta +2h +\[\|{3} {7}\] +50% +\[\|{9} \] +120M .* inodes nearly full$")
        self.assertRegex(lines[5], r"^sbx-0303\w+ +gamma +ending ")
        self.assertRegex(lines[23], r"^q quit")

    def test_keys_sort_pause_and_quit(self):
        terminal = self.open()
        self.lines(terminal)
        for key, order in (("m", ["beta", "alpha", "gamma"]), ("n", ["alpha", "beta", "gamma"]),
                           ("c", ["alpha", "beta", "gamma"])):
            terminal.keys(key)
            word = {"m": "by memory", "n": "by name", "c": "by CPU"}[key]
            screen = terminal.wait(lambda screen, word=word: word in screen)
            self.assertEqual(re.findall(r"alpha|beta|gamma", screen), order)
        terminal.keys("p")
        terminal.wait(lambda screen: "PAUSED" in screen)
        self.played.messages.put(measurement(3, *busy(3)))
        self.played.messages.put(measurement(4, *busy(3)[:1]))
        terminal.keys("p")
        terminal.wait(lambda screen: "PAUSED" not in screen)
        self.played.messages.put(measurement(5, *busy(4)))
        terminal.wait(lambda screen: "CPU 150%" in screen)  # beta was not there before
        terminal.keys("q")
        self.left(terminal, 0)

    def test_other_sizes_draw_anew(self):
        terminal = self.open(width=100)
        for width, height, has, has_not in (
                (200, 30, ["DISK", "PRESSURE", "sbx-" + "01" * 13], []),
                (100, 20, ["WAIT", "NAME", "sbx-0101010101 "], ["DISK", "PROCS"]),
                (60, 12, ["WAIT", "alpha", "150%", "64M"], ["[", "AGE", "PRESSURE"]),
                (30, 8, ["150%", "64M", "sbx-0101010101 "], ["alpha", "WAIT"]),
                (20, 4, ["150%", "sbx-0101010101"], ["64M", "quit"])):
            terminal.tmux("resize-window", "-x", str(width), "-y", str(height))

            def fits(screen, has=has, has_not=has_not):
                return all(word in screen for word in has) and not any(word in screen for word in has_not)
            screen = terminal.wait(fits)
            self.assertLessEqual(max(map(len, screen.splitlines())), width)
        terminal.tmux("resize-window", "-x", "2", "-y", "1")
        terminal.wait(lambda screen: screen.strip() == "3")
        terminal.tmux("resize-window", "-x", "200", "-y", "30")
        self.lines(terminal, "CPU limit used up")
        terminal.keys("q")
        self.left(terminal, 0)

    def test_a_long_list_scrolls(self):
        many = [box(number, f"box-{number:02}") for number in range(60)]
        played = Played(measurement(0, *many[:30], more=True), measurement(0, *many[30:]),
                        measurement(1, *many[:30], more=True), measurement(1, *many[30:]))
        terminal = self.open("--sort", "name", height=13, played=played)
        terminal.wait(lambda screen: "1-10 of 60" in screen and "box-09" in screen and "60 sandboxes" in screen)
        for key, first in (("Down", 2), ("NPage", 12), ("PPage", 2), ("End", 51), ("Up", 50), ("Home", 1), ("Up", 1)):
            terminal.keys(key)
            screen = terminal.wait(lambda screen, first=first: f"{first}-{first + 9} of 60" in screen)
            self.assertEqual(re.findall(r"box-\d\d", screen), [f"box-{at:02}" for at in range(first - 1, first + 9)])
        terminal.keys("F5", "q")
        self.left(terminal, 0)

    def test_a_list_that_shrank_is_shown_to_its_end(self):
        many = [box(number, f"box-{number:02}") for number in range(60)]
        played = Played(measurement(0, *many[:30], more=True), measurement(0, *many[30:]))
        terminal = self.open("--sort", "name", height=13, played=played)
        terminal.wait(lambda screen: "1-10 of 60" in screen)
        terminal.keys("End")
        terminal.wait(lambda screen: "51-60 of 60" in screen)
        played.messages.put(measurement(1, *many[:12]))
        terminal.wait(lambda screen: "3-12 of 12" in screen and "box-02" in screen and "box-11" in screen)
        played.messages.put(measurement(2, *many[:4]))
        screen = terminal.wait(lambda screen: "4 sandboxes" in screen and "box-03" in screen)
        self.assertIn("box-00", screen)
        self.assertNotIn(" of 4", screen)

    def test_signals_leave_the_terminal_as_it_was(self):
        for name, code in (("INT", 130), ("TERM", 143), ("HUP", 129)):
            terminal = self.open()
            self.lines(terminal)
            self.assertEqual(terminal.flag("alternate_on"), "1")
            if name == "INT":
                terminal.keys("C-c")
            else:
                shell = terminal.flag("pane_pid")
                child = subprocess.run(["pgrep", "-P", shell], check=True, capture_output=True, text=True).stdout
                os.kill(int(child), getattr(signal, "SIG" + name))
            self.left(terminal, code)

    def test_keys_that_would_stop_it_do_nothing(self):
        terminal = self.open()
        self.lines(terminal)
        terminal.keys("C-z", "C-\\", "C-s", "m")
        terminal.wait(lambda screen: "by memory" in screen)
        terminal.keys("q")
        self.left(terminal, 0)

    def test_a_server_that_goes_is_said_and_tried_again(self):
        terminal = self.open()
        self.lines(terminal)
        self.server.stop()
        terminal.wait(lambda screen: "The server is away" in screen)
        self.played.messages.put(None)  # for the stream that was cut
        terminal.keys("m")
        terminal.wait(lambda screen: "by memory" in screen and "150%" in screen)
        self.server.start()
        self.played.messages.put(measurement(6, *busy(4)))
        self.played.messages.put(measurement(8, *busy(4)))
        terminal.wait(lambda screen: "The server is away" not in screen and "CPU 0%" in screen)
        terminal.keys("q")
        self.left(terminal, 0)

    def test_an_error_is_said_after_the_screen(self):
        played = Played(measurement(0), Refuse(grpc.StatusCode.PERMISSION_DENIED, "You may not."))
        terminal = self.open(played=played)
        self.assertIn("You may not.", self.left(terminal, 125))

    def test_a_sandbox_that_ends_ends_it(self):
        terminal = self.open(SANDBOX_ID, played=Played(measurement(0), None))
        self.assertIn(f"sandbox {SANDBOX_ID} has ended", self.left(terminal, 0).replace("\n", ""))

    def test_names_cannot_speak_to_the_terminal(self):
        evil = [box(1, "a\x1b[2J\x1b]0;x\x07b\n\u202e\u9580\x9bc", cpu=at, wall=90) for at in (0, 1)]
        evil[1].executions.add(execution_id="exe\x1bc\x1b[31m")
        terminal = self.open(played=Played(measurement(0, evil[0]), measurement(1, evil[1])))
        screen = terminal.wait(lambda screen: "100%" in screen, "-e")
        self.assertIn("a?[2J?]0;x?b?", screen)
        self.assertIn("  exe?c?[31m", screen)
        self.assertNotEqual(terminal.flag("pane_title"), "x")
        self.assertTrue(screen.isascii())

    def test_colours_are_left_out_on_demand(self):
        self.assertIn("\x1b[3", self.open().wait(lambda screen: "150%" in screen, "-e"))
        screen = self.open(NO_COLOR="1").wait(lambda screen: "150%" in screen, "-e")
        self.assertNotIn("\x1b", screen)

    def test_a_terminal_that_can_do_nothing_gets_text(self):
        terminal = self.open("-n", "1", prefix="TERM=dumb ")
        terminal.wait(lambda screen: "150%" in screen)
        self.assertEqual(terminal.flag("alternate_on"), "0")


class Text(CliTest):
    def played(self, *messages):
        return self.serve(WatchUsage=Played(*messages, None))

    def test_once_prints_the_use_of_one_period(self):
        ran = self.hotcell(self.played(measurement(0, *busy(0)), measurement(2, *busy(2)), measurement(3)),
                           "top", "--once", "--period", "250ms")
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        lines = ran.stdout.decode().splitlines()
        self.assertEqual(len(lines), 5)
        self.assertEqual(lines[0].split(), ["SANDBOX", "NAME", "AGE", "CPU", "MEMORY", "PROCS", "DISK", "OUT/s", "IN/s",
                                            "WAIT", "PRESSURE"])
        self.assertEqual(lines[1].split(maxsplit=10)[1:], ["alpha", "10m", "150%", "64M", "7", "3.0M", "2.0K", "5.0M",
                                                           "25%", "CPU limit used up"])
        self.assertRegex(lines[2], r"^ {2}exe-")

    def test_the_period_and_the_sandbox_are_asked_for(self):
        server = self.played(measurement(0), measurement(1))
        self.hotcell(server, "top", "--once", "--period", "250ms", SANDBOX_ID)
        name, request, _ = server.requests[-1]
        self.assertEqual((name, request.sandbox_id, request.period.nanos), ("WatchUsage", SANDBOX_ID, 250000000))

    def test_json_lines_have_what_came_and_the_rates(self):
        messages = [measurement(0, *busy(0)), measurement(2, *busy(2)[:1], more=True), measurement(2, *busy(2)[1:]),
                    measurement(4, *busy(4))]
        ran = self.hotcell(self.played(*messages), "top", "-o", "jsonl", "-n", "2")
        self.assertEqual(ran.returncode, 0)
        first, second = map(json.loads, ran.stdout.splitlines())
        self.assertEqual(first["time"], "2023-11-14T22:13:22.000Z")
        self.assertEqual([each["name"] for each in second["sandboxes"]], ["alpha", "beta", "gamma"])
        alpha, beta = first["sandboxes"][:2]
        self.assertEqual((alpha["cpus"], alpha["waiting_threads"]), (1.5, 0.25))
        self.assertEqual((alpha["sent_bytes_per_second"], alpha["received_bytes_per_second"]), (2048, 5 * MIB))
        self.assertEqual(alpha["executions"][0]["cpus"], 1.25)
        self.assertEqual((beta["cpus"], beta["waiting_threads"]), (0.5, None))
        self.assertEqual(alpha["usage"]["total"]["cpu_time"], "3s")

    def test_a_restart_of_the_server_is_not_seen(self):
        played = Played(measurement(0, *busy(0)), measurement(2, *busy(2), more=True), Disconnect(),
                        measurement(4, *busy(4)), None)
        ran = self.hotcell(self.serve(WatchUsage=played), "top", "--once", "-o", "jsonl")
        self.assertEqual((ran.returncode, ran.stderr), (0, b""))
        self.assertEqual(json.loads(ran.stdout)["sandboxes"][0]["cpus"], 1.5)

    def test_a_refusal_is_said(self):
        ran = self.hotcell(self.played(Refuse(grpc.StatusCode.INVALID_ARGUMENT, "The period is too short.")),
                           "top", "--once")
        self.assertEqual(ran.returncode, 125)
        self.assertIn(b"The period is too short.", ran.stderr)

    def test_a_reader_that_left_ends_it(self):
        played = Played(*(measurement(at, *busy(at)) for at in range(2000)))
        self.addCleanup(played.messages.put, None)
        process = self.spawn(self.serve(WatchUsage=played), "top", "-o", "jsonl")
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(TIMEOUT), 125)


if __name__ == "__main__":
    unittest.main()
