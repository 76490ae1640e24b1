// octet logits: what the model says before any sampling.
#include <map>
#include <mutex>

#include "octet/evaluate/score.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

struct LogitsCommand {
  ModelFlags model;
  std::string tokens;
  bool all = false, json = false;
  void run() const;
};

void LogitsCommand::run() const {
  LlmOptions options = model.options();
  options.tokenizing = LlmOptions::Tokenizing::kOff;
  std::vector<int32_t> ids;
  for (const std::string& id : CLI::detail::split(tokens, ',')) ids.push_back(static_cast<int32_t>(parse_count(id)));
  Llm llm(options);
  std::mutex mutex;
  std::map<int64_t, std::vector<float>> rows;
  for_each_logits(llm.engine(), ids, [&](int64_t position, std::span<const float> logits) {
    if (!all && position + 1 != static_cast<int64_t>(ids.size())) return;
    std::lock_guard lock(mutex);
    rows[position].assign(logits.begin(), logits.end());
  });
  if (json) {
    Json out;
    out["token_ids"] = ids;
    if (all) {
      out["logits"] = Json::array();
      for (const auto& [position, row] : rows) out["logits"].push_back(row);
    } else {
      out["logits"] = rows.rbegin()->second;
    }
    print_now(out.dump() + "\n");
    return;
  }
  for (const auto& [position, row] : rows) {
    const auto best = std::max_element(row.begin(), row.end());
    print_now(fmt::format("position {}: {} logits, largest {:.6f} at id {}\n", position, row.size(), *best,
                          best - row.begin()));
  }
}

}  // namespace

void add_logits(CLI::App& program) {
  auto command = std::make_shared<LogitsCommand>();
  CLI::App* app = program.add_subcommand("logits", "Logits after given token ids; needs no tokenizer");
  command->model.add_to(*app);
  app->add_option("--tokens", command->tokens, "token ids: 1,2,3")->required();
  app->add_flag("--all", command->all, "of every position, not only the last");
  app->add_flag("--json", command->json, "{\"token_ids\", \"logits\"}");
  app->callback([command] { command->run(); });
}

}  // namespace octet
