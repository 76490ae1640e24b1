// BlockHash: names the content of a full KV block: its token ids and everything before them, as a chain. Blocks of
// equal hash are shared between requests, so nobody may be able to construct a collision: the hash is SipHash-2-4 with
// 128 bits of output (Aumasson & Bernstein 2012) under a key drawn at start-up that never leaves the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace octet {

struct BlockHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const BlockHash&) const = default;
};

// For unordered containers; the bits are already well mixed.
struct BlockHashOf {
  size_t operator()(const BlockHash& hash) const { return static_cast<size_t>(hash.low); }
};

struct SipKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
  // From the operating system's source of randomness.
  static SipKey random();
};

BlockHash siphash128(SipKey key, std::span<const std::byte> bytes);

// What the first block of a sequence chains from: requests with other salts share nothing.
BlockHash hash_salt(SipKey key, std::string_view cache_salt);
// The block that follows `parent` and holds `token_ids`.
BlockHash hash_block(SipKey key, const BlockHash& parent, std::span<const int32_t> token_ids);

}  // namespace octet
