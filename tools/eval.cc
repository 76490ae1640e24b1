// octet eval perplexity, octet eval kld: how good a model is on a text, and how near to another. octet eval task is in
// eval_task.cc.
#include "octet/base/file.h"
#include "octet/device/device.h"
#include "octet/evaluate/kl_divergence.h"
#include "octet/evaluate/perplexity.h"
#include "octet/evaluate/windows.h"
#include "tools/commands.h"
#include "tools/flags.h"
#include "tools/terminal.h"

namespace octet {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

struct TextFlags {
  std::string path;
  int64_t window = 512, max_windows = 0;
  bool json = false;

  void add_to(CLI::App& command) {
    command.add_option("--text", path, "the text file (UTF-8)")->required()->check(CLI::ExistingFile);
    command.add_option("--window", window, "tokens in a window")->capture_default_str()->check(CLI::Range(2, 1 << 20));
    command.add_option("--max-windows", max_windows, "only the first ones (0: all)")->capture_default_str();
    command.add_flag("--json", json, "one JSON object");
  }
  std::vector<int32_t> token_ids(const Llm& llm) const {
    return llm.tokenizer()->encode(read_file(path, kMaxTextBytes), AddSpecialTokens::kNo);
  }
  std::vector<std::vector<int32_t>> windows(const Llm& llm) const {
    return cut_windows(token_ids(llm), window, max_windows);
  }
};

struct PerplexityCommand {
  ModelFlags model;
  TextFlags text;
  int64_t stride = 0;

  std::vector<ScoredWindow> windows(const Llm& llm) const {
    if (stride > 0) return slide_windows(text.token_ids(llm), text.window, stride, text.max_windows);
    std::vector<ScoredWindow> all;
    for (std::vector<int32_t>& window : text.windows(llm)) all.push_back({.token_ids = std::move(window)});
    return all;
  }

  void run() const {
    LlmOptions options = model.options();
    options.engine.enable_prefix_caching = false;
    Llm llm(options);
    const std::vector<ScoredWindow> windows = this->windows(llm);
    ProgressBar bar("perplexity", "windows");
    const PerplexityResult result = perplexity(
        llm.engine(), windows, [&](int64_t done) { bar.update(done, static_cast<int64_t>(windows.size())); });
    if (text.json) {
      print_now(Json{{"perplexity", result.perplexity},
                     {"mean_nll", result.mean_nll},
                     {"standard_error", result.standard_error},
                     {"num_tokens", result.num_tokens},
                     {"num_windows", result.num_windows},
                     {"window", text.window},
                     {"stride", stride}}
                    .dump() +
                "\n");
      return;
    }
    print_now(fmt::format("perplexity {:.4f} (nll {:.5f} +- {:.5f} nats) over {} tokens in {} windows of {}\n",
                          result.perplexity, result.mean_nll, result.standard_error, result.num_tokens,
                          result.num_windows, text.window));
  }
};

struct KldCommand {
  ModelFlags model;
  std::string reference_model, reference_dtype = "auto", reference_kv_cache_dtype = "bf16";
  TextFlags text;
  void run() const;
};

void KldCommand::run() const {
  LlmOptions options = model.options();
  options.engine.enable_prefix_caching = false;
  LlmOptions reference = options;
  reference.model = reference_model.empty() ? model.model : reference_model;
  reference.engine.quant = QuantOptions{};
  reference.engine.kv_cache_dtype = reference_kv_cache_dtype;
  reference.engine.dtype = reference_dtype;
  Llm llm(options);
  // The same device, which has been announced.
  reference.engine.device = device_name(parse_device(options.engine.device));
  Llm reference_llm(reference);
  const auto windows = text.windows(llm);
  ProgressBar bar("kld", "windows");
  const KlDivergenceResult result = kl_divergence(llm.engine(), reference_llm.engine(), windows, [&](int64_t done) {
    bar.update(done, static_cast<int64_t>(windows.size()));
  });
  if (text.json) {
    print_now(Json{{"kl_divergence_mean", result.mean},
                   {"kl_divergence_standard_error", result.standard_error},
                   {"kl_divergence_median", result.median},
                   {"kl_divergence_p99", result.p99},
                   {"kl_divergence_max", result.max},
                   {"top1_agreement", result.top1_agreement},
                   {"perplexity", result.perplexity},
                   {"reference_perplexity", result.reference_perplexity},
                   {"num_tokens", result.num_tokens},
                   {"num_windows", result.num_windows},
                   {"window", text.window}}
                  .dump() +
              "\n");
    return;
  }
  print_now(fmt::format(
      "KL divergence {:.6f} +- {:.6f} nats (median {:.6f}, p99 {:.6f}, max {:.4f})\ntop-1 agreement {:.2f} %\n"
      "perplexity {:.4f}, of the reference {:.4f}\n{} positions in {} windows of {}\n",
      result.mean, result.standard_error, result.median, result.p99, result.max, 100 * result.top1_agreement,
      result.perplexity, result.reference_perplexity, result.num_tokens, result.num_windows, text.window));
}

}  // namespace

void add_eval(CLI::App& program) {
  CLI::App* eval = program.add_subcommand("eval", "Measure accuracy on a text or a task");
  eval->require_subcommand(1);

  auto ppl = std::make_shared<PerplexityCommand>();
  CLI::App* ppl_app = eval->add_subcommand("perplexity", "Perplexity of a model on a text");
  ppl->model.add_to(*ppl_app);
  ppl->text.add_to(*ppl_app);
  ppl_app
      ->add_option("--stride", ppl->stride,
                   "windows slide by so many tokens, and each token is scored once (0: windows do not overlap)")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  ppl_app->callback([ppl] { ppl->run(); });

  auto kld = std::make_shared<KldCommand>();
  CLI::App* kld_app = eval->add_subcommand(
      "kld", "KL divergence and top-1 agreement of a model against a reference (default: itself unquantised)");
  kld->model.add_to(*kld_app, ModelFlags::Model::kFlag);
  kld_app->add_option("--reference-model", kld->reference_model,
                      "folder or name (default: --model without quantisation)");
  kld_app->add_option("--reference-dtype", kld->reference_dtype, "dtype of the reference")->capture_default_str();
  kld_app->add_option("--reference-kv-cache-dtype", kld->reference_kv_cache_dtype, "KV cache of the reference")
      ->capture_default_str();
  kld->text.add_to(*kld_app);
  kld_app->callback([kld] { kld->run(); });
  add_eval_task(*eval);
}

}  // namespace octet
