// The post-processor of a tokenizer.json: the tokens that go in front of and behind an encoded text (BOS, EOS).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "octet/base/json.h"

namespace octet {

struct SequenceFrame {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

// `json` is the member "post_processor", possibly null. Ids are below `vocab_size`. Throws Error{kModel} naming a type
// that is not supported.
SequenceFrame parse_post_processor(const Json& json, int32_t vocab_size, const std::string& where);

}  // namespace octet
