#include "octet/quantizer/quantize.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "octet/base/build_facts.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/checkpoint/output_folder.h"
#include "octet/checkpoint/safetensors_writer.h"
#include "octet/quantizer/calibrated_run.h"
#include "octet/quantizer/expert_coverage.h"
#include "octet/quantizer/journal.h"
#include "octet/quantizer/output_files.h"
#include "octet/quantizer/plan.h"
#include "octet/quantizer/precision.h"
#include "octet/quantizer/reload_check.h"
#include "octet/quantizer/report_page.h"
#include "octet/quantizer/unit_writer.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr const char* kMixed = "mixed";
constexpr std::string_view kJournalName = "octet_journal.jsonl";
constexpr int64_t kSmallFilesBytes = int64_t{64} << 20;  // tokenizer and the like

// Of the files' names, sizes and times: whether it is the same source, without reading it.
Json describe_source(const std::string& folder, const SafetensorsFolder& files) {
  Json list = Json::object();
  for (const auto& [name, entry] : files.entries()) {
    const fs::path file = files.file_of(name);
    const std::string key = file.filename().string();
    if (list.contains(key)) continue;
    list[key] = {fs::file_size(file), fs::last_write_time(file).time_since_epoch().count()};
  }
  return {{"folder", fs::absolute(folder).lexically_normal().string()}, {"files", list}};
}

void check_disk_space(const fs::path& target, int64_t num_bytes) {
  fs::path place = fs::absolute(target).parent_path();
  while (!fs::exists(place) && place.has_parent_path() && place != place.parent_path()) place = place.parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(place, error);
  if (error || static_cast<int64_t>(space.available) >= num_bytes) return;
  constexpr double kGiB = 0x1p30;
  fail(ErrorCode::kIo, "{}: {:.2f} GiB are needed, {:.2f} GiB are free on {}", target.string(),
       static_cast<double>(num_bytes) / kGiB, static_cast<double>(space.available) / kGiB, place.string());
}

KvCacheQuant kv_cache_quant(const std::string& scheme) {
  if (scheme != "tensor" && scheme != "head")
    fail(ErrorCode::kUsage, "kv cache scheme \"{}\": expected tensor (one scale per layer) or head", scheme);
  return {.per_head = scheme == "head"};
}

class Quantization {
 public:
  explicit Quantization(const QuantizeOptions& options)
      : options_(options),
        json_(read_plain_config(options.model_folder)),
        source_(options.model_folder),
        threads_(options.num_threads > 0 ? options.num_threads : ThreadPool::default_num_threads()) {
    read_text();
    make_plan();
  }

  QuantizeReport run();

 private:
  void read_text();
  void make_plan();
  void choose_smoothing(const PlanRequest& request);
  void check_experts() const;
  OutputFolder make_folder(const SafetensorsLayout& layout) const;
  Json task() const;
  Json written_config() const;
  void write_units(UnitWriter& units) const;
  void take_findings(CalibratedFindings findings);

  const QuantizeOptions& options_;
  const Json json_;
  SafetensorsFolder source_;
  ThreadPool threads_;
  std::optional<ModelConfig> config_;  // of a calibrated run, like the text
  std::optional<CalibrationText> text_;
  Smoothing smoothing_;
  int64_t steps_before_ = 0;  // of progress: a survey's
  QuantizePlan plan_;
  QuantizeReport report_;
};

void Quantization::read_text() {
  const bool given = !options_.calibration.empty() || !options_.calibration_tokens.empty();
  if (!given) {
    if (!options_.held_out.empty())
      fail(ErrorCode::kUsage, "held_out is judged by after calibration: give calibration");
    if (options_.activation_scheme == "static")
      fail(ErrorCode::kUsage, "static activations need text to find their scales: give calibration");
    if (!options_.kv_cache_scheme.empty())
      fail(ErrorCode::kUsage, "scales of the KV cache need text to be found: give calibration");
    if (searches_scales(parse_recipe(options_.recipe)) || needs_hessian(parse_recipe(options_.recipe)))
      fail(ErrorCode::kUsage, "recipe \"{}\" needs text to see what matters: give calibration", options_.recipe);
    if (options_.scheme == kMixed)
      fail(ErrorCode::kUsage, "scheme \"mixed\" needs text to measure on: give calibration");
    if (parse_smoothing(options_.smooth).kind != Smoothing::Kind::kOff)
      fail(ErrorCode::kUsage, "smooth \"{}\" needs text to see what is large: give calibration", options_.smooth);
    if (options_.calibrate_all_experts)
      fail(ErrorCode::kUsage, "calibrate_all_experts is about what experts see of text: give calibration");
    if (options_.max_kld) fail(ErrorCode::kUsage, "max_kld needs text to measure on: give calibration");
    return;
  }
  parse_recipe(options_.recipe);
  config_ = ModelConfig::from_folder(options_.model_folder);
  find_arch(*config_);  // says so before the text is read
  text_ = divide_samples(options_.calibration.empty()
                             ? options_.calibration_tokens
                             : read_calibration(options_.calibration, options_.model_folder, options_.max_seq_len),
                         options_.num_samples);
  if (options_.held_out.empty()) return;
  text_->held_out = take_evenly(read_calibration(options_.held_out, options_.model_folder, options_.max_seq_len),
                                options_.num_held_out);
}

