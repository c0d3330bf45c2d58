"""The inputs of a build: `template.toml`, the lock of wheels, the kernel's files."""

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass

from .errors import TemplateError
from .tree import hash_file

FORMAT = 1
NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9._+!-]*)$")
_HASH = re.compile(r"^--hash=sha256:([0-9a-f]{64})$")

# Every key of a template.toml: {table: {key: type}}. One that is missing or unknown is an error.
_SCHEMA = {
    "": {"format": int, "name": str, "language": str, "language_version": str, "source_date_epoch": int},
    "debian": {"suite": str, "keyring": str, "packages": list, "remove": list},
    "python": {"requirements": list, "lock": str, "remove": list, "warm": list},
    "user": {"name": str, "uid": int, "gid": int, "home": str, "shell": str},
    "kernel": {"source": str, "target": str, "argv": list},
    "environment": None,
    "limits": None,
}

_IGNORED = {"meson.build", "__pycache__", "README.md"}


@dataclass(frozen=True)
class Pin:
    """One wheel of a lock, with the hashes of the files that may be it."""

    name: str
    version: str
    hashes: tuple


class Template:
    """A template.toml, checked: every table of it is an attribute."""

    def __init__(self, path, text):
        self.path = path
        self.directory = os.path.dirname(path)
        try:
            self.table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TemplateError("BAD_TEMPLATE", f"{path}: {error}") from error
        self._check()
        for key, value in self.table.items():
            setattr(self, key, value)

    def _check(self):
        self._check_keys("", {k: v for k, v in self.table.items() if not isinstance(v, dict)})
        for name in _SCHEMA:
            if name and not isinstance(self.table.get(name), dict):
                self._fail(f"[{name}] is missing")
        for name, table in self.table.items():
            if isinstance(table, dict):
                self._check_keys(name, table)
        if self.table["format"] != FORMAT:
            self._fail(f"format is {self.table['format']}, this builder reads {FORMAT}")
        if not NAME.match(self.table["name"]):
            self._fail("name must be a DNS label")
        self._check_values()

    def _check_keys(self, name, table):
        if name not in _SCHEMA:
            self._fail(f"[{name}] is not known")
        schema = _SCHEMA[name]
        if schema is None:
            return
        where = f"{name}." if name else ""
        for key in table.keys() - schema.keys():
            self._fail(f"{where}{key} is not known")
        for key, kind in schema.items():
            if type(table.get(key)) is not kind:
                self._fail(f"{where}{key} must be a {kind.__name__}")
            if kind is list and not all(isinstance(item, str) for item in table[key]):
                self._fail(f"{where}{key} must be a list of strings")

    def _check_values(self):
        for name, value in self.table["environment"].items():
            if not re.match(r"^[A-Za-z_][A-Za-z0-9_]*$", name) or not isinstance(value, str) or "\0" in value:
                self._fail(f"environment.{name} must be a variable and a string")
        for name, value in self.table["limits"].items():
            if type(value) is not int or value <= 0:
                self._fail(f"limits.{name} must be a positive number")
        for where, path in (("user.home", self.table["user"]["home"]), ("kernel.target", self.table["kernel"]["target"])):
            if not path.startswith("/") or ".." in path.split("/"):
                self._fail(f"{where} must be an absolute path")
        for key in ("uid", "gid"):
            if not 1 <= self.table["user"][key] <= 65533:
                self._fail(f"user.{key} must be between 1 and 65533")

    def _fail(self, what):
        raise TemplateError("BAD_TEMPLATE", f"{self.path}: {what}")


def read_template(directory):
    """The template in @directory."""
    path = os.path.join(directory, "template.toml")
    try:
        with open(path, encoding="utf-8") as file:
            return Template(path, file.read())
    except FileNotFoundError:
        raise TemplateError("UNKNOWN_TEMPLATE", f"there is no {path}", "see --template-dir") from None


def read_lock(path):
    """The pins of a lock file, by name."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_lock(file.read(), path)
    except FileNotFoundError:
        raise TemplateError("BAD_LOCK", f"there is no {path}", "make one: hotcell-template lock NAME") from None


def parse_lock(text, path="lock"):
    """pip's requirements format, of which only pins with hashes are let through."""
    pins = {}
    for number, line in _logical_lines(text):
        words = line.split()
        pin = _PIN.match(words[0])
        if not pin:
            raise TemplateError("BAD_LOCK", f"{path}:{number}: not of the form name==version")
        hashes = [_HASH.match(word) for word in words[1:]]
        if not hashes or not all(hashes):
            raise TemplateError("BAD_LOCK", f"{path}:{number}: {pin.group(1)} needs --hash=sha256:<64 hex>")
        name = canonical_name(pin.group(1))
        if name in pins:
            raise TemplateError("BAD_LOCK", f"{path}:{number}: {name} is there twice")
        pins[name] = Pin(name, pin.group(2), tuple(match.group(1) for match in hashes))
    if not pins:
        raise TemplateError("BAD_LOCK", f"{path}: no pins")
    return pins


def canonical_name(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def format_lock(pins):
    """The text of a lock; the reverse of parse_lock."""
    lines = ["# Made by `hotcell-template lock`: every wheel of the template, for each machine type.\n"]
    for name in sorted(pins):
        hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(pins[name].hashes))
        lines.append(f"{name}=={pins[name].version}{hashes}\n")
    return "".join(lines)


def _logical_lines(text):
    line, first = "", 0
    for number, part in enumerate(text.splitlines(), 1):
        part = re.sub(r"(^|\s)#.*$", "", part)
        first = first if line else number
        line += part.removesuffix("\\") + " "
        if part.endswith("\\"):
            continue
        if line.strip():
            yield first, line.strip()
        line = ""
    if line.strip():
        yield first, line.strip()


def kernel_files(directory):
    """The files of a kernel, as sorted paths relative to @directory."""
    found = []
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in _IGNORED and not name.startswith(".")]
        for name in names:
            if name not in _IGNORED and not name.startswith(".") and not name.endswith(".pyc"):
                found.append(os.path.relpath(os.path.join(parent, name), directory))
    return sorted(found)


def base_key(template, pins, machine):
    """Names everything a root is made from but the kernel's files."""
    here = os.path.dirname(os.path.abspath(__file__))
    table = {name: value for name, value in template.table.items() if name != "kernel"}
    parts = [machine, hash_file(os.path.join(here, "recipe.py")), hash_file(os.path.join(here, "tree.py"))]
    parts += [repr(_sorted(table)), repr(sorted((pin.name, pin.version, sorted(pin.hashes)) for pin in pins.values()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def input_key(base, template, kernel_directory):
    """Names everything a root is made from, but for what the mirror holds at the time."""
    parts = [base, repr(_sorted(template.kernel))]
    for path in kernel_files(kernel_directory):
        parts.append(f"{path}\0{hash_file(os.path.join(kernel_directory, path))}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sorted(value):
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return value
