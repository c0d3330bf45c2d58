"""The figures: what is run, beside what, and the bars: one for the median, one for the slow end."""

import contextlib

import jupyter
import machine
import rounds
from programs import Failed
from report import Figure, Series
from stats import Bar, median

CODE, RESULT = "1+1", "2"
UNARY_BYTES = 64  # about as much as a request for `1+1`
CHUNK_BYTES = 64 << 10


def _series(name, unit, includes, samples, is_ours=False):
    return Series(name, unit, includes, samples[name], is_ours) if name in samples else None


def _present(*series):
    return [s for s in series if s]


def _least(names, samples):
    medians = [median(samples[name]) for name in names if name in samples]
    return min(medians) if medians else None


def slow_bar(ours, reference, milliseconds):
    """For times. What a busy machine adds to the slow end it adds to the other side's as well."""
    beyond = max(0, reference.slow_end() - reference.summary.median) if reference else 0
    text = f"p99 at most 3 x its median + {milliseconds} ms"
    if reference:
        text += f" + what p99 of {reference.name} is above its median"
    return Bar(text, 3 * ours.summary.median + milliseconds * 1e6 + beyond, of_slow_end=True)


def _fastest(series):
    return min(series, key=lambda one: one.summary.median, default=None)


def create(lab, counts):
    """A sandbox from nothing to RUNNING, beside containers that run `true`."""

    def hotcell():
        nanoseconds, sandbox_id = lab.hotcell.ask("create")
        lab.hotcell.ask("delete", sandbox_id)
        return int(nanoseconds)

    sides = {"hotcell": hotcell}
    if lab.containers.crun:
        sides["crun run, user ns, seccomp, limits"] = lambda: lab.containers.run_crun("walled")
        sides["crun run, default spec"] = lambda: lab.containers.run_crun("plain")
    if lab.containers.bwrap:
        sides["bwrap --unshare-all"] = lab.containers.run_bwrap
    for side in sides.values():
        side()
    samples = rounds.interleave(sides, counts["create"], lab.pause)
    ours = _series(
        "hotcell", "ns",
        "CreateSandbox to its answer over gRPC: all namespaces, overlay, seccomp, limits, init executed, the row in the "
        "database; without an interpreter and without its end",
        samples,
    )
    crun = _crun(samples)
    bwrap = _series("bwrap --unshare-all", "ns", "the whole command: namespaces only, no cgroup, no filter, no overlay", samples)
    return Figure(
        "create", ours, [*crun, *_present(bwrap)],
        [Bar("less than the fastest crun run", _least([one.name for one in crun], samples)), slow_bar(ours, _fastest(crun), 5)],
    )


def _crun(samples):
    return _present(
        _series(
            "crun run, user ns, seccomp, limits", "ns",
            "the whole command: `true` on the same root with the same list of system calls, run and removed; no "
            "overlay, no gRPC, no database", samples,
        ),
        _series("crun run, default spec", "ns", "the same with crun's own default: no user namespace, no filter", samples),
    )


def delete(lab, counts):
    """The end of a sandbox in which code has run, beside containers that are made, run `true` and are removed."""

    def hotcell():
        _, sandbox_id = lab.hotcell.ask("create")
        lab.run(sandbox_id, CODE, RESULT)
        lab.pause()
        return int(lab.hotcell.ask("delete", sandbox_id)[0])

    sides = {"hotcell": hotcell}
    if lab.containers.crun:
        sides["crun run, user ns, seccomp, limits"] = lambda: lab.containers.run_crun("walled")
    for side in sides.values():
        side()
    samples = rounds.interleave(sides, counts["delete"], lab.pause)
    crun = _crun(samples)
    ours = _series(
        "hotcell", "ns",
        "DeleteSandbox to its answer over gRPC: the interpreter that ran `1+1` and all else of the sandbox ended, usage "
        "read, the rows in the database", samples,
    )
    return Figure(
        "delete", ours, crun,
        [Bar("less than that crun run", _least([one.name for one in crun], samples)), slow_bar(ours, _fastest(crun), 5)],
    )


