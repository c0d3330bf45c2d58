/*
 * hotcell-init, pid 1 of a sandbox: holds its pid namespace, and sees that no zombie stays.
 *
 * With SIGCHLD ignored the kernel reaps by itself, orphans that were zombies already included
 * (do_notify_parent()), so nothing is left to do but to wait for the end, which comes from outside.
 * It has no descriptors, no environment, no memory of its host and no libc: the start-up code of a
 * static glibc would be most of its cost.
 */
#include <asm/unistd.h>
#include <linux/prctl.h>
#include <linux/signal.h>

/*
 * The kernel enters with an aligned stack and no return address, which is not how compilers expect
 * a function to be entered: hence the call.
 */
#if defined(__x86_64__)
__asm__(".globl _start\n"
        "_start:\n"
        "        xor %ebp, %ebp\n"
        "        and $-16, %rsp\n"
        "        call init_run\n");

static long system_call(long number, long a, long b, long c, long d)
{
        register long r10 __asm__("r10") = d;
        long result;

        __asm__ volatile("syscall"
                         : "=a"(result)
                         : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                         : "rcx", "r11", "memory");
        return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n"
        "_start:\n"
        "        mov x29, #0\n"
        "        mov x30, #0\n"
        "        bl init_run\n");

static long system_call(long number, long a, long b, long c, long d)
{
        register long x8 __asm__("x8") = number;
        register long x0 __asm__("x0") = a;
        register long x1 __asm__("x1") = b;
        register long x2 __asm__("x2") = c;
        register long x3 __asm__("x3") = d;

        __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
        return x0;
}
#else
#error "system calls of this architecture are not known here"
#endif

/* The kernel's struct sigaction, with the same head on both architectures. */
struct signal_action {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        unsigned long mask;
};

static const char name[] = "hotcell-init";

_Noreturn void init_run(void);

_Noreturn void init_run(void)
{
        const struct signal_action ignore = { .handler = SIG_IGN };
        const unsigned long all = ~0UL;

        (void)system_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0);
        (void)system_call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&all, 0, sizeof(all));
        (void)system_call(__NR_rt_sigaction, SIGCHLD, (long)&ignore, 0, sizeof(ignore.mask));
        (void)system_call(__NR_prctl, PR_SET_NAME, (long)name, 0, 0);

        /* Every signal that could wake it is blocked; SIGKILL from outside needs no help. */
        for (;;)
                (void)system_call(__NR_ppoll, 0, 0, 0, 0);
}
