#include "octet/server/openai_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "octet/text/utf8.h"

namespace octet {
namespace {

constexpr double kNoProbability = -9999.0;  // JSON has no infinity

double finite(float logprob) { return std::isfinite(logprob) ? static_cast<double>(logprob) : kNoProbability; }

int64_t num_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// How log-probabilities spell tokens.
class TokenSpelling {
 public:
  explicit TokenSpelling(const AnswerOptions& options) : options_(options) {}

  std::string bytes(int32_t id) const {
    const bool known = options_.tokenizer && id < options_.tokenizer->vocab_size();
    return known ? options_.tokenizer->token_bytes(id) : std::string();
  }
  std::string text(int32_t id) const {
    if (options_.return_tokens_as_token_ids) return fmt::format("token_id:{}", id);
    return utf8::repair_lossy(bytes(id));
  }

 private:
  const AnswerOptions& options_;
};

Json prompt_logprobs_json(const std::vector<PositionLogprobs>& positions, const TokenSpelling& spelling) {
  Json list = Json::array();
  for (const PositionLogprobs& position : positions) {
    if (position.empty()) {
      list.push_back(nullptr);
      continue;
    }
    Json row = Json::object();
    for (const TokenLogprob& token : position) {
      row[std::to_string(token.token_id)] = {
          {"logprob", finite(token.logprob)}, {"rank", token.rank}, {"decoded_token", spelling.text(token.token_id)}};
    }
    list.push_back(std::move(row));
  }
  return list;
}

// The four parallel arrays of /v1/completions.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const TokenSpelling& spelling, int64_t offset) : spelling_(spelling), offset_(offset) {}

  void add(const std::vector<int32_t>& ids, const std::vector<PositionLogprobs>& positions) {
    for (size_t i = 0; i < ids.size() && i < positions.size(); ++i) add(ids[i], positions[i]);
  }
  Json json() && {
    return {{"tokens", std::move(tokens_)},
            {"token_logprobs", std::move(token_logprobs_)},
            {"top_logprobs", std::move(top_logprobs_)},
            {"text_offset", std::move(text_offsets_)}};
  }
  int64_t offset() const { return offset_; }

 private:
  void add(int32_t id, const PositionLogprobs& position) {
    const std::string text = spelling_.text(id);
    text_offsets_.push_back(offset_);
    offset_ += num_characters(text);
    tokens_.push_back(text);
    if (position.empty()) {
      token_logprobs_.push_back(nullptr);
      top_logprobs_.push_back(nullptr);
      return;
    }
    token_logprobs_.push_back(finite(position.front().logprob));
    Json top = Json::object();
    for (const TokenLogprob& token : position) {
      // Two ids may be spelled alike: the likelier one is what "is it the best?" is decided by.
      const std::string name = spelling_.text(token.token_id);
      const double value = finite(token.logprob);
      const auto [entry, is_new] = top.emplace(name, value);
      if (!is_new && entry->get<double>() < value) *entry = value;
    }
    top_logprobs_.push_back(std::move(top));
  }

  const TokenSpelling& spelling_;
  int64_t offset_;
  Json tokens_ = Json::array(), token_logprobs_ = Json::array(), top_logprobs_ = Json::array(),
       text_offsets_ = Json::array();
};

class CompletionFormat final : public OpenAiFormat {
 public:
  explicit CompletionFormat(const AnswerOptions& options) : OpenAiFormat(options), spelling_(this->options()) {}

  std::string id_prefix() const override { return "cmpl-"; }
  std::string object() const override { return "text_completion"; }
  std::string chunk_object() const override { return "text_completion"; }

