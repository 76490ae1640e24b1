#include "octet/text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "octet/base/error.h"
#include "octet/text/byte_alphabet.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // ▁, SentencePiece's space
constexpr size_t kShortWord = 48;                    // symbols up to which scanning beats a heap
constexpr uint32_t kNoRank = ~uint32_t{0};
constexpr uint64_t kEmptyPair = ~uint64_t{0};  // no pair: ids are below 2^24

}  // namespace

size_t WordCache::slot(std::string_view word) {
  uint64_t hash = word.size() * 0x9E3779B97F4A7C15ull;
  const auto mix = [&](uint64_t bits) {
    hash = (hash ^ bits) * 0xD6E8FEB86659FD93ull;
    hash ^= hash >> 32;
  };
  size_t i = 0;
  for (; i + 8 <= word.size(); i += 8) {
    uint64_t bits = 0;
    std::memcpy(&bits, word.data() + i, 8);
    mix(bits);
  }
  uint64_t bits = 0;
  std::memcpy(&bits, word.data() + i, word.size() - i);
  mix(bits);
  return hash & (kEntries - 1);
}

bool WordCache::find(std::string_view word, std::vector<int32_t>& out) const {
  const Entry& entry = entries_[slot(word)];
  if (entry.length != word.size() || std::memcmp(entry.word.data(), word.data(), word.size()) != 0) return false;
  out.insert(out.end(), entry.token_ids.data(), entry.token_ids.data() + entry.count);
  return true;
}

void WordCache::put(std::string_view word, const int32_t* token_ids, size_t count) {
  Entry& entry = entries_[slot(word)];
  std::memcpy(entry.word.data(), word.data(), word.size());
  entry.length = static_cast<uint8_t>(word.size());
  entry.count = static_cast<uint8_t>(count);
  std::copy_n(token_ids, count, entry.token_ids.begin());
}

void MergeTable::reserve(size_t count) {
  const size_t size = std::bit_ceil(std::max<size_t>(2 * count, 2));
  shift_ = 64 - std::countr_zero(size);
  entries_.assign(size, Entry{.pair = kEmptyPair, .merge = {}});
}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = key(left, right);
  size_t i = slot(pair);
  while (entries_[i].pair != kEmptyPair && entries_[i].pair != pair) i = (i + 1) & (entries_.size() - 1);
  entries_[i] = {.pair = pair, .merge = merge};
}

const MergeTable::Merge* MergeTable::find(int32_t left, int32_t right) const {
  const uint64_t pair = key(left, right);
  for (size_t i = slot(pair);; i = (i + 1) & (entries_.size() - 1)) {
    if (entries_[i].pair == pair) return &entries_[i].merge;
    if (entries_[i].pair == kEmptyPair) return nullptr;
  }
}

std::optional<int32_t> Bpe::token_to_id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string_view Bpe::id_to_token(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const int32_t index = token_of_id_[static_cast<size_t>(id)];
  return index < 0 ? std::string_view() : std::string_view(tokens_[static_cast<size_t>(index)]);
}

void Bpe::encode(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  if (!splits_at_spaces_) return encode_cached(word, workspace, out);
  // A whole text is one word here, but nothing merges over the start of a run of spaces.
  size_t begin = 0;
  size_t at = word.find(kSpace, 1);
  while (at != std::string_view::npos) {
    const bool run_goes_on = at >= kSpace.size() && word.substr(at - kSpace.size(), kSpace.size()) == kSpace;
    if (!run_goes_on) {
      encode_cached(word.substr(begin, at - begin), workspace, out);
      begin = at;
    }
    at = word.find(kSpace, at + kSpace.size());
  }
  encode_cached(word.substr(begin), workspace, out);
}

void Bpe::encode_cached(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  if (word.empty()) return;
  if (word.size() > WordCache::kMaxWord) return encode_word(word, workspace, out);
  if (workspace.cache.find(word, out)) return;
  const size_t first = out.size();
  encode_word(word, workspace, out);
  if (out.size() - first <= WordCache::kMaxIds) workspace.cache.put(word, out.data() + first, out.size() - first);
}

void Bpe::encode_word(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    if (words_ == Words::kBytes) {
      const auto found = ids_of_bytes_.find(std::string(word));
      if (found != ids_of_bytes_.end()) return out.push_back(found->second);
    } else if (const auto id = token_to_id(word)) {
      return out.push_back(*id);
    }
  }
  workspace.token_ids.clear();
  read_symbols(word, workspace.token_ids);
  if (workspace.token_ids.size() <= kShortWord) {
    merge_short(workspace, out);
  } else {
    merge_long(workspace, out);
  }
}

