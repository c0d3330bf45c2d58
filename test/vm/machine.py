"""A virtual machine with Debian's own kernel, pure cgroup v2 and the host's files, in QEMU without KVM.

What is made once is kept in a folder: the kernel and its modules as downloaded, unpacked and not installed, and a disk with the template,
for neither 9p nor an overlay can be id-mapped on Linux 6.1. Both are made anew when the package, the list of modules or the template changed.
"""

import ctypes
import hashlib
import lzma
import os
import pathlib
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
MODULES = (
    "9p", "9pnet_virtio", "virtio_pci", "overlay", "virtio_blk", "ext4", "virtio_rng",
    # For the egress table: its network, and the protocols that a sandbox must not get although the kernel has them.
    "veth", "af_packet", "sctp", "dccp_ipv4", "dccp_ipv6", "vsock", "algif_hash", "af_key", "smc", "tipc",
    # For direct mode.
    "sch_ingress", "cls_bpf")
MEMORY_MIB = 3072
BOOT_SECONDS = 240  # until the first line; some 5 on an idle machine
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def output_of(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def run(*command, **options):
    """Standard output is the report's alone."""
    subprocess.run(command, check=True, stdout=sys.stderr, **options)


# -- the kernel -------------------------------------------------------------------------------------------------------


def newest_package():
    """Name and version of the package that linux-image-amd64 stands for."""
    try:
        name = re.search(r"^Depends: (linux-image-\S+)", output_of("apt-cache", "show", "--no-all-versions", "linux-image-amd64"), re.M)[1]
        version = re.search(r"^Version: (\S+)", output_of("apt-cache", "show", "--no-all-versions", name), re.M)[1]
    except (subprocess.CalledProcessError, TypeError):
        return None
    return name, version


def update_lists():
    run("apt-get", "update", "-qq")


def download(package, folder):
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "=".join(package), cwd=folder)
    return next(folder.glob("*.deb"))


def unpack_vmlinux(vmlinuz):
    """The kernel itself out of its self-extracting form: QEMU then starts it at its PVH entry, without firmware or unpacking."""
    data = vmlinuz.read_bytes()
    n_setup = data[0x1F1] or 4  # sectors; the boot protocol's offsets
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[(n_setup + 1) * 512 + offset:][:length]
    kernel = lzma.decompress(payload[:-4])  # its size comes after it
    if not kernel.startswith(b"\x7fELF") or len(kernel) != struct.unpack("<I", payload[-4:])[0]:
        raise RuntimeError(f"{vmlinuz} holds no kernel that was packed by xz")
    return kernel


def copy_modules(unpacked, version, folder):
    """The wanted modules and what they need, and the order in which they load."""
    run("depmod", "-b", unpacked, version)
    order = []
    for name in MODULES:
        needed = output_of("modprobe", "-d", unpacked, "-S", version, "--show-depends", name)
        order += [pathlib.Path(path) for path in re.findall(r"^insmod (\S+)", needed, re.M)]
    order = list(dict.fromkeys(order))
    folder.mkdir()
    for path in order:
        shutil.copy(path, folder)
    (folder / "order").write_text("".join(f"{path.name}\n" for path in order))


def remove_others(folder, pattern, keep):
    for old in folder.glob(pattern):
        if old != keep:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def kernel_folder(folder, package):
    modules = hashlib.sha256(" ".join(MODULES).encode()).hexdigest()[:8]
    return folder / "kernel-{}_{}_{}".format(*package, modules).replace(":", "%")


def prepare_kernel(folder):
    """A folder with vmlinux and modules/, of the newest package that apt knows."""
    if not newest_package():
        update_lists()
    package = newest_package()
    if not package:
        raise RuntimeError("apt knows no linux-image-amd64: a Debian 12 machine for amd64 is needed")
    kept = kernel_folder(folder, package)
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work = pathlib.Path(name)
            try:
                deb = download(package, work)
            except subprocess.CalledProcessError:
                # The lists are older than the archive.
                update_lists()
                package = newest_package()
                kept = kernel_folder(folder, package)
                deb = download(package, work)
            run("dpkg-deb", "-x", deb, work / "unpacked")
            version = package[0].removeprefix("linux-image-")
            (work / "kernel").mkdir()
            (work / "kernel/vmlinux").write_bytes(unpack_vmlinux(work / f"unpacked/boot/vmlinuz-{version}"))
            copy_modules(work / "unpacked", version, work / "kernel/modules")
            (work / "kernel").rename(kept)
    remove_others(folder, "kernel-*", kept)
    return kept


# -- the disk ---------------------------------------------------------------------------------------------------------


def prepare_disk(folder, template):
    """An ext4 file system with what the template's folder holds."""
    kept = folder / f"disk-{template.name}"
    if not kept.exists():
        made = folder / "disk.new"
        used = int(output_of("du", "-s", "--block-size=1", template).split()[0])
        with open(made, "wb") as file:
            file.truncate(used * 5 // 4 + (128 << 20))
        run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", template, made)
        made.rename(kept)
    remove_others(folder, "disk-*", kept)
    return kept


# -- the machine ------------------------------------------------------------------------------------------------------


def make_initramfs(modules, file):
    with tempfile.TemporaryDirectory(prefix="hotcell-vm.") as name:
        root = pathlib.Path(name)
        (root / "bin").mkdir()
        shutil.copy("/bin/busybox", root / "bin")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        shutil.copytree(modules, root / "modules")
        names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
        with open(file, "wb") as archive:
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(), stdout=archive, check=True)


def end_with_parent():
    """Whatever ends the tests, even a kill, ends QEMU."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """Runs a shell script as the only program of a machine. A context manager; lines() are what the script writes."""

    def __init__(self, folder, template, script):
        self.console = folder / "console.log"
        self.job = folder / "job"
        self.kernel = prepare_kernel(folder)
        self.disk = prepare_disk(folder, template)
        shutil.rmtree(self.job, ignore_errors=True)
        self.job.mkdir()
        self.console.unlink(missing_ok=True)
        make_initramfs(self.kernel / "modules", self.job / "initramfs")
        (self.job / "command").write_text(script)

    def command(self):
        return [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-m", str(MEMORY_MIB), "-smp", "2",
            "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none", "-sandbox", "on",
            "-kernel", self.kernel / "vmlinux", "-initrd", self.job / "initramfs",
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
            "-serial", f"file:{self.console}", "-serial", "stdio",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-fsdev", f"local,id=job,path={self.job},security_model=none",
            "-device", "virtio-9p-pci,fsdev=job,mount_tag=job",
            # Writes go to a file that is gone with QEMU.
            "-drive", f"file={self.disk},if=virtio,format=raw,snapshot=on",
            "-device", "virtio-rng-pci",
        ]

    def __enter__(self):
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        preexec_fn=end_with_parent)  # pylint: disable=subprocess-popen-preexec-fn
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def lines(self, seconds):
        """What the script writes, line by line. TimeoutError when nothing comes at first, or no end."""
        start = time.monotonic()
        pending = b""
        deadline = start + BOOT_SECONDS
        fd = self.process.stdout.fileno()
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise TimeoutError("the machine did not start" if deadline == start + BOOT_SECONDS else "the machine did not end",
                                   round(time.monotonic() - start))
            data = os.read(fd, 65536)
            if not data:
                return
            deadline = start + seconds
            *whole, pending = (pending + data).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r")

    def kernel_log(self, n_lines=80):
        if not self.console.exists():
            return []
        return self.console.read_text(errors="replace").splitlines()[-n_lines:]
