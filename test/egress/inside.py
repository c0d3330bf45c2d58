# What programs in a sandbox try, as a text that a test runs there, and outside to see that it would arrive. Each returns what happened in a word:
# an errno's name (at once), "then ERRNO" (after connect had succeeded), "echo" (the bytes came back), or what came.
import array, ctypes, errno, http.client, json, os, re, socket, ssl, struct, threading, time, urllib.request

libc = ctypes.CDLL(None, use_errno=True)
SECONDS = 30
MESSAGE = b"hello, world\n"


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def name_of(error):
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno, str(error))


def attempt(function, *arguments):
    try:
        result = function(*arguments)
    except OSError as error:
        return name_of(error)
    return result if isinstance(result, str) else "done"


def value_of(code):
    "Of an expression, or what it raises."
    try:
        return eval(code)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def call(number, *arguments):
    "A system call that glibc does not have."
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if result == -1:
        return errno.errorcode[ctypes.get_errno()]
    return "done"


# --- TCP ---

def opened(address, port, kind=socket.SOCK_STREAM, family=None, protocol=0):
    s = socket.socket(family or family_of(address), kind, protocol)
    s.settimeout(SECONDS)
    return s


def talk(s, message=MESSAGE):
    got = b""
    try:
        s.sendall(message)
        while len(got) < len(message):
            data = s.recv(65536)
            if not data:
                return "then end"
            got += data
    except OSError as error:
        return f"then {name_of(error)}".replace("EPIPE", "ECONNRESET")
    return "echo" if got == message else repr(got)


def connect(s, address, port):
    "A reset may be there before connect() returns that it succeeded."
    try:
        s.connect((address, port))
    except ConnectionResetError:
        pass


def tcp(address, port, message=MESSAGE, family=None):
    def run():
        with opened(address, port, family=family) as s:
            connect(s, address, port)
            return talk(s, message)
    return attempt(run)


def listen_to(address, port):
    "What it says by itself."
    def run():
        with opened(address, port) as s:
            s.connect((address, port))
            try:
                return s.recv(100).decode() or "then end"
            except OSError as error:
                return f"then {name_of(error)}"
    return attempt(run)


def fast_open(address, port):
    def run():
        with opened(address, port) as s:
            s.settimeout(None)
            for number in (20, 21):  # SO_RCVTIMEO, SO_SNDTIMEO
                s.setsockopt(socket.SOL_SOCKET, number, struct.pack("ll", int(SECONDS), int(SECONDS % 1 * 1e6)))
            s.sendto(MESSAGE, 0x20000000, (address, port))
            return "echo" if s.recv(len(MESSAGE)) == MESSAGE else "?"
    return attempt(run)


def fast_open_connect(address, port):
    def run():
        with opened(address, port) as s:
            s.setsockopt(socket.IPPROTO_TCP, 30, 1)
            s.connect((address, port))
            return talk(s)
    return attempt(run)


def peer(address, port):
    with opened(address, port) as s:
        s.connect((address, port))
        return " ".join(map(str, s.getpeername()[:2]))


def half_closed_by_us(address, port):
    with opened(address, port) as s:
        s.connect((address, port))
        s.sendall(b"x" * 100000)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while data := s.recv(100):
            got += data
        return got.decode()


def half_closed_by_them(address, port):
    with opened(address, port) as s:
        s.connect((address, port))
        got = b""
        while data := s.recv(100):
            got += data
        for _ in range(10):
            s.sendall(b"y" * 1000)
        return got.decode()


def with_option(address, port, level, option, value):
    "Connects after a socket option was set."
    def run():
        with opened(address, port) as s:
            s.settimeout(2)
            s.setsockopt(level, option, value)
            s.connect((address, port))
            return talk(s)
    return attempt(run)


def option(address, level, number, value, kind=socket.SOCK_STREAM):
    def run():
        with opened(address, 0, kind) as s:
            s.setsockopt(level, number, value)
    return attempt(run)


def source_route(*hops):
    "An IP option: loose, by way of these."
    data = bytes([131, 3 + 4 * len(hops), 4]) + b"".join(socket.inet_aton(hop) for hop in hops)
    return data + bytes(-len(data) % 4)


def segment_route(*hops):
    "An IPv6 routing header of type 4, by way of these."
    count = len(hops) + 1
    return bytes([0, 2 * count, 4, count - 1, count - 1, 0, 0, 0]) + bytes(16) + b"".join(socket.inet_pton(socket.AF_INET6, hop) for hop in hops)


def bind_to(address, port, kind=socket.SOCK_STREAM):
    def run():
        with socket.socket(family_of(address), kind) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind((address, port))
            if kind == socket.SOCK_STREAM:
                s.listen()
    return attempt(run)


