#include "octet/text/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/text/tokenizer_model.h"
#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{256} << 20;
constexpr int kMaxDepth = 64;

// nlohmann's ordered objects search linearly, which a vocabulary of 128,000 entries does not survive; so the file is
// read into sorted ones. Depth is bounded first because copying a value recurses.
nlohmann::json parse_sorted(std::string_view text, std::string_view where) {
  if (text.size() > static_cast<size_t>(kMaxFileBytes))
    fail(ErrorCode::kModel, "{}: larger than {} bytes", where, kMaxFileBytes);
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) fail(ErrorCode::kModel, "{}: JSON nested deeper than {}", where, kMaxDepth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kModel, "{}: not valid JSON: {}", where, error.what());
  }
}

const nlohmann::json& raw_member(const nlohmann::json& root, const char* key) {
  static const nlohmann::json null;
  const auto found = root.find(key);
  return found == root.end() ? null : *found;
}

Json member(const nlohmann::json& root, const char* key) { return Json(raw_member(root, key)); }

}  // namespace

Tokenizer::Model::Model(const nlohmann::json& root, const std::string& where)
    : normalizer(member(root, "normalizer"), where + ": normalizer"),
      pre_tokenizer(member(root, "pre_tokenizer"), where + ": pre_tokenizer"),
      bpe(raw_member(root, "model"), pre_tokenizer.is_byte_level() ? Bpe::Words::kBytes : Bpe::Words::kText,
          where + ": model"),
      added_tokens(member(root, "added_tokens"), bpe, normalizer, where + ": added_tokens"),
      decoder(member(root, "decoder"), where + ": decoder"),
      vocab_size(bpe.vocab_size()) {
  for (const AddedToken& token : added_tokens.tokens()) vocab_size = std::max(vocab_size, token.id + 1);
  frame = parse_post_processor(member(root, "post_processor"), vocab_size, where + ": post_processor");
}

std::unique_ptr<BpeWorkspace> Tokenizer::Model::borrow() const {
  const std::lock_guard lock(mutex);
  if (workspaces.empty()) return std::make_unique<BpeWorkspace>();
  std::unique_ptr<BpeWorkspace> workspace = std::move(workspaces.back());
  workspaces.pop_back();
  return workspace;
}

void Tokenizer::Model::give_back(std::unique_ptr<BpeWorkspace> workspace) const {
  const std::lock_guard lock(mutex);
  workspaces.push_back(std::move(workspace));
}

void Tokenizer::Model::encode_words(MarkedText text, BpeWorkspace& workspace, std::vector<int32_t>& out) const {
  if (text.text.empty()) return;
  Words words{.text = std::move(text.text), .ranges = {}, .at_start = text.at_start};
  words.ranges.push_back({0, words.text.size()});
  pre_tokenizer.apply(words);
  const std::string_view all = words.text;
  for (const TextRange& word : words.ranges) bpe.encode(all.substr(word.begin, word.end - word.begin), workspace, out);
}

namespace {

MarkedText part_of(const MarkedText& text, TextRange range) {
  MarkedText part{.text = text.text.substr(range.begin, range.end - range.begin),
                  .trusted = {},
                  .at_start = text.at_start && range.begin == 0};
  if (!text.trusted.empty()) {
    const auto first = text.trusted.begin();
    part.trusted.assign(first + static_cast<std::ptrdiff_t>(range.begin),
                        first + static_cast<std::ptrdiff_t>(range.end));
  }
  return part;
}

}  // namespace

std::vector<int32_t> Tokenizer::Model::encode(const MarkedText& text, AddSpecialTokens add) const {
  std::vector<int32_t> out;
  if (add == AddSpecialTokens::kYes) out = frame.before;
  std::unique_ptr<BpeWorkspace> workspace = borrow();
  for (const Stretch& raw : added_tokens.split_raw(text)) {
    if (raw.token_id) {
      out.push_back(*raw.token_id);
      continue;
    }
    MarkedText normal = part_of(text, raw.range);
    normalizer.apply(normal);
    for (const Stretch& stretch : added_tokens.split_normalized(normal)) {
      if (stretch.token_id) {
        out.push_back(*stretch.token_id);
      } else {
        encode_words(part_of(normal, stretch.range), *workspace, out);
      }
    }
  }
  give_back(std::move(workspace));
  if (add == AddSpecialTokens::kYes) out.insert(out.end(), frame.after.begin(), frame.after.end());
  return out;
}

std::string_view Tokenizer::Model::spelling(int32_t id) const {
  const AddedToken* added = added_tokens.find(id);
  return added != nullptr ? std::string_view(added->content) : bpe.id_to_token(id);
}

Tokenizer::Tokenizer(std::string_view tokenizer_json, std::string_view where) {
  const nlohmann::json root = parse_sorted(tokenizer_json, where);
  if (!root.is_object()) fail(ErrorCode::kModel, "{}: expected an object", where);
  model_ = std::make_unique<const Model>(root, std::string(where));
}

Tokenizer Tokenizer::from_folder(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  return Tokenizer(read_file(path, kMaxFileBytes), path);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, AddSpecialTokens add) const {
  return model_->encode({.text = utf8::repair_lossy(text), .trusted = {}, .at_start = true}, add);
}

std::vector<int32_t> Tokenizer::encode_spans(std::span<const TextSpan> spans, AddSpecialTokens add) const {
  MarkedText text{.text = {}, .trusted = {}, .at_start = true};
  for (const TextSpan& span : spans)
    text.append(utf8::repair_lossy(span.text), span.origin == TextOrigin::kTrusted ? 1 : 0);
  return model_->encode(text, add);
}

void Tokenizer::push(DecodeStream& stream, int32_t id, SpecialTokens special) const {
  if (id < 0 || id >= model_->vocab_size) {
    fail(ErrorCode::kInvalid, "token id {} is outside the vocabulary of {} tokens", id, model_->vocab_size);
  }
  const AddedToken* added = model_->added_tokens.find(id);
  if (added != nullptr && added->special && special == SpecialTokens::kSkip) return;
  const std::string_view token = model_->spelling(id);
  if (added != nullptr || !token.empty()) stream.push(token);
}

std::string Tokenizer::decode(std::span<const int32_t> token_ids, SpecialTokens special) const {
  DecodeStream stream = new_stream();
  for (const int32_t id : token_ids) push(stream, id, special);
  stream.finish();
  return stream.take();
}

DecodeStream Tokenizer::new_stream() const { return DecodeStream(model_->decoder); }

int32_t Tokenizer::vocab_size() const { return model_->vocab_size; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  for (const AddedToken& added : model_->added_tokens.tokens()) {
    if (added.content == token) return added.id;
  }
  return model_->bpe.token_to_id(token);
}

std::string_view Tokenizer::id_to_token(int32_t id) const { return model_->spelling(id); }

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* added = model_->added_tokens.find(id);
  return added != nullptr && added->special;
}

std::string Tokenizer::token_bytes(int32_t id) const { return model_->decoder.token_bytes(model_->spelling(id)); }

}  // namespace octet
