# What programs in a sandbox use and how they say it, as a text that a test runs there before all else.
import ctypes, hashlib, json, mmap, os, resource, signal, socket, subprocess, sys, threading, time

BLOCK = bytes(1 << 16)
libc = ctypes.CDLL(None, use_errno=True)


def spin(seconds):
    "Until this thread used so much CPU time; of two threads neither waits for the other's interpreter lock."
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(BLOCK)


def of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clock():
    "CPU time of this process, all threads, and of the children that it waited for."
    return time.process_time() + of_children()


def resident_peak():
    "VmHWM."
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def measured(work, *arguments):
    "Does it and prints what it used by its own clocks: seconds, and the highest resident memory of any one process."
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM begins anew
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    begin = clock()
    work(*arguments)
    seconds = clock() - begin
    of_new = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"cpu": seconds, "rss": max(resident_peak(), of_new << 10 if of_new > children else 0)}))


def on_threads(n, work, *arguments):
    threads = [threading.Thread(target=work, args=arguments) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def child(work, *arguments):
    "A process that does it: its id."
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        finally:
            os._exit(0)
    return pid


def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0


# --- workloads ---

def fork_many(n):
    for _ in range(n):
        wait(child(int))


def touch_and_free(n_bytes):
    bytearray(b"x") * n_bytes


def map_file():
    "The template's largest library, page by page: it is resident and in the page cache, and nobody wrote it."
    folder = os.path.join(os.path.dirname(os.path.dirname(__import__("numpy").__file__)), "numpy.libs")
    path = max((os.path.join(folder, name) for name in os.listdir(folder)), key=os.path.getsize)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        return len(pages[::4096])


def write_files(n_bytes):
    with open("/tmp/written", "wb") as file:
        for _ in range(n_bytes >> 20):
            file.write(bytes(1 << 20))
    os.unlink("/tmp/written")


def echo(address, n_bytes):
    "Sends so much, reads it all back, and closes."
    with socket.create_connection((address, 7)) as s:
        def send():
            for _ in range(n_bytes >> 16):
                s.sendall(BLOCK)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        n = 0
        while data := s.recv(1 << 18):
            n += len(data)
        sender.join()
    assert n == n_bytes, n


def multiply(n, times):
    import numpy
    a = numpy.random.default_rng(1).random((n, n))
    for _ in range(times):
        a = a @ a
        a /= abs(a).max()
