"""Nothing that a program does makes its bill smaller: all that its cgroup was charged with is in the ledger, and all that it says itself, too.

HOTCELL_TEST_METER_PROGRAMS=0: without the BPF programs, see measured.py.
"""

import json
import time
import unittest

import daemons
import measured
import scenario
import stubs
from measured import HAS_PROGRAMS, usec

GAMES = (measured.HERE / "games.py").read_text()


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(runtime_arguments=measured.RUNTIME_ARGUMENTS))
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Game:
    """Cells in a sandbox of its own, which then ends. @pause_usec: how much CPU time is used after each cell but the last, before the next."""

    def __init__(self, *cells, pause_usec=0):
        self.sandbox_id = measured.sandbox(client)
        groups = measured.Groups(running, self.sandbox_id)
        measured.run(client, self.sandbox_id, measured.PRELUDE + GAMES)
        self.runs = []
        for cell in cells:
            end = groups.read().cpu_usec + pause_usec if self.runs else 0
            daemons.wait_until(lambda end=end: groups.read().cpu_usec >= end, "what goes on uses CPU time")
            self.runs.append(measured.run(client, self.sandbox_id, cell))
        self.own_usec = json.loads(self.runs[-1].stdout)["cpu"] * 1e6
        self.file_usec = groups.read().cpu_usec
        scenario.delete(client, self.sandbox_id)
        self.records, self.sums = measured.ledger(client, sandbox_id=self.sandbox_id)
        self.total = scenario.get(client, self.sandbox_id).usage.total


