// ModuleRegex: the part of Python's regular expressions that checkpoints name modules with, in time expression x text:
// the expressions come with checkpoints from anywhere, so nothing here backtracks.
//   characters, . [abc] [^a-z] \d \w \s \D \W \S \b \. ( ) (?: ) | * + ? {m,n} (also lazy) ^ $
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

namespace octet {

class ModuleRegex {
 public:
  // Throws Error{kUnsupported} with `expression` and what in it is not known (look-ahead, back references, flags).
  explicit ModuleRegex(std::string_view expression);
  bool matches_start(std::string_view text) const { return run(text, false); }  // Python's re.match
  bool found_in(std::string_view text) const { return run(text, true); }        // Python's re.search

 private:
  friend class RegexParser;
  using Characters = std::bitset<256>;
  enum class Step : uint8_t { kCharacter, kFork, kStart, kEnd, kWordBorder, kDone };
  // kCharacter: goes to next when the text's character is one of `characters`; kFork: goes to next and other.
  struct Instruction {
    Step step = Step::kDone;
    int32_t next = 0;
    int32_t other = 0;
    int32_t characters = 0;  // index in characters_
  };
  bool run(std::string_view text, bool anywhere) const;

  std::vector<Instruction> program_;
  std::vector<Characters> characters_;
  int32_t first_ = 0;
};

}  // namespace octet
