#include "octet/kv/block_hash.h"

#include <bit>
#include <cstring>
#include <random>
#include <vector>

namespace octet {
namespace {

static_assert(std::endian::native == std::endian::little);

struct SipState {
  uint64_t v0, v1, v2, v3;

  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void absorb(uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
  uint64_t squeeze() {
    for (int i = 0; i < 4; ++i) round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

SipState sip_start(SipKey key) {
  SipState state{key.k0 ^ 0x736f6d6570736575ULL, key.k1 ^ 0x646f72616e646f6dULL, key.k0 ^ 0x6c7967656e657261ULL,
                 key.k1 ^ 0x7465646279746573ULL};
  state.v1 ^= 0xee;  // the variant with 128 bits of output
  return state;
}

BlockHash sip_finish(SipState& state) {
  state.v2 ^= 0xee;
  BlockHash hash;
  hash.low = state.squeeze();
  state.v1 ^= 0xdd;
  hash.high = state.squeeze();
  return hash;
}

}  // namespace

SipKey SipKey::random() {
  std::random_device source;
  auto word = [&] { return (static_cast<uint64_t>(source()) << 32) | source(); };
  return {word(), word()};
}

BlockHash siphash128(SipKey key, std::span<const std::byte> bytes) {
  SipState state = sip_start(key);
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    state.absorb(word);
  }
  uint64_t last = 0;
  if (i < bytes.size()) std::memcpy(&last, bytes.data() + i, bytes.size() - i);
  state.absorb(last | (static_cast<uint64_t>(bytes.size()) << 56));
  return sip_finish(state);
}

BlockHash hash_salt(SipKey key, std::string_view cache_salt) {
  return siphash128(key, std::as_bytes(std::span(cache_salt)));
}

BlockHash hash_block(SipKey key, const BlockHash& parent, std::span<const int32_t> token_ids) {
  // A message of its own kind: the parent's two words, then the tokens in pairs, then their number with a mark that no
  // salt's length byte can produce in the same place.
  SipState state = sip_start(key);
  state.absorb(parent.low);
  state.absorb(parent.high);
  size_t i = 0;
  for (; i + 2 <= token_ids.size(); i += 2) {
    uint64_t pair;
    std::memcpy(&pair, token_ids.data() + i, 8);
    state.absorb(pair);
  }
  if (i < token_ids.size()) state.absorb(static_cast<uint32_t>(token_ids[i]));
  state.absorb(token_ids.size() | (1ULL << 63));
  return sip_finish(state);
}

}  // namespace octet