  Json choice(ChoiceNews& news) const override {
    Json logprobs;
    if (options().logprobs) {
      CompletionLogprobs arrays(spelling_, news.text_offset);
      arrays.add(news.echoed_token_ids, news.echoed_logprobs);
      arrays.add(news.token_ids, news.logprobs);
      news.text_offset = arrays.offset();
      logprobs = std::move(arrays).json();
    }
    Json choice = {{"index", news.index},
                   {"text", news.echo + news.text},
                   {"logprobs", std::move(logprobs)},
                   {"finish_reason", finish_reason_json(news)},
                   {"stop_reason", stop_reason_json(news.stop_reason)}};
    if (options().return_token_ids) {
      choice["token_ids"] = news.token_ids;
      if (news.opens) choice["prompt_token_ids"] = news.prompt_token_ids;
    }
    if (options().prompt_logprobs && news.opens) {
      choice["prompt_logprobs"] = prompt_logprobs_json(news.prompt_logprobs, spelling_);
    }
    return choice;
  }

  void complete_body(Json&, const ChoiceNews&) const override {}
  std::vector<Json> chunk_choices(ChoiceNews& news) const override { return {choice(news)}; }

 private:
  const TokenSpelling spelling_;
};

Json token_json(const TokenLogprob& token, const TokenSpelling& spelling) {
  const std::string bytes = spelling.bytes(token.token_id);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"token", spelling.text(token.token_id)}, {"logprob", finite(token.logprob)}, {"bytes", std::move(list)}};
}

}  // namespace

