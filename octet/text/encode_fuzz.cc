// Any bytes as text, and as token ids, for a byte-level and a SentencePiece-style tokenizer: streams add up to the text
// decoded at once, pieces are whole characters, user spans give no special token.
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "octet/text/detokenizer.h"
#include "octet/text/tokenizer.h"
#include "octet/text/utf8.h"

namespace {

constexpr std::string_view kByteLevel = R"({"normalizer":{"type":"NFC"},
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},"decoder":{"type":"ByteLevel"},
"added_tokens":[{"id":300,"content":"<e>","special":true},{"id":301,"content":"<n>","rstrip":true}],
"model":{"type":"BPE","vocab":VOCAB,"merges":["e e","ee e","a b","Ġ a"]}})";
constexpr std::string_view kSentencePiece =
    R"({"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"decoder":{"type":"Sequence","decoders":[
{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},
{"type":"Strip","content":" ","start":1,"stop":0}]},"added_tokens":[{"id":300,"content":"<e>","special":true,"normalized":true}],
"model":{"type":"BPE","byte_fallback":true,"vocab":VOCAB,"merges":["e e","ee e","a b","▁ a","▁ ▁"]}})";

octet::Tokenizer make(std::string_view shape, const std::string& vocab) {
  std::string json(shape);
  json.replace(json.find("VOCAB"), 5, vocab);
  return octet::Tokenizer(json, "fuzz");
}

std::string byte_vocab() {
  std::string out = R"({"ee":256,"eee":257,"ab":258,"Ġa":259)";
  int other = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    std::string token;
    octet::utf8::append(token, static_cast<char32_t>(printable ? byte : other++));
    if (token == "\"" || token == "\\") token = "\\" + token;
    out += ",\"" + token + "\":" + std::to_string(byte);
  }
  return out + "}";
}

std::string fallback_vocab() {
  std::string out = R"({"ee":256,"eee":257,"ab":258,"▁a":259,"▁▁":260,"▁":261,"e":262,"a":263,"b":264)";
  for (int byte = 0; byte < 256; ++byte) out += fmt::format(",\"<0x{:02X}>\":{}", byte, byte);
  return out + "}";
}

void require(bool condition) {
  if (!condition) __builtin_trap();
}

void check_stream(const octet::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  octet::Detokenizer stream(tokenizer, octet::SpecialTokens::kKeep);
  std::string all;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id).value_or("");
    require(octet::utf8::is_valid(piece));
    all += piece;
  }
  require(all + stream.finish() == tokenizer.decode(ids, octet::SpecialTokens::kKeep));
}

void check(const octet::Tokenizer& tokenizer, std::string_view bytes) {
  const std::vector<int32_t> ids = tokenizer.encode(bytes, octet::AddSpecialTokens::kNo);
  check_stream(tokenizer, ids);
  std::vector<int32_t> raw;
  for (const char byte : bytes) raw.push_back(static_cast<uint8_t>(byte));
  check_stream(tokenizer, raw);
  const std::vector<octet::TextSpan> spans = {{.text = std::string(bytes), .origin = octet::TextOrigin::kUser}};
  for (const int32_t id : tokenizer.encode_spans(spans, octet::AddSpecialTokens::kNo))
    require(!tokenizer.is_special(id));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const octet::Tokenizer byte_level = make(kByteLevel, byte_vocab());
  static const octet::Tokenizer sentence_piece = make(kSentencePiece, fallback_vocab());
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check(byte_level, bytes);
  check(sentence_piece, bytes);
  // SentencePiece style with bytes for every character is lossless on valid text without the marker and special tokens.
  const bool plain = octet::utf8::is_valid(bytes) && bytes.find("\u2581") == std::string_view::npos &&
                     bytes.find("<e>") == std::string_view::npos;
  if (plain) {
    const auto ids = sentence_piece.encode(bytes, octet::AddSpecialTokens::kNo);
    require(sentence_piece.decode(ids, octet::SpecialTokens::kKeep) == bytes);
  }
  return 0;
}
