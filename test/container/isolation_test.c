/* What a program finds, and does not find, in a sandbox. */
#include <fcntl.h>
#include <linux/nsfs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "test/container/suite.h"

/* call(name, number, arguments…) prints the name and the errno. */
#define PYTHON_CALL                                                                                \
        "import ctypes, errno, os, platform\n"                                                     \
        "libc = ctypes.CDLL(None, use_errno=True)\n"                                               \
        "def call(name, number, *arguments):\n"                                                    \
        "    ctypes.set_errno(0)\n"                                                                \
        "    r = libc.syscall(number, *arguments)\n"                                               \
        "    e = ctypes.get_errno()\n"                                                             \
        "    print(name, 'done' if r >= 0 else errno.errorcode[e])\n"

static bool is_same_namespace(int a, int b)
{
        struct stat x;
        struct stat y;

        ck_assert_int_eq(fstat(a, &x), 0);
        ck_assert_int_eq(fstat(b, &y), 0);
        return x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

static int open_namespace(pid_t pid, const char *name)
{
        char path[64];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        return fd;
}

START_TEST(neither_program_nor_init_has_a_capability)
{
        static const char none[] = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
                                   "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
                                   "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        struct box box;

        box_start(&fixture, &box);
        ck_assert_shell(&box, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status", none);
        ck_assert_shell(&box, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status", none);
        box_end(&box);
}
END_TEST

START_TEST(root_inside_has_no_capability_either)
{
        static const char *const argv[] = {
                "/bin/sh", "-c",
                "id -u; grep -cE '^Cap.*0000000000000000$' /proc/self/status; "
                "chown 5 /tmp 2>/dev/null || echo refused",
                NULL
        };
        struct spawn_process process;
        static struct outcome outcome;
        struct box box;

        box_start(&fixture, &box);
        process = fixture_process(&fixture, &box);
        process.uid = 0;
        process.gid = 0;
        process.argv = argv;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "0\n5\nrefused\n");
        box_end(&box);
}
END_TEST

START_TEST(all_namespaces_are_new_and_only_the_user_namespace_is_its_own)
{
        static const char *const names[] = { "mnt", "pid", "net", "ipc", "uts", "cgroup" };
        _cleanup_(closep) int host_user = open_namespace(getpid(), "user");
        _cleanup_(closep) int user = -1;
        struct box box;

        box_start(&fixture, &box);
        user = open_namespace(box.init.pid, "user");
        ck_assert(!is_same_namespace(user, host_user));
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                _cleanup_(closep) int host = open_namespace(getpid(), names[i]);
                _cleanup_(closep) int own = open_namespace(box.init.pid, names[i]);
                _cleanup_(closep) int owner = ioctl(own, NS_GET_USERNS);

                ck_assert_msg(!is_same_namespace(own, host), "%s", names[i]);
                ck_assert_msg(is_same_namespace(owner, host_user), "%s", names[i]);
        }
        box_end(&box);
}
END_TEST

START_TEST(a_program_is_in_its_sandbox_namespaces)
{
        static const char *const argv[] = {
                "/bin/sh", "-c",
                "for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done", NULL
        };
        static const char *const names[] = { "mnt", "pid", "net", "ipc", "uts", "cgroup", "user" };
        struct spawn_process process;
        static struct outcome outcome;
        struct box box;

        box_start(&fixture, &box);
        process = fixture_process(&fixture, &box);
        process.argv = argv;
        process_run(&fixture, &process, &outcome);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                _cleanup_(closep) int own = open_namespace(box.init.pid, names[i]);
                struct stat status;
                char link[64];

                ck_assert_int_eq(fstat(own, &status), 0);
                (void)snprintf(link, sizeof(link), "%s:[%lu]\n", names[i], status.st_ino);
                ck_assert_msg(strstr(outcome.output, link) != NULL, "%s in %s", link,
                              outcome.output);
        }
        box_end(&box);
}
END_TEST

