"""Keeps finished roots, named after their digest, and publishes them atomically."""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import shutil
import tempfile
import time

from .errors import TemplateError

DIGEST = re.compile(r"^sha256-[0-9a-f]{64}$")
_TEMPORARY = ".build-"
_LINKS = ("by-name", "by-input", "by-base")


class Store:
    """A directory of roots. One build at a time: the directory itself is the lock."""

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self._lock = -1

    def create(self):
        """0700: what is inside belongs to container ids, some of which are users of the host."""
        try:
            os.makedirs(self.path, mode=0o755, exist_ok=True)
            os.chmod(self.path, 0o700)
            for name in _LINKS:
                os.makedirs(os.path.join(self.path, name), mode=0o755, exist_ok=True)
        except OSError as error:
            raise TemplateError("BAD_STORE", f"cannot use {self.path}: {error.strerror}") from error

    def lock(self, tick, on_wait):
        """Waits for other builds, then removes what a killed one left."""
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        waiting = False
        while not self._try_lock():
            if not waiting:
                on_wait()
                waiting = True
            time.sleep(0.1)
            tick()
        for name in os.listdir(self.path):
            if name.startswith(_TEMPORARY):
                remove_tree(os.path.join(self.path, name))

    def _try_lock(self):
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False

    def unlock(self):
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def free_bytes(self):
        info = os.statvfs(self.path)
        return info.f_bavail * info.f_frsize

    def temporary(self):
        """A directory for a build; its caller removes it, or the next lock does."""
        return tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.path)

    def publish(self, build, manifest, serialization):
        """Moves @build/root in under its digest, whole or not at all. False: it was there already."""
        final = self.directory(manifest["digest"])
        if os.path.isdir(final):
            return False
        _write(os.path.join(build, "manifest.json"), format_manifest(manifest).encode())
        _write(os.path.join(build, "tree"), serialization)
        os.chmod(build, 0o755)
        _sync(build)
        os.rename(build, final)
        _sync_directory(self.path)
        return True

    def point(self, kind, name, digest):
        """Makes a name mean @digest from one moment to the next."""
        directory = os.path.join(self.path, kind)
        temporary = os.path.join(directory, f".{name}-{os.getpid()}")
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(f"../{digest}", temporary)
        os.replace(temporary, os.path.join(directory, name))
        _sync_directory(directory)

    def lookup(self, kind, name):
        """The digest that a name means, or None."""
        try:
            digest = os.path.basename(os.readlink(os.path.join(self.path, kind, name)))
        except OSError:
            return None
        if not DIGEST.match(digest) or not os.path.isfile(os.path.join(self.path, digest, "manifest.json")):
            return None
        return digest

    def resolve(self, text):
        """The digest that a name, a digest or the beginning of one means."""
        digest = self.lookup("by-name", text) if "/" not in text else None
        if digest:
            return digest
        wanted = "sha256-" + text.removeprefix("sha256-").removeprefix("sha256:")
        found = [name for name in self.digests() if name.startswith(wanted)] if len(wanted) > 10 else []
        if len(found) != 1:
            raise TemplateError("UNKNOWN_TEMPLATE", f"{text} is not in {self.path}", "see: hotcell-template ls")
        return found[0]

    def digests(self):
        try:
            return sorted(name for name in os.listdir(self.path) if DIGEST.match(name))
        except FileNotFoundError:
            return []
        except PermissionError:
            raise TemplateError("NO_PERMISSION", f"cannot read {self.path}", "run as root") from None

    def names(self):
        """{name: digest} of the templates that can be used by name."""
        try:
            names = sorted(os.listdir(os.path.join(self.path, "by-name")))
        except FileNotFoundError:
            return {}
        except PermissionError:
            raise TemplateError("NO_PERMISSION", f"cannot read {self.path}", "run as root") from None
        found = {name: self.lookup("by-name", name) for name in names if not name.startswith(".")}
        return {name: digest for name, digest in found.items() if digest}

    def forget(self, digest):
        """Removes a root that no name means and no sandbox runs on."""
        for name, other in self.names().items():
            if other == digest:
                raise TemplateError("IN_USE", f"{digest} is what the name {name} means", f"build {name} anew first")
        with self._alone(digest):
            self._remove(digest)

    @contextlib.contextmanager
    def _alone(self, digest):
        """hotcell-runtime shares the lock of a root with all sandboxes that run on it."""
        root = os.open(self.root(digest), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise TemplateError("IN_USE", f"sandboxes run on {digest}", "try again when they have ended") from None
        finally:
            os.close(root)

    def unused(self):
        """Digests that no name means."""
        named = set(self.names().values())
        return [digest for digest in self.digests() if digest not in named]

    def _remove(self, digest):
        for kind in _LINKS:
            directory = os.path.join(self.path, kind)
            for name in os.listdir(directory):
                if os.path.basename(os.readlink(os.path.join(directory, name))) == digest:
                    os.unlink(os.path.join(directory, name))
        doomed = os.path.join(self.path, f"{_TEMPORARY}{digest}")
        os.rename(self.directory(digest), doomed)
        remove_tree(doomed)

    def directory(self, digest):
        return os.path.join(self.path, digest)

    def root(self, digest):
        return os.path.join(self.path, digest, "root")

    def manifest(self, digest):
        with open(os.path.join(self.path, digest, "manifest.json"), encoding="utf-8") as file:
            return json.load(file)

    def serialization(self, digest):
        with open(os.path.join(self.path, digest, "tree"), "rb") as file:
            return file.read()


def format_manifest(manifest):
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def remove_tree(path):
    """Links are removed, not followed; nothing is mounted here (see child.py)."""
    if os.path.lexists(path):
        shutil.rmtree(path)


def _write(path, content):
    with open(path, "xb") as file:
        file.write(content)


def _sync(path):
    """The whole file system of @path: cheaper than one fsync for each of many thousand files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
