#include "octet/server/messages_answer.h"

#include <utility>

namespace octet {
namespace {

std::string tool_use_id(const std::string& call_id) { return "toolu_" + call_id; }

void write_event(const char* name, const Json& body, std::string& stream) {
  Json event = {{"type", name}};
  event.update(body);
  stream += "event: ";
  stream += name;
  stream += "\ndata: " + dump_line(event) + "\n\n";
}

// What the prefix cache gave counts apart, as Anthropic counts it: the prompt is the sum.
Json usage_json(const AnswerUsage& usage) {
  return {{"input_tokens", usage.num_prompt_tokens - usage.num_cached_tokens},
          {"output_tokens", usage.num_output_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.num_cached_tokens}};
}

class MessagesFormat final : public AnswerFormat {
 public:
  std::string id_prefix() const override { return "msg_"; }
  ErrorWording error_wording() const override { return ErrorWording::kAnthropic; }
  void begin(const AnswerHead& head) override { head_ = head; }

  Json whole(std::vector<ChoiceNews> choices, const AnswerUsage& usage) override {
    const ChoiceNews& news = choices.front();
    note_end(news);
    Json body = message();
    Json& content = body["content"];
    if (!news.reasoning.empty()) {
      content.push_back({{"type", "thinking"}, {"thinking", news.reasoning}, {"signature", ""}});
    }
    if (!news.text.empty()) content.push_back({{"type", "text"}, {"text", news.text}});
    for (Json& block : tool_blocks(news)) content.push_back(std::move(block));
    body["stop_reason"] = stop_reason_;
    body["stop_sequence"] = stop_sequence_;
    body["usage"] = usage_json(usage);
    return body;
  }

  void write_news(ChoiceNews& news, const AnswerUsage& usage, bool, std::string& stream) override {
    if (news.opens) {
      Json body = message();
      body["usage"] = usage_json(usage);
      body["usage"]["output_tokens"] = 0;
      write_event("message_start", {{"message", std::move(body)}}, stream);
    }
    if (!news.reasoning.empty()) {
      open_block(Block::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}, stream);
      write_delta({{"type", "thinking_delta"}, {"thinking", news.reasoning}}, stream);
    }
    if (!news.text.empty()) {
      open_block(Block::kText, {{"type", "text"}, {"text", ""}}, stream);
      write_delta({{"type", "text_delta"}, {"text", news.text}}, stream);
    }
    write_calls(news, stream);
    note_end(news);
  }

  void write_end(const AnswerUsage& usage, std::string& stream) override {
    close_block(stream);
    const Json delta = {{"stop_reason", stop_reason_}, {"stop_sequence", stop_sequence_}};
    write_event("message_delta", {{"delta", delta}, {"usage", usage_json(usage)}}, stream);
    write_event("message_stop", Json::object(), stream);
  }

  void write_error(const ApiError& error, std::string& stream) override {
    write_event("error", error.body(ErrorWording::kAnthropic), stream);
  }

 private:
  enum class Block : uint8_t { kNone, kThinking, kText, kToolUse };

  Json message() const {
    return {{"id", head_.id},           {"type", "message"},        {"role", "assistant"},
            {"model", head_.model},     {"content", Json::array()}, {"stop_reason", nullptr},
            {"stop_sequence", nullptr}, {"usage", Json::object()}};
  }

  static std::vector<Json> tool_blocks(const ChoiceNews& news) {
    std::vector<Json> blocks;
    std::vector<std::string> arguments;
    for (const ToolCall& call : news.calls) {
      if (call.continues) {
        arguments.back() += call.arguments;
        continue;
      }
      blocks.push_back({{"type", "tool_use"}, {"id", tool_use_id(news.call_ids[blocks.size()])}, {"name", call.name}});
      arguments.push_back(call.arguments);
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      Json input = Json::parse(arguments[i], nullptr, false);
      // What max_tokens cut off is no object; the stop reason says so.
      blocks[i]["input"] = input.is_object() ? std::move(input) : Json::object();
    }
    return blocks;
  }

  void write_calls(const ChoiceNews& news, std::string& stream) {
    size_t begun = 0;
    for (const ToolCall& call : news.calls) {
      if (!call.continues) {
        close_block(stream);
        open_block(Block::kToolUse,
                   {{"type", "tool_use"},
                    {"id", tool_use_id(news.call_ids[begun++])},
                    {"name", call.name},
                    {"input", Json::object()}},
                   stream);
      }
      if (call.arguments.empty()) continue;
      write_delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}}, stream);
    }
  }

  // Goes on with the open block if it is of this kind.
  void open_block(Block kind, Json head, std::string& stream) {
    if (open_ == kind) return;
    close_block(stream);
    open_ = kind;
    write_event("content_block_start", {{"index", num_blocks_++}, {"content_block", std::move(head)}}, stream);
  }

  void close_block(std::string& stream) {
    if (std::exchange(open_, Block::kNone) == Block::kNone) return;
    write_event("content_block_stop", {{"index", num_blocks_ - 1}}, stream);
  }

  void write_delta(Json delta, std::string& stream) const {
    write_event("content_block_delta", {{"index", num_blocks_ - 1}, {"delta", std::move(delta)}}, stream);
  }

  void note_end(const ChoiceNews& news) {
    has_calls_ = has_calls_ || !news.calls.empty();
    if (news.finish_reason == FinishReason::kNone) return;
    const auto* text = std::get_if<std::string>(&news.stop_reason);
    if (text) stop_sequence_ = *text;
    if (news.finish_reason != FinishReason::kStop) {
      stop_reason_ = "max_tokens";  // cut off, by whatever: the dialect has no other word
    } else {
      stop_reason_ = has_calls_ ? "tool_use" : text ? "stop_sequence" : "end_turn";
    }
  }

  AnswerHead head_;
  Block open_ = Block::kNone;
  int64_t num_blocks_ = 0;
  bool has_calls_ = false;
  Json stop_reason_, stop_sequence_;  // null until it ends
};

}  // namespace

std::unique_ptr<AnswerFormat> messages_format() { return std::make_unique<MessagesFormat>(); }

}  // namespace octet