START_TEST(there_is_no_network_device_but_lo)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(&box,
                         "print([l.split(':')[0].strip() for l in open('/proc/net/dev')][2:])",
                         "['lo']\n");
        ck_assert_python(&box,
                         "import socket\n"
                         "s = socket.create_server(('127.0.0.1', 0))\n"
                         "print(socket.create_connection(s.getsockname()) is not None)",
                         "True\n");
        box_end(&box);
}
END_TEST

START_TEST(the_init_cannot_be_looked_into_or_signalled)
{
        static const char code[] =
                "import os\n"
                "for name in 'root cwd exe environ mem maps fd ns/mnt stack auxv syscall'.split():\n"
                "    path = '/proc/1/' + name\n"
                "    try:\n"
                "        f = os.listdir(path) if name in ('root', 'cwd', 'fd') else open(path, 'rb').read(1)\n"
                "        print(name, f)\n"
                "    except PermissionError: pass\n"
                "for signal in (1, 9, 15, 19):\n"
                "    try: os.kill(1, signal); print('signalled', signal)\n"
                "    except PermissionError: pass\n"
                "print('held')";
        const char *const argv[] = { "/usr/bin/python3", "-c", code, NULL };
        struct spawn_process process;
        static struct outcome outcome;
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(&box, code, "held\n");

        process = fixture_process(&fixture, &box);
        process.uid = 0;
        process.gid = 0;
        process.argv = argv;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "held\n");
        box_end(&box);
}
END_TEST

START_TEST(the_init_has_no_descriptor_and_no_environment)
{
        char path[64];
        char text[16];
        size_t length = 99;
        struct box box;
        FILE *file;

        box_start(&fixture, &box);
        ck_assert_uint_eq(count_fds(box.init.pid), 2); /* . and .. */
        (void)snprintf(path, sizeof(path), "/proc/%d/environ", (int)box.init.pid);
        file = fopen(path, "re");
        ck_assert_ptr_nonnull(file);
        length = fread(text, 1, sizeof(text), file);
        (void)fclose(file);
        ck_assert_uint_eq(length, 0);
        box_end(&box);
}
END_TEST

START_TEST(proc_shows_only_what_is_on_its_list)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(
                &box,
                "import os\n"
                "visible = set('self thread-self mounts net sys sysvipc cpuinfo meminfo stat vmstat '\n"
                "              'loadavg uptime version filesystems cgroups'.split())\n"
                "for name in os.listdir('/proc'):\n"
                "    path = '/proc/' + name\n"
                "    if name.isdigit() or name in visible or os.path.islink(path): continue\n"
                "    try:\n"
                "        os.listdir(path) if os.path.isdir(path) else open(path).read(1)\n"
                "        print(name)\n"
                "    except PermissionError: pass\n"
                "for name in 'kcore kallsyms keys sysrq-trigger kmsg'.split():\n"
                "    try: open('/proc/' + name); print(name)\n"
                "    except (PermissionError, FileNotFoundError): pass\n"
                "for name in visible: os.stat('/proc/' + name)\n"
                "print(os.listdir('/sys'), os.path.exists('/sys/fs/cgroup'))",
                "[] False\n");
        box_end(&box);
}
END_TEST

START_TEST(proc_sys_is_read_only)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_shell(&box,
                        "cat /proc/sys/user/max_user_namespaces /proc/sys/kernel/hostname; "
                        "grep -c ' /proc/sys ro,' /proc/self/mountinfo; "
                        "find /proc/sys -writable -type f 2>/dev/null | wc -l",
                        "0\nsandbox\n1\n0\n");
        box_end(&box);
}
END_TEST

START_TEST(nothing_of_the_host_is_mounted)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_shell(
                &box,
                "sed -e 's/^[^ ]* [^ ]* [^ ]* //' -e 's/ .* - / /' /proc/self/mountinfo | "
                "grep -v '^/\\(file\\|dir\\) tmpfs masked' | sed 's/ rw.*//' | LC_ALL=C sort",
                "/ devpts devpts\n/ overlay hotcell\n/ proc proc\n/ tmpfs dev\n/ tmpfs shm\n/sys proc proc\n");
        ck_assert_shell(&box, "ls /dev | tr '\\n' ' '",
                        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ");
        ck_assert_shell(&box,
                        "mkdir /dev/x 2>&1 | grep -o 'Read-only file system'; echo x >/dev/null && "
                        "head -c 4 /dev/zero | wc -c",
                        "Read-only file system\n4\n");
        box_end(&box);
}
END_TEST

