"""The digest of a file tree.

The digest is the SHA-256 of the *serialization*: the line `hotcell-tree-1\\n`,
then one record per entry, the root (`.`) included, in bytewise order of the
path relative to the root. A record is these fields, each ended by a NUL byte
(which no path and no link target can contain):

    path
    type        `d` directory, `f` regular file, `l` symbolic link
    mode        permission bits in octal, four digits; `0777` for links
    uid, gid    decimal
    payload     `f`: size in decimal, `:`, SHA-256 of the content in hex
                `l`: the link's target; `d`: empty
    n           number of extended attributes, then for each, by name:
    name        and
    value       SHA-256 of its value in hex

Times, inode numbers and hard links are not part of it; times are set to one
fixed moment instead. Devices, sockets and pipes have no place in a template.
"""

import hashlib
import os
import stat

from .errors import TemplateError

HEADER = b"hotcell-tree-1\n"
MAX_ID = 65535

# Set by the host's policy, not by the template.
_FOREIGN_XATTRS = {"security.selinux"}
_CHUNK = 1 << 20


class Tree:
    """What was found in a root: its serialization and a few sums over it."""

    def __init__(self, serialization, n_files, size_bytes):
        self.serialization = serialization
        self.n_files = n_files
        self.size_bytes = size_bytes

    @property
    def digest(self):
        return "sha256-" + hashlib.sha256(self.serialization).hexdigest()


def read(root, mtime=None, tick=lambda: None):
    """Reads the whole tree below @root; with @mtime also sets every entry's times to it."""
    root = os.fsencode(root)
    records = [HEADER]
    n_files = size_bytes = 0
    for path in sorted(_walk(root)):
        full = root if path == b"." else os.path.join(root, path)
        info = os.lstat(full)
        records.append(_record(path, full, info))
        if stat.S_ISREG(info.st_mode):
            n_files += 1
            size_bytes += info.st_size
        if mtime is not None:
            os.utime(full, (mtime, mtime), follow_symlinks=False)
        tick()
    return Tree(b"".join(records), n_files, size_bytes)


def _walk(root):
    yield b"."
    pending = [b""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(root, parent)) as entries:
            for entry in entries:
                path = os.path.join(parent, entry.name)
                yield path
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _record(path, full, info):
    kind, payload = _payload(path, full, info)
    if info.st_uid > MAX_ID or info.st_gid > MAX_ID:
        raise TemplateError("BAD_TREE", f"/{os.fsdecode(path)} belongs to an id above {MAX_ID}")
    fields = [path, kind, b"%04o" % stat.S_IMODE(info.st_mode), b"%d" % info.st_uid, b"%d" % info.st_gid, payload]
    names = sorted(set(os.listxattr(full, follow_symlinks=False)) - _FOREIGN_XATTRS)
    fields.append(b"%d" % len(names))
    for name in names:
        value = os.getxattr(full, name, follow_symlinks=False)
        fields += [os.fsencode(name), hashlib.sha256(value).hexdigest().encode()]
    return b"\0".join(fields) + b"\0"


def _payload(path, full, info):
    if stat.S_ISDIR(info.st_mode):
        return b"d", b""
    if stat.S_ISLNK(info.st_mode):
        return b"l", os.readlink(full)
    if stat.S_ISREG(info.st_mode):
        return b"f", b"%d:%s" % (info.st_size, hash_file(full).encode())
    raise TemplateError("BAD_TREE", f"/{os.fsdecode(path)} is neither file, directory nor link")


def hash_file(path):
    """The SHA-256 of a regular file's content, in hex. Does not follow a link."""
    hasher = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def records(serialization):
    """The entries of a serialization: {path: the other fields as one tuple}."""
    if not serialization.startswith(HEADER):
        raise TemplateError("BAD_TREE", "not a tree of this version")
    fields = serialization[len(HEADER) :].split(b"\0")
    found, i = {}, 0
    while i + 7 <= len(fields):
        end = i + 7 + 2 * int(fields[i + 6])
        found[fields[i]] = tuple(fields[i + 1 : end])
        i = end
    return found


def differences(old, new):
    """What changed between two serializations: [(sign, path)], sign one of `+`, `-`, `~`."""
    before, after = records(old), records(new)
    changed = []
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            changed.append(("+", os.fsdecode(path)))
        elif path not in after:
            changed.append(("-", os.fsdecode(path)))
        elif before[path] != after[path]:
            changed.append(("~", os.fsdecode(path)))
    return changed