void Quantization::make_plan() {
  const bool mixed = options_.scheme == kMixed;
  PlanRequest request{.scheme = named_scheme(mixed ? "int8" : options_.scheme, options_.activation_scheme),
                      .dialect = options_.dialect,
                      .recipe = parse_recipe(options_.recipe),
                      .ignore = options_.ignore};
  if (mixed) request.scheme.name = kMixed;
  if (mixed && is_baseline(request.recipe))
    fail(ErrorCode::kUsage, "recipe \"{}\": baselines have one scheme, not mixed", options_.recipe);
  if (!options_.kv_cache_scheme.empty()) {
    request.kv_cache = kv_cache_quant(options_.kv_cache_scheme);
    request.num_kv_heads = config_->num_key_value_heads;
  }
  choose_smoothing(request);
  plan_ = plan_quantization(source_, request);
  check_experts();
  if (!mixed) return;
  steps_before_ = survey_steps(*config_, *text_);
  const int64_t total = steps_before_ + Calibration::count_steps(*text_, config_->num_hidden_layers);
  const std::vector<UnitLoss> losses = survey_units(*config_, source_, plan_, *text_, options_.observed_experts(),
                                                    smoothing_, threads_, [this, total, done = int64_t{0}]() mutable {
                                                      if (options_.on_progress) options_.on_progress(++done, total);
                                                    });
  request.others = choose_precision(losses, options_.plain_share);
  plan_ = plan_quantization(source_, request);
}

void Quantization::choose_smoothing(const PlanRequest& request) {
  smoothing_ = parse_smoothing(options_.smooth);
  const bool fixed = request.scheme.static_activations();
  if (options_.smooth.empty()) {
    if (request.recipe == Recipe::kBest && !fixed) smoothing_.kind = Smoothing::Kind::kAuto;
    return;
  }
  if (smoothing_.kind == Smoothing::Kind::kOff) return;
  if (fixed)
    fail(ErrorCode::kUsage, "smooth \"{}\": static activations are not smoothed, only dynamic ones", options_.smooth);
  if (is_baseline(request.recipe))
    fail(ErrorCode::kUsage, "smooth \"{}\": baselines are not smoothed", options_.smooth);
}

void Quantization::check_experts() const {
  if (!options_.calibrate_all_experts) return;
  const auto is_expert = [](const PlannedUnit& unit) {
    return !unit.parts.empty() && expert_linear_name(unit.name).has_value();
  };
  if (std::any_of(plan_.units.begin(), plan_.units.end(), is_expert)) return;
  fail(ErrorCode::kUsage, "calibrate_all_experts: {} has no experts with linears of their own that are quantised",
       options_.model_folder);
}

OutputFolder Quantization::make_folder(const SafetensorsLayout& layout) const {
  const fs::path target(options_.out_folder);
  if (fs::exists(target) && fs::equivalent(target, options_.model_folder))
    fail(ErrorCode::kUsage, "{}: is the model itself; choose another folder to write", options_.out_folder);
  // What is resumed has its space already.
  if (!options_.resume) check_disk_space(target, safetensors_bytes(plan_.entries, layout) + kSmallFilesBytes);
  return OutputFolder(options_.out_folder, {.unfinished = OutputRules::Unfinished::kKeep, .resume = options_.resume});
}