START_TEST(dangerous_calls_are_refused)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(
                &box,
                PYTHON_CALL "x86 = platform.machine() == 'x86_64'\n"
                            "call('mount', 165 if x86 else 40, b'x', b'/tmp', b'tmpfs', 0, 0)\n"
                            "call('unshare user', 272 if x86 else 97, 0x10000000)\n"
                            "call('setns', 308 if x86 else 268, 0, 0)\n"
                            "call('bpf', 321 if x86 else 280, 0, 0, 0)\n"
                            "call('io_uring_setup', 425, 1, 0)\n"
                            "call('keyctl', 250 if x86 else 219, 0, -3, 0)\n"
                            "call('ptrace', 101 if x86 else 117, 0, 0, 0, 0)\n"
                            "call('clone user', 56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)\n"
                            "call('clone parent', 56 if x86 else 220, 0x8000 | 17, 0, 0, 0, 0)\n"
                            "call('clone3', 435, 0, 0)\n"
                            "call('later', 1000)\n",
                "mount EPERM\nunshare user EPERM\nsetns EPERM\nbpf EPERM\nio_uring_setup EPERM\n"
                "keyctl EPERM\nptrace EPERM\nclone user EPERM\nclone parent EPERM\nclone3 ENOSYS\n"
                "later ENOSYS\n");
        box_end(&box);
}
END_TEST

START_TEST(terminals_are_as_many_as_given)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(&box,
                         "import errno, os\n"
                         "kept = []\n"
                         "try:\n"
                         "    while True: kept.append(os.open('/dev/ptmx', os.O_RDWR))\n"
                         "except OSError as e: print(len(kept), errno.errorcode[e.errno])\n",
                         "16 ENOSPC\n");
        box_end(&box);
}
END_TEST

START_TEST(counters_of_the_host_cannot_be_read)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_shell(&box,
                        "cd /proc/sys; cat kernel/pty/nr fs/file-nr fs/inode-nr fs/inode-state "
                        "fs/dentry-state fs/aio-nr 2>/dev/null; cat kernel/pty/max >/dev/null && "
                        "cat fs/file-max >/dev/null && echo others",
                        "others\n");
        box_end(&box);
}
END_TEST

START_TEST(only_three_socket_families_exist)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(&box,
                         "import socket\n"
                         "for family in range(64):\n"
                         "    for kind in (1, 2, 3, 5):\n"
                         "        try: socket.socket(family, kind, 0); print(family, kind)\n"
                         "        except OSError: pass\n",
                         "1 1\n1 2\n1 3\n1 5\n2 1\n2 2\n10 1\n10 2\n");
        ck_assert_python(
                &box,
                "import errno, socket\n"
                "for family in (40, 17, 38, 16):\n"
                "    try: socket.socket(family, 1 if family == 40 else 3 if family == 17 else 5)\n"
                "    except OSError as e: print(errno.errorcode[e.errno])\n",
                "EPERM\nEPERM\nEPERM\nEAFNOSUPPORT\n");
        box_end(&box);
}
END_TEST

START_TEST(two_sandboxes_do_not_see_each_other)
{
        static struct outcome outcome;
        struct box first;
        struct box second;

        box_start(&fixture, &first);
        box_start(&fixture, &second);
        shell_run(
                &fixture, &first,
                "echo secret >/tmp/secret; echo secret >/dev/shm/secret; "
                "python3 -c 'import ctypes; print(ctypes.CDLL(None).shmget(4711, 4096, 0o1777) >= 0)'; "
                "sleep 1000 >/dev/null 2>&1 &",
                &outcome);
        ck_assert_str_eq(outcome.output, "True\n");
        ck_assert_shell(&first, "ls /tmp/secret; grep -l sleep /proc/[0-9]*/comm | wc -l",
                        "/tmp/secret\n1\n");
        ck_assert_shell(&second,
                        "ls -A /tmp /dev/shm; grep -l sleep /proc/[0-9]*/comm | wc -l; "
                        "set -- /proc/[0-9]*; echo $#; tail -n +2 /proc/sysvipc/shm",
                        "/dev/shm:\n\n/tmp:\n0\n2\n");
        box_end(&first);
        box_end(&second);
}
END_TEST

