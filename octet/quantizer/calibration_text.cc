#include "octet/quantizer/calibration_text.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/json.h"
#include "octet/base/log.h"
#include "octet/kv/block_hash.h"
#include "octet/text/chat_template.h"
#include "octet/text/chat_tokens.h"
#include "octet/text/tokenizer.h"
#include "octet/text/utf8.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxFileBytes = int64_t{4} << 30;
constexpr int64_t kMostHeldOut = 32;
// Shorter ends of a cut text are left out.
constexpr int64_t kShortestPiece = 16;

class Reader {
 public:
  Reader(const std::string& model_folder, int64_t max_seq_len)
      : folder_(model_folder),
        max_seq_len_(static_cast<size_t>(max_seq_len)),
        tokenizer_(Tokenizer::from_folder(model_folder)) {}

  void read(const fs::path& path) {
    const std::string text = read_file(path.string(), kMaxFileBytes);
    if (text.empty()) fail(ErrorCode::kInvalid, "{}: the file is empty", path.string());
    check_utf8(text, path);
    if (path.extension() == ".jsonl") {
      read_lines(text, path);
    } else {
      cut(tokenizer_.encode(text, AddSpecialTokens::kYes));
    }
  }

  std::vector<std::vector<int32_t>> take() { return std::move(samples_); }

 private:
  static void check_utf8(const std::string& text, const fs::path& path) {
    const size_t valid = utf8::valid_prefix(text);
    if (valid == text.size()) return;
    const auto line = std::count(text.begin(), text.begin() + static_cast<int64_t>(valid), '\n') + 1;
    fail(ErrorCode::kInvalid, "{}: line {}: not UTF-8", path.string(), line);
  }

  void cut(const std::vector<int32_t>& ids) {
    for (size_t begin = 0; begin < ids.size(); begin += max_seq_len_) {
      const size_t end = std::min(ids.size(), begin + max_seq_len_);
      if (begin > 0 && end - begin < static_cast<size_t>(kShortestPiece)) return;
      samples_.emplace_back(ids.begin() + static_cast<int64_t>(begin), ids.begin() + static_cast<int64_t>(end));
    }
  }

  void read_lines(const std::string& text, const fs::path& path) {
    int64_t number = 0;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      ++number;
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      begin = end + 1;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      read_line(line, fmt::format("{}: line {}", path.string(), number));
    }
  }

  void read_line(std::string_view line, const std::string& where) {
    std::vector<int32_t> ids;
    try {
      ids = tokens_of(parse_json(line, where), where);
    } catch (const Error& error) {
      const std::string text = error.what();
      fail(ErrorCode::kInvalid, "{}{}", text.starts_with(where) ? "" : where + ": ", text);
    }
    if (ids.empty()) fail(ErrorCode::kInvalid, "{}: no tokens come of it", where);
    if (ids.size() > max_seq_len_) ids.resize(max_seq_len_);
    samples_.push_back(std::move(ids));
  }

  std::vector<int32_t> tokens_of(const Json& json, const std::string& where) {
    const JsonObject object(json, where);
    if (object.find_raw("text") != nullptr) return tokenizer_.encode(object.get_string("text"), AddSpecialTokens::kYes);
    const Json* messages = object.find_raw("messages");
    if (messages == nullptr || !messages->is_array())
      fail(ErrorCode::kInvalid, "{}: expected \"text\", a string, or \"messages\", a list", where);
    if (!template_) {
      template_ = ChatTemplate::from_folder(folder_);
      if (!template_) fail(ErrorCode::kInvalid, "{}: \"messages\", but the model has no chat template", where);
      special_ = special_tokens_of_folder(folder_);
    }
    ChatInputs inputs{.messages = *messages, .tools = {}, .add_generation_prompt = false};
    for (const auto& [name, token] : special_) {
      if (name == "bos_token") inputs.bos_token = token;
      if (name == "eos_token") inputs.eos_token = token;
      inputs.extra[name] = token;
    }
    inputs.now_unix_seconds = 0;  // the same every day
    return tokenizer_.encode_spans(template_->render_spans(inputs), AddSpecialTokens::kNo);
  }

  std::string folder_;
  size_t max_seq_len_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
  std::map<std::string, std::string> special_;
  std::vector<std::vector<int32_t>> samples_;
};

}  // namespace

int64_t CalibrationText::num_tokens() const {
  int64_t count = 0;
  for (const auto& sample : samples) count += static_cast<int64_t>(sample.size());
  return count;
}

std::string CalibrationText::digest() const {
  BlockHash hash{};
  for (const auto* list : {&samples, &held_out}) {
    for (const std::vector<int32_t>& ids : *list) hash = hash_block(SipKey{}, hash, ids);
  }
  return fmt::format("{:016x}{:016x}", hash.high, hash.low);
}

std::vector<std::vector<int32_t>> read_calibration(const std::string& path, const std::string& model_folder,
                                                   int64_t max_seq_len) {
  if (max_seq_len < 2) fail(ErrorCode::kUsage, "max_seq_len {}: at least 2 tokens are needed", max_seq_len);
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
      const fs::path extension = entry.path().extension();
      if (entry.is_regular_file() && (extension == ".txt" || extension == ".jsonl")) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) fail(ErrorCode::kInvalid, "{}: no *.txt or *.jsonl file in the folder", path);
  } else {
    if (!fs::exists(path)) fail(ErrorCode::kInvalid, "{}: no such file or folder", path);
    const fs::path extension = fs::path(path).extension();
    if (extension != ".txt" && extension != ".jsonl")
      fail(ErrorCode::kInvalid, "{}: expected a *.txt or *.jsonl file, or a folder of them", path);
    files.push_back(path);
  }
  Reader reader(model_folder, max_seq_len);
  for (const fs::path& file : files) reader.read(file);
  return reader.take();
}

CalibrationText divide_samples(std::vector<std::vector<int32_t>> all, int64_t num_samples) {
  if (num_samples < 1) fail(ErrorCode::kUsage, "num_samples {}: at least 1 is needed", num_samples);
  const auto available = static_cast<int64_t>(all.size());
  if (available < 1) fail(ErrorCode::kInvalid, "the calibration text has no samples");
  if (available == 1) {
    log_warning("the calibration text has one sample: what is lost is measured on what scales were found on");
    return {.samples = all, .held_out = all};
  }
  const int64_t wanted = std::clamp<int64_t>(num_samples / 8, 1, kMostHeldOut);
  const int64_t used = std::min(available, num_samples + wanted);
  const int64_t held_out = std::min(wanted, std::max<int64_t>(1, used / 9));
  CalibrationText text;
  for (int64_t i = 0; i < used; ++i) {
    std::vector<int32_t>& sample = all[static_cast<size_t>(i * available / used)];
    // The last of each of `held_out` equal parts.
    const bool judges = (i + 1) * held_out / used > i * held_out / used;
    (judges ? text.held_out : text.samples).push_back(std::move(sample));
  }
  return text;
}

std::vector<std::vector<int32_t>> take_evenly(std::vector<std::vector<int32_t>> all, int64_t count) {
  if (count < 1) fail(ErrorCode::kUsage, "num_held_out {}: at least 1 is needed", count);
  const auto available = static_cast<int64_t>(all.size());
  if (available < 1) fail(ErrorCode::kInvalid, "the held-out text has no samples");
  std::vector<std::vector<int32_t>> some;
  const int64_t taken = std::min(available, count);
  for (int64_t i = 0; i < taken; ++i) some.push_back(std::move(all[static_cast<size_t>(i * available / taken)]));
  return some;
}

}  // namespace octet