def by_bind(address, port):
    "connect() to nowhere in particular, which leads to where the socket is bound."
    nowhere = "::ffff:0.0.0.0" if ":" in address else "0.0.0.0"
    def run():
        with socket.socket(family_of(address), socket.SOCK_STREAM) as s:
            s.bind((address, 0))
            connect(s, nowhere, port)
            return talk(s, MESSAGE)
    return attempt(run)


def relay_port():
    "Of what listens here at all addresses."
    for line in open("/proc/net/tcp6").readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            return int(fields[1].split(":")[1], 16)
    return 0


def within(family, address):
    "A server of the sandbox itself."
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        def serve():
            with server.accept()[0] as s:
                while data := s.recv(1000):
                    s.sendall(data)
        thread = threading.Thread(target=serve)
        thread.start()
        result = tcp(address, server.getsockname()[1])
        thread.join()
        return result


# --- UDP and others ---

def udp_connect(address, port):
    def run():
        with opened(address, port, socket.SOCK_DGRAM) as s:
            s.connect((address, port))
            s.send(MESSAGE)
    return attempt(run)


def udp_send(address, port, message=MESSAGE, family=None, options=()):
    def run():
        with opened(address, port, socket.SOCK_DGRAM, family) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for level, number, value in options:
                s.setsockopt(level, number, value)
            s.sendto(message, (address, port))
    return attempt(run)


def udp_message(address, port):
    def run():
        with opened(address, port, socket.SOCK_DGRAM) as s:
            s.sendmsg([MESSAGE], [], 0, (address, port))
    return attempt(run)


def udp_after_local(address, port):
    "From a socket that is connected within the sandbox."
    def run():
        with opened(address, port, socket.SOCK_DGRAM) as s:
            s.connect(("::1" if ":" in address else "127.0.0.1", 9999))
            s.sendto(MESSAGE, (address, port))
    return attempt(run)


def packed(address, port):
    data = socket.inet_pton(family_of(address), address)
    if len(data) == 4:
        return struct.pack("=HH", socket.AF_INET, socket.htons(port)) + data + bytes(8)
    return struct.pack("=HHI", socket.AF_INET6, socket.htons(port), 0) + data + bytes(4)


def udp_many(address, port):
    "Two messages by one sendmmsg(2)."
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]
    class Message(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("name_size", ctypes.c_uint), ("vector", ctypes.POINTER(Vector)), ("n", ctypes.c_size_t),
                    ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint)]
    to = packed(address, port)
    vector = Vector(MESSAGE, len(MESSAGE))
    messages = (Message * 2)(*[Message(to, len(to), ctypes.pointer(vector), 1, None, 0, 0, 0) for _ in range(2)])
    with opened(address, port, socket.SOCK_DGRAM) as s:
        ctypes.set_errno(0)
        result = libc.sendmmsg(s.fileno(), messages, 2, 0)
        return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"


def ping(address):
    def run():
        protocol = 58 if ":" in address else 1
        with opened(address, 0, socket.SOCK_DGRAM, None, protocol) as s:
            s.sendto(struct.pack("!BBHHH", 128 if ":" in address else 8, 0, 0, 1, 1), (address, 0))
    return attempt(run)


def raw(address):
    def run():
        with opened(address, 0, socket.SOCK_RAW, None, 58 if ":" in address else 1) as s:
            s.sendto(struct.pack("!BBHHH", 128 if ":" in address else 8, 0, 0xfff7 - 0x0800, 0, 0), (address, 0))
    return attempt(run)


def packet(address):
    "A frame of our own, with a socket that is below IP."
    def run():
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86dd if ":" in address else 0x0800)) as s:
            head = (struct.pack("!IHBB", 6 << 28, 8, 17, 64) + bytes(15) + b"\1" + socket.inet_pton(socket.AF_INET6, address) if ":" in address else
                    struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + bytes(4) + socket.inet_aton(address))
            s.sendto(head + struct.pack("!HHHH", 7, 7, 8, 0), ("world0", 0x86dd if ":" in address else 0x0800, 0, 0, b"\xff" * 6))
    return attempt(run)


def make(family, kind, protocol):
    def run():
        socket.socket(family, kind, protocol).close()
    return attempt(run)


def by_uring(address, port):
    "An io_uring, with which to connect and send."
    parameters = ctypes.create_string_buffer(248)
    return call(425, 8, parameters)