/* A lock on a file of the template would otherwise be a way to talk. */
START_TEST(two_sandboxes_do_not_share_locks_on_the_template)
{
        static const char lock[] = "import fcntl, os, sys, time\n"
                                   "f = open('/etc/passwd')\n"
                                   "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                                   "fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
                                   "print('locked')\n"
                                   "if os.fork() == 0:\n"
                                   "    for fd in (1, 2): os.close(fd)\n"
                                   "    time.sleep(1000)\n";
        struct box first;
        struct box second;

        box_start(&fixture, &first);
        box_start(&fixture, &second);
        ck_assert_python(&first, lock, "locked\n");
        ck_assert_python(&second, lock, "locked\n");
        box_end(&first);
        box_end(&second);
}
END_TEST

/* 128 for each user by default: shared by all sandboxes if their namespaces were root's. */
START_TEST(two_sandboxes_do_not_share_counters)
{
        static const char exhaust[] = "import ctypes, os, time\n"
                                      "libc = ctypes.CDLL(None)\n"
                                      "n = 0\n"
                                      "while libc.inotify_init1(0) >= 0: n += 1\n"
                                      "print(n > 0)\n"
                                      "if os.fork() == 0:\n"
                                      "    for fd in (1, 2): os.close(fd)\n"
                                      "    time.sleep(1000)\n";
        struct box first;
        struct box second;

        box_start(&fixture, &first);
        box_start(&fixture, &second);
        ck_assert_python(&first, exhaust, "True\n");
        ck_assert_python(&second, exhaust, "True\n");
        box_end(&first);
        box_end(&second);
}
END_TEST

START_TEST(a_setuid_program_gains_nothing)
{
        static const char *const argv[] = {
                "/bin/sh", "-c",
                "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && stat -c '%a %u' /tmp/id", NULL
        };
        struct spawn_process process;
        static struct outcome outcome;
        struct box box;

        box_start(&fixture, &box);
        process = fixture_process(&fixture, &box);
        process.uid = 0;
        process.gid = 0;
        process.argv = argv;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "4755 0\n");
        ck_assert_shell(&box, "/tmp/id -u", "1000\n");
        /* One of the template's own. */
        ck_assert_shell(&box, "su -c id 2>&1 </dev/null | grep -c uid=0; true", "0\n");
        box_end(&box);
}
END_TEST

START_TEST(the_template_stays_as_it_is)
{
        static const char *const argv[] = {
                "/bin/sh", "-c",
                "echo changed >/etc/hostname-of-test; rm /etc/passwd; mv /usr/share /usr/moved; ls /etc/passwd /usr/share 2>&1 | wc -l",
                NULL
        };
        struct spawn_process process;
        static struct outcome outcome;
        struct box box;
        char path[512];

        box_start(&fixture, &box);
        process = fixture_process(&fixture, &box);
        process.uid = 0;
        process.gid = 0;
        process.argv = argv;
        process_run(&fixture, &process, &outcome);
        ck_assert_str_eq(outcome.output, "2\n");
        (void)snprintf(path, sizeof(path), "%s/etc/hostname-of-test", fixture.template_root);
        ck_assert_int_ne(access(path, F_OK), 0);
        (void)snprintf(path, sizeof(path), "%s/etc/passwd", fixture.template_root);
        ck_assert_int_eq(access(path, F_OK), 0);
        (void)snprintf(path, sizeof(path), "%s/usr/share", fixture.template_root);
        ck_assert_int_eq(access(path, F_OK), 0);
        box_end(&box);
}
END_TEST