void Bpe::read_symbols(std::string_view word, std::vector<int32_t>& out) const {
  if (words_ == Words::kText) return read_text_symbols(word, out);
  if (all_bytes_known_) {
    for (const char byte : word) out.push_back(byte_symbols_[static_cast<uint8_t>(byte)]);
    return;
  }
  std::string spelled;
  for (const char byte : word) utf8::append(spelled, byte_alphabet::to_code_point(static_cast<uint8_t>(byte)));
  read_text_symbols(spelled, out);
}

int32_t Bpe::symbol_of(std::string_view character) const {
  if (words_ == Words::kText && character.size() == 1) return byte_symbols_[static_cast<uint8_t>(character[0])];
  const auto found = character_symbols_.find(utf8::decode_at(character, 0).code_point);
  return found == character_symbols_.end() ? -1 : found->second;
}

bool Bpe::read_fallback(std::string_view character, std::vector<int32_t>& out) const {
  const auto known = [&](char byte) { return fallback_[static_cast<uint8_t>(byte)] >= 0; };
  if (!byte_fallback_ || !std::all_of(character.begin(), character.end(), known)) return false;
  for (const char byte : character) out.push_back(fallback_[static_cast<uint8_t>(byte)]);
  return true;
}

// An unknown character that follows another one waits to be fused with it; bytes that stand for a character overtake a
// waiting one. Both are as in Hugging Face's merge_word.
void Bpe::read_text_symbols(std::string_view word, std::vector<int32_t>& out) const {
  bool waiting = false;
  for (size_t i = 0; i < word.size();) {
    const size_t length = utf8::decode_at(word, i).length;
    const std::string_view character = word.substr(i, length);
    i += length;
    const int32_t id = symbol_of(character);
    if (id >= 0) {
      if (waiting) out.push_back(*unk_id_);
      waiting = false;
      out.push_back(id);
    } else if (!read_fallback(character, out) && unk_token_) {
      if (!unk_id_) fail(ErrorCode::kModel, "{}: unk_token \"{}\" is not in the vocabulary", where_, *unk_token_);
      if (waiting && !fuse_unk_) out.push_back(*unk_id_);
      waiting = true;
    }
  }
  if (waiting) out.push_back(*unk_id_);
}

void Bpe::merge_short(BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  std::vector<int32_t>& ids = workspace.token_ids;
  std::vector<uint32_t>& ranks = workspace.ranks;  // of the pair (i, i + 1)
  std::vector<int32_t>& merged = workspace.merged;
  size_t count = ids.size();
  ranks.resize(count);
  merged.resize(count);
  const auto look = [&](size_t i) {
    const MergeTable::Merge* merge = i + 1 < count ? merges_.find(ids[i], ids[i + 1]) : nullptr;
    ranks[i] = merge == nullptr ? kNoRank : merge->rank;
    merged[i] = merge == nullptr ? -1 : merge->token_id;
  };
  for (size_t i = 0; i < count; ++i) look(i);
  while (count > 1) {
    const size_t best = static_cast<size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(count)) - ranks.begin());
    if (ranks[best] == kNoRank) break;
    ids[best] = merged[best];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    --count;
    look(best);
    if (best > 0) look(best - 1);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

// n log n: a linked list of symbols and a heap of possible merges, stale ones thrown away when they come up.
void Bpe::merge_long(BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  using Candidate = BpeWorkspace::Candidate;
  auto& symbols = workspace.symbols;
  auto& heap = workspace.heap;
  const auto count = static_cast<int32_t>(workspace.token_ids.size());
  symbols.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols.push_back({.token_id = workspace.token_ids[static_cast<size_t>(i)],
                       .previous = i - 1,
                       .next = i + 1 < count ? i + 1 : -1});
  }
  const auto at = [&](int32_t i) -> BpeWorkspace::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto candidate = [&](int32_t left) {
    const MergeTable::Merge* merge = merges_.find(at(left).token_id, at(at(left).next).token_id);
    if (merge == nullptr) return false;
    heap.push_back(
        {.order = static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left), .token_id = merge->token_id});
    return true;
  };
  const auto later = [](const Candidate& a, const Candidate& b) { return a.order > b.order; };
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate top = heap.back();
    heap.pop_back();
    const auto left = static_cast<int32_t>(top.order & 0xFFFFFFFFu);
    const int32_t right = at(left).next;
    if (at(left).token_id < 0 || right < 0) continue;
    const MergeTable::Merge* merge = merges_.find(at(left).token_id, at(right).token_id);
    if (merge == nullptr || merge->token_id != top.token_id) continue;
    at(left).token_id = merge->token_id;
    at(left).next = at(right).next;
    at(right).token_id = -1;
    if (at(left).next >= 0) {
      at(at(left).next).previous = left;
      if (candidate(left)) std::push_heap(heap.begin(), heap.end(), later);
    }
    if (at(left).previous >= 0 && candidate(at(left).previous)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (int32_t i = 0; i >= 0 && i < count; i = at(i).next) out.push_back(at(i).token_id);
}

}  // namespace octet
