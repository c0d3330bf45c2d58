#include "server/api/key_quotas.h"

#include <stddef.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/api/amount.h"
#include "server/api/arena.h"
#include "server/api/call.h"
#include "server/api/check_limits.h"

#define QUOTA(name, share_)                                                                        \
        {                                                                                          \
                "quotas." #name, share_, offsetof(Hotcell__V1__KeyQuotas, name)                    \
        }

static const struct {
        const char *path;
        enum session_share share;
        size_t offset; /* of an int64_t in the message */
} rows[] = {
        [KEY_QUOTA_SANDBOXES] = QUOTA(sandboxes, SESSION_SHARE_SANDBOXES),
        [KEY_QUOTA_MEMORY] = QUOTA(memory_bytes, SESSION_SHARE_MEMORY),
        [KEY_QUOTA_CPU] = QUOTA(cpu_millis, SESSION_SHARE_CPU),
        [KEY_QUOTA_EXECUTIONS] = QUOTA(executions, SESSION_SHARE_EXECUTIONS),
};
static_assert(ARRAY_SIZE(rows) == _KEY_QUOTA_N, "every quota has a row");

int64_t key_quota_of_share(const struct key_quotas *quotas, enum session_share share)
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (rows[i].share == share)
                        return quotas->most[i];
        return 0;
}

/* With less of it no sandbox could be made: who means that revokes the key. */
static void check_least(struct api_call *call, enum key_quota quota, int64_t most)
{
        char least[AMOUNT_TEXT];

        if (quota == KEY_QUOTA_MEMORY && most < limit_least(SANDBOX_LIMIT_MEMORY))
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, rows[quota].path,
                               "is below %s, the least that a sandbox can have; zero is no quota",
                               amount_show_bytes(limit_least(SANDBOX_LIMIT_MEMORY), least));
        if (quota == KEY_QUOTA_CPU && most < limit_least(SANDBOX_LIMIT_CPU))
                api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, rows[quota].path,
                               "is below %g CPUs, the least that a sandbox can have; zero is no "
                               "quota",
                               (double)limit_least(SANDBOX_LIMIT_CPU) / 1000);
}

struct key_quotas check_quotas(struct api_call *call, const Hotcell__V1__KeyQuotas *quotas)
{
        struct key_quotas checked = { 0 };

        for (size_t i = 0; quotas && i < ARRAY_SIZE(rows); i++) {
                checked.most[i] = *(const int64_t *)((const char *)quotas + rows[i].offset);
                if (checked.most[i] < 0)
                        api_call_blame(call, REASON_LIMIT_OUT_OF_RANGE, rows[i].path,
                                       "must not be negative; zero is no quota");
                else if (checked.most[i] > 0)
                        check_least(call, (enum key_quota)i, checked.most[i]);
        }
        return checked;
}

unsigned check_quota_path(struct api_call *call, const char *path)
{
        if (strcmp(path, "quotas") == 0)
                return BIT(_KEY_QUOTA_N) - 1;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (strcmp(path, rows[i].path) == 0)
                        return BIT(i);
        api_call_blame(call, REASON_INVALID_FIELD, "update_mask",
                       "has an unknown path; known are quotas, %s, %s, %s, %s",
                       rows[KEY_QUOTA_SANDBOXES].path, rows[KEY_QUOTA_MEMORY].path,
                       rows[KEY_QUOTA_CPU].path, rows[KEY_QUOTA_EXECUTIONS].path);
        return 0;
}

Hotcell__V1__KeyQuotas *convert_quotas(struct arena *arena, const struct key_quotas *quotas)
{
        Hotcell__V1__KeyQuotas *message = arena_new(arena, Hotcell__V1__KeyQuotas);

        if (!message)
                return NULL;
        hotcell__v1__key_quotas__init(message);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                *(int64_t *)((char *)message + rows[i].offset) = quotas->most[i];
        return message;
}

Hotcell__V1__KeyQuotas *convert_used_quotas(struct arena *arena, const struct session *session,
                                            const char *owner)
{
        struct key_quotas used;

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                used.most[i] = session_share_used(session, owner, rows[i].share);
        return convert_quotas(arena, &used);
}
