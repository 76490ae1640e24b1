// The decoder of a tokenizer.json, as a stream: tokens go in one by one, text comes out as soon as nothing that follows
// can change it. Decoding a whole list is the same stream, pushed to its end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "octet/base/json.h"
#include "octet/text/normalizer.h"

namespace octet {

// The chain of steps, read once.
class Decoder {
 public:
  // `json` is the member "decoder", possibly null (tokens are joined by spaces then). Throws Error{kModel} naming a
  // type, or a combination, that is not supported.
  Decoder(const Json& json, const std::string& where);

  // The bytes that `token` stands for in the middle of a text.
  std::string token_bytes(std::string_view token) const;

 private:
  friend class DecodeStream;
  struct Replace {
    std::variant<std::string, Regex> pattern;
    std::string content;
  };
  struct ByteFallback {};
  struct Fuse {};
  struct ByteLevel {};
  struct Metaspace {
    std::string replacement;
    bool drops_first;  // those of the first token disappear
  };
  struct Strip {
    std::string content;
    size_t start;
    size_t stop;
    bool joined;  // works on the whole text, not token by token
  };
  struct JoinBySpace {};
  using Step = std::variant<Replace, ByteFallback, Fuse, ByteLevel, Metaspace, Strip, JoinBySpace>;

  void add(const Json& json, const std::string& where);

  std::vector<Step> steps_;
  bool joined_ = false;  // while reading: a step before made one text of the tokens
};

class DecodeStream {
 public:
  explicit DecodeStream(const Decoder& decoder);  // must outlive this

  void push(std::string_view token);
  // Lets out what is held back. Ends the stream.
  void finish();
  // What was pushed so far was context only: forgets its text, and keeps what an unfinished character needs.
  void forget();

  // Valid UTF-8, certain, not taken before.
  std::string take() { return std::exchange(out_, {}); }
  bool holds_back() const;

 private:
  struct State {
    std::string held;      // bytes of unfinished characters, or characters that Strip may take off the end
    size_t seen = 0;       // tokens (Metaspace, JoinBySpace)
    size_t stripped = 0;   // characters taken off the start
    bool started = false;  // Strip: past the start
  };

  void run(size_t step, std::string token);
  void end(size_t step);
  void end_bytes(size_t step);
  void push_byte_level(size_t step, std::string_view token);
  void push_strip(size_t step, const Decoder::Strip& strip, std::string token);

  const Decoder& decoder_;
  std::vector<State> states_;
  std::string out_;
};

}  // namespace octet
