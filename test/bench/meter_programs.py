# What the bench of the meter times, as a text that runs in a sandbox.
import json, os, resource, subprocess, time

CPU = min(os.sched_getaffinity(0))
SHELL = ["/bin/sh", "-c", "x=$(true); true | cat >/dev/null; /bin/true"]


def cpu_nsec():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + int((children.ru_utime + children.ru_stime) * 1e9)


def timed(work, *arguments):
    "Prints nanoseconds of wall time and of CPU time, of the second time: the first meets what the switch did to the caches."
    work(*arguments)
    wall, cpu = time.perf_counter_ns(), cpu_nsec()
    work(*arguments)
    print(json.dumps([time.perf_counter_ns() - wall, cpu_nsec() - cpu]))


# --- two processes that only wait for each other, on one CPU ---

there_r, there_w = os.pipe()
back_r, back_w = os.pipe()
if os.fork() == 0:
    os.sched_setaffinity(0, {CPU})
    os.close(there_w)
    while data := os.read(there_r, 1):
        os.write(back_w, data)
    os._exit(0)


def ping_pong(n):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CPU})
    for _ in range(n):
        os.write(there_w, b"x")
        os.read(back_r, 1)
    os.sched_setaffinity(0, before)


# --- as `make` does: short programs one after the other, each in a process of its own, by a shell ---

def fork_load(n):
    for _ in range(n):
        subprocess.run(SHELL, check=True)


# --- a script of pandas ---

def prepare_pandas(n):
    global frame, names
    import numpy, pandas
    random = numpy.random.default_rng(1)
    frame = pandas.DataFrame({"key": random.integers(0, 1000, n), "value": random.random(n)})
    names = pandas.DataFrame({"key": range(1000), "name": [f"name {i % 97}" for i in range(1000)]})


def pandas_script():
    joined = frame.merge(names, on="key")
    sums = joined.groupby("name")["value"].agg(["sum", "mean", "max"]).sort_values("sum")
    assert len(sums) == 97 and joined["name"].str.endswith("7").any()
