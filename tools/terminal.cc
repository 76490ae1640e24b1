#include "tools/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "octet/base/log.h"

namespace octet {

bool stderr_is_terminal() { return isatty(STDERR_FILENO) != 0; }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO) != 0; }

void ProgressBar::update(int64_t done, int64_t total) {
  if (finished_ || !stderr_is_terminal()) return;
  const auto now = std::chrono::steady_clock::now();
  finished_ = done >= total;
  if (!finished_ && now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  constexpr int64_t kWidth = 30;
  const int64_t filled = total > 0 ? std::min(kWidth, kWidth * done / total) : kWidth;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : 0;
  fmt::print(stderr, "\r{} [{}{}] {}/{} {}, {:.0f} {}/s, {:.0f} s left \033[K", title_,
             std::string(static_cast<size_t>(filled), '#'), std::string(static_cast<size_t>(kWidth - filled), '.'),
             done, total, unit_, rate, unit_, left);
  if (finished_) fmt::print(stderr, "\n");
  std::fflush(stderr);
}

void print_now(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text += std::string(widths[i] - row[i].size() + 2, ' ');
    }
    text += '\n';
  }
  return text;
}

std::string format_bytes(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return fmt::format("{:.2f} GiB", value / (1 << 30));
  if (bytes >= int64_t{1} << 20) return fmt::format("{:.1f} MiB", value / (1 << 20));
  if (bytes >= int64_t{1} << 10) return fmt::format("{:.1f} KiB", value / (1 << 10));
  return fmt::format("{} B", bytes);
}

void print_report(const EngineReport& report) {
  log_info("{} on {}, {} parameters, dtype {}, quantization {}", report.architecture, report.device,
           report.num_parameters, report.dtype, report.quantization);
  log_info("weights {} (scales {}), activations {}, loaded in {:.2f} s", format_bytes(report.weight_bytes),
           format_bytes(report.scale_bytes), format_bytes(report.activation_bytes), report.load_seconds);
  log_info(
      "KV cache {} ({}, {} per token): {} tokens, {:.2f} sequences of {} tokens", format_bytes(report.kv_cache_bytes),
      report.kv_cache_dtype, format_bytes(report.kv_bytes_per_token), report.kv_cache_tokens,
      static_cast<double>(report.kv_cache_tokens) / static_cast<double>(std::max<int64_t>(report.max_model_len, 1)),
      report.max_model_len);
  if (report.kv_tokens_to_bf16 > 1) log_info("{:.2f} times the tokens of a KV cache in bf16", report.kv_tokens_to_bf16);
  if (!report.kv_scales.empty()) log_info("{}", report.kv_scales);
  if (report.workspace_bytes > 0) {
    log_info("kernels' workspace {}; up to {} sequences at once, {} recorded decode steps for up to {}",
             format_bytes(report.workspace_bytes), report.max_num_seqs, report.num_graphs, report.largest_graph);
  }
  log_info("ready after {:.2f} s", report.start_seconds);
}

namespace {

Json logprobs_json(const std::vector<PositionLogprobs>& positions) {
  Json list = Json::array();
  for (const PositionLogprobs& position : positions) {
    if (position.empty()) {
      list.push_back(nullptr);
      continue;
    }
    Json entries = Json::array();
    for (const TokenLogprob& token : position) {
      entries.push_back({{"token_id", token.token_id}, {"logprob", token.logprob}, {"rank", token.rank}});
    }
    list.push_back(std::move(entries));
  }
  return list;
}

Json stop_reason_json(const StopReason& reason) {
  if (const auto* id = std::get_if<int32_t>(&reason)) return *id;
  if (const auto* text = std::get_if<std::string>(&reason)) return *text;
  return nullptr;
}

}  // namespace

Json output_json(const RequestOutput& output) {
  Json json;
  json["request_id"] = output.request_id;
  json["prompt"] = output.prompt ? Json(*output.prompt) : Json(nullptr);
  json["prompt_token_ids"] = output.prompt_token_ids;
  if (!output.prompt_logprobs.empty()) json["prompt_logprobs"] = logprobs_json(output.prompt_logprobs);
  json["outputs"] = Json::array();
  for (const CompletionOutput& completion : output.outputs) {
    Json one;
    one["index"] = completion.index;
    one["text"] = completion.text;
    one["token_ids"] = completion.token_ids;
    one["finish_reason"] = finish_reason_name(completion.finish_reason);
    one["stop_reason"] = stop_reason_json(completion.stop_reason);
    if (!completion.logprobs.empty()) {
      one["cumulative_logprob"] = completion.cumulative_logprob;
      one["logprobs"] = logprobs_json(completion.logprobs);
    }
    if (!completion.error.empty()) one["error"] = completion.error;
    json["outputs"].push_back(std::move(one));
  }
  json["num_cached_tokens"] = output.num_cached_tokens;
  return json;
}

}  // namespace octet
