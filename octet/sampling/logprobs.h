// Log-probabilities of the model's own distribution: log-softmax of the logits before temperature, penalties and masks.
#pragma once

#include <cstdint>
#include <span>

#include "octet/sampling/params.h"
#include "octet/sampling/selection.h"

namespace octet {

// The token itself first, then the `num_alternatives` most likely tokens (-1: the whole vocabulary), the token among
// them if it is one. A rank is 1 + the number of tokens that are more likely. `row` must not be broken (row_is_broken).
PositionLogprobs position_logprobs(std::span<const float> row, int32_t token_id, int32_t num_alternatives,
                                   SamplingScratch& scratch);

}  // namespace octet
