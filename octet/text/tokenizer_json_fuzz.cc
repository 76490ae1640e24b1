// Any bytes as a tokenizer.json: an Error or a tokenizer that encodes and decodes; nothing else.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "octet/base/error.h"
#include "octet/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 1 << 16) return 0;
  try {
    const octet::Tokenizer tokenizer(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    const auto ids = tokenizer.encode("the  a b <s>x\n1 \xC3\xA9", octet::AddSpecialTokens::kYes);
    tokenizer.decode(ids, octet::SpecialTokens::kKeep);
  } catch (const octet::Error&) {
    // Damage is reported; that is the point.
  }
  return 0;
}