Json chat_logprobs(const ChoiceNews& news, const AnswerOptions& options) {
  const TokenSpelling spelling(options);
  Json content = Json::array();
  for (const PositionLogprobs& position : news.logprobs) {
    if (position.empty()) continue;
    Json entry = token_json(position.front(), spelling);
    Json top = Json::array();
    for (size_t i = 1; i < position.size() && static_cast<int32_t>(i) <= options.num_logprobs; ++i) {
      top.push_back(token_json(position[i], spelling));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return content;
}

namespace {

class ChatFormat final : public OpenAiFormat {
 public:
  explicit ChatFormat(const AnswerOptions& options) : OpenAiFormat(options), spelling_(this->options()) {}

  std::string id_prefix() const override { return "chatcmpl-"; }
  std::string object() const override { return "chat.completion"; }
  std::string chunk_object() const override { return "chat.completion.chunk"; }

  Json choice(ChoiceNews& news) const override {
    const bool only_calls = !news.calls.empty() && news.text.empty() && news.echo.empty();
    Json message = {{"role", "assistant"}, {"content", only_calls ? Json() : Json(news.echo + news.text)},
                    {"refusal", nullptr},  {"annotations", nullptr},
                    {"audio", nullptr},    {"function_call", nullptr}};
    add_reasoning(message, news);
    if (!news.calls.empty()) {  // an empty list would be a turn with tools to some clients
      message["tool_calls"] = whole_calls(news);
    }
    Json choice = {{"index", news.index}, {"message", std::move(message)}};
    complete(choice, news);
    return choice;
  }

  void complete_body(Json& body, const ChoiceNews& first) const override {
    if (options().prompt_logprobs) body["prompt_logprobs"] = prompt_logprobs_json(first.prompt_logprobs, spelling_);
    if (options().return_token_ids) body["prompt_token_ids"] = first.prompt_token_ids;
  }

  std::vector<Json> chunk_choices(ChoiceNews& news) const override {
    std::vector<Json> choices;
    if (news.opens) choices.push_back(bare(news, {{"role", "assistant"}, {"content", news.echo}}));
    if (!news.text.empty() || !news.reasoning.empty() || (news.calls.empty() && !news.token_ids.empty())) {
      choices.push_back(with_tokens(news, delta_of(news)));
    }
    size_t begun = 0;
    for (const ToolCall& call : news.calls) {
      if (!call.continues) {
        const Json head = {{"index", news.num_calls_before + static_cast<int64_t>(begun)},
                           {"id", news.call_ids[begun]},
                           {"type", "function"},
                           {"function", {{"name", call.name}, {"arguments", ""}}}};
        choices.push_back(bare(news, {{"tool_calls", Json::array({head})}}));
        ++begun;
      }
      if (call.arguments.empty()) continue;
      const int64_t index = news.num_calls_before + static_cast<int64_t>(begun) - 1;
      const Json tail = {{"index", index}, {"function", {{"arguments", call.arguments}}}};
      choices.push_back(bare(news, {{"tool_calls", Json::array({tail})}}));
    }
    if (news.finish_reason != FinishReason::kNone) choices.push_back(bare(news, Json::object()));
    return choices;
  }

 private:
  static Json whole_calls(const ChoiceNews& news) {
    Json calls = Json::array();
    for (const ToolCall& call : news.calls) {
      if (call.continues) {
        Json& arguments = calls.back()["function"]["arguments"];
        arguments = arguments.get<std::string>() + call.arguments;
      } else {
        calls.push_back({{"id", news.call_ids[calls.size()]},
                         {"type", "function"},
                         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
      }
    }
    return calls;
  }

  static void add_reasoning(Json& message, const ChoiceNews& news) {
    if (news.reasoning.empty()) return;
    message["reasoning"] = news.reasoning;          // vLLM's name
    message["reasoning_content"] = news.reasoning;  // its older one, which most clients read
  }

  static Json delta_of(const ChoiceNews& news) {
    Json delta = Json::object();
    add_reasoning(delta, news);
    if (!news.text.empty() || news.reasoning.empty()) delta["content"] = news.text;
    return delta;
  }

  // A chunk in the middle.
  Json with_tokens(ChoiceNews& news, Json delta) const {
    Json choice = {{"index", news.index}, {"delta", std::move(delta)}};
    const FinishReason reason = std::exchange(news.finish_reason, FinishReason::kNone);
    complete(choice, news);
    news.finish_reason = reason;
    return choice;
  }

  Json bare(const ChoiceNews& news, Json delta) const {
    const bool ends = delta.empty(), opens = delta.contains("role");
    Json choice = {{"index", news.index}, {"delta", std::move(delta)}, {"logprobs", nullptr}};
    choice["finish_reason"] = ends ? finish_reason_json(news) : Json();
    if (ends) choice["stop_reason"] = stop_reason_json(news.stop_reason);
    if (opens && options().return_token_ids) choice["prompt_token_ids"] = news.prompt_token_ids;
    return choice;
  }

  void complete(Json& choice, const ChoiceNews& news) const {
    choice["logprobs"] = options().logprobs ? logprobs_json(news) : Json();
    choice["finish_reason"] = finish_reason_json(news);
    if (news.finish_reason != FinishReason::kNone) choice["stop_reason"] = stop_reason_json(news.stop_reason);
    if (options().return_token_ids) choice["token_ids"] = news.token_ids;
  }

  Json logprobs_json(const ChoiceNews& news) const {
    return {{"content", chat_logprobs(news, options())}, {"refusal", nullptr}};
  }

  const TokenSpelling spelling_;
};

double milliseconds(int64_t from_us, int64_t to_us) {
  return from_us > 0 && to_us > from_us ? static_cast<double>(to_us - from_us) / 1e3 : 0.0;
}

Json usage_json(const AnswerUsage& usage) {
  Json json = {{"prompt_tokens", usage.num_prompt_tokens},
               {"completion_tokens", usage.num_output_tokens},
               {"total_tokens", usage.num_prompt_tokens + usage.num_output_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.num_cached_tokens}}}};
  if (usage.num_reasoning_tokens) {
    json["completion_tokens_details"] = {{"reasoning_tokens", *usage.num_reasoning_tokens}};
  }
  return json;
}

// As llama.cpp's server has them.
Json timings_json(const AnswerUsage& usage) {
  const double prompt_ms = milliseconds(usage.times.first_scheduled_us, usage.times.first_token_us);
  const double output_ms = milliseconds(usage.times.first_token_us, usage.times.last_token_us);
  const auto rate = [](int64_t count, double ms) { return ms > 0 ? static_cast<double>(count) * 1e3 / ms : 0.0; };
  const int64_t num_computed = usage.num_prompt_tokens - usage.num_cached_tokens;
  return {{"cache_n", usage.num_cached_tokens},
          {"prompt_n", num_computed},
          {"prompt_ms", prompt_ms},
          {"prompt_per_second", rate(num_computed, prompt_ms)},
          {"predicted_n", usage.num_output_tokens},
          {"predicted_ms", output_ms},
          {"predicted_per_second", rate(usage.num_output_tokens, output_ms)},
          {"queue_ms", milliseconds(usage.times.arrival_us, usage.times.first_scheduled_us)}};
}

}  // namespace

void OpenAiFormat::begin(const AnswerHead& head) {
  head_ = head;
  const std::string text = dump_line(envelope(chunk_object()));
  chunk_head_ = "data: " + text.substr(0, text.size() - 1) + ",\"choices\":[";
}

Json OpenAiFormat::envelope(const std::string& object) const {
  return {{"id", head_.id},
          {"object", object},
          {"created", head_.created},
          {"model", head_.model},
          {"system_fingerprint", head_.fingerprint}};
}

Json OpenAiFormat::whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) {
  Json body = envelope(object());
  Json list = Json::array();
  for (ChoiceNews& news : choices) list.push_back(choice(news));
  body["choices"] = std::move(list);
  body["usage"] = usage_json(usage);
  body["service_tier"] = nullptr;
  body["timings"] = timings_json(usage);
  complete_body(body, choices.front());
  return body;
}

void OpenAiFormat::write_news(ChoiceNews& news, const AnswerUsage& usage, bool ends_all, std::string& stream) {
  const std::vector<Json> parts = chunk_choices(news);
  for (size_t i = 0; i < parts.size(); ++i) {
    stream += chunk_head_;
    stream += dump_line(parts[i]);
    stream += ']';
    if (options_.continuous_usage) {
      stream += ",\"usage\":" + dump_line(usage_json(usage));
    } else if (options_.include_usage) {
      stream += ",\"usage\":null";
    }
    if (ends_all && i + 1 == parts.size() && !options_.include_usage) {
      stream += ",\"timings\":" + dump_line(timings_json(usage));
    }
    stream += "}\n\n";
  }
}

void OpenAiFormat::write_end(const AnswerUsage& usage, std::string& stream) {
  if (options_.include_usage) {
    Json chunk = envelope(chunk_object());
    chunk["choices"] = Json::array();
    chunk["usage"] = usage_json(usage);
    chunk["timings"] = timings_json(usage);
    stream += "data: " + dump_line(chunk) + "\n\n";
  }
  stream += "data: [DONE]\n\n";
}

void OpenAiFormat::write_error(const ApiError& error, std::string& stream) {
  stream += "data: " + dump_line(error.body(ErrorWording::kOpenAi)) + "\n\ndata: [DONE]\n\n";
}

Json finish_reason_json(const ChoiceNews& news) {
  if (news.finish_reason == FinishReason::kNone) return nullptr;
  const bool called = !news.call_was_asked_for && news.num_calls_before + num_begun(news) > 0;
  if (called && news.finish_reason == FinishReason::kStop) return "tool_calls";
  return finish_reason_name(news.finish_reason);
}

Json stop_reason_json(const StopReason& reason) {
  if (const auto* id = std::get_if<int32_t>(&reason)) return *id;
  if (const auto* text = std::get_if<std::string>(&reason)) return *text;
  return nullptr;
}

std::unique_ptr<OpenAiFormat> completion_format(const AnswerOptions& options) {
  return std::make_unique<CompletionFormat>(options);
}
std::unique_ptr<OpenAiFormat> chat_format(const AnswerOptions& options) {
  return std::make_unique<ChatFormat>(options);
}

}  // namespace octet
