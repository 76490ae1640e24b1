// The pre-tokenizer of a tokenizer.json: cuts normalised text into the words that BPE works on, one by one.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "octet/base/json.h"
#include "octet/text/regex.h"
#include "octet/text/unicode_ranges.h"

namespace octet {

// A text and where its words lie in it.
struct Words {
  std::string text;
  std::vector<TextRange> ranges;  // in order, none empty
  bool at_start = false;          // the first word begins where the whole input begins
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the whole text is one word
  // `json` is the member "pre_tokenizer", possibly null. Throws Error{kModel} naming a type that is not supported.
  PreTokenizer(const Json& json, const std::string& where);

  // `words` holds one range, the whole text.
  void apply(Words& words) const;

  // The words are byte strings in the alphabet of the vocabulary ("Ġ" for a space); `apply` leaves them as plain bytes.
  bool is_byte_level() const { return byte_level_; }
  // The words are whole texts: nothing splits at spaces.
  bool is_trivial() const { return steps_.empty(); }

 private:
  // What a match is, for the steps that only look for one.
  struct Match {
    TextRange range;
    bool is_match;
  };
  struct Split {
    std::variant<Regex, std::string, unicode::Ranges> pattern;  // Ranges: each such character is a match
    SplitBehavior behavior;
    bool invert;
  };
  struct PrefixSpace {};  // ByteLevel with add_prefix_space
  enum class Prepend { kAlways, kFirst, kNever };
  struct Metaspace {
    std::string replacement;
    Prepend prepend;
    bool split;
  };
  using Step = std::variant<Split, PrefixSpace, Metaspace>;

  void add(const Json& json, const std::string& where);
  void add_byte_level(const JsonObject& object);
  void add_metaspace(const JsonObject& object);
  static std::vector<Match> matches_in(const Split& split, std::string_view text);
  static void cut(const Split& split, std::string_view text, size_t offset, std::vector<TextRange>& out);
  static void run(const Split& step, Words& words);
  static void run(const PrefixSpace& step, Words& words);
  static void run(const Metaspace& step, Words& words);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace octet
