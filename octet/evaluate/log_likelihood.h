// The log-likelihood of a continuation after a context, as lm-evaluation-harness has it.
#pragma once

#include <string>
#include <vector>

#include "octet/engine/engine.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct EncodedPair {
  std::vector<int32_t> token_ids;  // of both
  size_t num_context = 0;          // how many of them are the context's, at least 1
};
// Spaces at the context's end go to the continuation; both are encoded as one text, of which the context's tokens are
// the first. At most max_tokens are kept, the last ones. Throws Error{kInvalid} for a continuation without tokens.
EncodedPair encode_pair(const Tokenizer& tokenizer, const std::string& context, const std::string& continuation,
                        int64_t max_tokens);

// Of the tokens after the context, in nats.
double log_likelihood(Engine& engine, const EncodedPair& pair);

}  // namespace octet
