# What programs do to be billed less, as a text that a test runs in a sandbox after inside.py. Each game uses CPU time and says how much by its own
# clocks. What outlives its cell holds a pipe, so that a later cell can wait for its end and read what it used.

said_r, said_w = os.pipe()


def say_and_exit(began=0):
    "Of a process that nobody waits for."
    os.write(said_w, b"%d\n" % ((time.process_time() - began) * 1e6))
    os._exit(0)


def hear():
    "What those said that are over: microseconds. To be called once, in another cell."
    os.close(said_w)
    with os.fdopen(said_r) as lines:
        return sum(map(int, lines))


def told(seconds):
    print(json.dumps({"cpu": seconds}))


def tell(work, *arguments):
    "Does it and prints what it used."
    begin = clock()
    work(*arguments)
    told(clock() - begin)


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return None


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


# --- other ids ---

def other_ids():
    for _ in range(200):
        wait(child(with_other_ids))


def with_other_ids():
    attempt(os.setresuid, 0, 0, 0)
    attempt(os.setuid, 1001)
    attempt(os.setresuid, 1000, 1000, -1)
    attempt(os.setgid, 0)
    attempt(os.setgroups, [])
    attempt(os.seteuid, 65534)
    attempt(os.setsid)
    spin(0.001)


# --- who is gone when it is asked ---

def forked_twice():
    "Its parent is gone at once."
    for _ in range(20):
        if os.fork() == 0:
            if os.fork() == 0:
                spin(0.02)
                say_and_exit()
            os._exit(0)
        os.wait()


def orphans():
    for _ in range(4):
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            spin(0.1)
            say_and_exit()


def unreaped():
    "Children that nobody waits for in time: the kernel forgets them by itself."
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(100):
        if os.fork() == 0:
            spin(0.002)
            say_and_exit()


def on_another_cpu():
    "Each ends on another CPU than the one where it began."
    cpus = sorted(os.sched_getaffinity(0))

    def move_and_spin(n):
        for i in range(4):
            os.sched_setaffinity(0, {cpus[(n + i) % len(cpus)]})
            spin(0.0005)
    for n in range(100):
        wait(child(move_and_spin, n))


# --- threads ---

def outliving_thread():
    "It goes on when the cell is over."
    global outliving
    outliving = threading.Thread(target=spin, args=(0.5,))
    outliving.start()


def short_threads():
    for _ in range(400):
        thread = threading.Thread(target=spin, args=(0.0005,))
        thread.start()
        thread.join()


def hopping():
    "From CPU to CPU, each time for less than a tick."
    cpus = sorted(os.sched_getaffinity(0))
    end = time.thread_time() + 0.3
    n = 0
    while time.thread_time() < end:
        n += 1
        os.sched_setaffinity(0, {cpus[n % len(cpus)]})
        hashlib.sha256(BLOCK)
    os.sched_setaffinity(0, set(cpus))


def between_ticks():
    "On no CPU when a timer looks who is."
    for _ in range(400):
        spin(0.0007)
        time.sleep(0.0003)


def yielding():
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        hashlib.sha256(BLOCK)
        os.sched_yield()


# --- priorities and stops ---

def nice_and_idle():
    def work():
        attempt(os.setpriority, os.PRIO_PROCESS, 0, 19)
        attempt(os.setpriority, os.PRIO_PROCESS, 0, -20)
        attempt(os.sched_setscheduler, 0, os.SCHED_IDLE, os.sched_param(0))
        attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
        spin(0.3)
    wait(child(work))


def stopped():
    "Stopped and continued, children by their parent and themselves."
    pids = [child(spin, 0.2) for _ in range(2)]
    for _ in range(50):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.0005)
            os.kill(pid, signal.SIGCONT)
    for pid in pids:
        wait(pid)

    def stop_oneself():
        for _ in range(20):
            spin(0.005)
            os.kill(os.getpid(), signal.SIGSTOP)
    pid = child(stop_oneself)
    while os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]):
        os.kill(pid, signal.SIGCONT)


# --- another program ---

def executed():
    "A chain of 100 programs in one process, another name each."
    script = 'i=$1; [ "$i" -gt 0 ] || exit 0; n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done; exec -a "name$i" bash -c "$2" bash $((i-1)) "$2"'
    subprocess.run(["bash", "-c", script, "bash", "100", script], check=True)


def executed_by_threads():
    "Another program by a thread that is not the first one: it goes on with the first one's number."
    def work():
        spin(0.1)
        threading.Thread(target=os.execv, args=("/bin/sh", ["sh", "-c", "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done"])).start()
        signal.pause()
    for _ in range(5):
        wait(child(work))


def held(n_bytes, seconds):
    "Memory that is given back before the cell is over: prints its byte seconds."
    print(int(n_bytes * hold(n_bytes, time.monotonic() + seconds)))


def hold(n_bytes, end):
    "Until then: for how long."
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(n_bytes), 3, 0x8022, -1, ctypes.c_long(0))  # read and write; private, of no file, at once
    begin = time.monotonic()
    time.sleep(max(end - begin, 0))
    held = time.monotonic() - begin
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes))
    return held


def held_by_turns(n_bytes, turns):
    "Given back again and again before anybody may look: prints its byte seconds."
    begin = time.monotonic()
    held = 0
    for turn in range(turns):
        time.sleep(max(begin + turn * 0.2 - time.monotonic(), 0))
        held += hold(n_bytes, begin + turn * 0.2 + 0.1)
    print(int(n_bytes * held))


def spawned():
    "By vfork: the child runs on its parent's memory until it is another program."
    for _ in range(60):
        subprocess.run(["sh", "-c", "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done"], check=True, close_fds=False)


# --- names and other things of one's own ---

def renamed():
    def work():
        for n, path in enumerate(("comm", "autogroup", "sched", "timerslack_ns", "oom_score_adj", "loginuid", "clear_refs", "timens_offsets")):
            libc.prctl(15, b"init%d" % n, 0, 0, 0)  # PR_SET_NAME
            attempt(write, f"/proc/self/{path}", "1")
            attempt(write, f"/proc/thread-self/{path}", "0")
            for flag in (0x2000000, 0x20000000, 0x10000000, 0x80):  # cgroup, pid, user, time
                attempt(os.unshare, flag)
            spin(0.03)
    wait(child(work))


def moved():
    "Into another group, if there were one to be seen."
    def work():
        for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/proc/1/root/sys/fs/cgroup", "/dev/cgroup"):
            for name in ("cgroup.procs", "cgroup.threads", "tasks"):
                attempt(write, f"{folder}/{name}", "0")
        attempt(os.mkdir, "/sys/fs/cgroup/mine")
        spin(0.2)
    wait(child(work))