def cold(lab, counts):
    """From nothing to the result of the first cell."""
    ended = []

    def hotcell():
        to_result, to_ended, _, _ = lab.run("-", CODE, RESULT)
        ended.append(to_ended)
        return to_result

    sides = {"hotcell": hotcell}
    if not jupyter.missing:
        sides["ipykernel"] = lambda: jupyter.first_result(CODE)
    for side in sides.values():
        side()
    ended.clear()
    samples = rounds.interleave(sides, counts["cold"], lab.pause)
    samples["hotcell, to ended"] = ended
    ours = _series("hotcell", "ns", "one-shot Execute to the result of `1+1`: sandbox made, IPython started, code run", samples)
    to_ended = _series("hotcell, to ended", "ns", "the same calls to the last event, with the usage", samples, is_ours=True)
    ipykernel = _series(
        "ipykernel", "ns",
        "jupyter_client: start of Debian's ipykernel to the first execute_reply of `1+1`; no sandbox; another Python "
        "(the host's)", samples,
    )
    return Figure(
        "cold", ours, _present(to_ended, ipykernel),
        [Bar("less than ipykernel", _least(["ipykernel"], samples)), slow_bar(ours, ipykernel, 5)],
    )


def warm(lab, counts):
    """`1+1` where an interpreter waits."""
    with contextlib.ExitStack() as stack:
        sandbox_id = stack.enter_context(lab.sandbox())
        sides = {
            "hotcell": lambda: lab.run(sandbox_id, CODE, RESULT)[1],
            "bare gRPC": lambda: int(lab.echo.ask("unary", UNARY_BYTES)[0]),
        }
        if not jupyter.missing:
            kernel = stack.enter_context(jupyter.Kernel())
            sides["ipykernel"] = lambda: kernel.run_timed(CODE)
        for side in list(sides.values()) * 5:
            side()
        samples = rounds.interleave(sides, counts["warm"], lab.pause)
    ours = _series("hotcell", "ns", "Execute of `1+1` in its context: request to the `ended` event, with result and usage", samples)
    bare = _series(
        "bare gRPC", "ns",
        f"unary call of {UNARY_BYTES} bytes to a server of the same gRPC layer on a unix socket, same client", samples,
    )
    ipykernel = _series("ipykernel", "ns", "jupyter_client: `1+1` to reply and idle; the client is Python", samples)
    return Figure(
        "warm", ours, _present(bare, ipykernel),
        [Bar("at most 4 x bare gRPC + 1 ms", 4 * bare.summary.median + 1e6), slow_bar(ours, bare, 5)],
    )


def stdout(lab, counts):
    """Bytes a second of a program that writes as fast as it may."""
    n_chunks = (counts["stdout_mib"] << 20) // CHUNK_BYTES
    total = n_chunks * CHUNK_BYTES
    code = f'import os; b = b"x" * {CHUNK_BYTES}; any(os.write(1, b) != len(b) for _ in range({n_chunks}))'

    with lab.sandbox() as sandbox_id:

        def hotcell():
            _, _, n_bytes, nanoseconds = lab.run(sandbox_id, code, "False", 2 * total)
            return n_bytes / nanoseconds * 1e9

        def bare():
            nanoseconds, n_bytes = map(int, lab.echo.ask("stream", n_chunks))
            return n_bytes / nanoseconds * 1e9

        sides = {"hotcell": hotcell, "bare gRPC stream": bare}
        for side in sides.values():
            side()
        samples = rounds.interleave(sides, counts["stdout"], lab.pause)
    ours = _series(
        "hotcell", "B/s",
        f"{counts['stdout_mib']} MiB by os.write of 64 KiB through pipe, ring and Execute, from the first to the last "
        "output at the client", samples,
    )
    return Figure(
        "stdout", ours,
        [
            _series(
                "bare gRPC stream", "B/s",
                "as many messages of 64 KiB, packed beforehand, from a server of the same gRPC layer, same client", samples,
            )
        ],
        [
            Bar("at least 0.4 of the bare stream", 0.4 * median(samples["bare gRPC stream"]), more_is_better=True),
            Bar("the slowest at least a third of its median", ours.summary.median / 3, more_is_better=True, of_slow_end=True),
        ],
    )


