"""What the attackers' tests share: code for inside, and the walls' prelude."""

import pathlib

_WALLS = pathlib.Path(__file__).with_name("test_walls.py").read_text()
PRELUDE = _WALLS.split('PRELUDE = r"""')[1].split('"""')[0]
CHANNEL = _WALLS.split('CHANNEL = """')[1].split('"""')[0]


def rss_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")
