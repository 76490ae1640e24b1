// Text to token ids and back, as Hugging Face's `tokenizers` does it for a tokenizer.json: the same ids for every
// input. Immutable after construction; every method may be called from many threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octet {

class DecodeStream;

enum class SpecialTokens { kKeep, kSkip };  // when decoding
enum class AddSpecialTokens { kNo, kYes };  // when encoding: run the post-processor's template (BOS, EOS)

// A piece of a rendered chat prompt. Text that a user wrote is never parsed for special tokens: "<|im_end|>" spelled in
// a message stays text. `kTrusted` text comes from the template itself.
enum class TextOrigin { kTrusted, kUser };
struct TextSpan {
  std::string text;
  TextOrigin origin = TextOrigin::kTrusted;
};

class Tokenizer {
 public:
  // Parses the contents of a tokenizer.json; `where` names the file in errors. Throws Error{kModel} for damaged files
  // and names any component type that is not supported.
  Tokenizer(std::string_view tokenizer_json, std::string_view where);
  // Reads <folder>/tokenizer.json.
  static Tokenizer from_folder(const std::string& folder);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // UTF-8 in; invalid bytes are read as U+FFFD, one per maximal invalid piece.
  std::vector<int32_t> encode(std::string_view text, AddSpecialTokens add) const;
  // Encodes the concatenation of the spans, each valid or repaired by itself. Special added tokens are recognised only
  // where every byte is trusted; joins between spans behave as in one text otherwise.
  std::vector<int32_t> encode_spans(std::span<const TextSpan> spans, AddSpecialTokens add) const;

  // Valid UTF-8 out. Ids outside the vocabulary throw Error{kInvalid}.
  std::string decode(std::span<const int32_t> token_ids, SpecialTokens special) const;

  // Highest id + 1, added tokens included.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  // The vocabulary's own spelling ("Ġhello", "<0x0A>", "<|im_end|>"); empty for an id that has none.
  std::string_view id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;
  // The bytes that this id alone stands for in the middle of a text (for logprobs); may be broken UTF-8.
  std::string token_bytes(int32_t id) const;

 private:
  friend class Detokenizer;
  struct Model;  // the pipeline, defined in tokenizer_model.h

  DecodeStream new_stream() const;
  void push(DecodeStream& stream, int32_t id, SpecialTokens special) const;

  std::unique_ptr<const Model> model_;
};

}  // namespace octet
