// The header of a safetensors file and the index of a sharded one: any bytes give a valid listing or an octet::Error.
#include <cstdint>
#include <string_view>

#include "octet/base/error.h"
#include "octet/checkpoint/safetensors.h"
#include "octet/checkpoint/safetensors_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  try {
    const octet::SafetensorsHeader header =
        octet::parse_safetensors_header({bytes, size}, static_cast<int64_t>(size), "fuzz");
    int64_t next = header.data_offset;
    for (const octet::SafetensorsEntry& tensor : header.entries) {
      OCTET_CHECK(header.data_offset + tensor.begin == next);
      next = header.data_offset + tensor.end;
      OCTET_CHECK(tensor.end - tensor.begin ==
                  tensor.entry.shape.num_elements() * octet::dtype_bytes(tensor.entry.dtype));
    }
    OCTET_CHECK(next == static_cast<int64_t>(size));
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  try {
    octet::parse_safetensors_index({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