def passed_over(address, port, kind):
    "A socket that another process made and sent over a unix socket."
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        with socket.socket(family_of(address), kind) as s:
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
        os._exit(0)
    _, control, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    os.waitpid(child, 0)
    ours.close()
    theirs.close()
    number = array.array("i", control[0][2])[0]
    with socket.socket(family_of(address), kind, 0, number) as s:
        s.settimeout(SECONDS)
        def run():
            s.connect((address, port))
            return talk(s) if kind == socket.SOCK_STREAM else s.send(MESSAGE)
        return attempt(run)


# --- names ---

def nameserver():
    return re.search(r"(?m)^nameserver (\S+)", open("/etc/resolv.conf").read())[1]


CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
TYPES = {"A": 1, "AAAA": 28, "TXT": 16, "NULL": 10, "ANY": 255, "MX": 15, "HTTPS": 65, "CNAME": 5}


def question(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack("!HHHHHH", 0x1234, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)


def skip_name(data, at):
    while data[at]:
        if data[at] >= 0xc0:
            return at + 2
        at += data[at] + 1
    return at + 1


def read_answer(data):
    count, = struct.unpack("!H", data[6:8])
    at, found = skip_name(data, 12) + 4, []
    for _ in range(count):
        at = skip_name(data, at)
        kind, _, _, size = struct.unpack("!HHIH", data[at:at + 10])
        at += 10
        if kind in (1, 28):
            found.append(socket.inet_ntop(socket.AF_INET6 if kind == 28 else socket.AF_INET, data[at:at + size]))
        elif kind in (TYPES["TXT"], TYPES["NULL"]):
            found.append(data[at + 1:at + size].decode())
        at += size
    return " ".join([CODES[data[3] & 15], *found])


def ask(name, kind="A", over="udp", server=None, port=53):
    server = server or nameserver()
    def run():
        with opened(server, port, socket.SOCK_DGRAM if over == "udp" else socket.SOCK_STREAM) as s:
            s.connect((server, port))
            if over == "udp":
                s.send(question(name, kind))
                return read_answer(s.recv(4096))
            s.sendall(with_length(question(name, kind)))
            return next_answer(s)
    return attempt(run)


def with_length(data):
    return struct.pack("!H", len(data)) + data


def next_answer(s):
    head = s.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:
        return "then end"
    size, = struct.unpack("!H", head)
    return read_answer(s.recv(size, socket.MSG_WAITALL))


def ask_at_once(*names):
    "Over TCP: all questions in one segment, then the answers in their order."
    def run():
        with opened(nameserver(), 53) as s:
            s.connect((nameserver(), 53))
            s.sendall(b"".join(with_length(question(name, "A")) for name in names))
            return ", ".join(next_answer(s) for _ in names)
    return attempt(run)


def lookup(name):
    "As programs do."
    try:
        return " ".join(sorted({info[4][0] for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}))
    except socket.gaierror as error:
        return {-2: "EAI_NONAME", -3: "EAI_AGAIN", -4: "EAI_FAIL", -5: "EAI_NODATA"}.get(error.errno, str(error))


def address_of(name, version):
    kind = "AAAA" if version == 6 else "A"
    return ask(name, kind).split()[1]


def named(name, port, version):
    "Asks for it, then connects to what it is."
    return tcp(address_of(name, version), port)


# --- HTTP and TLS ---

def request(host, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def status(s):
    data = s.recv(1000)
    return data.split(b"\r\n")[0].decode() if data else "then end"


def http_to(address, host, port=80, pieces=1, path="/"):
    "Says @host there, in so many pieces."
    def run():
        with opened(address, port) as s:
            s.connect((address, port))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                data = request(host, path)
                for i in range(pieces):
                    s.sendall(data[i * len(data) // pieces:(i + 1) * len(data) // pieces])
                    if pieces > 1:
                        time.sleep(0.05)  # so that they are pieces
                return status(s)
            except OSError as error:
                return f"then {name_of(error)}"
    return attempt(run)


def tls_to(address, name, port=443, again=0):
    "Says @name there (None: none), and with @again more requests of their own."
    def run():
        context = ssl.create_default_context(cadata=AUTHORITY)
        if name is None:
            context.check_hostname = False
        with opened(address, port) as s:
            s.connect((address, port))
            try:
                with context.wrap_socket(s, server_hostname=name) as t:
                    for _ in range(again + 1):
                        t.sendall(request(name or "x"))
                        result = status(t)
                    return result
            except ssl.SSLCertVerificationError:
                return "bad certificate"
            except ssl.SSLEOFError:
                return "then end"
            except OSError as error:
                return f"then {name_of(error)}"
    return attempt(run)


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return str(answer.status)
    except OSError as error:
        reason = getattr(error, "reason", error)
        return "no such name" if isinstance(reason, socket.gaierror) else name_of(reason if isinstance(reason, OSError) else error)
