"""Finds the Debian mirror that this host already uses, from its apt sources.

Both formats that apt reads: deb822 (`*.sources`) and one line per source
(`sources.list`, `*.list`). The template's suite is usually not the host's, so
only the address is taken: of the sources that serve the host's own release.
"""

import glob
import os
import re
import shlex
from dataclasses import dataclass

from .errors import TemplateError

# apt ignores files with other names, and so must we.
_FILE_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")


@dataclass(frozen=True)
class Source:
    """One address and suite of an apt source of binary packages."""

    uri: str
    suite: str
    components: tuple


def parse_one_line(text):
    """The sources of a `sources.list`: `deb [options] uri suite component...`."""
    found = []
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        match = re.match(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S.*)$", line)
        if not match:
            continue
        fields = match.group(1).split()
        if len(fields) >= 2:
            found.append(Source(fields[0], fields[1], tuple(fields[2:])))
    return found


def parse_deb822(text):
    """The sources of a `.sources` file: stanzas of fields, each may span lines."""
    found = []
    for stanza in _stanzas(text):
        if stanza.get("enabled", "yes").lower() in ("no", "false", "without", "off", "disable"):
            continue
        if "deb" not in stanza.get("types", "").split():
            continue
        components = tuple(stanza.get("components", "").split())
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                found.append(Source(uri, suite, components))
    return found


def _stanzas(text):
    stanza, field = {}, None
    for line in text.splitlines() + [""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, field = {}, None
        elif line[0] in " \t":
            if field:
                stanza[field] += " " + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            field = name.strip().lower()
            stanza[field] = value.strip()


def read_host(etc="/etc"):
    """Every source of binary packages of this host, in apt's order."""
    paths = [os.path.join(etc, "apt/sources.list")]
    paths += sorted(glob.glob(os.path.join(etc, "apt/sources.list.d/*")))
    found = []
    for path in paths:
        parse = parse_deb822 if path.endswith(".sources") else parse_one_line
        if not path.endswith((".list", ".sources")) or not _FILE_NAME.match(os.path.basename(path)):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found += parse(file.read())
        except FileNotFoundError:
            continue
    return found


def host_release(etc="/etc"):
    """The code name of the host's own release, for example `bookworm`."""
    try:
        with open(os.path.join(etc, "os-release"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("VERSION_CODENAME="):
                    return "".join(shlex.split(line.split("=", 1)[1]))
    except FileNotFoundError:
        pass
    return ""


def for_suite(suite, sources, release):
    """The lines to build @suite from: what @sources hold for the host's @release, renamed."""
    aliases = {release, "stable", "oldstable", "testing"} if release else {"stable"}
    lines = []
    for ending in ("", "-updates", "-security"):
        for source in sources:
            base = source.suite.rstrip("/")
            if "main" in source.components and base in {alias + ending for alias in aliases}:
                lines.append(f"deb {source.uri} {suite}{ending} main")
                break
        if not lines:
            raise TemplateError(
                "NO_MIRROR",
                "no Debian mirror found in this host's apt sources (/etc/apt)",
                "name one: --mirror URL",
            )
    return lines


def for_mirror(suite, mirror):
    """The line to build @suite from a mirror that was named by hand."""
    if not re.match(r"^[a-z][a-z+]*:\S+$", mirror):
        raise TemplateError("BAD_MIRROR", "the mirror is not a URL", "for example --mirror http://HOST/debian")
    return [f"deb {mirror} {suite} main"]


def without_password(text):
    """@text with the user and password of any URL in it hidden."""
    return re.sub(r"://[^/\s@]+@", "://***@", text)