START_TEST(a_full_disk_is_enospc)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(&box,
                         "import errno\n"
                         "for path in ('/tmp/full', '/dev/shm/full'):\n"
                         "    n = 0\n"
                         "    try:\n"
                         "        with open(path, 'wb', buffering=0) as f:\n"
                         "            while n < 200: n += f.write(bytes(1 << 20)) >> 20\n"
                         "    except OSError as e: print(errno.errorcode[e.errno], n <= 64)\n",
                         "ENOSPC True\nENOSPC True\n");
        ck_assert_shell(&box, "rm /tmp/full; echo again >/tmp/file && cat /tmp/file", "again\n");
        box_end(&box);
}
END_TEST

START_TEST(orphans_are_reaped)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_shell(
                &box,
                "for i in 1 2 3; do (sh -c 'exit 3' & exec sleep 0) & done; wait; "
                /* All three are the init's by now: running, dead, or reaped. */
                "while grep -qs '^PPid:.1$' /proc/[0-9]*/status; do sleep 0.01; done; echo reaped",
                "reaped\n");
        box_end(&box);
}
END_TEST

START_TEST(ordinary_work_is_possible)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(
                &box,
                "import multiprocessing, subprocess, threading, tempfile, pty, os, sqlite3\n"
                "with multiprocessing.get_context('fork').Pool(2) as pool: print(sum(pool.map(abs, range(-9, 1))))\n"
                "print(subprocess.run(['bash', '-c', 'echo $((6*7))'], capture_output=True, text=True).stdout)\n"
                "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
                "master, slave = pty.openpty(); print(os.ttyname(slave))\n"
                "print(sqlite3.connect('/tmp/db').execute('select 1').fetchone())\n",
                "45\n42\n\nthread\n/dev/pts/0\n(1,)\n");
        ck_assert_shell(
                &box,
                "cd /tmp && git init -q r && cd r && echo a >a && git add a && "
                "git -c user.name=a -c user.email=a@b commit -qm a && git log --oneline | wc -l; "
                "python3 -m pip --version | cut -c 1-3; echo out >/dev/stdout; id -un",
                "1\npip\nout\nuser\n");
        box_end(&box);
}
END_TEST

START_TEST(scientific_python_works)
{
        struct box box;

        box_start(&fixture, &box);
        ck_assert_python(
                &box,
                "import logging, matplotlib; matplotlib.use('Agg')\n"
                "logging.disable() # of the font cache, where the machine is slow\n"
                "import numpy as np, pandas as pd, matplotlib.pyplot as plt, os\n"
                "a = np.random.default_rng(1).random((300, 300))\n"
                "print((a @ np.linalg.inv(a)).trace().round())\n"
                "print(pd.DataFrame({'k': [1, 1, 2], 'v': [1, 2, 3]}).groupby('k').v.sum().tolist())\n"
                "plt.plot([1, 2]); plt.savefig('/tmp/a.png'); print(os.path.getsize('/tmp/a.png') > 1000)\n",
                "300.0\n[3, 3]\nTrue\n");
        box_end(&box);
}
END_TEST

int main(void)
{
        static const TTest **const tests[] = {
                &neither_program_nor_init_has_a_capability,
                &root_inside_has_no_capability_either,
                &all_namespaces_are_new_and_only_the_user_namespace_is_its_own,
                &a_program_is_in_its_sandbox_namespaces,
                &there_is_no_network_device_but_lo,
                &the_init_cannot_be_looked_into_or_signalled,
                &the_init_has_no_descriptor_and_no_environment,
                &proc_shows_only_what_is_on_its_list,
                &proc_sys_is_read_only,
                &nothing_of_the_host_is_mounted,
                &dangerous_calls_are_refused,
                &terminals_are_as_many_as_given,
                &counters_of_the_host_cannot_be_read,
                &only_three_socket_families_exist,
                &two_sandboxes_do_not_see_each_other,
                &two_sandboxes_do_not_share_locks_on_the_template,
                &two_sandboxes_do_not_share_counters,
                &a_setuid_program_gains_nothing,
                &the_template_stays_as_it_is,
                &a_full_disk_is_enospc,
                &orphans_are_reaped,
                &ordinary_work_is_possible,
                &scientific_python_works,
        };

        return suite_run("isolation", tests, ARRAY_SIZE(tests));
}
