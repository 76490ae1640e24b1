// octet render: chat templates, JSON lines in and out.
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/checkpoint/hub_cache.h"
#include "octet/text/chat_template.h"
#include "octet/text/chat_tokens.h"
#include "tools/commands.h"
#include "tools/json_lines.h"

namespace octet {
namespace {

struct RenderCommand {
  std::string folder, template_file;

  void run() const {
    std::map<std::string, std::string> tokens;
    const std::string path = folder.empty() ? "" : resolve_model(folder);
    if (!path.empty()) tokens = special_tokens_of_folder(path);
    const ChatTemplate chat_template = load(path);
    answer_json_lines([&](const JsonObject& line) { return render_line(chat_template, tokens, line); });
  }

  ChatTemplate load(const std::string& path) const {
    if (!template_file.empty()) return ChatTemplate(read_file(template_file, int64_t{1} << 20), template_file);
    if (path.empty()) fail(ErrorCode::kUsage, "render needs a DIR, or --template FILE");
    auto found = ChatTemplate::from_folder(path);
    if (!found)
      fail(ErrorCode::kModel, "{}: no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)",
           path);
    return std::move(*found);
  }

  static Json render_line(const ChatTemplate& chat_template, const std::map<std::string, std::string>& tokens,
                          const JsonObject& line) {
    ChatInputs inputs;
    if (const Json* messages = line.find_raw("messages")) inputs.messages = *messages;
    if (const Json* tools = line.find_raw("tools")) inputs.tools = *tools;
    inputs.add_generation_prompt = line.find_bool("add_generation_prompt").value_or(false);
    const auto token = [&](const char* name) {
      const auto found = tokens.find(name);
      return line.find_string(name).value_or(found == tokens.end() ? "" : found->second);
    };
    inputs.bos_token = token("bos_token");
    inputs.eos_token = token("eos_token");
    if (const Json* kwargs = line.find_raw("kwargs")) inputs.extra = *kwargs;
    inputs.now_unix_seconds = line.find_int("now");
    return {{"prompt", chat_template.render(inputs)}};
  }
};

}  // namespace

void add_render(CLI::App& program) {
  auto command = std::make_shared<RenderCommand>();
  CLI::App* app =
      program.add_subcommand("render",
                             "Chat templates: JSON lines {\"messages\", \"tools\", \"add_generation_prompt\", "
                             "\"bos_token\", \"eos_token\", \"kwargs\", \"now\"} "
                             "-> {\"prompt\"} or {\"error\"}");
  app->add_option("dir", command->folder, "a model, or any folder with a chat template");
  app->add_option("--template", command->template_file, "a Jinja file");
  app->callback([command] { command->run(); });
}

}  // namespace octet
