"""How a root is made: each function is one stage.

The same packages and wheels must give the same bytes, so everything that
remembers a time, a mirror, a host or the order of a directory goes: see clean().
The programs of the root never see the network, and code from the wheels only
ever runs as the template's user.
"""

import glob
import json
import os
import re
import shutil
import stat

from . import child, sources
from .errors import TemplateError

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

# The glibc of the suite runs wheels for every older one.
_NEWEST_MANYLINUX = 41
_OLDEST_MANYLINUX = 12

# Texts for people; the licences stay.
_DOCUMENTATION = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bash-completion/*",
]

_FIXED_FILES = {
    "/etc/hostname": "sandbox\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n",
    # Served by hotcell-egress; it answers within five seconds, if only that it has no answer.
    "/etc/resolv.conf": "nameserver 127.0.0.53\noptions timeout:6 attempts:1\n",
    "/etc/machine-id": "",
    "/etc/fstab": "",
    # The host's mirror is nobody's business in a sandbox.
    "/etc/apt/sources.list": "",
}

_REMOVED = [
    "/.dockerenv",
    "/boot/*",
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/apt/sources.list.d/*",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid-",
    "/etc/subuid-",
    "/root/.cache",
    "/usr/share/doc/*/[!c]*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/man/*",
    "/var/backups/*",
    "/var/cache/apt/*",
    "/var/cache/debconf/*-old",
    "/var/cache/ldconfig/*",
    "/var/lib/apt/lists/*",
    "/var/lib/dpkg/*-old",
    "/var/lib/dpkg/available",
    "/var/lib/dpkg/lock*",
    "/var/lib/dpkg/triggers/Lock",
    "/var/lib/systemd/*",
    "/var/log/*",
]

# Mount points, and where programs put what lasts for one run.
_EMPTY_DIRECTORIES = {
    "/dev": 0o755,
    "/proc": 0o555,
    "/run": 0o755,
    "/sys": 0o555,
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
}

# Where Python code of packages lies; compiled in this order, in one process.
_LIBRARIES = ["/usr/lib/python3", "/usr/lib/python{version}", "/usr/local/lib/python{version}"]


class Recipe:
    """One root being made in @root; @scratch is for files that are not part of it."""

    def __init__(self, template, root, scratch, tick):
        self.template = template
        self.root = os.path.join(os.path.realpath(os.path.dirname(root)), os.path.basename(root))
        self.scratch = scratch
        self.tick = tick
        self.interpreter = template.kernel["argv"][0]

    # Stages

    def download_wheels(self, machine, pip):
        """Fetches what the lock names with the host's pip, mirrors and certificates."""
        wheels = os.path.join(self.scratch, "wheels")
        command = pip + ["download", "--quiet", "--require-hashes", "--no-deps"]
        command += platform_options(machine, self.template.language_version)
        command += ["--dest", wheels, "--requirement", self.lock_path()]
        try:
            child.run(command, env=host_environment(), log=self._log("download"), tick=self.tick)
        except child.Failed as error:
            raise explain_pip(error) from error

    def bootstrap(self, source_lines, machine):
        """Debian's packages, by mmdebstrap."""
        debian = self.template.debian
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
        command += [f"--architectures={MACHINES[machine]}", f"--keyring={debian['keyring']}"]
        command += [f"--include={','.join(debian['packages'])}", f"--aptopt={self._apt_options()}"]
        command += [f"--dpkgopt={option}" for option in _DOCUMENTATION + ["force-unsafe-io"]]
        command += [debian["suite"], self.root, "-"]
        environment = self._bootstrap_environment()
        lines = "".join(line + "\n" for line in source_lines)
        try:
            child.run(command, env=environment, log=self._log("bootstrap"), tick=self.tick, stdin=lines)
        except child.Failed as error:
            raise explain_mmdebstrap(error) from error

    def install_wheels(self):
        """By the root's own pip, which then knows how to upgrade or remove them."""
        shutil.copyfile(self.lock_path(), os.path.join(self.scratch, "wheels", "requirements.lock"))
        pip = [self.interpreter, "-m", "pip", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        install = ["install", "--no-index", "--no-deps", "--require-hashes", "--no-compile", "--no-input"]
        install += ["--root-user-action=ignore", "--break-system-packages", "--no-warn-script-location"]
        # A wheel may also be a Debian package that pip stands on: that one stays, /usr/local comes before it.
        install += ["--ignore-installed"]
        install += ["--find-links=/tmp/share", "--requirement=/tmp/share/requirements.lock"]
        try:
            self._in_root(pip + install, share=os.path.join(self.scratch, "wheels"))
            self._in_root(pip + ["check"], user=self._user())
        except child.Failed as error:
            raise explain_pip(error) from error

    def configure(self):
        """The user, and fixed files in place of the host's."""
        user = self.template.user
        name, uid, gid, home, shell = (user[key] for key in ("name", "uid", "gid", "home", "shell"))
        self._set_line("/etc/passwd", name, f"{name}:x:{uid}:{gid}::{home}:{shell}")
        self._set_line("/etc/group", name, f"{name}:x:{gid}:")
        self._set_line("/etc/shadow", name, f"{name}:*:0:0:99999:7:::")
        self._set_line("/etc/gshadow", name, f"{name}:!::")
        self._fix_password_ages()
        os.makedirs(self._path(home), mode=0o755, exist_ok=True)
        for name in sorted(os.listdir(self._path("/etc/skel"))):
            shutil.copyfile(self._path(f"/etc/skel/{name}"), self._path(f"{home}/{name}"), follow_symlinks=False)
        self._chown_home()
        for path, content in _FIXED_FILES.items():
            self._replace(path, content)

    def trim(self):
        """What nobody runs: files that the template lists, and every privilege bit."""
        for pattern in self.template.debian["remove"] + self.template.python["remove"]:
            self._remove(pattern)
        for path, info in self._walk():
            if not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o6000:
                os.chmod(path, stat.S_IMODE(info.st_mode) & ~0o6000)
            for attribute in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, attribute, follow_symlinks=False)

    def compile(self, *directories):
        """Byte code that is never checked against times, for all of Python's libraries or @directories."""
        version = self.template.language_version
        directories = directories or [path.format(version=version) for path in _LIBRARIES]
        for directory in directories:
            for path, info in self._walk(directory):
                if path.endswith(".pyc") and stat.S_ISREG(info.st_mode):
                    os.unlink(path)
        # Forced, and without writing byte code for what the compiler itself imports: that would carry times.
        # Not isolated (-I): that would ignore the fixed hash seed, on which the order of constants depends.
        # Without site (-S): a wheel's .pth file is code, and this runs as root.
        command = [self.interpreter, "-B", "-S", "-P", "-m", "compileall", "-f", "-qq"]
        command += ["--invalidation-mode", "unchecked-hash", *directories]
        try:
            self._in_root(command)
        except child.Failed as error:
            # compileall ends with 1 for one bad file, of which libraries' test data has some.
            if "Traceback" in error.log:
                raise TemplateError("BUILD_FAILED", f"byte-compiling failed:\n{tail(error.log)}") from error

    def warm(self):
        """Imports the stack as the user, so that its caches are there: fonts, for one."""
        program = "".join(f"import {module}\n" for module in self.template.python["warm"])
        program += "import sys; print('%d.%d.%d' % sys.version_info[:3])"
        environment = [f"{name}={value}" for name, value in sorted(self.template.environment.items())]
        command = ["/usr/bin/env", *environment, "MPLBACKEND=agg", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1"]
        command += [self.interpreter, "-c", program]
        try:
            output = self._in_root(command, user=self._user())
        except child.Failed as error:
            raise TemplateError("BUILD_FAILED", f"the stack does not import:\n{tail(error.log)}") from error
        version = output.split()[-1]
        if not version.startswith(self.template.language_version + "."):
            raise TemplateError("BAD_TEMPLATE", f"the root has {version}, not {self.template.language_version}")
        return version

    def clean(self):
        """Everything that differs from one build to the next, and the bare mount points."""
        for pattern in _REMOVED:
            self._remove(pattern)
        for path, mode in _EMPTY_DIRECTORIES.items():
            full = self._path(path)
            if os.path.islink(full):
                os.unlink(full)
            os.makedirs(full, exist_ok=True)
            self._remove(path + "/*")
            self._remove(path + "/.[!.]*")
            os.chmod(full, mode)

    def install_kernel(self, source, files):
        """The language kernel's own files, in one directory that holds nothing else."""
        target = self.template.kernel["target"]
        self._remove(target)
        for name in files:
            path = self._path(f"{target}/{name}")
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            shutil.copyfile(os.path.join(source, name), path)
            os.chmod(path, 0o644)
        for argument in self.template.kernel["argv"]:
            if argument.startswith("/") and not os.path.exists(self._path(argument)):
                raise TemplateError("NO_KERNEL", f"{argument} is not in the root", "see --kernel-dir")
        self.compile(target)

    def describe(self, description):
        """How to use the root, inside it: so that the digest speaks for that too."""
        self._replace("/usr/lib/hotcell/template.json", json.dumps(description, indent=2, sort_keys=True) + "\n")

    # What is in it

    def packages(self):
        """Debian's packages with their exact versions, from dpkg's own record."""
        found, entry = [], {}
        with open(self._path("/var/lib/dpkg/status"), encoding="utf-8") as file:
            for line in file.read().split("\n") + [""]:
                if not line and entry:
                    found.append({"name": entry["Package"], "version": entry["Version"], "architecture": entry["Architecture"]})
                    entry = {}
                elif line[:1] not in ("", " ") and ":" in line:
                    key, value = line.split(":", 1)
                    entry[key] = value.strip()
        return sorted(found, key=lambda package: (package["name"], package["architecture"]))

    def lock_path(self):
        return os.path.join(self.template.directory, self.template.python["lock"])

    # Tools

    def _user(self):
        return f"{self.template.user['uid']}:{self.template.user['gid']}"

    def _in_root(self, command, user="0:0", share=""):
        home = "/root" if user == "0:0" else self.template.user["home"]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(self.template.source_date_epoch),
        }
        return child.run_in_root(
            self.root, command, env=environment, log=self._log("root"), tick=self.tick, user=user, share=share
        )

    def _bootstrap_environment(self):
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(self.template.source_date_epoch),
            "TMPDIR": self.scratch,
        }
        proxies = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
        environment.update({name: value for name, value in os.environ.items() if name.lower() in proxies})
        return environment

    def _apt_options(self):
        """What this host's apt is told about proxies and certificates, as a file: it may hold a password."""
        path = os.path.join(self.scratch, "apt.conf")
        dump = child.run(["apt-config", "dump"], env=host_environment(), log=self._log("apt"), tick=self.tick)
        wanted = re.compile(r"^Acquire::(https?|ftp|Retries|ForceIPv[46])\b[^ ]*(?<!::) .*;$")
        lines = ['Acquire::Languages "none";', 'Acquire::Retries "3";']
        lines += [line for line in dump.splitlines() if wanted.match(line)]
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        return path

    def _log(self, name):
        return os.path.join(self.scratch, f"{name}.log")

    def _path(self, path):
        """@path of the root as the host sees it. No parent may be a link that leads out of the root."""
        full = self.root
        parts = [part for part in path.split("/") if part]
        for i, part in enumerate(parts):
            full = os.path.join(full, part)
            if i + 1 < len(parts) and os.path.islink(full):
                full = os.path.realpath(full)
                if not (full + "/").startswith(os.path.realpath(self.root) + "/"):
                    raise TemplateError("BAD_TREE", f"{path}: a link leads out of the root")
        return full

    def _walk(self, directory="/"):
        for parent, directories, names in os.walk(self._path(directory)):
            directories.sort()
            self.tick()
            for name in sorted(names) + directories:
                path = os.path.join(parent, name)
                yield path, os.lstat(path)

    def _replace(self, path, content):
        full = self._path(path)
        os.makedirs(os.path.dirname(full), mode=0o755, exist_ok=True)
        if os.path.lexists(full):
            os.unlink(full)
        with open(full, "x", encoding="utf-8") as file:
            file.write(content)
        os.chmod(full, 0o644)

    def _remove(self, pattern):
        for path in glob.glob(self._path(pattern), recursive=True, include_hidden=True):
            parent = os.path.dirname(path)
            if os.path.realpath(parent) != parent or not os.path.lexists(path):
                continue  # through a link: reached on its own path if it is in the root, and left alone if not
            if os.path.islink(path) or not os.path.isdir(path):
                os.unlink(path)
            else:
                shutil.rmtree(path)

    def _set_line(self, path, name, line):
        full = self._path(path)
        with open(full, encoding="utf-8") as file:
            lines = [old for old in file.read().splitlines() if not old.startswith(name + ":")]
        with open(full, "w", encoding="utf-8") as file:
            file.writelines(text + "\n" for text in lines + [line])

    def _fix_password_ages(self):
        """The third field of /etc/shadow is the day of the build."""
        day = str(self.template.source_date_epoch // 86400)
        full = self._path("/etc/shadow")
        with open(full, encoding="utf-8") as file:
            rows = [line.split(":") for line in file.read().splitlines()]
        with open(full, "w", encoding="utf-8") as file:
            file.writelines(":".join(row[:2] + [day] + row[3:]) + "\n" for row in rows)

    def _chown_home(self):
        user = self.template.user
        home = self._path(user["home"])
        os.chown(home, user["uid"], user["gid"])
        for path, _ in self._walk(user["home"]):
            os.chown(path, user["uid"], user["gid"], follow_symlinks=False)


def platform_options(machine, version):
    """pip's words for: wheels only, for the root's Python and not the host's."""
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
    for minor in range(_NEWEST_MANYLINUX, _OLDEST_MANYLINUX - 1, -1):
        options.append(f"--platform=manylinux_2_{minor}_{machine}")
    return options + [f"--platform=manylinux2014_{machine}", f"--platform=manylinux2010_{machine}"]


def host_environment():
    """The host's settings for mirrors and certificates, without its settings for Python itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    kept["PIP_NO_INPUT"] = "1"
    return kept


def tail(log, n_lines=15):
    return "\n".join("  " + line for line in sources.without_password(log.strip()).splitlines()[-n_lines:])


def explain_pip(error):
    log = error.log
    if "No module named pip" in log:
        return TemplateError("NO_TOOL", "/usr/bin/python3 has no pip", "apt-get install python3-pip")
    if "No space left" in log:
        return TemplateError("NO_SPACE", "the disk is full", "make room in the store's file system")
    if "DO NOT MATCH THE HASHES" in log or "hash mismatch" in log:
        return TemplateError("HASH_MISMATCH", f"a wheel is not the one that was locked:\n{tail(log)}", "do not use this index")
    if re.search(r"Temporary failure in name|NewConnectionError|ConnectTimeout|ProxyError|SSLError", log):
        return TemplateError("INDEX_UNREACHABLE", f"pip cannot reach its index:\n{tail(log)}", "see: pip config debug")
    if "No matching distribution" in log or "Could not find a version" in log:
        return TemplateError("NO_WHEEL", f"the index lacks a locked wheel:\n{tail(log)}", "hotcell-template lock NAME")
    return TemplateError("BUILD_FAILED", f"pip failed:\n{tail(log)}")


def explain_mmdebstrap(error):
    log = error.log
    if "No space left" in log:
        return TemplateError("NO_SPACE", "the disk is full", "make room in the store's file system")
    if re.search(r"NO_PUBKEY|is not signed|Missing key|signatures? (was|were) invalid", log):
        return TemplateError(
            "MIRROR_UNTRUSTED", f"the mirror's signature is not trusted:\n{tail(log)}", "upgrade debian-archive-keyring"
        )
    if re.search(r"resolv|[Cc]ould not connect|Connection (refused|timed out|failed)|Unable to connect|Failed to fetch", log):
        return TemplateError(
            "MIRROR_UNREACHABLE", f"the Debian mirror does not answer:\n{tail(log)}", "name another: --mirror URL"
        )
    if re.search(r"Unable to locate package|no installation candidate", log):
        return TemplateError("NO_PACKAGE", f"the mirror lacks a package:\n{tail(log)}", "see template.toml")
    return TemplateError("BUILD_FAILED", f"mmdebstrap failed:\n{tail(log)}")
