/*
 * Names of hosts, as rules have them and as programs ask for them. There is one form of each, so
 * that they compare byte by byte: A-labels in lower case, no dot at the end.
 */
#pragma once

#include "runtime/policy/policy.h"

/*
 * A rule's domain: a name, or `*.` and a name for all names below it; letters of other scripts are
 * converted as browsers do (UTS 46, not transitional). A dot at the end is dropped. 0, a problem,
 * or -ENOMEM.
 */
int policy_parse_domain(const char *text, bool *ret_is_wildcard,
                        char ret_domain[static POLICY_DOMAIN_BUFFER]);

/* What it writes parses to the same. */
void policy_format_domain(bool is_wildcard, const char *domain,
                          char ret_text[static POLICY_DOMAIN_BUFFER]);

/*
 * A name from the wire (DNS, TLS, HTTP), which is ASCII there: letters, digits, hyphens,
 * underscores and dots. 0, POLICY_E_DOMAIN_FORM, POLICY_E_DOMAIN_LENGTH or
 * POLICY_E_DOMAIN_IS_ADDRESS.
 */
int policy_parse_name(const char *text, char ret_name[static POLICY_DOMAIN_BUFFER]);
