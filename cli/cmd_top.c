/* top: what sandboxes use now, on a screen that is drawn anew with each measurement, or as text. */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/usage_service.pb-c.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/retry.h"
#include "cli/say.h"
#include "cli/screen.h"
#include "cli/top_draw.h"
#include "cli/top_view.h"
#include "runtime/base/macros.h"

enum {
        RUNNING = -1, /* instead of an exit code */
        NSEC_PER_SEC = 1000000000,
};

struct top_options {
        int format;
        int sort;
        bool once;
        struct option_number count, period;
};

struct top {
        const struct top_options *options;
        Hotcell__V1__WatchUsageRequest *ask;
        struct client *client;
        struct client_call *call;
        struct retry retry;
        struct screen *screen; /* NULL: text */
        struct top_view view;
        struct top_look look;
        int64_t n_shown;
};

static void draw(struct top *top)
{
        _cleanup_(freep) char *text = NULL;
        size_t n_text = 0;
        FILE *out = must(open_memstream(&text, &n_text));

        screen_size(top->screen, &top->look.columns, &top->look.lines);
        top_draw_screen(out, &top->view, &top->look);
        (void)fclose(out);
        screen_show(top->screen, must(text));
}

static void print(struct top *top)
{
        if (top->options->format != OUTPUT_TEXT) {
                top_print_json(stdout, &top->view, top->options->format == OUTPUT_JSONL);
                return;
        }
        if (top->n_shown > 0)
                (void)putchar('\n');
        top_draw_table(stdout, &top->view);
}

static int64_t count_of(const struct top_options *options)
{
        if (options->count.is_set)
                return options->count.value;
        return options->once ? 1 : 0;
}

/* In text, what has no rates yet is only what the next one is compared with. */
static int take_message(struct top *top, Hotcell__V1__WatchUsageResponse *message)
{
        bool was_away = top->look.note != NULL;
        int64_t count = count_of(top->options);

        retry_reset(&top->retry);
        top->look.note = NULL;
        if (!top_view_take(&top->view, message)) {
                if (was_away && top->screen)
                        draw(top);
                return RUNNING;
        }
        if (top->screen)
                draw(top);
        else if (top->view.has_rates)
                print(top);
        top->n_shown += top->view.has_rates;
        return count > 0 && top->n_shown >= count ? 0 : RUNNING;
}

static void scroll(struct top *top, bool is_down, size_t n)
{
        struct top_look *look = &top->look;

        look->first = is_down ? look->first + n : look->first - MIN(n, look->first);
}

static int on_key(struct top *top, int key)
{
        switch (key) {
        case 'q':
        case 'Q':
                return 0;
        case 'c':
                top_view_sort(&top->view, TOP_SORT_CPU);
                break;
        case 'm':
                top_view_sort(&top->view, TOP_SORT_MEMORY);
                break;
        case 'n':
                top_view_sort(&top->view, TOP_SORT_NAME);
                break;
        case 'p':
                top->view.is_paused = !top->view.is_paused;
                break;
        case 'k':
        case SCREEN_KEY_UP:
                scroll(top, false, 1);
                break;
        case 'j':
        case SCREEN_KEY_DOWN:
                scroll(top, true, 1);
                break;
        case SCREEN_KEY_PAGE_UP:
                scroll(top, false, top_page(&top->look));
                break;
        case ' ':
        case SCREEN_KEY_PAGE_DOWN:
                scroll(top, true, top_page(&top->look));
                break;
        case SCREEN_KEY_HOME:
                top->look.first = 0;
                break;
        case SCREEN_KEY_END:
                top->look.first = SIZE_MAX / 2; /* drawing makes it the last one that fits */
                break;
        case SCREEN_KEY_GONE:
                return EXIT_SIGNAL_BASE + SIGHUP;
        default:
                break;
        }
        return RUNNING;
}

static int take_keys(struct top *top)
{
        int key, exit_code = RUNNING;

        while (exit_code == RUNNING && (key = screen_take_key(top->screen)) != SCREEN_KEY_NONE)
                exit_code = on_key(top, key);
        return exit_code;
}

static int take_signals(struct top *top)
{
        int signal, exit_code = RUNNING;

        while (exit_code == RUNNING && (signal = client_take_signal(top->client)) != 0) {
                if (signal == SIGIO)
                        exit_code = take_keys(top);
                else if (signal != SIGWINCH)
                        exit_code = EXIT_SIGNAL_BASE + signal;
        }
        if (exit_code == RUNNING && top->screen)
                draw(top);
        return exit_code;
}

static void start(struct top *top)
{
        top_view_forget_coming(&top->view);
        top->call = client_call_free(top->call);
        top->call = client_call_new(top->client, &hotcell__v1__usage_service__descriptor,
                                    "WatchUsage", &top->ask->base, -1);
}

