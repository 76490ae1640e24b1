// config.json and generation_config.json: any text gives a checked configuration or an octet::Error.
#include <cstdint>
#include <string_view>

#include "octet/base/error.h"
#include "octet/checkpoint/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const octet::Json json = octet::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    try {
      octet::GenerationConfig::from_json(json, "fuzz");
    } catch (const octet::Error& error) {
      if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
    }
    const octet::ModelConfig config = octet::ModelConfig::from_json(json, "fuzz");
    if (config.hidden_size <= 0 || config.num_attention_heads % config.num_key_value_heads != 0) __builtin_trap();
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
