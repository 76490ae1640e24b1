// Byte pair encoding: one word to token ids by merging neighbours, the merge that was learned first goes first.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace octet {

inline constexpr int32_t kMaxTokenId = (1 << 24) - 1;

// Short words and their ids, as found before. Direct-mapped: a newer word takes an older one's place.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 30;
  static constexpr size_t kMaxIds = 8;

  // Appends the ids of `word` when they are known.
  bool find(std::string_view word, std::vector<int32_t>& out) const;
  void put(std::string_view word, const int32_t* token_ids, size_t count);

 private:
  struct Entry {
    std::array<char, kMaxWord> word;
    uint8_t length;  // 0: free
    uint8_t count;
    std::array<int32_t, kMaxIds> token_ids;
  };
  static constexpr size_t kEntries = size_t{1} << 14;
  static size_t slot(std::string_view word);

  std::vector<Entry> entries_ = std::vector<Entry>(kEntries);
};

// (left id, right id) -> what the merge makes and how early it was learned.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t token_id;
  };
  void reserve(size_t count);
  void insert(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const;

 private:
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15ull) >> shift_; }

  struct Entry {
    uint64_t pair;
    Merge merge;
  };
  std::vector<Entry> entries_;  // power of two, linear probing
  int shift_ = 63;
};

// What one thread needs while it encodes.
struct BpeWorkspace {
  struct Symbol {
    int32_t token_id;
    int32_t previous;  // -1: none
    int32_t next;
  };
  struct Candidate {
    uint64_t order;  // rank, then position
    int32_t token_id;
  };
  WordCache cache;
  std::vector<int32_t> token_ids;
  std::vector<uint32_t> ranks;
  std::vector<int32_t> merged;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class Bpe {
 public:
  enum class Words { kText, kBytes };  // kBytes: words are plain bytes, the vocabulary spells them in the byte alphabet

  // `json` is the member "model". Throws Error{kModel}.
  Bpe(const nlohmann::json& json, Words words, const std::string& where);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;

  void encode(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const;

  int32_t vocab_size() const { return static_cast<int32_t>(token_of_id_.size()); }  // highest id + 1
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::string_view id_to_token(int32_t id) const;  // empty: none

 private:
  void read_vocab(const nlohmann::json& json, const std::string& where);
  void read_merges(const nlohmann::json& json, const std::string& where);
  void read_flags(const nlohmann::json& json, const std::string& where);
  void index_symbols();
  void encode_cached(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, BpeWorkspace& workspace, std::vector<int32_t>& out) const;
  void read_symbols(std::string_view word, std::vector<int32_t>& out) const;
  void read_text_symbols(std::string_view word, std::vector<int32_t>& out) const;
  bool read_fallback(std::string_view character, std::vector<int32_t>& out) const;
  int32_t symbol_of(std::string_view character) const;
  void merge_short(BpeWorkspace& workspace, std::vector<int32_t>& out) const;
  void merge_long(BpeWorkspace& workspace, std::vector<int32_t>& out) const;

  std::string where_;
  Words words_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> token_of_id_;  // index into tokens_, -1: the id has none
  std::unordered_map<std::string_view, int32_t> ids_;
  std::unordered_map<std::string, int32_t> ids_of_bytes_;  // with Words::kBytes and ignore_merges
  MergeTable merges_;

  std::array<int32_t, 256> byte_symbols_{};  // kBytes: each byte's id; kText: each ASCII character's; -1: none
  bool all_bytes_known_ = false;
  std::unordered_map<char32_t, int32_t> character_symbols_;
  std::array<int32_t, 256> fallback_{};  // "<0x0A>"
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  std::optional<std::string> unk_token_;
  std::optional<int32_t> unk_id_;
  bool splits_at_spaces_ = false;  // no merge reaches over the start of "▁"
};

}  // namespace octet