def memory(lab, counts):
    """What sandboxes and daemons hold while nothing happens."""
    charged, idle, resident, ipykernel = [], [], [], []
    for _ in range(counts["memory"]):
        others = set(machine.children(lab.runtime_pid))
        with lab.sandbox() as sandbox_id:
            lab.pause()
            idle.append(int(lab.hotcell.ask("usage", sandbox_id)[0]))
            lab.run(sandbox_id, CODE, RESULT)
            lab.pause()
            charged.append(int(lab.hotcell.ask("usage", sandbox_id)[0]))
            resident.append(_resident(set(machine.children(lab.runtime_pid)) - others))
        if not jupyter.missing:
            with jupyter.Kernel() as kernel:
                kernel.run(CODE)
                lab.pause()
                ipykernel.append(kernel.rss_bytes())
    samples = {"hotcell, RSS": resident, "hotcell, charged": charged, "hotcell, charged before any code": idle}
    if ipykernel:
        samples["ipykernel, RSS"] = ipykernel
    daemons = _daemons(lab.runtime_pid)
    samples.update({name: [machine.resident_bytes(pid)] for name, pid in daemons.items()})
    ours = _series(
        "hotcell, RSS", "B",
        "the processes of a sandbox after `1+1`: init and IPython, pages that they share with others included", samples,
    )
    return Figure(
        "memory", ours,
        _present(
            _series("ipykernel, RSS", "B", "the process after `1+1`, pages that it shares with others included", samples),
            _series(
                "hotcell, charged", "B",
                "usage of the same sandboxes: what their cgroup is charged for; pages of the template are the first reader's",
                samples, is_ours=True,
            ),
            _series("hotcell, charged before any code", "B", "the same before an interpreter started", samples, is_ours=True),
            *[_series(name, "B", "RSS of the process at the end", samples, is_ours=True) for name in daemons],
        ),
        [
            Bar("at most ipykernel", _least(["ipykernel, RSS"], samples)),
            Bar("the largest at most 1.5 x its median", 1.5 * ours.summary.median, of_slow_end=True),
        ],
    )


def _resident(pids):
    if not pids:
        raise Failed("the sandbox has no process among the children of hotcell-runtime")
    return sum(machine.resident_bytes(pid) for pid in pids)


def _daemons(runtime_pid):
    """Names and ids of the processes that stay."""
    names = {"hotcelld": "hotcelld", "hotcell-runtime": "hotcell-runtime, its spawner"}
    found = {"hotcell-runtime": runtime_pid}
    for pid in machine.children(runtime_pid):
        name = names.get(machine.program_of(pid))
        if name:
            found.setdefault(name, pid)
    return found


def restart(lab, counts):
    """hotcelld is killed while code runs: how long nobody is answered, and until what runs is heard of again."""
    import restarts  # pylint: disable=import-outside-toplevel  # it generates a client first

    answers, events = restarts.measure(lab.target, lab.runtime_pid, counts["restart"])
    ours = Series(
        "hotcell, to an event", "ns",
        "kill -9 of hotcelld to the next event of an execution that printed all the time, attached again after its last "
        "sequence; 100 ms of it are the wait before the new start", events,
    )
    return Figure(
        "restart", ours,
        [Series("hotcell, to an answer", "ns", "the same kills to the first answer of GetSandbox; a new connection each try", answers, True)],
        [Bar("at most 1 s", 1e9), slow_bar(ours, None, 500)],
    )


ALL = {
    "create": create, "delete": delete, "cold": cold, "warm": warm, "stdout": stdout, "memory": memory,
    "restart": restart,  # last: the others measure a hotcelld that has run for a while
}
