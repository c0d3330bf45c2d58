/* Numbers of a message's layout that reading and writing share. Private to the DNS files. */
#pragma once

enum {
        DNS_HEADER_SIZE = 12,
        DNS_QUESTION_AT = DNS_HEADER_SIZE,
        DNS_OPT_SIZE = 11, /* of an OPT record without options */
        DNS_CLASS_IN = 1,

        DNS_FLAG_RESPONSE = 1 << 15,
        DNS_FLAGS_OPCODE = 15 << 11,
        DNS_FLAG_TRUNCATED = 1 << 9,
        DNS_FLAG_RECURSION_DESIRED = 1 << 8,
        DNS_FLAG_RECURSION_AVAILABLE = 1 << 7,
        DNS_FLAG_CHECKING_DISABLED = 1 << 4,
        DNS_FLAGS_RCODE = 15,
};
