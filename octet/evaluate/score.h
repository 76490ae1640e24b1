// The logits of a whole token window, from an engine.
#pragma once

#include <functional>
#include <span>

#include "octet/engine/engine.h"
#include "octet/sampling/logit_divergence.h"

namespace octet {

// Calls on_row(position, logits [vocab]) for every position of the window, in any order, and returns when all are done.
// Throws what the engine reports.
void for_each_logits(Engine& engine, std::span<const int32_t> token_ids,
                     const std::function<void(int64_t position, std::span<const float> logits)>& on_row);

}  // namespace octet
