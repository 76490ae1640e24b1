// Chat templates: the Jinja that models ship, rendered byte for byte as Python's jinja2 does with Hugging Face's
// settings (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols, `generation` blocks, tojson
// without HTML escapes, raise_exception, strftime_now), with limits on steps and on output size.
//
// Every character of the output knows whether it came from the template or from the caller's messages; see TextOrigin.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/json.h"
#include "octet/text/tokenizer.h"

namespace octet {

struct ChatInputs {
  Json messages = Json::array();  // [{"role", "content", ...}], passed to the template as given
  Json tools;                     // null or an array
  bool add_generation_prompt = true;
  std::string bos_token, eos_token;  // "" when the tokenizer has none
  Json extra = Json::object();       // chat_template_kwargs: further variables (special tokens too: unk_token, ...)
  std::optional<int64_t> now_unix_seconds;  // what strftime_now sees (local time); the clock when absent
};

struct RenderLimits {
  int64_t max_steps = 10'000'000;
  int64_t max_output_bytes = int64_t{64} << 20;
  int max_depth = 200;
};

class ChatTemplate {
 public:
  // Parses; throws Error{kModel} with the line for a syntax error.
  ChatTemplate(std::string_view source, std::string_view where);
  // <folder>/chat_template.jinja, else tokenizer_config.json's chat_template (a string, or a list of {name, template}
  // of which `name` or "default" is taken; "tool_use" when tools are given is the caller's choice). Nothing if there is
  // none.
  static std::optional<ChatTemplate> from_folder(const std::string& folder, std::string_view name = "default");
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The Jinja text itself.
  const std::string& source() const;

  // Throws Error{kInvalid} with the template's own text for raise_exception, for a type error (with its line) and for a
  // limit that was reached.
  std::vector<TextSpan> render_spans(const ChatInputs& inputs, const RenderLimits& limits = {}) const;
  std::string render(const ChatInputs& inputs, const RenderLimits& limits = {}) const;

 private:
  struct Program;  // the parsed template
  std::unique_ptr<const Program> program_;
};

// Hugging Face's continue_final_message: what the template wrote behind the text of the last message goes, so that the
// model goes on with it. Throws Error{kInvalid} when the last message has no text, or the template left it out.
void cut_after_final_message(std::vector<TextSpan>& spans, const Json& messages);

}  // namespace octet