/* Starts again where it was, or gives up. */
static int take_end(struct top *top)
{
        const struct rpc_error *error = client_call_error(top->call);

        if (error->code == RPC_OK && *top->ask->sandbox_id) {
                top->screen = screen_free(top->screen);
                say("sandbox %s has ended", top->ask->sandbox_id);
                return 0;
        }
        if (!retry_is_due(&top->retry, top->client, error)) {
                top->screen = screen_free(top->screen);
                request_say_error(top->client, error);
                return EXIT_OURS;
        }
        if (top->screen) {
                top->look.note = "The server is away; trying again (q quits)";
                draw(top);
        }
        while (retry_pause(&top->retry, top->client) != 0) {
                int exit_code = take_signals(top);

                if (exit_code != RUNNING)
                        return exit_code;
        }
        start(top);
        return RUNNING;
}

static int run(struct top *top)
{
        /* Keys that were there before anybody asked to be told. */
        int exit_code = top->screen ? take_keys(top) : RUNNING;

        start(top);
        if (top->screen)
                draw(top);
        while (exit_code == RUNNING) {
                Hotcell__V1__WatchUsageResponse *message = NULL;

                switch (client_call_read(top->call, -1, &message)) {
                case 0:
                        exit_code = take_message(top, message);
                        break;
                case CLIENT_E_SIGNAL:
                        exit_code = take_signals(top);
                        break;
                default:
                        exit_code = take_end(top);
                        break;
                }
                if (ferror(stdout))
                        exit_code = EXIT_OURS;
        }
        top->call = client_call_free(top->call);
        return exit_code;
}

static bool wants_screen(const struct top_options *options)
{
        return !options->once && options->format == OUTPUT_TEXT && isatty(STDOUT_FILENO);
}

static int open_screen(struct top *top)
{
        int r = screen_new(&top->screen);

        if (r == SCREEN_E_NONE)
                return 0;
        if (r) {
                say("the terminal cannot be used: %s", strerror(-r));
                return EXIT_OURS;
        }
        client_want_terminal(top->client);
        top->look.has_color = screen_has_color();
        return 0;
}

static int show(const struct top_options *options, const struct operands *operands)
{
        int64_t period = options->period.is_set ? options->period.value : NSEC_PER_SEC;
        _cleanup_(message_freep) Hotcell__V1__WatchUsageRequest *ask =
                message_new(&hotcell__v1__watch_usage_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        struct top top = { .options = options,
                           .ask = ask,
                           .look.period = (double)period / NSEC_PER_SEC };
        int r = connect_open(&client);

        if (r == 0 && operands->n)
                r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);
        if (r)
                return r;
        ask->period = message_duration(period);
        top.client = client;
        top.view.sort = (enum top_sort)options->sort;
        if (wants_screen(options))
                r = open_screen(&top);
        if (r == 0)
                r = run(&top);
        top.screen = screen_free(top.screen);
        top_view_deinit(&top.view);
        return r;
}

int cmd_top(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "top",
                .operands = "[OPTIONS] [SANDBOX]",
                .summary = "Shows what one's sandboxes and their executions use, again and again.",
                .text = "On a terminal it takes the whole screen; keys are\n"
                        "  q           quit\n"
                        "  c, m, n     sort by CPU, memory or name\n"
                        "  p           pause\n"
                        "  up, down, page up, page down, home, end: scroll\n"
                        "CPU is in percent of one CPU, its bar in parts of the sandbox's limit. WAIT "
                        "is how long threads\nwere ready to run and had no CPU, added up. PRESSURE is what is "
                        "short, or was within the\nlast twelve seconds.",
                .examples = "  hotcell top\n"
                            "  hotcell top --period 250ms my-box\n"
                            "  hotcell top --once\n"
                            "  hotcell top -o jsonl -n 60 >minute.jsonl\n",
                .operands_max = 1,
        };
        static const char *const sorts[] = { "cpu", "memory", "name", NULL };
        static const struct option_row rows[] = {
                { 0, "period", OPTION_DURATION, offsetof(struct top_options, period), "DURATION",
                  "how often, from 100ms to 1m (1s)", NULL, 0 },
                { 0, "once", OPTION_FLAG, offsetof(struct top_options, once), NULL,
                  "print what is used in one period as text, and end", NULL, 0 },
                { 'n', "count", OPTION_COUNT, offsetof(struct top_options, count), "COUNT",
                  "end after so many periods", NULL, 0 },
                { 's', "sort", OPTION_CHOICE, offsetof(struct top_options, sort), "cpu|memory|name",
                  "what comes first (cpu)", sorts, 0 },
                OUTPUT_ROW(offsetof(struct top_options, format)),
        };
        struct top_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return show(&options, &operands);
}
