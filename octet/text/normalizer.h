// The normalizer of a tokenizer.json: rewrites text before it is split into words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "octet/base/json.h"
#include "octet/text/regex.h"

namespace octet {

// Text on its way through the tokenizer. `trusted`: one byte per byte of text, 1 where special tokens may be
// recognised; empty when that is everywhere. `at_start`: the text begins where the whole input begins (Metaspace asks).
struct MarkedText {
  std::string text;
  std::vector<uint8_t> trusted;
  bool at_start = false;

  void append(std::string_view piece, uint8_t trust);
};

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // `json` is the member "normalizer", possibly null. Throws Error{kModel} naming a type that is not supported.
  Normalizer(const Json& json, const std::string& where);

  void apply(MarkedText& text) const;

 private:
  struct Unicode {
    UnicodeForm form;
  };
  struct Prepend {
    std::string text;
  };
  struct ReplaceString {
    std::string pattern;
    std::string content;
  };
  struct ReplaceRegex {
    Regex pattern;
    std::string content;
  };
  struct Lowercase {};
  struct Strip {
    bool left;
    bool right;
  };
  using Step = std::variant<Unicode, Prepend, ReplaceString, ReplaceRegex, Lowercase, Strip>;

  void add(const Json& json, const std::string& where);
  static void run(const Unicode& step, MarkedText& text);
  static void run(const Prepend& step, MarkedText& text);
  static void run(const ReplaceString& step, MarkedText& text);
  static void run(const ReplaceRegex& step, MarkedText& text);
  static void run(const Lowercase& step, MarkedText& text);
  static void run(const Strip& step, MarkedText& text);

  std::vector<Step> steps_;
};

// Every match of `pattern` replaced, left to right, without overlaps.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

// "pattern" of Replace and Split: {"String": ".."} or {"Regex": ".."}.
struct PatternSource {
  bool is_regex = false;
  std::string text;
};
PatternSource parse_pattern(const JsonObject& object);

// The "type" of a pipeline component; an error names what it was looked for in.
std::string component_type(const Json& json, const std::string& where);

}  // namespace octet