// What must be the same for a run to be continued.
Json Quantization::task() const {
  return {{"tool", fmt::format("octet {} ({})", build::kVersion, build::kCommit)},
          {"source", describe_source(options_.model_folder, source_)},
          {"config", json_},
          {"scheme", plan_.scheme},
          {"activations", plan_.activations()},
          {"quantization_config", plan_.writer->quantization_config(plan_.quant)},
          {"max_shard_bytes", options_.max_shard_bytes},
          {"calibration", text_ ? Json(text_->digest()) : Json()},
          {"calibrate_all_experts", options_.calibrate_all_experts},
          {"recipe", options_.recipe},
          {"smooth", options_.smooth},
          {"headroom", options_.headroom}};
}

// No date: the same source and options give the same bytes.
Json Quantization::written_config() const {
  Json config = json_;
  config["quantization_config"] = plan_.writer->quantization_config(plan_.quant);
  Json by = {{"tool", "octet"},
             {"version", build::kVersion},
             {"commit", build::kCommit},
             {"source", fs::absolute(options_.model_folder).lexically_normal().filename().string()},
             {"scheme", plan_.scheme},
             {"recipe", options_.recipe.empty() ? "nearest" : options_.recipe},
             {"activations", plan_.activations()}};
  if (smoothing_.kind != Smoothing::Kind::kOff) by["smooth"] = options_.smooth.empty() ? "auto" : options_.smooth;
  if (text_) {
    by["calibration"] = {{"name", fs::path(options_.calibration).filename().string()},
                         {"digest", text_->digest()},
                         {"num_samples", text_->samples.size()},
                         {"num_tokens", text_->num_tokens()}};
    if (options_.calibrate_all_experts) by["calibration"]["all_experts"] = true;
    by["kl_divergence"] = report_.model->kl_mean;
    by["top1_agreement"] = report_.model->top1_agreement;
  }
  config["quantized_by"] = std::move(by);
  return config;
}

void Quantization::write_units(UnitWriter& units) const {
  int64_t done = 0;
  for (const PlannedUnit& unit : plan_.units) {
    units.write(unit);
    done += unit.source_bytes;
    if (options_.on_progress) options_.on_progress(done, plan_.source_bytes);
  }
}

void Quantization::take_findings(CalibratedFindings findings) {
  report_.layers = std::move(findings.layers);
  report_.model = findings.model;
  report_.calibration_tokens = text_->num_tokens();
  report_.calibrated_all_experts = options_.calibrate_all_experts;
  report_.calibration_digest = text_->digest();
  if (options_.max_kld && !(findings.model.kl_mean <= *options_.max_kld)) {
    fail(ErrorCode::kModel, "{}: the mean KL divergence is {:.6f}, more than max_kld {}", options_.out_folder,
         findings.model.kl_mean, *options_.max_kld);
  }
}

QuantizeReport Quantization::run() {
  const auto start = std::chrono::steady_clock::now();
  const SafetensorsLayout layout{.max_shard_bytes = options_.max_shard_bytes};
  const OutputFolder folder = make_folder(layout);
  Journal journal(folder.file(kJournalName), task(), folder.resumed());
  SafetensorsWriter writer(folder.partial(), plan_.entries, layout,
                           folder.resumed() ? SafetensorsWriter::Begin::kContinue : SafetensorsWriter::Begin::kAfresh);
  UnitWriter units(plan_, source_, writer, journal, threads_);
  if (text_) {
    const CalibratedTask task{.options = options_,
                              .config = *config_,
                              .source = source_,
                              .plan = plan_,
                              .text = *text_,
                              .folder = folder.partial(),
                              .smoothing = smoothing_,
                              .steps_before = steps_before_};
    take_findings(run_calibrated(task, units, threads_));
  } else {
    write_units(units);
  }
  units.sync();
  writer.finish();
  const Json config = written_config();
  check_written(folder.partial(), config.at("quantization_config"), plan_, source_, units.linears(), threads_);
  copy_model_files(options_.model_folder, folder.partial());
  report_.scheme = plan_.scheme;
  report_.dialect = plan_.writer->name;
  report_.out_folder = folder.target().string();
  report_.source_bytes = plan_.source_bytes;
  report_.written_bytes = writer.num_bytes();
  report_.linears = units.linears();
  report_.num_copied = units.num_copied();
  report_.num_resumed = units.num_resumed();
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_file(folder.file("report.json"), report_json(report_));
  write_file(folder.file("report.html"), report_html(report_));
  write_file(folder.file("config.json"), config.dump(2) + "\n");
  journal.remove();
  folder.finish();
  return report_;
}

}  // namespace

QuantizeReport quantize_checkpoint(const QuantizeOptions& options) { return Quantization(options).run(); }

}  // namespace octet