class Evasion(unittest.TestCase):
    def play(self, *cells, least, pause_usec=0):
        """@least: microseconds that are used for certain."""
        game = Game(*cells, pause_usec=pause_usec)
        billed = usec(game.sums.cpu_time)
        self.assertGreaterEqual(game.own_usec, least, "the game used what it was to use")
        self.assertGreaterEqual(billed, game.file_usec - measured.CPU_USEC, "what its cgroup was charged with")
        self.assertGreaterEqual(billed, game.own_usec - measured.CPU_USEC, "what it says itself")
        self.assertEqual(usec(game.total.cpu_time), billed, "GetSandbox and the ledger")
        self.assertEqual([record.sequence for record in game.records], list(range(1, len(game.records) + 1)))
        self.assertFalse(any(record.incomplete for record in game.records))
        if HAS_PROGRAMS:
            self.assertGreaterEqual(usec(game.sums.scheduled_time), game.file_usec - measured.cpu_bar(game.file_usec), "as BPF saw it")
        print(f"# {cells[0]:<44} billed {billed / 1000:8.1f} ms, cgroup {game.file_usec / 1000:8.1f} ms, own {game.own_usec / 1000:8.1f} ms")
        return game

    def play_at_once(self, name, least):
        """A game that is over when its cell is."""
        game = self.play(f"tell({name})", least=least)
        used = usec(game.runs[0].ended.usage.cpu_time)
        self.assertGreaterEqual(used, game.own_usec - measured.cpu_bar(used), "the execution's own bill")

    def test_other_user_ids(self):
        self.play_at_once("other_ids", 200_000)

    def test_children_that_end_on_another_cpu(self):
        self.play_at_once("on_another_cpu", 200_000)

    def test_short_threads(self):
        self.play_at_once("short_threads", 200_000)

    def test_hopping_over_all_cpus(self):
        self.play_at_once("hopping", 300_000)

    def test_sleeping_through_ticks(self):
        self.play_at_once("between_ticks", 280_000)

    def test_yielding(self):
        self.play_at_once("yielding", 300_000)

    def test_priorities(self):
        self.play_at_once("nice_and_idle", 300_000)

    def test_stops(self):
        self.play_at_once("stopped", 500_000)

    def test_a_chain_of_programs(self):
        self.play_at_once("executed", 100_000)

    def test_programs_started_by_other_threads(self):
        self.play_at_once("executed_by_threads", 500_000)

    def hold(self, cell, times):
        """(byte seconds that cells held, those that they were billed, those that their sandbox was each second), after a rest each."""
        sandbox_id = measured.sandbox(client)
        measured.run(client, sandbox_id, measured.PRELUDE + GAMES)
        before = scenario.get(client, sandbox_id).usage.total.memory_byte_seconds
        begin = time.monotonic()
        runs = []
        for _ in range(times):
            time.sleep(1)  # the rest
            runs.append(measured.run(client, sandbox_id, cell))
        total = scenario.get(client, sandbox_id).usage.total.memory_byte_seconds - before
        seconds = time.monotonic() - begin
        scenario.delete(client, sandbox_id)
        held = sum(int(run.stdout) for run in runs)
        billed = sum(run.ended.usage.memory_byte_seconds for run in runs)
        print(f"# {cell}: held {held >> 20} MiB s, billed {billed >> 20} MiB s, and {total >> 20} MiB s to the sandbox in {seconds:.1f} s")
        return held, billed, total / seconds, seconds

    def test_memory_that_is_held_between_looks(self):
        """On average they see all of it; of so many, they do not miss three quarters."""
        *_, without, _ = self.hold("held_by_turns(1, 10)", 1)
        held, _, rate, seconds = self.hold(f"held_by_turns({32 << 20}, 20)", 4)
        self.assertGreaterEqual((rate - without) * seconds, held / 4)

    def test_memory_that_is_held_for_less_than_a_second(self):
        """It is looked at from the start, also after a rest: the first time after 100 ms on average, and 400 at most."""
        held, billed, *_ = self.hold(f"held({32 << 20}, 0.7)", 4)
        self.assertGreaterEqual(billed, held * 3 // 4)

    def test_vfork(self):
        self.play_at_once("spawned", 50_000)

    def test_names_and_files_of_its_own(self):
        self.play_at_once("renamed", 240_000)

    def test_other_groups(self):
        self.play_at_once("moved", 200_000)

    def test_double_forks(self):
        self.play("forked_twice()", "told(hear() / 1e6)", least=400_000)

    def test_orphans(self):
        self.play("orphans()", "told(hear() / 1e6)", least=400_000)

    def test_children_that_nobody_waits_for(self):
        self.play("unreaped()", "told(hear() / 1e6)", least=200_000)

    def test_a_thread_that_outlives_its_cell(self):
        game = self.play("began = clock(); outliving_thread()", "outliving.join(); told(clock() - began)", least=500_000)
        first, second = (run.ended.usage for run in game.runs)
        self.assertGreaterEqual(usec(first.cpu_time) + usec(second.cpu_time), 400_000)
        self.assertGreaterEqual(usec(second.cpu_time), 250_000)
        if HAS_PROGRAMS:
            self.assertGreaterEqual(usec(second.earlier_work_time), 250_000)
            self.assertLessEqual(usec(second.earlier_work_time), usec(second.scheduled_time))
            self.assertLessEqual(usec(first.earlier_work_time), measured.CPU_USEC)

    def test_a_process_that_outlives_its_cell(self):
        game = self.play("orphans()", "told(hear() / 1e6)", least=400_000)
        second = game.runs[1].ended.usage
        self.assertGreaterEqual(usec(second.cpu_time), 100_000)
        if HAS_PROGRAMS:
            self.assertGreaterEqual(usec(second.earlier_work_time), 100_000)

    def test_what_runs_when_no_cell_does(self):
        """It is in the sandbox's own records."""
        game = self.play("began = clock(); outliving_thread()", "outliving.join(); told(clock() - began)", least=500_000, pause_usec=200_000)
        of_executions = sum(usec(record.usage.cpu_time) for record in game.records if record.execution_id)
        self.assertGreaterEqual(usec(game.sums.cpu_time) - of_executions, 200_000 - measured.CPU_USEC)
