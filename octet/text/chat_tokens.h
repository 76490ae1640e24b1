// The strings of a tokenizer's special tokens as chat templates see them: bos_token, eos_token, unk_token, pad_token
// from tokenizer_config.json (special_tokens_map.json where that is silent).
#pragma once

#include <map>
#include <string>

namespace octet {

// "bos_token" -> "<s>", ...; only those that exist.
std::map<std::string, std::string> special_tokens_of_folder(const std::string& folder);

}  // namespace octet
