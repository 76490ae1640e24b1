// Base64 of RFC 4648, with padding.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace octet {

std::string base64(std::span<const std::byte> bytes);

}  // namespace octet
