#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "runtime/base/address_port.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/egress/egress.h"
#include "runtime/harden/harden.h"

enum {
        NAMESERVERS_MAX = 3,
        NAMESERVERS_TEXT_MAX = 256,
        NAMESERVER_PORT = 53,
};

struct arguments {
        struct egress_options options;
        char nameservers[NAMESERVERS_TEXT_MAX]; /* joined by commas */
        size_t n_nameservers;
        bool is_check; /* only say whether they are good */
};

enum {
        ARGUMENTS_E_DONE = 1, /* --help or --version was answered */
        ARGUMENTS_E_USAGE,    /* it was told what is wrong */
};

static const char help[] =
        "Usage: hotcell-egress [OPTION]...\n"
        "Answers names and relays connections for sandboxes, as their policies allow. hotcell-runtime "
        "starts it\n"
        "(see its --egress), with a socket as descriptor 3.\n\n"
        "  --open=CIDR              let rules allow this part of what is always denied; may be "
        "repeated\n"
        "  --nameserver=ADDRESS     address[:port] of a resolver to ask, up to three "
        "[/etc/resolv.conf]\n"
        "  --check-config           say whether these are good, and exit\n"
        "  --version                say the version, and exit\n"
        "  --help                   say this, and exit\n";

static int complain(const char *what, const char *value, const char *why)
{
        (void)fprintf(stderr, "hotcell-egress: %s%s%s%s%s\nTry: hotcell-egress --help\n", what,
                      value ? ": " : "", value ? value : "", why ? ": " : "", why ? why : "");
        return ARGUMENTS_E_USAGE;
}

static int add_open(struct arguments *arguments, const char *value)
{
        struct egress_options *options = &arguments->options;
        int r;

        if (options->n_opened == EGRESS_OPENED_MAX)
                return complain("too many --open", value, NULL);
        r = policy_always_parse_opened(value, &options->opened[options->n_opened]);
        if (r)
                return complain("bad value of --open", value, policy_problem_text(r));
        options->n_opened++;
        return 0;
}

static int add_nameserver(struct arguments *arguments, const char *value)
{
        size_t n = strlen(arguments->nameservers);
        struct address_port server;

        if (!address_port_parse(value, NAMESERVER_PORT, &server))
                return complain("bad value of --nameserver", value,
                                "is not an address with or without a port; write it like 8.8.8.8, "
                                "8.8.8.8:53 or [2001:4860:4860::8888]:53");
        if (arguments->n_nameservers++ == NAMESERVERS_MAX)
                return complain("too many --nameserver", value, NULL);
        if (n + strlen(value) + 2 > sizeof(arguments->nameservers))
                return complain("too many --nameserver", value, NULL);
        (void)snprintf(arguments->nameservers + n, sizeof(arguments->nameservers) - n, "%s%s",
                       n ? "," : "", value);
        arguments->options.nameservers = arguments->nameservers;
        return 0;
}

static int parse(int argc, char *argv[], struct arguments *arguments)
{
        static const struct option names[] = {
                { "open", required_argument, NULL, 'o' },
                { "nameserver", required_argument, NULL, 'n' },
                { "check-config", no_argument, NULL, 'c' },
                { "version", no_argument, NULL, 'v' },
                { "help", no_argument, NULL, 'h' },
                { 0 },
        };
        int r = 0;
        int name;

        opterr = 0;
        while (!r && (name = getopt_long(argc, argv, "", names, NULL)) != -1) {
                switch (name) {
                case 'o':
                        r = add_open(arguments, optarg);
                        break;
                case 'n':
                        r = add_nameserver(arguments, optarg);
                        break;
                case 'c':
                        arguments->is_check = true;
                        break;
                case 'v':
                        printf("hotcell-egress %s\n", HOTCELL_VERSION);
                        return ARGUMENTS_E_DONE;
                case 'h':
                        printf("%s", help);
                        return ARGUMENTS_E_DONE;
                default:
                        return complain("unknown option or missing value", argv[optind - 1], NULL);
                }
        }
        if (!r && optind < argc)
                r = complain("unexpected argument", argv[optind], NULL);
        return r;
}

static int run(const struct egress_options *options)
{
        struct egress egress;
        int exit_code = EX_OSERR;
        int r = egress_init(&egress, options);

        if (!r)
                r = harden_process(HARDEN_NEEDS_BPF_MAPS);
        if (r)
                log_error("cannot start: error=%s",
                          r < 0 ? strerrorname_np(-r) : "the resolver takes no such servers");
        else
                exit_code = egress_run(&egress);
        egress_deinit(&egress);
        return exit_code;
}

int main(int argc, char *argv[])
{
        struct arguments arguments = { 0 };
        struct stat socket;
        int r = parse(argc, argv, &arguments);

        if (r)
                return r == ARGUMENTS_E_DONE ? EXIT_SUCCESS : EX_CONFIG;
        if (arguments.is_check)
                return EXIT_SUCCESS;
        log_init("hotcell-egress", LOG_LEVEL_INFO);
        if (fstat(EGRESS_RUNTIME_FD, &socket) < 0 || !S_ISSOCK(socket.st_mode)) {
                log_error("descriptor 3 is no socket: hotcell-runtime starts this program");
                return EX_USAGE;
        }
        return run(&arguments.options);
}
