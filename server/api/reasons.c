#include "server/api/reasons.h"

#include "runtime/base/macros.h"

#define REASON_ROW(name, code, sentence) [REASON_##name] = { #name, code, &#code[4], sentence },
static const struct reason_info reasons[] = { REASONS(REASON_ROW) };
static_assert(ARRAY_SIZE(reasons) == _REASON_N, "every reason has a row");

const struct reason_info *reason_info(enum reason reason)
{
        assert(reason < _REASON_N);
        return &reasons[reason];
}
