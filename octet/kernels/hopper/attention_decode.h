// attention_decode as a part of another row.
#pragma once

#include "octet/ops/ops.h"

namespace octet {

// Why the rows of sequences of at most max_rows rows cannot be made; empty = they can.
std::string declines_attention_decode(const PagedAttentionOp& op, const Launch& launch, int64_t max_rows);
// Makes the rows of sequences of at most max_rows rows, and leaves the others alone. `name`: the row's, for errors.
void run_attention_decode(std::string_view name, const PagedAttentionOp& op, const Launch& launch, int64_t max_rows);

}  // namespace octet
