// octet quantize: a model in 8 bits, as a checkpoint that engines load.
#include "octet/quantizer/quantize.h"

#include <cmath>

#include "octet/base/log.h"
#include "octet/checkpoint/hub_cache.h"
#include "tools/commands.h"
#include "tools/terminal.h"

namespace octet {
namespace {

struct QuantizeCommand {
  QuantizeOptions options;
  std::string model;

  void run() {
    options.model_folder = resolve_model(model);
    const bool calibrated = !options.calibration.empty();
    options.on_progress = [bar = ProgressBar("quantising", calibrated ? "steps" : "MiB"), calibrated](
                              int64_t done, int64_t total) mutable {
      bar.update(calibrated ? done : done >> 20, calibrated ? total : total >> 20);
    };
    const QuantizeReport report = quantize_checkpoint(options);
    print_now(fmt::format("{}: {} linears in {} ({}), {} tensors as they were, {} of {}, {:.1f} s\n", report.out_folder,
                          report.linears.size(), report.scheme, report.dialect, report.num_copied,
                          format_bytes(report.written_bytes), format_bytes(report.source_bytes), report.seconds));
    if (const auto& figures = report.model) {
      const std::string interval =
          std::isnan(figures->kl_low) ? "of one sample"
                                      : fmt::format("95 % within {:.6f} and {:.6f}", figures->kl_low, figures->kl_high);
      print_now(fmt::format(
          "KL divergence {:.6f} nats ({}; p99 {:.5f}), top-1 agreement {:.2f} %\n"
          "perplexity {:.4f}, of the source {:.4f}, over {} held-out tokens in {} samples; calibrated on {} tokens\n",
          figures->kl_mean, interval, figures->kl_p99, 100 * figures->top1_agreement, figures->perplexity,
          figures->source_perplexity, figures->num_tokens, figures->num_samples, report.calibration_tokens));
    }
    if (report.num_resumed > 0) log_info("{} tensors were there from the interrupted run", report.num_resumed);
  }
};

}  // namespace

void add_quantize(CLI::App& program) {
  auto command = std::make_shared<QuantizeCommand>();
  QuantizeOptions& options = command->options;
  CLI::App* app = program.add_subcommand("quantize", "Write a model in 8 bits, as a checkpoint that engines load");
  app->add_option("model", command->model, "a local folder, or a name in the Hugging Face cache")->required();
  app->add_option("-o,--out", options.out_folder, "folder to write; appears when it is whole")->required();
  app->add_option("--scheme", options.scheme,
                  "fp8 (one scale per tensor), fp8_channel (= fp8_dynamic), fp8_block, int8, w8a16, mixed (INT8, FP8 "
                  "or as it is, by what is lost)")
      ->capture_default_str();
  app->add_option("--activation-scheme", options.activation_scheme, "of fp8: static or dynamic (default)");
  app->add_option("--dialect", options.dialect,
                  "autofp8 or compressed-tensors (default: autofp8 for fp8 and fp8_block, else compressed-tensors)");
  app->add_option("--ignore", options.ignore,
                  "linears to leave as they are (name or re:pattern), besides lm_head, routers and vision towers");
  app->add_option(
         "--calibration", options.calibration,
         "text: a *.txt or *.jsonl file (\"text\" or \"messages\"), or a folder of them; for static activations, "
         "scales of the KV cache and the report's KL divergence")
      ->group("Calibration");
  app->add_option("--num-samples", options.num_samples, "samples of it")->capture_default_str()->group("Calibration");
  app->add_option("--max-seq-len", options.max_seq_len, "tokens of a sample")
      ->capture_default_str()
      ->group("Calibration");
  app->add_option(
         "--held-out", options.held_out,
         "text to measure on what is lost; default: an eighth of the samples more, that nothing is learned from")
      ->group("Calibration");
  app->add_option("--num-held-out", options.num_held_out, "samples of it")->capture_default_str()->group("Calibration");
  app->add_flag("--calibrate-all-experts", options.calibrate_all_experts,
                "experts of a mixture see every token of the samples, not only those that the router sends them")
      ->group("Calibration");
  app->add_option("--kv-cache-scheme", options.kv_cache_scheme,
                  "write FP8 scales of the KV cache: tensor (one per layer) or head (one per head)")
      ->group("Calibration");
  app->add_option(
         "--recipe", options.recipe,
         "fast: searched scales; best: and rounding that makes up for its errors (GPTQ) and smoothing; default: "
         "the nearest; baseline-autofp8, baseline-llmc, baseline-llmc-gptq: what others compute")
      ->group("Calibration");
  app->add_option(
         "--smooth", options.smooth,
         "move magnitude from inputs to weights (SmoothQuant): off, auto or a strength from 0 to 1; default: auto "
         "with recipe best, else off")
      ->group("Calibration");
  app->add_option("--plain-share", options.plain_share, "of mixed: how much of the weights may stay as it is")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0))
      ->group("Calibration");
  app->add_option("--headroom", options.headroom, "static scales hold 2^headroom times what was seen")
      ->capture_default_str()
      ->check(CLI::Range(0, 8))
      ->group("Calibration");
  app->add_option("--max-kld", options.max_kld, "fail when the mean KL divergence is larger")->group("Calibration");
  app->add_flag("--resume", options.resume, "continue a run that was interrupted");
  app->add_option("--num-threads", options.num_threads, "threads (0: all processors)")->capture_default_str();
  app->callback([command] { command->run(); });
}

}  // namespace octet
