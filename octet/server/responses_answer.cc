#include "octet/server/responses_answer.h"

#include <utility>

namespace octet {
namespace {

Json usage_json(const AnswerUsage& usage) {
  return {{"input_tokens", usage.num_prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.num_cached_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", usage.num_output_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.num_reasoning_tokens.value_or(0)}}},
          {"total_tokens", usage.num_prompt_tokens + usage.num_output_tokens}};
}

// A response is a list of items that open, grow and close one after the other. A whole answer goes the same way as a
// stream, without the events.
class ResponsesFormat final : public AnswerFormat {
 public:
  ResponsesFormat(Json echo, const AnswerOptions& options) : echo_(std::move(echo)), options_(options) {}

  std::string id_prefix() const override { return "resp_"; }
  ErrorWording error_wording() const override { return ErrorWording::kOpenAi; }
  void begin(const AnswerHead& head) override { head_ = head; }

  Json whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) override {
    take(choices.front());
    close(last_status());
    return ended(usage);
  }

  void write_news(ChoiceNews& news, const AnswerUsage&, bool, std::string& stream) override {
    stream_ = &stream;
    if (news.opens) {
      emit("response.created", {{"response", response("in_progress")}});
      emit("response.in_progress", {{"response", response("in_progress")}});
    }
    take(news);
    stream_ = nullptr;
  }

  void write_end(const AnswerUsage& usage, std::string& stream) override {
    stream_ = &stream;
    close(last_status());
    emit(finish_ == FinishReason::kStop ? "response.completed" : "response.incomplete", {{"response", ended(usage)}});
    stream_ = nullptr;
  }

  void write_error(const ApiError& error, std::string& stream) override {
    stream_ = &stream;
    Json body = response("failed");
    body["error"] = {{"code", "server_error"}, {"message", error.what()}};
    emit("response.failed", {{"response", std::move(body)}});
    stream_ = nullptr;
  }

 private:
  enum class Kind : uint8_t { kNone, kReasoning, kMessage, kCall };

  void take(const ChoiceNews& news) {
    finish_ = news.finish_reason;
    if (!news.reasoning.empty()) {
      open(Kind::kReasoning);
      text_ += news.reasoning;
      emit("response.reasoning_text.delta", in_part({{"delta", news.reasoning}}));
    }
    if (options_.logprobs) {
      for (Json& token : chat_logprobs(news, options_)) logprobs_.push_back(std::move(token));
    }
    if (!news.text.empty()) {
      open(Kind::kMessage);
      text_ += news.text;
      Json logprobs = std::exchange(logprobs_, Json::array());
      for (const Json& token : logprobs) part_logprobs_.push_back(token);
      emit("response.output_text.delta", in_part({{"delta", news.text}, {"logprobs", std::move(logprobs)}}));
    }
    size_t begun = 0;
    for (const ToolCall& call : news.calls) {
      if (!call.continues) {
        close();
        call_ = {{"call_id", "call_" + news.call_ids[begun++]}, {"name", call.name}};
        open(Kind::kCall);
      }
      if (call.arguments.empty()) continue;
      text_ += call.arguments;
      emit("response.function_call_arguments.delta", in_item({{"delta", call.arguments}}));
    }
  }

  // Goes on with the open item if it is of this kind.
  void open(Kind kind) {
    if (open_ == kind) return;
    close();
    open_ = kind;
    Json item = this->item("in_progress");
    if (item.contains("content")) item["content"] = Json::array();
    emit("response.output_item.added", {{"output_index", output_.size()}, {"item", std::move(item)}});
    if (kind != Kind::kCall) emit("response.content_part.added", in_part({{"part", part()}}));
  }

  void close(const char* status = "completed") {
    if (open_ == Kind::kNone) return;
    if (open_ == Kind::kCall) {
      emit("response.function_call_arguments.done", in_item({{"name", call_["name"]}, {"arguments", text_}}));
    } else {
      const bool reasons = open_ == Kind::kReasoning;
      Json done = {{"text", text_}};
      if (!reasons) done["logprobs"] = part_logprobs_;
      emit(reasons ? "response.reasoning_text.done" : "response.output_text.done", in_part(std::move(done)));
      emit("response.content_part.done", in_part({{"part", part()}}));
    }
    Json item = this->item(status);
    emit("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.push_back(std::move(item));
    open_ = Kind::kNone;
    text_.clear();
    part_logprobs_ = Json::array();
  }

  // Of the response and of the item that is open at its end.
  const char* last_status() const { return finish_ == FinishReason::kStop ? "completed" : "incomplete"; }

  std::string item_id() const {
    const char* prefix = open_ == Kind::kReasoning ? "rs_" : open_ == Kind::kMessage ? "msg_" : "fc_";
    return fmt::format("{}{}_{}", prefix, std::string_view(head_.id).substr(id_prefix().size()), output_.size());
  }

  Json part() const {
    if (open_ == Kind::kReasoning) return {{"type", "reasoning_text"}, {"text", text_}};
    return {{"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}, {"logprobs", part_logprobs_}};
  }

  Json item(const char* status) const {
    Json item = {{"id", item_id()}, {"status", status}};
    if (open_ == Kind::kCall) {
      item.update({{"type", "function_call"}, {"arguments", text_}});
      item.update(call_);
    } else if (open_ == Kind::kMessage) {
      item.update({{"type", "message"}, {"role", "assistant"}, {"content", Json::array({part()})}});
    } else {
      item.update({{"type", "reasoning"}, {"summary", Json::array()}, {"content", Json::array({part()})}});
    }
    return item;
  }

  Json in_item(Json event) const {
    event["item_id"] = item_id();
    event["output_index"] = output_.size();
    return event;
  }
  Json in_part(Json event) const {
    event["content_index"] = 0;
    return in_item(std::move(event));
  }

  Json response(const char* status) const {
    Json body = {{"id", head_.id},       {"object", "response"}, {"created_at", head_.created},
                 {"status", status},     {"error", nullptr},     {"incomplete_details", nullptr},
                 {"model", head_.model}, {"output", output_},    {"usage", nullptr}};
    body.update(echo_);
    return body;
  }

  Json ended(const AnswerUsage& usage) const {
    Json body = response(last_status());
    if (finish_ == FinishReason::kLength) body["incomplete_details"] = {{"reason", "max_output_tokens"}};
    body["usage"] = usage_json(usage);
    return body;
  }

  // Nothing for a whole answer.
  void emit(const char* name, Json body) {
    if (!stream_) return;
    Json event = {{"type", name}, {"sequence_number", num_events_++}};
    event.update(body);
    *stream_ += "event: ";
    *stream_ += name;
    *stream_ += "\ndata: " + dump_line(event) + "\n\n";
  }

  const Json echo_;
  const AnswerOptions options_;
  AnswerHead head_;
  Json output_ = Json::array();                                    // items that are closed
  Kind open_ = Kind::kNone;                                        // the item that grows
  std::string text_;                                               // its text, or its arguments
  Json call_;                                                      // its name and call_id
  Json logprobs_ = Json::array(), part_logprobs_ = Json::array();  // of tokens whose text has not come; of the item
  FinishReason finish_ = FinishReason::kNone;
  int64_t num_events_ = 0;
  std::string* stream_ = nullptr;
};

}  // namespace

std::unique_ptr<AnswerFormat> responses_format(Json echo, const AnswerOptions& options) {
  return std::make_unique<ResponsesFormat>(std::move(echo), options);
}

}  // namespace octet
